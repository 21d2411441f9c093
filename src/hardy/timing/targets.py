"""The goal of a pruning run: a share of the channels, GMACs, or milliseconds that are measured.

For milliseconds the network is measured unpruned and with every width at its minimum; between these two the sum of its
layers' times predicts (`hardy.timing.layer_tables`). A choice is cut out of a copy and measured before it
is accepted: see `hardy.pruning.cost_goal`. Latency does not depend on what the weights are, so the copy need not be
trained.

Each smaller network is timed in turns with the dense one: its milliseconds are the dense network's, as first measured,
times the ratio of the two. So a higher load an hour later does not change the target. Both are lower
quartiles: another process takes slices of some milliseconds, which would make the median of a short pass unstable.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hardy.deployment.epilogue import Upsample
from hardy.device import pick
from hardy.networks.base import Network
from hardy.pruning.cost_goal import Anchored, CostGoal
from hardy.pruning.coupled import Unit
from hardy.pruning.goal import Goal, Ratio
from hardy.pruning.remove import remove
from hardy.pruning.select import Limits, Removed
from hardy.pruning.shapes import Layers, Widths, at_floors, dense_widths, widths_left
from hardy.recipe import Prune, RunSection
from hardy.stored import finite
from hardy.timing import layer_tables
from hardy.timing.clock import Runtime, draw, interleave, prepare
from hardy.timing.hardware import fingerprint
from hardy.timing.layer_tables import LayerTable, Sum

__all__ = ["Outcome", "Target", "Timed", "Turns", "limits_of", "place_of", "target_of", "time_target"]

_SECONDS = 3.0
_LEAST, _MOST = 15, 400
"""Timed pairs of passes of each network that is measured: between the least and the most, about so many seconds."""

Clock = Callable[[Network], tuple[float, float]]
"""Of a smaller network: milliseconds of the dense one beside it, and the ratio of its own time to that."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a cost target.

    Attributes:
        key: ``target_ms`` or ``target_gmacs``.
        target: the upper limit.
        before, least: of the dense network, and of the one with every width at its minimum.
        predicted: of the final network, before any network between these two was measured.
        reached: of the final network, measured or counted.
        networks: how many networks were measured while channels were chosen.
        where: runtime, device and threads, in words; empty for a count.
    """

    key: str
    target: float
    before: float
    least: float
    predicted: float
    reached: float
    networks: int
    where: str

    @property
    def met(self) -> bool:
        """Whether the target was reached."""
        return self.reached <= self.target

    def to_json(self) -> dict[str, Any]:
        """The fields and the verdict as plain values."""
        return {**asdict(self), "met": self.met}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Outcome":
        """What ``asdict`` wrote.

        Raises:
            TypeError, ValueError: for anything else.
        """
        found = cls(**values)
        numbers = (found.target, found.before, found.least, found.predicted, found.reached, found.networks)
        if not all(finite(number) for number in numbers) or not isinstance(found.key, str):
            raise ValueError("the outcome holds something other than numbers")
        return found

    def __str__(self) -> str:
        """One line, with the verdict in plain words."""
        unit = "ms" if self.key == "target_ms" else "GMACs"
        found = "measured" if self.key == "target_ms" else "counted"
        verdict = "met" if self.met else f"NOT met: the least that the floors allow is {self.least:.4g} {unit}"
        where = f" ({self.where}, {self.networks} networks measured)" if self.where else ""
        return (
            f"{self.key} {self.target:g}: from {self.before:.4g} {unit}, predicted {self.predicted:.4g}, "
            f"{found} {self.reached:.4g}: {verdict}{where}"
        )


@dataclass(frozen=True)
class Target:
    """A goal, and how to compute its outcome.

    Attributes:
        goal: for the schedule.
        outcome: the outcome once these channels are removed; None for a share of the channels.
    """

    goal: Goal
    outcome: Callable[[Removed], Outcome | None]


class Timed:
    """The time of a network at any widths: predicted from its layers, and measured.

    Attributes:
        dense, least: milliseconds of the network and of the one with every width at its minimum.
        cost: the prediction, which learns from what is measured later.

    Args:
        network: a copy is kept and measured.
        units: its units.
        limits: their minimum widths.
        size: (height, width) of the images.
        runtime: what runs it.
        device: where.
        times: the table of layers; this machine's by default.
        clock: times smaller networks beside ``network``; `Turns` by default.
    """

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        limits: Limits,
        size: Sequence[int],
        runtime: Runtime,
        device: torch.device,
        *,
        times: LayerTable | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._twin, self._units = deepcopy(network).cpu().eval(), units
        self._clock = clock or Turns(self._twin, size, runtime, device)
        raw = Sum(Layers(self._twin, units, size), units, limits, times or layer_tables.open_table(runtime, device))
        self.cost = Anchored(raw)
        self.dense, ratio = self._clock(self._without(at_floors(units, limits)))
        self.least = ratio * self.dense
        self.cost.measured(dense_widths(units), self.dense)
        self.cost.measured(widths_left(units, at_floors(units, limits)), self.least)
        self._first = Anchored(raw, list(self.cost.points))

    def milliseconds(self, dead: Removed) -> float:
        """Measured, of the network without the channels ``dead``."""
        return self.dense * self._clock(self._without(dead))[1]

    def predicted(self, widths: Widths) -> float:
        """Of the network with ``widths``, from the two ends alone."""
        return self._first(widths)

    def _without(self, dead: Removed) -> Network:
        smaller = deepcopy(self._twin)
        remove(smaller, self._units, dead)
        return smaller


class Turns:
    """Times networks in turns with a dense one, up to the classes of one image.

    Args:
        dense: in evaluation mode.
        size: (height, width) of the image.
        runtime: what runs them.
        device: where.
        upsample: at which size the best class is taken; see `hardy.deployment.epilogue`.
    """

    def __init__(
        self, dense: Network, size: Sequence[int], runtime: Runtime, device: torch.device, upsample: Upsample = "full"
    ) -> None:
        self._images, self._runtime, self._upsample = draw(1, size, device), runtime, upsample
        self._dense = self._ready(dense)

    def __call__(self, small: Network) -> tuple[float, float]:
        """See `Clock`."""
        device = self._images.device
        pair = [self._dense, self._ready(small)]
        with torch.inference_mode():
            once = sum(spent.min() for spent in interleave(pair, 2, 3, device)) / 1e3
            first, second = interleave(pair, min(max(int(_SECONDS / once), _LEAST), _MOST), 0, device)
        before, after = (float(np.percentile(spent, 25)) for spent in (first, second))
        return before, after / before

    def _ready(self, network: Network) -> Callable[[], object]:
        placed = deepcopy(network).to(self._images.device).eval()
        with tempfile.TemporaryDirectory() as folder:
            ready = prepare(placed, self._runtime, self._images, "classes", Path(folder, "network"), self._upsample)
            return ready.run


def place_of(runtime: Runtime, run: RunSection) -> torch.device:
    """Where ``runtime`` runs: eager on the device of the run, onnxruntime on the CPU."""
    return torch.device("cpu") if runtime == "onnxruntime" else pick(run.device)


def limits_of(choice: Prune, run: RunSection) -> Limits:
    """The limits of a selection; ``round_to: auto`` is found by measuring."""
    multiple = choice.round_to
    if isinstance(multiple, str):
        times = layer_tables.open_table(choice.runtime, place_of(choice.runtime, run))
        multiple = layer_tables.preferred_multiple(times)
    return Limits(choice.scope, choice.min_width, multiple)


def target_of(
    network: Network, units: Sequence[Unit], choice: Prune, limits: Limits, size: Sequence[int], run: RunSection
) -> Target:
    """The goal that ``choice`` names.

    Args:
        network: what is pruned; a copy is measured.
        units: its units.
        choice: names one of ratio, target_gmacs and target_ms.
        limits: of the selection.
        size: (height, width) of the images that cost is counted and measured for.
        run: where it runs.

    Raises:
        InputError: when the goal cannot be reached, or is reached already.
    """
    if choice.target_ms is not None:
        device = place_of(choice.runtime, run)
        timed = Timed(network, units, limits, size, choice.runtime, device)
        where = f"{choice.runtime}, {_device(device)}, {size[0]}x{size[1]}, {torch.get_num_threads()} threads"
        return time_target(timed, units, limits, choice.target_ms, where)
    if choice.target_gmacs is not None:
        count = Layers(network, units, size).gmacs
        goal = CostGoal(units, count, choice.target_gmacs, limits, named=("target_gmacs", "GMACs"))
        ends = [count(dense_widths(units)), count(widths_left(units, at_floors(units, limits)))]
        return Target(goal, _counted(count, units, choice.target_gmacs, ends))
    assert choice.ratio is not None, "a recipe names one goal"
    return Target(Ratio(units, choice.ratio, limits), lambda dead: None)


def time_target(timed: Timed, units: Sequence[Unit], limits: Limits, target: float, where: str) -> Target:
    """The goal of ``target`` milliseconds; see `target_of`."""
    goal = CostGoal(units, timed.cost, target, limits, named=("target_ms", "ms"), measure=timed.milliseconds)

    def outcome(dead: Removed) -> Outcome:
        widths = widths_left(units, dead)
        known = [value for before, value in goal.checked if before == widths]
        reached = known[-1] if known else timed.milliseconds(dead)
        made = len(goal.checked) + 2
        return Outcome("target_ms", target, timed.dense, timed.least, timed.predicted(widths), reached, made, where)

    return Target(goal, outcome)


def _counted(
    count: Callable[[Mapping[str, int]], float], units: Sequence[Unit], target: float, ends: Sequence[float]
) -> Callable[[Removed], Outcome]:
    def outcome(dead: Removed) -> Outcome:
        value = count(widths_left(units, dead))
        return Outcome("target_gmacs", target, ends[0], ends[1], value, value, 0, "")

    return outcome


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else fingerprint().cpu
