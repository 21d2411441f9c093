"""The content of a report: its networks, the networks shown in detail, and the commands that made the numbers."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from hardy.records import Record
from hardy.report.pareto import Point, front
from hardy.report.runs import Network

__all__ = ["DETAILED", "Subject"]

DETAILED = 8
"""The largest number of networks shown in detail: the number of different colours."""

_BUSY = 1.25
"""A machine is busy from so many runnable threads for each core on; Hardy's own are up to one for each core."""


@dataclass
class Subject:
    """The networks of a report.

    Attributes:
        networks: all networks.
        runtime: the runtime of their milliseconds.
    """

    networks: Sequence[Network]
    runtime: str

    @cached_property
    def front(self) -> list[Network]:
        """The networks on the Pareto front of score and milliseconds, fastest first."""
        points = [
            Point(str(place), one.milliseconds, one.headline)
            for place, one in enumerate(self.networks)
            if one.milliseconds is not None and one.headline is not None
        ]
        return [self.networks[int(point.name)] for point in front(points)]

    @cached_property
    def detailed(self) -> list[Network]:
        """The networks shown in detail: all or, if there are too many, those on the front and then the best ones."""
        if len(self.networks) <= DETAILED:
            return list(self.networks)
        best = sorted(self.networks, key=lambda one: -(one.headline or 0.0))
        chosen = [*reversed(self.front), *(one for one in best if one not in self.front)][:DETAILED]
        return [one for one in self.networks if one in chosen]

    @cached_property
    def timed(self) -> list[Network]:
        """The networks with milliseconds."""
        return [one for one in self.networks if one.milliseconds is not None]

    @cached_property
    def reference(self) -> Network | None:
        """The network that most others were timed in turns with; None if all were timed alone."""
        found = [one.reference for one in self.timed if one.reference]
        return max(found, key=lambda one: sum(one is other for other in found), default=None)

    def apart(self, network: Network) -> bool:
        """Whether ``network`` was timed separately from the other networks of the report."""
        return len(self.timed) > 1 and (network.reference is None or network.reference is not self.reference)

    def how_timed(self) -> str:
        """A sentence, as HTML, that says which times are from timing in turns; empty for a single time."""
        if len(self.timed) < 2:
            return ""
        if self.reference is None:
            return (
                "Each network was timed separately, and the load of the machine may have changed in between: "
                "<code>hardy bench RUN --against OTHER</code> times two in turns."
            )
        name = escape(self.reference.name)
        apart = [escape(one.name) for one in self.timed if self.apart(one)]
        if not apart:
            return f"All were timed in turns with {name}, so that a change of the machine's load slows them down alike."
        named = ", ".join(apart[:3]) + (f" and {len(apart) - 3} more" if len(apart) > 3 else "")
        how = f"hardy bench RUN --against {shlex.quote(str(self.reference.first.folder))}"
        return (
            f"Timed separately, when the load of the machine may have been different: {named}. The others were timed "
            f"in turns with {name}; <code>{escape(how)}</code> does this."
        )

    def busy(self) -> str:
        """A sentence that says that the machine was busy while networks were timed; empty if none was busy."""
        loads = [
            (load / cores, load, cores)
            for network in self.timed
            for run in network.runs
            for one in run.lines
            if one.stage == "bench" or one.metric.startswith("milliseconds")
            if (load := _number(one, "load")) is not None and (cores := _number(one, "cores"))
        ]
        most, load, cores = max(loads, default=(0.0, 0.0, 0.0))
        if most <= _BUSY:
            return ""
        return (
            f"The machine was busy while networks were timed (load {load:.1f} on {cores:.0f} cores), so times and "
            "their ratios may be wrong."
        )

    def colour(self, network: Network) -> int | None:
        """The number of its colour; None for a network without one."""
        return self.detailed.index(network) if network in self.detailed else None

    @property
    def metric(self) -> str:
        """``mIoU`` or ``accuracy``."""
        return self.networks[0].metric_words

    @cached_property
    def away(self) -> bool:
        """Whether at least one network was measured on a domain that it was not trained on."""
        return any(one.group(seen=False) for one in self.networks)

    @property
    def among(self) -> str:
        """The domains that the headline scores are means over, in words."""
        return "unseen domains" if self.away else "the domains trained on"

    @cached_property
    def commands(self) -> dict[tuple[str, str, str, str], int]:
        """(folder, stage, command, commit) of all records, numbered from 1 in their order."""
        found: dict[tuple[str, str, str, str], int] = {}
        for network in self.networks:
            for run in network.runs:
                for one in run.lines:
                    found.setdefault(self.command(run.folder, one), len(found) + 1)
        return found

    @staticmethod
    def command(folder: Path, one: Record) -> tuple[str, str, str, str]:
        """The command that made a record; if none was recorded, the command that repeats its run."""
        verb = one.stage.split("/")[0]
        again = f"hardy {verb} {folder / 'recipe.yaml'}" if verb in ("train", "prune") else ""
        made = one.versions.get("command") or again or "was not recorded"
        return str(folder), verb, made, one.versions.get("commit", "")

    def legend(self) -> str:
        """The names of the detailed networks in their colours."""
        names = "".join(
            f'<li><i class="c{place}" aria-hidden="true"></i>{escape(one.name)}</li>'
            for place, one in enumerate(self.detailed)
        )
        return f'<ul class="legend" aria-label="Networks">{names}</ul>'

    def left_out(self) -> str:
        """The note for sections that show only the detailed networks; empty if all are detailed."""
        if len(self.detailed) == len(self.networks):
            return ""
        return f" Shown are {len(self.detailed)} of {len(self.networks)} networks: those of the front, then the best."


def _number(one: Record, name: str) -> float | None:
    """The number ``name`` among the versions of a record; None if it has none."""
    try:
        return float(one.versions.get(name, ""))
    except ValueError:
        return None
