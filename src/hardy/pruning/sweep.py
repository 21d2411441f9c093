"""The sensitivity sweep: the loss of score when only one unit is pruned, and minimum widths from it.

For each unit, or for all units of a stage together, given shares of the channels with the lowest scores are masked, and
the network is measured on a few images without training. The floor (minimum width) of a unit is the smallest width for
which the loss of score, also at all larger widths measured, is within a tolerance.

Source: Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets", ICLR 2017, section 3.2 (the
sensitivity of single layers on the validation set); the floors and the stages by resolution are Hardy's.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hardy.networks.base import Network
from hardy.pruning.coupled import Unit
from hardy.pruning.cut import width
from hardy.pruning.masked import masked_copy
from hardy.pruning.select import Removed

__all__ = ["Group", "Loss", "Sweep", "alone", "stages", "sweep"]

Measure = Callable[[Network], float]
"""Returns a score of a network; higher is better."""


@dataclass(frozen=True)
class Group:
    """Units that are pruned together in a sweep."""

    units: tuple[Unit, ...]

    @property
    def name(self) -> str:
        """The name of the first unit, and the number of other units if there are any."""
        return self.units[0].name + (f" + {len(self.units) - 1}" if len(self.units) > 1 else "")

    def lowest(self, scores: Mapping[str, Tensor], share: float) -> Removed:
        """The ``share``, rounded down, of each unit's channels with the lowest scores; at least one channel is kept."""
        counts = {unit.name: min(int(share * unit.size + 1e-9), unit.size - 1) for unit in self.units}
        order = {name: torch.argsort(scores[name], stable=True).tolist() for name in counts}
        return {name: sorted(order[name][:count]) for name, count in counts.items() if count}


@dataclass(frozen=True)
class Loss:
    """The loss of score when a group is pruned.

    Attributes:
        group: the group that was pruned.
        share: the share removed from each of its units.
        widths: for each unit's name the number of channels left.
        drop: the score of the unpruned network minus the score without these channels.
    """

    group: Group
    share: float
    widths: Mapping[str, int]
    drop: float


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep.

    Attributes:
        score: score of the unpruned network.
        shares: the shares tried, ascending.
        losses: for each group in order, its losses in the order of `shares`.
    """

    score: float
    shares: tuple[float, ...]
    losses: tuple[Loss, ...]

    def rows(self) -> Iterator[tuple[Group, list[Loss]]]:
        """Each group with its losses in the order of `shares`."""
        step = len(self.shares)
        for first in range(0, len(self.losses), step):
            row = list(self.losses[first : first + step])
            yield row[0].group, row

    def floors(self, tolerance: float) -> dict[str, int]:
        """For each unit's name the smallest width for which the drop, and each drop at a larger width, is at most
        ``tolerance``; the full width of the unit if the first drop is larger."""
        floors: dict[str, int] = {}
        for group, row in self.rows():
            floors |= {unit.name: unit.size for unit in group.units}
            for loss in row:
                if not loss.drop <= tolerance:
                    break
                floors |= loss.widths
        return floors


def alone(units: Sequence[Unit]) -> list[Group]:
    """One group per unit."""
    return [Group((unit,)) for unit in units]


def stages(network: Network, units: Sequence[Unit]) -> list[Group]:
    """One group per stage: consecutive units, in the order of the modules, with the same number of map positions.

    A unit with a single position (after global pooling) belongs to the stage before it.
    """
    positions = _positions(network, units)
    groups: list[list[Unit]] = []
    current = 0
    for unit in units:
        found = positions.get(unit.name, 1)
        if not groups or found not in (1, current):
            groups.append([])
        if found != 1:
            current = found
        groups[-1].append(unit)
    return [Group(tuple(group)) for group in groups]


def sweep(
    network: Network, scores: Mapping[str, Tensor], groups: Sequence[Group], shares: Sequence[float], measure: Measure
) -> Sweep:
    """Measure ``network`` with each share of each group masked; the network does not change.

    Args:
        network: the network; copies of it are measured.
        scores: for each unit's name its (n,) scores; a high score means keep.
        groups: the units to prune together.
        shares: the shares to remove, in (0, 1).
        measure: returns the score of a network.
    """
    shares = sorted(set(shares))
    dense = measure(masked_copy(network, (), {}))
    losses = []
    for group in groups:
        before: Removed = {}
        drop = 0.0
        for share in shares:
            removed = group.lowest(scores, share)
            if removed != before:
                drop = dense - measure(masked_copy(network, group.units, removed))
                before = removed
            widths = {unit.name: unit.size - len(removed.get(unit.name, ())) for unit in group.units}
            losses.append(Loss(group, share, widths, drop))
    return Sweep(dense, tuple(shares), tuple(losses))


def _positions(network: Network, units: Sequence[Unit]) -> dict[str, int]:
    """The unit's name -> the number of positions of its first layer's map; units that did not run are left out."""
    twin = copy.deepcopy(network).to("cpu").eval()
    makers = {unit.name: twin.get_submodule(unit.name.split(":")[0]) for unit in units}
    found: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        def note(module: Any, _: Any, out: Any) -> None:
            if isinstance(out, Tensor) and width(module, "out"):
                found.setdefault(name, out.numel() // width(module, "out"))

        return note

    for name, module in makers.items():
        module.register_forward_hook(watch(name))
    side = 2 * max(network.least_size, 32)
    with torch.no_grad():
        twin(torch.zeros(1, 3, side, side, dtype=twin.mean.dtype))
    return found
