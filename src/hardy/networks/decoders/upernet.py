"""UPerNet: pyramid pooling of the last map, a top-down path, and all levels joined at the finest.

Source: Xiao, Liu, Zhou, Jiang and Sun, "Unified perceptual parsing for scene understanding", ECCV 2018, section 3 and
figure 4, with the head for objects only; pooling of Zhao et al., "Pyramid scene parsing network", CVPR 2017;
top-down path of Lin et al., "Feature pyramid networks for object detection", CVPR 2017.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.pooled_norm import PooledNorm
from hardy.errors import InputError, within
from hardy.networks.base import resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders._pyramid import one_stride, pyramid
from hardy.networks.decoders.base import Decoded, Decoder

__all__ = ["UPerNet"]


class UPerNet(Decoder):
    """Logits at the stride of the finest map. The last four maps of a plain transformer, which all have one stride, are
    first resized to 4, 2, 1 and 1/2 of their size.

    p_n is the last map joined with its averages over all grids, and ``p_i = lateral_i(x_i) + resize(p_i+1)``. Each p_i
    except p_n goes through one more convolution. All are resized to the finest, and a convolution of their
    concatenation is the embedding.

    Args:
        channels: of each map, two or more.
        strides: of each map.
        class_count: K.
        width: channels of every layer; the paper's is 512.
        grids: sides of the pooling grids.
        dropout: share of channels zeroed before the classifier while training.

    Raises:
        InputError: for a single map, without grids, or for a number out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        width: int = 512,
        grids: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        within("UPerNet.width", width, 1)
        within("UPerNet.dropout", dropout, 0, 1)
        if not grids or min(grids) < 1:
            raise InputError(f"upernet grids={list(grids)}: give at least one side, each 1 or more")
        if len(channels) < 2:
            raise InputError(f"upernet needs two maps; this encoder has {len(channels)}")
        super().__init__(channels, strides, class_count)
        self._one_stride, self._grids = one_stride(strides), tuple(grids)
        used = channels[-4:] if self._one_stride else channels
        self.pooled = nn.ModuleList(
            nn.Sequential(nn.Conv2d(used[-1], width, 1, bias=False), PooledNorm(width), nn.ReLU()) for _ in grids
        )
        self.join = ConvNormAct(used[-1] + len(grids) * width, width)
        self.lateral = nn.ModuleList(ConvNormAct(wide, width, kernel=1) for wide in used[:-1])
        self.smooth = nn.ModuleList(ConvNormAct(width, width) for _ in used[:-1])
        self.fuse = ConvNormAct(len(used) * width, width)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, class_count, 1)
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        maps = pyramid(maps) if self._one_stride else maps
        last = maps[-1]
        grids = [
            resize(layer(F.adaptive_avg_pool2d(last, grid)), last.shape[-2:])
            for layer, grid in zip(self.pooled, self._grids, strict=True)
        ]
        path = [self.join(torch.cat([last, *grids], dim=1))]
        for lateral, x in zip(reversed(self.lateral), reversed(maps[:-1]), strict=True):
            path.insert(0, lateral(x) + resize(path[0], x.shape[-2:]))
        levels = [smooth(x) for smooth, x in zip(self.smooth, path[:-1], strict=True)] + path[-1:]
        fused = self.fuse(torch.cat([resize(x, maps[0].shape[-2:]) for x in levels], dim=1))
        return Decoded(fused, self.classifier(self.dropout(fused)))
