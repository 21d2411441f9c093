"""What a stream has measured so far: everything that a later process needs beside the state of the method."""

from dataclasses import dataclass, field

from torch import Tensor

from hardy.engine.stream_table import Action, Alarms

__all__ = ["Progress"]


@dataclass
class Progress:
    """The counts and the place of a stream.

    Attributes:
        position: the place of the next frame.
        batches: batches predicted.
        since_reset: images since the last reset.
        last: index of the domain of the last frame; -1 before the first.
        every: the method adapts on every so many batches; 0 until it is known.
        updates: batches on which the method adapted.
        seconds: of all calls of the method.
        costs: what was measured once.
        places: (round, domain) of each frame predicted.
        counts: confusion counts (K + 1, K + 1) of each.
        probes: see `hardy.engine.stream_table.Probes`.
        skipped: (place, name, reason) of each frame skipped.
        actions: what a guard did.
        alarms: how often it was right.
        nans: frames whose logits held NaN.
        guard_forwards: forward passes of a guard's own, also before resets and on batches without adaptation.
    """

    position: int = 0
    batches: int = 0
    since_reset: int = 0
    last: int = -1
    every: int = 0
    updates: int = 0
    seconds: float = 0.0
    nans: int = 0
    guard_forwards: int = 0
    costs: dict[str, float] = field(default_factory=dict)
    places: list[tuple[int, int]] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)
    probes: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    alarms: Alarms = field(default_factory=Alarms)
