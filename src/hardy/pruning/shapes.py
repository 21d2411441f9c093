"""The layers of a network in the order of a forward pass, and their shapes after channels are removed.

A pass on the ``meta`` device records each convolution and linear layer with the size of its input. The units of the
sides of a layer are known. So the shapes and multiply-accumulates of a narrower network are computed without building
it:

    convolution             h' w' C_out C_in k_h k_w / groups    (h', w': of its output)
    transposed convolution  h w C_out C_in k_h k_w / groups      (h, w: of its input)
    linear                  rows C_out C_in

The cost of matrix products inside an attention block is proportional to its heads; that of all other products is
constant.

Source: the convention of `hardy.ops.cost`; the rule for cost under pruning is that of Molchanov, Tyree, Karras, Aila
and Kautz, "Pruning convolutional neural networks for resource efficient inference", ICLR 2017, section 2.2 and
appendix A.1 (there FLOPs, twice the multiply-accumulates).
"""

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hardy.ops.axes import whole_groups
from hardy.pruning.coupled import Unit
from hardy.pruning.select import Limits, Removed

__all__ = ["Layer", "Layers", "Shape", "Widths", "at_floors", "dense_widths", "widths_left"]

Widths = Mapping[str, int]
"""The unit's name -> the number of its channels that are left."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """Everything that determines the time of a layer for one image.

    Attributes:
        kind: what it computes. ``resize`` is bilinear, ``normalise`` normalises images by mean and standard deviation,
            ``argmax`` turns logits into classes. These three have no weights and are not part of `Layers`.
        inputs, outputs: numbers of channels.
        height, width: of the input map; for ``linear`` the rows of the input (tokens), and 1.
        kernel, stride, padding, dilation: (vertical, horizontal).
        groups: number of channel groups; a depthwise convolution has one group per channel.
        extra: rows and columns that a transposed convolution adds to its output, or a resize to its input.
    """

    kind: Literal["convolution", "transposed", "linear", "resize", "normalise", "argmax"]
    inputs: int
    outputs: int
    height: int
    width: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    extra: Pair = (0, 0)

    @property
    def depthwise(self) -> bool:
        """True if each channel is filtered separately."""
        return self.groups == self.inputs == self.outputs > 1

    @property
    def out_size(self) -> Pair:
        """(height, width) of the output map."""
        if self.kind in {"resize", "normalise", "argmax"}:
            return self.height + self.extra[0], self.width + self.extra[1]
        sizes = zip(
            (self.height, self.width), self.kernel, self.stride, self.padding, self.dilation, self.extra, strict=True
        )
        if self.kind == "transposed":
            high, wide = ((n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, k, s, p, d, e in sizes)
        else:
            high, wide = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in sizes)
        return high, wide

    @property
    def macs(self) -> int:
        """Multiply-accumulates; 0 without weights."""
        if self.kind in {"resize", "normalise", "argmax"}:
            return 0
        high, wide = (self.height, self.width) if self.kind == "transposed" else self.out_size
        return high * wide * self.outputs * self.inputs * self.kernel[0] * self.kernel[1] // self.groups

    def narrowed(self, inputs: int, outputs: int) -> "Shape":
        """The same layer with other widths."""
        return replace(self, inputs=inputs, outputs=outputs, groups=outputs if self.depthwise else self.groups)

    def of_groups(self, groups: int) -> "Shape":
        """The same layer with another number of groups, each with as many inputs and outputs as now."""
        inputs, outputs = (width // self.groups * groups for width in (self.inputs, self.outputs))
        return replace(self, inputs=inputs, outputs=outputs, groups=groups)


@dataclass(frozen=True)
class Layer:
    """One call of one layer.

    Attributes:
        name: the module's name in the network.
        shape: its current shape.
    """

    name: str
    shape: Shape


class Layers:
    """The layers of a network, and their shapes for any widths of its units.

    Args:
        network: takes images (B, 3, H, W), with any outputs; it does not change.
        units: its units in its current state.
        size: (height, width) of the images.

    Attributes:
        layers: every call of a convolution or linear layer in evaluation mode, in order.
    """

    def __init__(self, network: nn.Module, units: Sequence[Unit], size: Sequence[int]) -> None:
        self.layers, counts = _seen(network, size)
        self._dense = dense_widths(units)
        self._sides: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
        self._whole: set[str] = set()
        owners: dict[str, str] = {}
        shapes = {layer.name: layer.shape for layer in self.layers}
        for unit in (unit for unit in units if not unit.within):
            for member in unit.members:
                self._sides[member.module, member.side].append((unit.name, len(member.channels[0])))
                shape = shapes.get(member.module) if member.side == "out" else None
                if shape and shape.groups > 1 and whole_groups(member.channels[0], shape.outputs, shape.groups):
                    self._whole.add(member.module)
                if member.side == "heads":
                    owners[member.module] = unit.name
        self._products = {unit: counts[name] - self._macs_below(name) for name, unit in owners.items()}
        self._rest = counts[""] - self._macs_below("") - sum(self._products.values())

    def at(self, widths: Widths) -> list[Shape]:
        """The shape of each of `layers` when the units have these widths."""
        return [self._narrowed(layer, widths) for layer in self.layers]

    def gmacs(self, widths: Widths) -> float:
        """Billions of multiply-accumulates for one image with these widths."""
        layers = sum(shape.macs for shape in self.at(widths))
        products = sum(macs * widths[unit] // self._dense[unit] for unit, macs in self._products.items())
        return (layers + products + self._rest) / 1e9

    def _narrowed(self, layer: Layer, widths: Widths) -> Shape:
        shape = layer.shape
        gone = {
            side: sum(each * (self._dense[unit] - widths[unit]) for unit, each in self._sides[layer.name, side])
            for side in ("in", "out")
        }
        if not any(gone.values()):
            return shape
        if layer.name in self._whole:
            return shape.of_groups(shape.groups - gone["out"] * shape.groups // shape.outputs)
        return shape.narrowed(shape.inputs - gone["in"] * shape.groups, shape.outputs - gone["out"])  # of every group

    def _macs_below(self, name: str) -> int:
        return sum(layer.shape.macs for layer in self.layers if not name or layer.name.startswith(f"{name}."))


def dense_widths(units: Sequence[Unit]) -> dict[str, int]:
    """The widths of ``units`` before any channel is removed."""
    return {unit.name: unit.size for unit in units}


def widths_left(units: Sequence[Unit], dead: Removed) -> dict[str, int]:
    """The widths of ``units`` without the channels ``dead``."""
    return {unit.name: unit.size - len(dead.get(unit.name, ())) for unit in units}


def at_floors(units: Sequence[Unit], limits: Limits) -> Removed:
    """The largest removal that ``limits`` allow: each unit keeps its first channels, up to its minimum width."""
    return {unit.name: list(range(limits.floor(unit), unit.size)) for unit in units}


def _seen(network: nn.Module, size: Sequence[int]) -> tuple[tuple[Layer, ...], dict[str, int]]:
    """The layers that run on one image of ``size``, and by name the multiply-accumulates inside each module."""
    twin = copy.deepcopy(network).to("meta").eval()
    found: list[Layer] = []
    names = {module: name for name, module in twin.named_modules()}

    def note(module: nn.Module, given: tuple[Any, ...], _: Any) -> None:
        if (shape := _shape(module, given[0])) is not None:
            found.append(Layer(names[module], shape))

    for module in names:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.register_forward_hook(note)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(torch.empty(1, 3, *size, device="meta"))
    root = type(twin).__name__
    counts: dict[str, int] = defaultdict(int)
    for name, by_operation in counter.get_flop_counts().items():
        if name == "Global":
            counts[""] = sum(by_operation.values()) // 2
        elif name != root:
            counts[name.removeprefix(f"{root}.")] = sum(by_operation.values()) // 2
    return tuple(found), counts


def _shape(module: nn.Module, given: Tensor) -> Shape | None:
    if isinstance(module, nn.Linear):
        return Shape("linear", module.in_features, module.out_features, given.numel() // module.in_features, 1)
    if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        return None
    height, width = given.shape[-2:]
    transposed = isinstance(module, nn.ConvTranspose2d)
    return Shape(
        kind="transposed" if transposed else "convolution",
        inputs=module.in_channels,
        outputs=module.out_channels,
        height=height,
        width=width,
        kernel=_pair(module.kernel_size),
        stride=_pair(module.stride),
        padding=_padding(module),
        dilation=_pair(module.dilation),
        groups=module.groups,
        extra=_pair(module.output_padding) if transposed else (0, 0),
    )


def _padding(module: nn.Conv2d | nn.ConvTranspose2d) -> Pair:
    """The padding on each side. ``"same"`` with an even kernel adds an odd number in total; its half is rounded up."""
    if not isinstance(module.padding, str):
        return _pair(module.padding)
    if module.padding == "valid":
        return 0, 0
    high, wide = (-(-dilation * (k - 1) // 2) for k, dilation in zip(module.kernel_size, module.dilation, strict=True))
    return high, wide


def _pair(values: Sequence[int]) -> Pair:
    return int(values[0]), int(values[1])
