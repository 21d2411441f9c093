"""FasterSeg: branches of searched cells at strides 8, 16 and 32, fused at stride 8; any architecture of that space.

Hardy contains the student and the teacher of the published search, with 3.4 and 22.1 M parameters. ``hardy search``
finds other architectures within a budget of milliseconds. Cells are plain or zoomed convolutions. Branches share their
first cells as far as these are equal.

Source: Chen, Gong, Liu, Zhang, Li and Wang, "FasterSeg: searching for faster real-time semantic segmentation",
ICLR 2020, section 3 and figure 6.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.feature_fusion import FeatureFusion
from hardy.blocks.zoomed_conv import ZoomedConv
from hardy.data.label_spaces import LabelSpace
from hardy.networks.architectures.multipath import PUBLISHED, Architecture, parse, read
from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.types import Outputs

__all__ = ["FasterSeg"]

T = TypeVar("T")


class FasterSeg(Network):
    """Features: ``stem`` (at stride 8); ``stage1`` and so on, the last maps at strides 8, 16, 32 of the deepest branch;
    ``fused`` (at stride 8), the embedding. Coarse logits at stride 8.

    Args:
        label_space: the classes predicted; the architecture may have been found for another number of classes.
        arch: ``"student"`` or ``"teacher"``, the published ones; the path of a JSON file; or the content of one (see
            `hardy.networks.architectures.multipath`). The artefact stores a file's content, not its path.
        attention: multiply the fused channels by weights computed from their averages; the authors' release has these
            layers, and counts their parameters, but never uses them.
        aux: in training, a head on all concatenated maps at stride 32 and one on those at stride 16, of weight 0.2.
        published: as in the authors' release: maps and logits are resized with aligned corners, also in losses, and
            zoomed convolutions round half of an odd side down. The release crops its logits to a multiple of stride 8;
            here they are as large as the images.

    Raises:
        InputError: for an architecture that cannot be read or breaks a rule of the format.
    """

    multiple = 32
    auxiliary_weight = 0.2

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        arch: str | Mapping[str, Any] = "student",
        attention: bool = False,
        aux: bool = False,
        published: bool = False,
    ) -> None:
        super().__init__(label_space)
        self.align_corners = published
        source, found = "arch", arch
        if isinstance(found, str):
            source, found = f"arch {arch!r}", read(PUBLISHED.get(found, found))
            if arch not in PUBLISHED:
                self.written = {"arch": found}
        architecture = parse(found, source)
        fine, coarse = (architecture.channels(multiple, architecture.stem_width) for multiple in (4, 8))
        self.stem = nn.Sequential(
            ConvNormAct(3, fine, stride=2),
            *_convs(fine, coarse, 2, stride=2),
            *_convs(coarse, coarse, 2, stride=2),
        )
        cells, self.routes = architecture.shared()
        self.before = [place for place, _ in cells]
        widths = [layer.channels for _, layer in cells]
        ahead = [widths[place] if place >= 0 else coarse for place in self.before]
        self.cells = nn.ModuleList(
            _cell(layer.op, wide, layer.channels, layer.stride, published)
            for wide, (_, layer) in zip(ahead, cells, strict=True)
        )
        self.ends = [_ends(route, [layer.scale for _, layer in cells]) for route in self.routes]
        self.deepest = max(range(len(self.ends)), key=lambda branch: len(self.ends[branch]))
        wide = [[widths[place] if place >= 0 else ahead[0] for place in ends] for ends in self.ends]
        self.branches = nn.ModuleList(_Climb(of, architecture, align_corners=published) for of in wide)
        fused = architecture.channels(8, architecture.head_width) * len(self.branches)
        self.fusion = FeatureFusion(fused, fused, reduction=1 if attention else None)
        self.head = _head(fused, len(label_space))
        self.aux = nn.ModuleDict()
        if aux:
            for scale, name in ((1, "stride16"), (2, "stride32")):
                if side_by_side := sum(_at(wide, scale)):
                    self.aux[name] = _head(side_by_side, len(label_space))
        initialise(self)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        stem = self.stem(self.normalise(images))
        results = [stem]  # the stem is before the first cell, at place -1
        for place, cell in zip(self.before, self.cells, strict=True):
            results.append(cell(results[place + 1]))
        maps = [[results[place + 1] for place in ends] for ends in self.ends]
        fused = self.fusion(torch.cat([climb(of) for climb, of in zip(self.branches, maps, strict=True)], dim=1))
        logits = self.head(fused)
        features = {"stem": stem}
        features |= {f"stage{number}": x for number, x in enumerate(maps[self.deepest], start=1)}
        features["fused"] = fused
        extras: dict[str, Tensor] = {}
        if self.training:
            for scale, (name, head) in enumerate(self.aux.items(), start=1):
                extras[f"aux_{name}"] = head(torch.cat(_at(maps, scale), dim=1))
        full_size = self.enlarged(logits, images.shape[-2:])
        return Outputs(full_size, features, extras, coarse=logits, embedding=fused)


class _Climb(nn.Module):
    """Joins a branch's last maps at strides 8, 16, 32 (as many as it has) from the coarsest to stride 8."""

    def __init__(self, channels: Sequence[int], architecture: Architecture, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        narrow = [architecture.channels(8 * 2**scale, architecture.head_width) for scale in range(len(channels) - 1)]
        above = [*narrow[1:], channels[-1]]
        self.narrow = nn.ModuleList(ConvNormAct(wide, width, 1) for wide, width in zip(above, narrow, strict=False))
        self.refine = nn.ModuleList(
            ConvNormAct(width + beside, width) for width, beside in zip(narrow, channels, strict=False)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps, finest first -> the map at stride 8; a single map is returned unchanged."""
        x = maps[-1]
        for narrow, refine, finer in zip(
            reversed(self.narrow), reversed(self.refine), reversed(maps[:-1]), strict=True
        ):
            larger = resize(narrow(x), finer.shape[-2:], align_corners=self.align_corners)
            x = refine(torch.cat([larger, finer], dim=1))
        return x


def _ends(route: Sequence[int], scales: Sequence[int]) -> list[int]:
    """The places of a branch's last cells at scales 0, 1, 2, as many as it has; -1 for the stem, at scale 0."""
    ends = {0: -1}
    for place in route:
        ends[scales[place]] = place
    return [ends[scale] for scale in sorted(ends)]


def _at(branches: Iterable[Sequence[T]], scale: int) -> list[T]:
    """The entries at ``scale`` of those ``branches`` that have one."""
    return [of[scale] for of in branches if len(of) > scale]


def _cell(op: str, in_channels: int, out_channels: int, stride: int, published: bool) -> nn.Module:
    repeats = 2 if op.startswith("conv_2x") else 1
    if op.endswith("_downup"):
        return ZoomedConv(in_channels, out_channels, repeats=repeats, stride=stride, published=published)
    return nn.Sequential(*_convs(in_channels, out_channels, repeats, stride=stride))


def _convs(in_channels: int, out_channels: int, repeats: int, *, stride: int) -> list[ConvNormAct]:
    more = (ConvNormAct(out_channels, out_channels) for _ in range(repeats - 1))
    return [ConvNormAct(in_channels, out_channels, stride=stride), *more]


def _head(in_channels: int, class_count: int) -> nn.Sequential:
    width = in_channels if in_channels <= 256 else in_channels // 2
    return nn.Sequential(ConvNormAct(in_channels, width), nn.Conv2d(width, class_count, 1))
