"""ESPNet: efficient spatial pyramids at three levels and a light decoder up to the image's size; 0.36 M parameters.

The second and third level join the outputs of their first and last block; the first and second level also join the
image, averaged to their size. The decoder has as many channels as there are classes. Without it the network is
ESPNet-C, which classifies at stride 8. In the authors' published weights the decoder joins the finest map without the
image.

Source: Mehta, Rastegari, Caspi, Shapiro and Hajishirzi, "ESPNet: efficient spatial pyramid of dilated convolutions for
semantic segmentation", ECCV 2018, section 3.3 and figure 4.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.esp import ESP
from hardy.blocks.transposed_to import TransposedTo
from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError, within
from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.types import Outputs

__all__ = ["ESPNet"]


class ESPNet(Network):
    """Features: ``level1`` (B, 19, H/2, W/2), ``level2`` (B, 131, H/4, W/4), ``level3`` (B, 256, H/8, W/8), with the
    decoder ``fused`` (B, width, H/2, W/2), the embedding; without it the embedding is ``level3``. Coarse logits at
    stride 1 with the decoder and 8 without.

    Args:
        label_space: the classes predicted.
        p: blocks of the second level after the one that halves the map.
        q: blocks of the third level after the one that halves the map.
        decoder: False leaves the decoder out: ESPNet-C.
        width: channels of the decoder; None for the number of classes, but at least 5, one for each dilation.
        finest: what the decoder joins at stride 2: ``"level1"``, the map and the image, or ``"convolution"``, the map
            only, as in the published weights.

    Raises:
        InputError: for a number out of range, or for ``width`` or ``finest`` without the decoder.
    """

    multiple = 8

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        p: int = 2,
        q: int = 8,
        decoder: bool = True,
        width: int | None = None,
        finest: Literal["level1", "convolution"] = "level1",
    ) -> None:
        within("ESPNet.p", p, 1)
        within("ESPNet.q", q, 1)
        if width is not None:
            within("ESPNet.width", width, 5)
        super().__init__(label_space)
        if not decoder and (width is not None or finest != "level1"):
            raise InputError("ESPNet: without the decoder, width and finest have no effect; leave them out")
        self.finest = finest
        self.level1 = _conv_norm_act(3, 16, stride=2)
        self.norm1 = _norm_act(16 + 3)
        self.level2 = _Level(16 + 3, 64, p)
        self.norm2 = _norm_act(2 * 64 + 3)
        self.level3 = _Level(2 * 64 + 3, 128, q)
        self.norm3 = _norm_act(2 * 128)
        inside = (max(5, len(label_space)) if width is None else width) if decoder else len(label_space)
        self.written = {"width": inside} if decoder else {}  # so that other classes do not change the inner layers
        self.classifier = nn.Conv2d(256, inside, 1, bias=False)
        skips = (16 + 3 if finest == "level1" else 16, 2 * 64 + 3)
        self.decoder = _Decoder(skips, inside, len(label_space)) if decoder else None
        initialise(self)
        for module in self.modules():
            if isinstance(module, ESP):
                module.draw()

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        x = self.normalise(images)
        half = F.avg_pool2d(x, 3, 2, 1)
        quarter = F.avg_pool2d(half, 3, 2, 1)
        convolved = self.level1(x)
        level1 = self.norm1(torch.cat([convolved, half], dim=1))
        level2 = self.norm2(torch.cat([*self.level2(level1), quarter], dim=1))
        level3 = self.norm3(torch.cat(self.level3(level2)[::-1], dim=1))
        features = {"level1": level1, "level2": level2, "level3": level3}
        embedding, logits = level3, self.classifier(level3)
        if self.decoder is not None:
            finest = level1 if self.finest == "level1" else convolved
            embedding, logits = self.decoder(logits, level2, finest, x)
            features["fused"] = embedding
        return Outputs(resize(logits, images.shape[-2:]), features, coarse=logits, embedding=embedding)


class _Level(nn.Module):
    """A block that halves the map and ``count`` blocks after it; returns the outputs of the last and of the first."""

    def __init__(self, in_channels: int, out_channels: int, count: int) -> None:
        super().__init__()
        self.down = ESP(in_channels, out_channels, stride=2)
        self.blocks = nn.Sequential(*(ESP(out_channels, out_channels, residual=True) for _ in range(count)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        down = self.down(x)
        return self.blocks(down), down


class _Decoder(nn.Module):
    """Three steps up, each a transposed convolution; the first two are then joined with a level of the encoder."""

    def __init__(self, skips: tuple[int, int], width: int, class_count: int) -> None:
        super().__init__()
        fine, coarse = skips
        self.norm = nn.BatchNorm2d(width, eps=1e-3)
        self.up1 = TransposedTo(width, width)
        self.narrow = nn.Conv2d(coarse, width, 1, bias=False)
        self.join1 = nn.Sequential(_norm_act(2 * width), ESP(2 * width, width))
        self.up2 = TransposedTo(width, width)
        self.act = _norm_act(width)
        self.join2 = _conv_norm_act(width + fine, width)
        self.up3 = TransposedTo(width, class_count)

    def forward(self, x: Tensor, level2: Tensor, finest: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.up1(self.norm(x), level2.shape[-2:])
        x = self.join1(torch.cat([self.narrow(level2), x], dim=1))
        x = self.act(self.up2(x, finest.shape[-2:]))
        fused = self.join2(torch.cat([x, finest], dim=1))
        return fused, self.up3(fused, images.shape[-2:])


def _norm_act(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3), nn.PReLU(channels))


def _conv_norm_act(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), *_norm_act(out_channels))
