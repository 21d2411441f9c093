"""How often a guard acted, by cause: what a summary of a stream, an evaluation or a prediction shows."""

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["GuardLog"]


@dataclass
class GuardLog:
    """The actions of a `hardy.adaptation._guard.Guarded`.

    Attributes:
        found: (first word of the cause, action) -> (how often, place of the first image, its cause).
        forwards: forward passes of the guard's own.
    """

    found: dict[tuple[str, str], tuple[int, int, str]] = field(default_factory=dict)
    forwards: int = 0

    def add(self, place: int, actions: Iterable[tuple[str, str]]) -> None:
        """Note the (cause, action) ``actions`` on the batch whose first image has the ``place``, in place."""
        for cause, action in actions:
            kind = cause.split(" ")[0], action
            count, first, why = self.found.get(kind, (0, place, cause))
            self.found[kind] = count + 1, first, why

    def lines(self, unit: str = "image") -> list[str]:
        """A line for each cause and action; its images are called ``unit``."""
        return [
            f"guard: {action} {count} times, by {cause}; first at {unit} {first}: {why}"
            for (cause, action), (count, first, why) in self.found.items()
        ] or ["guard: no action"]

    def costs(self) -> dict[str, float]:
        """``guard_forwards``, and for each cause how often it acted, such as ``guard_agreement``, for a record."""
        counts: dict[str, float] = {"guard_forwards": self.forwards}
        for (cause, _), (count, _, _) in self.found.items():
            counts[f"guard_{cause}"] = counts.get(f"guard_{cause}", 0) + count
        return counts
