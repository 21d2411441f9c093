"""The EfficientViT head: the last maps are projected to one width, resized to the finest of them, added and refined.

Source: Cai, Li, Hu, Gan and Han, "EfficientViT: lightweight multi-scale attention for high-resolution dense
prediction", ICCV 2023, section 3.2 and figure 5.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.errors import within
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder, enough

__all__ = ["EfficientViTHead"]


class EfficientViTHead(Decoder):
    """Logits at the stride of the finest map used, the third from the end by default.

    Args:
        channels: of each map.
        strides: of each map.
        class_count: K.
        width: channels of the sum; the paper's is 32 for B0, 64 for B1 and 96 for B2.
        depth: number of inverted residuals after it; the paper's is 1 for B0 and 3 for B1 and B2.
        expansion: expansion of the inverted residuals and of the last layer before the classifier.
        maps: the number of maps used, counted from the last, 1 or more.
        dropout: share of channels zeroed before the classifier while training.

    Raises:
        InputError: for an encoder with too few maps, or a number out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        width: int = 32,
        depth: int = 1,
        expansion: int = 4,
        maps: int = 3,
        dropout: float = 0.0,
    ) -> None:
        within("EfficientViTHead.width", width, 1)
        within("EfficientViTHead.depth", depth, 0)
        within("EfficientViTHead.expansion", expansion, 1)
        within("EfficientViTHead.dropout", dropout, 0, 1)
        enough("efficientvit", maps, channels, least=1)
        super().__init__(channels, strides, class_count)
        self.projections = nn.ModuleList(_layer(wide, width, act=False) for wide in channels[-maps:])
        self.blocks = nn.ModuleList(_inverted_residual(width, expansion) for _ in range(depth))
        self.expand = _layer(width, expansion * width)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(expansion * width, class_count, 1)
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        used = maps[-len(self.projections) :]
        x = self.projections[0](used[0])
        size = x.shape[-2:]
        for project, coarser in zip(self.projections[1:], used[1:], strict=True):
            x = x + F.interpolate(project(coarser), size=size, mode="bicubic", align_corners=False)
        for block in self.blocks:
            x = x + block(x)
        return Decoded(x, self.classifier(self.dropout(self.expand(x))))


def _layer(in_channels: int, out_channels: int, kernel: int = 1, *, groups: int = 1, act: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), *([nn.Hardswish()] if act else []))


def _inverted_residual(width: int, expansion: int) -> nn.Sequential:
    """Expand, depthwise convolution, project; Hardswish after the first two."""
    wide = expansion * width
    layers = {"expand": _layer(width, wide), "depthwise": _layer(wide, wide, 3, groups=wide)}
    return nn.Sequential(OrderedDict(layers, project=_layer(wide, width, act=False)))
