"""Selects the channels to remove: the lowest scores over all units, or within each unit.

Channels are selected in blocks. With ``round_to`` 1 a block is one channel. Otherwise it consists of a unit's lowest
channels, as many as reduce its width to the next multiple, and blocks are ranked by their mean score. Ties are broken
by the order of the units and the index of the channel, so the same scores always remove the same channels.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from hardy.errors import InputError
from hardy.pruning.coupled import Unit

__all__ = ["Block", "Limits", "Removed", "blocks", "select", "target"]

Removed = dict[str, list[int]]
"""For each unit's name the channels removed, ascending; units without removed channels are left out."""

Block = tuple[float, int, int, list[int]]
"""Channels that are removed together: their mean score, the place of their unit, their number in it, the channels."""


@dataclass(frozen=True)
class Limits:
    """The limits of a selection.

    Attributes:
        scope: rank the channels of all units together (``"global"``) or take the same share of each (``"layer"``).
        min_width: the minimum width of a unit; a narrower unit keeps all channels. It counts channels of the layers:
            where these are removed in groups (a group norm, a grouped convolution), the channels of all groups.
        round_to: kept widths are multiples of this, unless a unit keeps its full width; counted in the same way.
        min_heads: the minimum number of heads of an attention block; ``min_width`` and ``round_to`` ignore heads.
        floors: the unit's name -> a minimum width in channels of the unit; the larger minimum applies.

    Raises:
        InputError: for another scope, or a number below 1.
    """

    scope: Literal["global", "layer"] = "global"
    min_width: int = 8
    round_to: int = 1
    min_heads: int = 1
    floors: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scope not in ("global", "layer"):
            raise InputError(f"scope {self.scope!r} must be 'global' or 'layer'")
        for name, value in (("min_width", self.min_width), ("round_to", self.round_to), ("min_heads", self.min_heads)):
            if value < 1:
                raise InputError(f"{name} {value} must be at least 1")

    def floor(self, unit: Unit) -> int:
        """The smallest number of channels that ``unit`` keeps."""
        step = self.step(unit)
        wide = self.min_heads if unit.kind == "heads" else -(-self.min_width // min(unit.widths))
        least = max(wide, self.floors.get(unit.name, 0))
        return min(unit.size, -(-least // step) * step)

    def step(self, unit: Unit) -> int:
        """The kept number of channels is a multiple of this, so each layer's width is a multiple of ``round_to``."""
        return 1 if unit.kind == "heads" else self.round_to // math.gcd(self.round_to, *unit.widths)

    def unprunable(self, units: Sequence[Unit]) -> dict[str, str]:
        """The units from which no channel may be removed, by name, each with the reason."""
        return {unit.name: self._why(unit) for unit in units if self.floor(unit) == unit.size}

    def _why(self, unit: Unit) -> str:
        if unit.kind == "heads":
            return f"has {unit.size} head{'s' * (unit.size > 1)}: min_heads {self.min_heads} keeps all"
        each = min(unit.widths)
        grouped = f" in groups of {each}" if each > 1 else ""
        floor = " and prune.floors" if unit.name in self.floors else ""
        limits = f"min_width {self.min_width} and round_to {self.round_to}{floor}"
        return f"has {unit.size * each} channels{grouped}: {limits} keep all"


def target(units: Sequence[Unit], ratio: float, limits: Limits) -> int:
    """The number of channels in the share ``ratio`` of all channels of ``units``.

    Raises:
        InputError: if ``ratio`` is not between 0 and 1, is less than one channel, or the minimum widths do not allow
            it; the message then names the largest possible ratio.
    """
    if not 0 < ratio < 1:
        raise InputError(f"ratio {ratio} must be between 0 and 1: it is the share of filters removed")
    total = sum(unit.size for unit in units)
    if limits.scope == "layer":
        fixed = [unit for unit in units if unit.kind == "heads" and limits.floor(unit) == unit.size]
        shares = [(1 - limits.floor(unit) / unit.size, unit) for unit in units if unit not in fixed]
        reachable, tightest = min(shares, key=lambda share: share[0], default=(0.0, None))
        least = f" in every unit ({tightest.name!r} has {tightest.size})" if tightest is not None else ""
    else:
        reachable = sum(unit.size - limits.floor(unit) for unit in units) / max(total, 1)
        least = ""
    count = round(ratio * total)
    if not count:
        raise InputError(f"ratio {ratio} of {total} filters is less than one filter; raise the ratio")
    if ratio > reachable and count > reachable * total:
        raise InputError(_out_of_reach(ratio, reachable, units, limits, least))
    return count


def _out_of_reach(ratio: float, reachable: float, units: Sequence[Unit], limits: Limits, least: str) -> str:
    """The message for a ratio above the largest possible one, ``reachable``; it names what limits the widths."""
    if kept := limits.unprunable(units):
        name, why = next(iter(kept.items()))
        least += f" ({name!r} {why})" if len(kept) == len(units) else ""
    rounded = limits.round_to > 1
    floors = " and the widths that prune.floors measured" if limits.floors else ""
    return (
        f"ratio {ratio} cannot be reached: with min_width {limits.min_width}"
        f"{f', round_to {limits.round_to}' if rounded else ''}{floors}{least} at most "
        f"{int(reachable * 1000) / 1000:.3f} of the filters can be removed; lower ratio or min_width"
        f"{' or round_to' if rounded else ''}{' or raise prune.floors.tolerance' if floors else ''}"
    )


def select(
    scores: Mapping[str, Tensor],
    units: Sequence[Unit],
    count: int,
    dead: Mapping[str, Sequence[int]] | None = None,
    limits: Limits = Limits(),
) -> Removed:
    """At most ``count`` more channels to remove, the lowest scores first.

    With ``round_to`` 1 and global scope it returns exactly ``count`` channels, unless the minimum widths allow fewer.

    Args:
        scores: for each unit its (n,) scores.
        units: the units to take from.
        count: the largest number of channels to remove now.
        dead: channels removed before; they reduce the widths and are not selected again.
        limits: scope, minimum width and rounding.
    """
    gone = dead or {}
    total = sum(unit.size for unit in units)
    overall = (count + sum(map(len, gone.values()))) / max(total, 1)
    allowed = {
        unit.name: int(unit.size * overall + 0.5) - len(gone.get(unit.name, ())) if limits.scope == "layer" else count
        for unit in units
    }
    chosen: Removed = {}
    closed: set[int] = set()
    for _, place, _, channels in blocks(scores, units, gone, limits):
        name = units[place].name
        if place in closed or len(channels) > min(count, allowed[name]):
            closed.add(place)
            continue
        chosen.setdefault(name, []).extend(channels)
        count -= len(channels)
        allowed[name] -= len(channels)
    return {unit.name: sorted(chosen[unit.name]) for unit in units if unit.name in chosen}


def blocks(
    scores: Mapping[str, Tensor], units: Sequence[Unit], dead: Mapping[str, Sequence[int]], limits: Limits
) -> list[Block]:
    """All blocks that can still be removed, in the order of removal. The arguments are those of `select`."""
    return sorted(
        (score, place, number, channels)
        for place, unit in enumerate(units)
        for number, (score, channels) in enumerate(
            _blocks(scores[unit.name], unit, set(dead.get(unit.name, ())), limits)
        )
    )


def _blocks(scores: Tensor, unit: Unit, gone: set[int], limits: Limits) -> Iterator[tuple[float, list[int]]]:
    """The blocks of ``unit`` that can still be removed, in order of removal, each with its mean score."""
    order = [i for i in torch.argsort(scores, stable=True).tolist() if i not in gone]
    kept, floor, step, values = len(order), limits.floor(unit), limits.step(unit), scores.tolist()
    while kept > floor:
        size = min((kept - 1) % step + 1, kept - floor)
        start = len(order) - kept
        block = order[start : start + size]
        yield values[block[0]] if size == 1 else float(scores[block].mean()), block
        kept -= size
