"""Cost goals: channels are removed until the predicted, and where possible measured, cost is at most the target.

The cost of given widths is passed in as a function. For time, the prediction is a piecewise linear function through the
measured networks. Its argument is the sum of the layers' times; beyond the last point it is extrapolated. Each network
measured during the search adds a point. If a choice is too slow, the next one has fewer channels; if it is faster than
needed, the next one has more.

Source: the sum of layer times, measured layer by layer on the device, as a model of a network's time: Yang, Howard,
Chen, Zhang, Go, Sandler, Sze and Adam, "NetAdapt: platform-aware neural network adaptation for mobile applications",
ECCV 2018, section 3.3; the line through measured networks is Hardy's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hardy.errors import InputError
from hardy.pruning.coupled import Unit
from hardy.pruning.select import Limits, Removed
from hardy.pruning.shapes import Widths, at_floors, dense_widths, widths_left

__all__ = ["Anchored", "CostGoal"]

_TRIES = 8
"""The largest number of networks measured for one choice."""

_NEAR = 0.95
"""Below this share of the target more channels than necessary were removed."""

_LOOSER = 3
"""After this many measurements for one choice, a network is accepted even if too many channels were removed."""


@dataclass
class Anchored:
    """A cost model that is corrected by measurements.

    Args:
        raw: a quantity that grows with the cost, such as the sum of the layers' times.

    Attributes:
        points: (raw, measured cost) of each network measured.
    """

    raw: Callable[[Widths], float]
    points: list[tuple[float, float]] = field(default_factory=list)

    def add(self, widths: Widths, value: float) -> None:
        """Add the measured cost ``value`` of a network of ``widths``."""
        self.points.append((self.raw(widths), value))

    def __call__(self, widths: Widths) -> float:
        """The predicted cost, which does not fall as ``raw`` grows; ``raw`` itself if nothing was measured."""
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
    """The goal that the network costs at most ``target``.

    Args:
        units: the units to prune.
        cost: the cost of the network with given widths; it falls with every channel removed.
        target: the largest allowed cost.
        limits: limits of the selection.
        named: the recipe's key and the physical unit, such as ``("target_ms", "ms")``.
        measure: returns the measured cost of the network without some channels; ``cost`` must then be `Anchored`, and
            the measurements correct it. None if nothing is measured.

    Attributes:
        checked: (widths, measured cost) of the networks measured, in order.

    Raises:
        InputError: if the network meets the target already, or cannot meet it at minimum widths.
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
                f"{key} {target:g} cannot be reached: at the minimum widths (min_width {limits.min_width}, round_to "
                f"{limits.round_to}) the network needs {least:.4g} {unit}; raise {key} or lower min_width"
            )

    def most(self, dead: Removed) -> int:
        """See `Goal.most`: all channels above the minimum widths; `select` applies each unit's own minimum."""
        if self._limits.scope == "layer":  # the count is then a share of every unit, without another limit
            return sum(unit.size - len(dead.get(unit.name, ())) for unit in self._units)
        floors = at_floors(self._units, self._limits)
        return sum(max(len(gone) - len(dead.get(name, ())), 0) for name, gone in floors.items())

    def met(self, dead: Removed) -> bool:
        """See `Goal.met`."""
        return self._cost(widths_left(self._units, dead)) <= self._target

    def confirm(self, dead: Removed) -> bool:
        """See `Goal.confirm`: at most 8 measurements for one choice, and at most 3 to remove fewer channels."""
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
    """``points`` sorted by their first value, each value once; the second value never falls."""
    line: dict[float, float] = {}
    highest = 0.0
    for at, value in sorted(points):
        highest = max(highest, value)
        line[at] = highest
    return list(line.items())
