"""PIDNet S, M and L: three branches for detail, context and boundaries; 7.6 to 36.9 M parameters.

The context branch goes down to stride 64. The detail branch takes context where the two are similar. The boundary
branch decides between detail and context in the fusion. In training, boundaries are learned from the labels.

Source: Xu, Xiong and Bhattacharyya, "PIDNet: a real-time semantic segmentation network inspired by PID controllers",
CVPR 2023, sections 3.2 to 3.4, equations 5 to 9 and figure 4.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.bag import Bag
from hardy.blocks.basic_block import BasicBlock
from hardy.blocks.dappm import DAPPM
from hardy.blocks.double_bottleneck import DoubleBottleneck
from hardy.blocks.light_bag import LightBag
from hardy.blocks.pag import Pag
from hardy.blocks.pappm import PAPPM
from hardy.blocks.residual_stage import ResidualStage
from hardy.blocks.sizes import cells
from hardy.data.label_spaces import LabelSpace
from hardy.losses.base import Loss
from hardy.networks.base import Network, PixelLoss, resize
from hardy.networks.building.weights import initialise
from hardy.networks.parts.branches import cropped, fill_trunk, head, padded, stem
from hardy.ops.boundary import balanced_loss, boundaries
from hardy.types import IGNORE, Outputs, Terms

__all__ = ["PIDNet"]


class _Size(NamedTuple):
    """Blocks of the early and the later stages; channels of the stem, of the pooling scales and of the heads."""

    early: int
    late: int
    width: int
    pooling: int
    head: int
    light: bool


_SIZES = {
    "s": _Size(2, 3, 32, 96, 128, True),
    "m": _Size(2, 3, 64, 96, 128, True),
    "l": _Size(3, 4, 64, 112, 256, False),
}


class PIDNet(Network):
    """Features, with c = 32 channels for ``s`` and 64 for ``m`` and ``l``: ``stage1`` .. ``stage5`` of the context
    branch (c, 2c, 4c, 8c, 16c channels at strides 4 to 64, before the ReLU), ``detail`` and ``boundary`` (B, 4c, H/8,
    W/8), ``context`` (B, 4c, H/64, W/64) after pooling, ``fused`` (B, 4c, H/8, W/8), the embedding. Coarse
    logits at stride 8.

    An image with a side below 128 pixels is padded to 128 with the mean at the right and the bottom, so that the map at
    stride 64 has at least 2x2 cells; the logits are cropped to the image.

    Args:
        label_space: the classes predicted.
        variant: the size of the network.
        aux: in training, a second head on the detail branch, with weight 0.4, and a head that predicts boundaries.
        encoder_weights: None for random initialisation; a file of the authors' ImageNet weights, with their names. They
            cover the detail and context branches; the boundary branch and pooling were not trained on ImageNet.
        align_corners: resize the logits of all heads with aligned corners, also in losses, as the authors do, instead
            of half-pixel centres.

    Raises:
        InputError: for weights that are not a file or do not fit.
    """

    multiple = 32
    boundary_weight = 20.0
    """Weight of the boundary head's loss."""
    boundary_threshold = 0.8
    """Pixels with a predicted boundary probability above it are in ``segmentation_at_boundaries``."""

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        variant: Literal["s", "m", "l"] = "s",
        aux: bool = False,
        encoder_weights: str | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__(label_space)
        self.align_corners = align_corners
        size, width = _SIZES[variant], _SIZES[variant].width
        self.backbone = _DetailAndContext(size)
        self.boundary = _Boundary(width, light=size.light)
        self.pyramid = (PAPPM if size.light else DAPPM)(16 * width, size.pooling, 4 * width)
        self.fusion = (LightBag if size.light else Bag)(4 * width)
        self.head = head(4 * width, size.head, len(label_space))
        self.aux = head(2 * width, size.head, len(label_space)) if aux else None
        self.boundary_head = head(2 * width, width, 1) if aux else None
        initialise(self)
        if encoder_weights is not None:
            fill_trunk(self.backbone, encoder_weights, optional=("pag3", "pag4"))
            self.pretrained = True

    def encoder(self) -> Sequence[nn.Module]:
        """The detail and context branches before pooling."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`; in training with `aux` also ``extras["boundary"]`` (B, 1, H/8, W/8), the boundary
        logits."""
        maps: list[Tensor]
        x = self.normalise(images)
        maps, early, detail = self.backbone(padded(x, 128))
        features = {f"stage{number}": stage for number, stage in enumerate(maps, start=1)}
        middle, boundary = self.boundary(*maps[1:4])
        context = self.pyramid(maps[-1])
        fused = self.fusion(detail, resize(context, detail.shape[-2:]), boundary)
        size = cells(x.shape[-2:], 8)
        logits = cropped(self.head(fused), size)
        features |= {"detail": detail, "context": context, "boundary": boundary, "fused": fused}
        extras = {}
        if self.aux is not None and self.boundary_head is not None and self.training:
            extras["aux_detail"] = cropped(self.aux(F.relu(early)), size)
            extras["boundary"] = cropped(self.boundary_head(F.relu(middle)), size)
        full_size = self.enlarged(logits, images.shape[-2:])
        return Outputs(full_size, features, extras, coarse=logits, embedding=fused)

    def losses(self, outputs: Outputs, labels: Tensor, pixel_loss: PixelLoss) -> Terms:
        """See `Network.losses`. ``pixel_loss`` is for the final head only; the detail head uses its `Loss.plain`, the
        mean over all pixels. With the boundary head also ``boundary``, `boundary_weight` times the balanced binary
        cross-entropy of its logits, and ``segmentation_at_boundaries``, ``pixel_loss`` over the pixels that it predicts
        as boundaries."""
        terms = {"segmentation": pixel_loss(outputs.logits, labels)}
        if "aux_detail" in outputs.extras:
            plain = pixel_loss.plain if isinstance(pixel_loss, Loss) else pixel_loss
            detail = self.enlarged(outputs.extras["aux_detail"], labels.shape[-2:])
            terms["aux_detail"] = self.auxiliary_weight * plain(detail, labels)
        if "boundary" in outputs.extras:
            found = self.enlarged(outputs.extras["boundary"], labels.shape[-2:])[:, 0]
            terms["boundary"] = self.boundary_weight * balanced_loss(found, boundaries(labels), labels != IGNORE)
            near = torch.sigmoid(found.detach()) > self.boundary_threshold
            terms["segmentation_at_boundaries"] = pixel_loss(outputs.logits, torch.where(near, labels, IGNORE))
        return terms


