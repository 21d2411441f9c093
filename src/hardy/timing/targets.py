"""The goal of a pruning run: a share of the channels, GMACs, or milliseconds that are measured.

For milliseconds the network is measured unpruned and with every width at its minimum. Between these two, the sum of
the layers' times is the prediction (`hardy.timing.layer_tables`). Before a selection of channels is accepted, a copy is
pruned by it and measured: see `hardy.pruning.cost_goal`. Latency does not depend on the values of the weights, so the
copy is not trained.

Each smaller network is timed in turns with the dense one. Its milliseconds are the first measurement of the dense
network times the ratio of the two. So a higher load an hour later does not change the target. Both are lower quartiles:
other processes take slices of some milliseconds, which would make the median of a short pass unstable.
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
from hardy.pruning.weight_norm import make_plain
from hardy.recipe import Prune, RunSection
from hardy.stored import finite
from hardy.timing import layer_tables
from hardy.timing.clock import Runtime, draw, interleave, prepare
from hardy.timing.hardware import fingerprint
from hardy.timing.layer_tables import LayerTable, Sum

__all__ = ["Outcome", "Target", "Timed", "Turns", "limits_of", "place_of", "target_of", "time_target"]

_SECONDS = 3.0
_LEAST, _MOST = 15, 400
"""The timed pairs of passes of a network take about this many seconds; their number is between _LEAST and _MOST."""

Clock = Callable[[Network], tuple[float, float]]
"""For a smaller network: the milliseconds of the dense one, timed in turns with it, and the ratio of the two times."""


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
        """The outcome that ``asdict`` turned into ``values``.

        Raises:
            TypeError, ValueError: for anything else.
        """
        made = cls(**values)
        numbers = (made.target, made.before, made.least, made.predicted, made.reached, made.networks)
        if not all(finite(number) for number in numbers) or not isinstance(made.key, str):
            raise ValueError("the outcome holds something other than numbers")
        return made

    def __str__(self) -> str:
        """One line, with the verdict in plain words."""
        unit = "ms" if self.key == "target_ms" else "GMACs"
        method = "measured" if self.key == "target_ms" else "counted"
        why = f": the minimum widths allow at least {self.least:.4g} {unit}" if self.least > self.target else ""
        verdict = "met" if self.met else f"NOT met{why}"
        where = f" ({self.where}, {self.networks} networks measured)" if self.where else ""
        return (
            f"{self.key} {self.target:g}: from {self.before:.4g} {unit}, predicted {self.predicted:.4g}, "
            f"{method} {self.reached:.4g}: {verdict}{where}"
        )


@dataclass(frozen=True)
class Target:
    """A goal, and a function for its outcome.

    Attributes:
        goal: for the pruning schedule.
        outcome: from the removed channels the outcome; None for a ratio.
    """

    goal: Goal
    outcome: Callable[[Removed], Outcome | None]


class Timed:
    """The time of a network at any widths: predicted from its layers, and measured.

    Attributes:
        dense, least: milliseconds of the network and of the one with every width at its minimum.
        cost: the prediction, which is corrected by later measurements.

    Args:
        network: a copy of it is measured.
        units: its units.
        limits: their minimum widths.
        size: (height, width) of the images.
        runtime: see `hardy.timing.clock.Runtime`.
        device: for the measurements.
        times: the table of layers; this machine's by default.
        clock: times smaller networks in turns with ``network``; `Turns` by default.
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
        make_plain(self._twin)
        self._clock = clock or Turns(self._twin, size, runtime, device)
        raw = Sum(Layers(self._twin, units, size), units, limits, times or layer_tables.open_table(runtime, device))
        self.cost = Anchored(raw)
        self.dense, ratio = self._clock(self._without(at_floors(units, limits)))
        self.least = ratio * self.dense
        self.cost.add(dense_widths(units), self.dense)
        self.cost.add(widths_left(units, at_floors(units, limits)), self.least)
        self._first = Anchored(raw, list(self.cost.points))

    def milliseconds(self, dead: Removed) -> float:
        """The measured milliseconds of the network without the channels ``dead``."""
        return self.dense * self._clock(self._without(dead))[1]

    def predicted(self, widths: Widths) -> float:
        """The predicted milliseconds at ``widths``, from the two end points only."""
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
        runtime: see `hardy.timing.clock.Runtime`.
        device: for both networks.
        upsample: the size at which the argmax is taken; see `hardy.deployment.epilogue`.
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
    """The device of ``runtime``: the device of the run for eager, the CPU for onnxruntime."""
    return torch.device("cpu") if runtime == "onnxruntime" else pick(run.device)


def limits_of(choice: Prune, run: RunSection) -> Limits:
    """The limits of a selection; the value of ``round_to: auto`` is measured."""
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
        network: the network to prune; a copy is measured.
        units: its units.
        choice: names one of ratio, target_gmacs and target_ms.
        limits: of the selection.
        size: (height, width) of the images for which the cost is counted or measured.
        run: has the device.

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
