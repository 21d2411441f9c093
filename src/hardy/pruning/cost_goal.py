"""Goals of cost: enough is removed when the network left is predicted, and where possible measured, to cost no more.

The cost of given widths is handed in as a function. A prediction of time is a line through measured networks: between
two of them, by what the layers' times add up to, it is interpolated, and beyond the last it goes on as straight. Each
network that is measured on the way is one point more, so that a choice that was predicted to be fast enough and was
not is followed by one with fewer channels, and one that overshot by one with more.

Source: the additive model of a network's time from its layers', measured one by one on the device, is that of Yang,
Howard, Chen, Zhang, Go, Sandler, Sze and Adam, "NetAdapt: platform-aware neural network adaptation for mobile
applications", ECCV 2018, section 3.3; the line through measured networks is ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hardy.errors import InputError
from hardy.pruning.coupled import Unit
from hardy.pruning.select import Limits, Removed
from hardy.pruning.shapes import Widths, at_floors, dense_widths, widths_left

__all__ = ["Anchored", "CostGoal"]

_TRIES = 8
"""Networks measured for one choice, at most."""

_NEAR = 0.95
"""A network that takes less than this share of the target has lost more than was needed."""

_LOOSER = 3
"""Networks measured for one choice before one that lost more than was needed is taken all the same."""


@dataclass
class Anchored:
    """A model of cost set right by measurements.

    Args:
        raw: what is known to grow with the cost, such as the sum of the layers' times.

    Attributes:
        points: (raw, measured) of each network measured.
    """

    raw: Callable[[Widths], float]
    points: list[tuple[float, float]] = field(default_factory=list)

    def add(self, widths: Widths, value: float) -> None:
        """Note, in place, what a network of ``widths`` was measured to cost."""
        self.points.append((self.raw(widths), value))

    def __call__(self, widths: Widths) -> float:
        """The cost predicted; the raw one where nothing was measured, and never falling while the raw one grows."""
        raw = self.raw(widths)
        if not self.points:
            return raw
        line = _rising(self.points)
        if len(line) == 1:
            at, value = line[0]
            return value * raw / at
        place = min(max(sum(at < raw for at, _ in line), 1), len(line) - 1)
        (low, under), (high, above) = line[place - 1], line[place]
        return under + (raw - low) * (above - under) / (high - low)


class CostGoal:
    """A cost that the network is to come down to.

    Args:
        units: what is pruned.
        cost: what the network costs with such widths; it falls with every channel.
        target: the most it may cost.
        limits: what the selection respects.
        named: the recipe's key and the unit, as ``("target_ms", "ms")``.
        measure: the cost in fact of the network less some channels, if it can be measured; then ``cost`` is
            `Anchored` and learns from it.

    Attributes:
        checked: (widths, measured) of the networks that were measured, in order.

    Raises:
        InputError: when the network costs no more already, or still costs more with every unit at its minimum width.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        cost: Callable[[Widths], float],
        target: float,
        limits: Limits,
        *,
        named: tuple[str, str] = ("target", ""),
        measure: Callable[[Removed], float] | None = None,
    ) -> None:
        self._units, self._limits, self._target = units, limits, target
        self._cost, self._measure = cost, measure
        self.checked: list[tuple[dict[str, int], float]] = []
        self._tries = 0
        key, unit = named
        dense, least = cost(dense_widths(units)), cost(widths_left(units, at_floors(units, limits)))
        if dense <= target:
            raise InputError(f"{key} {target:g}: the network needs {dense:.4g} {unit} as it is; give a lower {key}")
        if least > target:
            raise InputError(
                f"{key} {target:g} cannot be reached: with every width at its floor (min_width {limits.min_width}, "
                f"round_to {limits.round_to}) the network needs {least:.4g} {unit}; raise {key} or lower min_width"
            )

    def most(self, dead: Removed) -> int:
        """See `Goal.most`: all that the floors leave; `select` holds to each unit's own."""
        if self._limits.scope == "layer":  # there the count stands for a share of every unit, which has no other bound
            return sum(unit.size - len(dead.get(unit.name, ())) for unit in self._units)
        floors = at_floors(self._units, self._limits)
        return sum(max(len(gone) - len(dead.get(name, ())), 0) for name, gone in floors.items())

    def met(self, dead: Removed) -> bool:
        """See `Goal.met`."""
        return self._cost(widths_left(self._units, dead)) <= self._target

    def confirm(self, dead: Removed) -> bool:
        """See `Goal.confirmed`: measured at most eight times for one choice, and at most three to remove less."""
        if self._measure is None or not isinstance(self._cost, Anchored):
            return True
        widths = widths_left(self._units, dead)
        if any(before == widths for before, _ in self.checked):
            self._tries = 0
            return True
        value = self._measure(dead)
        self.checked.append((widths, value))
        self._cost.add(widths, value)
        self._tries += 1
        enough = _LOOSER if value < _NEAR * self._target else _TRIES if value > self._target else 0
        if self._tries < enough:
            return False
        self._tries = 0
        return True


def _rising(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """``points`` by their first value, each once, the second never falling."""
    line: dict[float, float] = {}
    highest = 0.0
    for at, value in sorted(points):
        highest = max(highest, value)
        line[at] = highest
    return list(line.items())