class _DetailAndContext(nn.Module):
    """The two branches, named as in the authors' checkpoints; names of the detail branch end with an underscore."""

    def __init__(self, size: _Size) -> None:
        super().__init__()
        width = size.width
        fine, coarse, coarsest = 2 * width, 4 * width, 8 * width
        self.conv1 = stem(width)
        self.layer1 = ResidualStage(width, width, size.early)
        self.layer2 = ResidualStage(width, fine, size.early, stride=2)
        self.layer3 = ResidualStage(fine, coarse, size.late, stride=2)
        self.layer4 = ResidualStage(coarse, coarsest, size.late, stride=2)
        self.layer5 = nn.Sequential(  # no ReLU between the two, as in the published networks
            DoubleBottleneck(coarsest, 2 * coarsest, stride=2), DoubleBottleneck(2 * coarsest, 2 * coarsest)
        )
        self.layer3_ = ResidualStage(fine, fine, size.early)
        self.layer4_ = ResidualStage(fine, fine, size.early)
        self.layer5_ = nn.Sequential(DoubleBottleneck(fine, 2 * fine))
        self.compression3 = nn.Sequential(nn.Conv2d(coarse, fine, 1, bias=False), nn.BatchNorm2d(fine))
        self.compression4 = nn.Sequential(nn.Conv2d(coarsest, fine, 1, bias=False), nn.BatchNorm2d(fine))
        self.pag3 = Pag(fine, width)
        self.pag4 = Pag(fine, width)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """The stages of the context branch, and the detail map after its first fusion and at the end."""
        first = self.layer1(self.conv1(images))
        second = self.layer2(F.relu(first))
        third = self.layer3(F.relu(second))
        early = self.pag3(self.layer3_(F.relu(second)), self.compression3(F.relu(third)))
        fourth = self.layer4(F.relu(third))
        detail = self.pag4(self.layer4_(F.relu(early)), self.compression4(F.relu(fourth)))
        fifth = self.layer5(F.relu(fourth))
        return [first, second, third, fourth, fifth], early, self.layer5_(F.relu(detail))


class _Boundary(nn.Module):
    """The boundary branch at stride 8: three blocks, to which two stages of the context branch are added.

    Args:
        width: channels c of the stem.
        light: True for S and M, with c channels up to the second block; False for L, with 2 c.
    """

    def __init__(self, width: int, *, light: bool) -> None:
        super().__init__()
        fine = 2 * width
        thin = width if light else fine
        self.early = BasicBlock(fine, thin)
        self.middle = DoubleBottleneck(thin, fine) if light else BasicBlock(fine, fine)
        self.late = DoubleBottleneck(fine, 2 * fine)
        self.from_third = nn.Sequential(nn.Conv2d(4 * width, thin, 3, padding=1, bias=False), nn.BatchNorm2d(thin))
        self.from_fourth = nn.Sequential(nn.Conv2d(8 * width, fine, 3, padding=1, bias=False), nn.BatchNorm2d(fine))

    def forward(self, second: Tensor, third: Tensor, fourth: Tensor) -> tuple[Tensor, Tensor]:
        """Stages of the context branch -> the input of the boundary head, and the last map."""
        size = second.shape[-2:]
        x = self.early(F.relu(second)) + resize(self.from_third(F.relu(third)), size)
        middle = self.middle(F.relu(x)) + resize(self.from_fourth(F.relu(fourth)), size)
        return middle, self.late(F.relu(middle))
