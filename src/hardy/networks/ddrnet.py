"""DDRNet-23 and DDRNet-23-slim: two branches, at strides 8 and 64, that exchange maps twice; 20.1 and 5.7 M parameters.

After the third and after the fourth stage each branch adds the map of the other: detail by strided convolutions,
context by a 1x1 convolution and resizing. The context branch ends in pooling over windows of several sizes.

Source: Hong, Pan, Sun and Jia, "Deep dual-resolution networks for real-time and accurate semantic segmentation of road
scenes", arXiv:2101.06085, 2021, sections 3.2 to 3.4, equations 1 to 4 and table 1.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.dappm import DAPPM
from hardy.blocks.double_bottleneck import DoubleBottleneck
from hardy.blocks.residual_stage import ResidualStage
from hardy.blocks.sizes import cells
from hardy.data.label_spaces import LabelSpace
from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.networks.parts.branches import cropped, fill_trunk, head, padded, stem
from hardy.types import Outputs

__all__ = ["DDRNet"]

_SIZES = {"23_slim": (32, 64), "23": (64, 128)}
"""Variant -> channels of the stem and of the head."""


class DDRNet(Network):
    """Features, with c = 32 channels for ``23_slim`` and 64 for ``23``: ``stage1`` .. ``stage5`` of the context branch
    (c, 2c, 4c, 8c, 16c channels at strides 4 to 64; before the ReLU; the third and fourth include the detail map),
    ``detail`` (B, 4c, H/8, W/8), ``context`` (B, 4c, H/64, W/64) after pooling, ``fused``, their sum at stride 8,
    the embedding. Coarse logits at stride 8.

    An image with a side below 128 pixels is padded to 128 with the mean at the right and the bottom, so that the map at
    stride 64 has at least 2x2 cells; the logits are cropped to the image.

    Args:
        label_space: the classes predicted.
        variant: the size of the network.
        aux: in training, a second head on the detail branch after its first exchange; its weight in the paper is 0.4.
        encoder_weights: None for random initialisation; a file of the authors' ImageNet weights, with their names.

    Raises:
        InputError: for weights that are not a file or do not fit.
    """

    multiple = 32

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        variant: Literal["23_slim", "23"] = "23_slim",
        aux: bool = False,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__(label_space)
        width, head_width = _SIZES[variant]
        self.backbone = _DualResolution(width)
        self.pyramid = DAPPM(16 * width, 128, 4 * width)
        self.head = head(4 * width, head_width, len(label_space))
        self.aux = head(2 * width, head_width, len(label_space)) if aux else None
        initialise(self)
        if encoder_weights is not None:
            fill_trunk(self.backbone, encoder_weights)
            self.pretrained = True

    def encoder(self) -> Sequence[nn.Module]:
        """The two branches before pooling."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        maps: list[Tensor]
        x = self.normalise(images)
        maps, early, detail = self.backbone(padded(x, 128))
        features = {f"stage{number}": stage for number, stage in enumerate(maps, start=1)}
        context = self.pyramid(maps[-1])
        fused = detail + resize(context, detail.shape[-2:])
        size = cells(x.shape[-2:], 8)
        logits = cropped(self.head(fused), size)
        features |= {"detail": detail, "context": context, "fused": fused}
        extras = {}
        if self.aux is not None and self.training:
            extras["aux_detail"] = cropped(self.aux(early), size)
        return Outputs(resize(logits, images.shape[-2:]), features, extras, coarse=logits, embedding=fused)


class _DualResolution(nn.Module):
    """The two branches, named as in the authors' checkpoints; names of the detail branch end with an underscore."""

    def __init__(self, width: int) -> None:
        super().__init__()
        fine, coarse, coarsest = 2 * width, 4 * width, 8 * width
        self.conv1 = stem(width)
        self.layer1 = ResidualStage(width, width, 2)
        self.layer2 = ResidualStage(width, fine, 2, stride=2)
        self.layer3 = ResidualStage(fine, coarse, 2, stride=2)
        self.layer4 = ResidualStage(coarse, coarsest, 2, stride=2)
        self.layer5 = nn.Sequential(DoubleBottleneck(coarsest, 2 * coarsest, stride=2))
        self.layer3_ = ResidualStage(fine, fine, 2)
        self.layer4_ = ResidualStage(fine, fine, 2)
        self.layer5_ = nn.Sequential(DoubleBottleneck(fine, 2 * fine))
        self.compression3 = nn.Sequential(nn.Conv2d(coarse, fine, 1, bias=False), nn.BatchNorm2d(fine))
        self.compression4 = nn.Sequential(nn.Conv2d(coarsest, fine, 1, bias=False), nn.BatchNorm2d(fine))
        self.down3 = nn.Sequential(nn.Conv2d(fine, coarse, 3, 2, 1, bias=False), nn.BatchNorm2d(coarse))
        self.down4 = nn.Sequential(
            nn.Conv2d(fine, coarse, 3, 2, 1, bias=False),
            nn.BatchNorm2d(coarse),
            nn.ReLU(),
            nn.Conv2d(coarse, coarsest, 3, 2, 1, bias=False),
            nn.BatchNorm2d(coarsest),
        )

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """The stages of the context branch, and the detail map after its first exchange and at the end."""
        first = self.layer1(self.conv1(images))
        second = self.layer2(F.relu(first))
        third, detail = self.layer3(F.relu(second)), self.layer3_(F.relu(second))
        size = detail.shape[-2:]
        early = detail + resize(self.compression3(F.relu(third)), size)
        third = third + self.down3(F.relu(detail))
        fourth, detail = self.layer4(F.relu(third)), self.layer4_(F.relu(early))
        narrowed = resize(self.compression4(F.relu(fourth)), size)
        fourth = fourth + self.down4(F.relu(detail))
        fifth = self.layer5(F.relu(fourth))
        return [first, second, third, fourth, fifth], early, self.layer5_(F.relu(detail + narrowed))
