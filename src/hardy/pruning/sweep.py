"""The sensitivity sweep: what a network loses when one unit alone is pruned, and the widths that follow from it.

For each unit, or for all units of a stage together, the lowest shares of its channels by the criterion's scores are
masked and the network is measured on a few images, otherwise untouched and not trained. The floor of a unit is the
minimum width measured up to which the loss stayed within a tolerance.

Source: Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets", ICLR 2017, section 3.2 (the
sensitivity of single layers on the validation set); floors from it and stages by resolution are Hardy's.
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
"""A score of a network, high is good."""


@dataclass(frozen=True)
class Group:
    """Units that are pruned together in a sweep."""

    units: tuple[Unit, ...]

    @property
    def name(self) -> str:
        """The unit's name, or that of the first with how many follow."""
        return self.units[0].name + (f" + {len(self.units) - 1}" if len(self.units) > 1 else "")

    def lowest(self, scores: Mapping[str, Tensor], share: float) -> Removed:
        """The lowest ``share`` of each unit's channels, rounded down; at least one is left."""
        counts = {unit.name: min(int(share * unit.size + 1e-9), unit.size - 1) for unit in self.units}
        order = {name: torch.argsort(scores[name], stable=True).tolist() for name in counts}
        return {name: sorted(order[name][:count]) for name, count in counts.items() if count}


@dataclass(frozen=True)
class Loss:
    """What pruning a group cost.

    Attributes:
        group: what was pruned.
        share: how much of each of its units.
        widths: for each unit's name the channels left.
        drop: the score of the network as it is, less the score without these channels.
    """

    group: Group
    share: float
    widths: Mapping[str, int]
    drop: float


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes:
        score: of the network as it is.
        shares: the shares tried, ascending.
        losses: by group, by share.
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
        """For each unit's name the minimum width measured at which the drop, and each before it, is at most
        ``tolerance``; the unit's full width where the first is more."""
        floors: dict[str, int] = {}
        for group, row in self.rows():
            floors |= {unit.name: unit.size for unit in group.units}
            for loss in row:
                if not loss.drop <= tolerance:
                    break
                floors |= loss.widths
        return floors


def alone(units: Sequence[Unit]) -> list[Group]:
    """Each unit for itself."""
    return [Group((unit,)) for unit in units]


def stages(network: Network, units: Sequence[Unit]) -> list[Group]:
    """The units by stage: neighbours, in the order of the modules, whose maps have the same number of positions.

    A unit on a single position (after a global pool) belongs to the stage it stands in.
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
    """Measure ``network`` with each share of each group masked; it stays as it is.

    Args:
        network: what is measured, in copies.
        scores: for each unit's name its (n,) scores, high means keep.
        groups: what is pruned at a time.
        shares: in (0, 1).
        measure: gives the score of a network.
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
    """For each unit's name how many positions the map of its first layer has; none for one that did not run."""
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
