"""Layers whose time did not fall with their channels, with the reasons; each layer is measured before and after.

A layer pays off when its time falls nearly as much as its multiply-accumulates. The layers that do not are named with a
reason from the measurements, in order of their remaining time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hardy.networks.base import Network
from hardy.pruning.shapes import Layers, Shape
from hardy.timing.layer_tables import LayerTable, preferred_multiple

__all__ = ["Spent", "reasons", "spent"]

_PAYS = 0.8
"""A layer pays off when its speed-up is at least this share of the reduction of its multiply-accumulates."""

_SHARE = 0.03
"""Layers with less than this share of the total remaining time are not reported."""

_LINES = 5

_WORTH = 0.9
"""A wider layer is recommended when it takes less than this share of the time."""


@dataclass(frozen=True)
class Spent:
    """The time and work of one layer before and after pruning, summed over its calls.

    Attributes:
        name: of the module.
        before, after: the shape of its first call.
        ms_before, ms_after: milliseconds.
        macs_before, macs_after: multiply-accumulates.
    """

    name: str
    before: Shape
    after: Shape
    ms_before: float
    ms_after: float
    macs_before: int
    macs_after: int

    @property
    def pay(self) -> float:
        """Speed-up divided by the reduction of the multiply-accumulates; 1 is proportional."""
        return (self.ms_before / self.ms_after) / (self.macs_before / self.macs_after)


def spent(dense: Network, small: Network, size: Sequence[int], times: LayerTable) -> list[Spent]:
    """The layers of ``dense`` and ``small``, which was pruned from it, in pairs; the longest remaining time first."""
    before, after = (Layers(network, (), size).layers for network in (dense, small))
    times.fill(layer.shape for pair in zip(before, after, strict=True) for layer in pair)
    calls: dict[str, list[tuple[Shape, Shape]]] = {}
    for one, other in zip(before, after, strict=True):
        calls.setdefault(one.name, []).append((one.shape, other.shape))
    layers = [
        Spent(
            name,
            *pairs[0],
            sum(times[one] for one, _ in pairs),
            sum(times[other] for _, other in pairs),
            sum(one.macs for one, _ in pairs),
            sum(other.macs for _, other in pairs),
        )
        for name, pairs in calls.items()
    ]
    return sorted(layers, key=lambda one: -one.ms_after)


def reasons(
    dense: Network,
    small: Network,
    size: Sequence[int],
    times: LayerTable,
    measured: float,
    blocked: Mapping[str, str] = {},
) -> list[str]:
    """Lines that name the layers whose time did not fall with their channels, with reasons; empty if all paid off.

    Args:
        dense, small: before and after.
        size: (height, width) of the images.
        times: of layers, on the device and runtime of the measurement.
        measured: milliseconds of the complete network ``small``.
        blocked: the layers whose channels could not be removed, with the reason.
    """
    layers = spent(dense, small, size, times)
    total = sum(one.ms_after for one in layers)
    lines = []
    if measured > 1.25 * total:
        lines.append(
            f"about {1 - total / measured:.0%} of the time left is outside convolutions and linear layers (resizing, "
            "concatenation, normalisation, classes at full size), where fewer channels save little"
        )
    poor = [one for one in layers if one.pay < _PAYS or one.before == one.after]
    worth = [one for one in poor if one.ms_after >= _SHARE * total][:_LINES]
    return lines + [
        f"{one.name} ({one.after.inputs} -> {one.after.outputs}), {one.ms_after / total:.0%} of the layers' time: "
        f"{_why(one, times, blocked)}"
        for one in worth
    ]


def _why(one: Spent, times: LayerTable, blocked: Mapping[str, str]) -> str:
    """The reason why a layer's time did not fall with its work."""
    if one.before == one.after:
        reason = blocked.get(one.name)
        return f"nothing of it was removed{f': {reason}' if reason else ''}"
    taken = f"{one.ms_after / one.ms_before:.2f} of its time for {one.macs_after / one.macs_before:.2f} of its work"
    multiple = preferred_multiple(times)
    rounded = _rounded(one, multiple)
    if rounded != one.after and (share := times[rounded] / times[one.after]) < _WORTH:
        return (
            f"{taken}: widths that are not multiples of {multiple} are slow here; with {rounded.inputs} -> "
            f"{rounded.outputs} it would take {share:.2f} of its time; set prune.round_to to {multiple} or auto"
        )
    if one.after.depthwise:
        return f"{taken}: a depthwise layer moves about as many values as it multiplies, so memory limits its time"
    least = times[one.after.narrowed(*_least(one.after))]
    if least > 0.5 * times[one.after]:
        ends = _least(one.after)
        return (
            f"{taken}: its time hardly depends on its width; with {ends[0]} -> {ends[1]} it would take {least:.3g} ms"
        )
    return f"{taken}: at this width the device computes more slowly"


def _rounded(one: Spent, multiple: int) -> Shape:
    """The shape with the changed widths rounded up to ``multiple``, but not above the dense ones."""
    pairs = ((one.before.inputs, one.after.inputs), (one.before.outputs, one.after.outputs))
    wide = [now if now == full else min(full, -(-now // multiple) * multiple) for full, now in pairs]
    return one.after.narrowed(*wide)


def _least(shape: Shape) -> tuple[int, int]:
    """The widths of a very small layer of the same form."""
    if shape.groups > 1:
        return shape.inputs, shape.outputs
    return min(8, shape.inputs), min(8, shape.outputs)
