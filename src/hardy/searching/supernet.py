"""One set of weights for all architectures of a space: each uses slices of them.

A convolution has the largest width in the space, and an architecture uses its first channels. Every width has its own
batch norm, with scale and shift but without running statistics. In the supernet a batch norm normalises by the batch.
A network extracted from it needs batch-norm re-estimation (`hardy.ops.norms.reestimate`).

A cell is identified by its scale and by the number of earlier layers of its branch at that scale; a cell that
downsamples is identified by its scale. All ops of a cell share its two kernels: plain and zoomed, with one convolution
or two. So every architecture with that cell trains the first kernel, and a score depends little on how often an op was
drawn.

Source: slimmable convolutions: Yu, Yang, Xu, Yang and Huang, "Slimmable neural networks", ICLR 2019, section 3.2;
weights shared by depths: Cai, Gan, Wang, Zhang and Han, "Once-for-all", ICLR 2020, section 3.2. FasterSeg (Chen et al.,
ICLR 2020) shares widths in the same way, but has a kernel for each op.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hardy.data.label_spaces import LabelSpace
from hardy.networks.architectures.multipath import WIDTHS, Architecture, content
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.building.weights import initialise
from hardy.networks.fasterseg import FasterSeg
from hardy.searching.space import Space
from hardy.seed import seeded
from hardy.types import Outputs

__all__ = ["Supernet"]

_SCALES = 3

_KEPT = 4
"""The number of cached skeletons: those of one step of the sandwich rule."""


class Supernet(Network):
    """The shared weights; used as a network it is the largest architecture of its space.

    Args:
        label_space: the classes predicted.
        space: the space of the architectures.
    """

    def __init__(self, label_space: LabelSpace, *, space: Space) -> None:
        super().__init__(label_space)
        self.space = space
        some = space.largest()
        wide = [[some.channels(8 * 2**scale, width) for width in WIDTHS] for scale in range(_SCALES)]
        half = [some.channels(4, width) for width in WIDTHS]
        most = [max(each) for each in wide]
        self.slims = nn.ModuleDict()
        for place, (inputs, outputs) in enumerate([(3, half), (max(half), wide[0]), *[(most[0], wide[0])] * 3]):
            self.slims[f"stem{place}"] = _Slim(inputs, outputs)
        for scale in range(_SCALES):
            for place in range(space.layers):
                self.slims[f"keep{scale}_{place}"] = _Cell(most[scale], wide[scale])
        for scale in range(_SCALES - 1):
            self.slims[f"down{scale}"] = _Cell(most[scale], wide[scale + 1])
            for last in range(scale + 1, _SCALES):
                self.slims[f"narrow{last}_{scale}"] = _Slim(most[scale + 1], wide[scale], kernel=1)
                self.slims[f"refine{last}_{scale}"] = _Slim(2 * most[scale], wide[scale])
        fused = [count * each for each in wide[0] for count in range(1, space.branches + 1)]
        self.slims["fusion"] = _Slim(_SCALES * most[0], fused, kernel=1)
        self.slims["head"] = _Slim(max(fused), [*fused, *(each // 2 for each in fused)])
        self.classifier = nn.Conv2d(max(fused), len(label_space), 1)
        initialise(self)
        self._skeletons: dict[Architecture, FasterSeg] = {}

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        return Outputs(self.logits(self.space.largest(), images), {}, {})

    def logits(self, architecture: Architecture, images: Tensor) -> Tensor:
        """The logits (B, K, H, W) of ``architecture``; batch norms normalise by the batch."""
        given = {**self.weights(architecture), "mean": self.mean, "std": self.std}
        logits: Tensor = functional_call(self._skeleton(architecture), given, (images,))
        return logits

    def network(self, architecture: Architecture) -> Network:
        """A separate FasterSeg with copies of the weights, in training mode; its running statistics are not set."""
        with seeded(0, "stand-alone"):  # the random weights are overwritten
            network = create("fasterseg", self.label_space, arch=content(architecture))
        network.load_state_dict(self.weights(architecture), strict=False)
        return network

    def weights(self, architecture: Architecture) -> dict[str, Tensor]:
        """The parameters of ``architecture`` by their names in `FasterSeg`, as slices of the shared ones."""
        shapes = {name: value.shape for name, value in self._skeleton(architecture).named_parameters()}
        weights: dict[str, Tensor] = {}
        for name, slim, columns in self._slices(architecture, shapes):
            outputs, inputs = shapes[f"{name}.0.weight"][:2]
            layer = cast(_Slim, self.slims.get_submodule(slim))
            sliced = layer.sliced(outputs, columns or [(0, inputs)])
            weights |= {f"{name}.{own}": value for own, value in sliced.items()}
        inputs = shapes["head.1.weight"][1]
        assert self.classifier.bias is not None
        return weights | {"head.1.weight": self.classifier.weight[:, :inputs], "head.1.bias": self.classifier.bias}

    def _slices(
        self, architecture: Architecture, shapes: Mapping[str, Sequence[int]]
    ) -> Iterator[tuple[str, str, list[tuple[int, int]]]]:
        """For every convolution with a batch norm: its name in FasterSeg, the name of the slim layer, and its input
        blocks as (start, count), empty for the first channels."""
        yield from ((f"stem.{place}", f"stem{place}", []) for place in range(5))
        cells, _ = architecture.shared()
        seen = {-1: (0, 0)}  # after each cell: its scale, and the number of layers at that scale
        for place, (before, layer) in enumerate(cells):
            scale, count = seen[before]
            shared = f"down{scale}" if layer.stride == 2 else f"keep{scale}_{count}"
            seen[place] = (layer.scale, 0) if layer.stride == 2 else (scale, count + 1)
            inner = ".layers" if layer.op.endswith("_downup") else ""
            for repeat in range(2 if layer.op.startswith("conv_2x") else 1):
                yield f"cells.{place}{inner}.{repeat}", f"{shared}.{repeat}", []
        widest = max(architecture.channels(8, width) for width in WIDTHS)
        for number, branch in enumerate(architecture.branches):
            for scale in range(branch.last):
                yield f"branches.{number}.narrow.{scale}", f"narrow{branch.last}_{scale}", []
                name = f"branches.{number}.refine.{scale}"
                narrow, both = shapes[f"{name}.0.weight"][:2]
                yield name, f"refine{branch.last}_{scale}", [(0, narrow), (2**scale * widest, both - narrow)]
        each = shapes["fusion.mix.0.weight"][1] // len(architecture.branches)
        yield "fusion.mix", "fusion", [(branch.last * widest, each) for branch in architecture.branches]
        yield "head.0", "head", []

    def _skeleton(self, architecture: Architecture) -> FasterSeg:
        """The modules of ``architecture`` without weights or running statistics; the last ones used are cached."""
        if architecture in self._skeletons:
            self._skeletons[architecture] = self._skeletons.pop(architecture)
            return self._skeletons[architecture]
        with torch.device("meta"):
            skeleton = FasterSeg(self.label_space, arch=content(architecture))
        for module in skeleton.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None
        self._skeletons[architecture] = skeleton
        if len(self._skeletons) > _KEPT:
            del self._skeletons[next(iter(self._skeletons))]
        return skeleton


class _Cell(nn.Sequential):
    """The kernels of one cell, for its first and its second convolution."""

    def __init__(self, inputs: int, outputs: Sequence[int]) -> None:
        super().__init__(_Slim(inputs, outputs), _Slim(max(outputs), outputs))


class _Slim(nn.Module):
    """A convolution without bias, of which slices are used, and the scale and shift of a batch norm for every width.

    Args:
        inputs: the maximum number of input channels.
        outputs: the possible widths.
        kernel: the side of the kernel.
    """

    def __init__(self, inputs: int, outputs: Sequence[int], *, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, max(outputs), kernel, bias=False)
        widths = sorted(set(outputs))
        self.scales = nn.ParameterDict({str(width): nn.Parameter(torch.ones(width)) for width in widths})
        self.shifts = nn.ParameterDict({str(width): nn.Parameter(torch.zeros(width)) for width in widths})

    def sliced(self, outputs: int, columns: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """The parameters of a `ConvNormAct` with ``outputs`` channels; its inputs are the blocks (start, count)."""
        blocks = [self.conv.weight[:outputs, start : start + count] for start, count in columns]
        kernel = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
        return {"0.weight": kernel, "1.weight": self.scales[str(outputs)], "1.bias": self.shifts[str(outputs)]}
