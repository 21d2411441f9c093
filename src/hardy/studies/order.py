"""The order of runs that depend on each other: the state of each run, and the runs that can start next."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, get_args

__all__ = ["STATES", "Order", "State"]

State = Literal["done", "running", "waiting", "failed", "skipped", "stopped"]
"""``skipped``: the run that it continues from failed or was skipped. ``stopped``: it received a stop signal."""

STATES: tuple[State, ...] = get_args(State)


class Order:
    """The states of runs by name.

    Args:
        after: name -> name of the run that must be done first, or None; in the order in which they start.
        done: the names of the runs that are done already.
    """

    def __init__(self, after: Mapping[str, str | None], done: Iterable[str] = ()) -> None:
        already = set(done)
        self.after = dict(after)
        self.states: dict[str, State] = {name: "done" if name in already else "waiting" for name in after}

    def ready(self) -> Iterator[str]:
        """The waiting runs that may start now, in order."""
        for name, state in list(self.states.items()):
            before = self.after[name]
            if state == "waiting" and (before is None or self.states[before] == "done"):
                yield name

    def start(self, name: str) -> None:
        """Mark ``name`` as running."""
        assert self.states[name] == "waiting", f"{name} is {self.states[name]}"
        self.states[name] = "running"

    def end(self, name: str, state: State) -> list[str]:
        """Set the final ``state`` of ``name``; return the runs that are skipped because they continue from it."""
        self.states[name] = state
        if state not in ("failed", "skipped"):
            return []
        lost = [other for other, before in self.after.items() if before == name and self.states[other] == "waiting"]
        return lost + [below for other in lost for below in self.end(other, "skipped")]

    def count(self, state: State) -> int:
        """The number of runs in ``state``."""
        return sum(other == state for other in self.states.values())

    def named(self, state: State) -> list[str]:
        """The names of the runs in ``state``, in order."""
        return [name for name, other in self.states.items() if other == state]
