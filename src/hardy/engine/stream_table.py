"""The numbers of a stream, from the confusion counts of every frame and of the probes.

A probe is a measurement without learning: `TestTimeAdaptation.predict` on a few images. Its moments are ``source``
(the network before the stream), ``before`` (before the first frame of a domain, which is not yet seen then), ``left``
(after its last frame) and ``final`` (after the stream).

Source: mIoU per domain and round: Wang et al., "Continual test-time domain adaptation", CVPR 2022, table 5; forgetting
and forward transfer: Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NIPS 2017, section 2.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from hardy.engine.evaluate import judged

__all__ = ["Action", "Alarms", "Number", "Probes", "StreamTable", "Window", "harmful", "stacked", "worst_window"]

Probes = Mapping[str, Mapping[str, Tensor]]
"""moment -> domain -> confusion counts (K + 1, K + 1); for the moments see the docstring of this module."""


class Action(NamedTuple):
    """What a guard did, and why.

    Attributes:
        frame: the first frame of the batch, by its place in the stream.
        cause: what it saw.
        action: what it did.
    """

    frame: int
    cause: str
    action: str


class Alarms(NamedTuple):
    """How often a guard was right, by labels that it never sees. A batch is harmful where the source does better.

    Attributes:
        true: alarms on harmful batches.
        false: alarms on others.
        missed: harmful batches without an alarm.
        quiet: others without an alarm.
    """

    true: int = 0
    false: int = 0
    missed: int = 0
    quiet: int = 0


class Number(NamedTuple):
    """One measured number: of a domain or of the whole ``stream``, of one round (from 1) or of all (None)."""

    target: str
    metric: str
    value: float
    round: int | None = None


class Window(NamedTuple):
    """The worst run of consecutive frames: its score, and its first frame's place in the stream."""

    score: float
    start: int


@dataclass(frozen=True)
class StreamTable:
    """The results of a stream; scores are in [0, 1], mIoU or, for image-level classes, accuracy.

    Attributes:
        domains: their names.
        sources: names of the source domains that were probed.
        classes: names of the classes measured.
        places: (round, index of the domain) of each frame predicted, in order.
        counts: confusion counts (n, K + 1, K + 1) of each.
        probes: see `Probes`.
        costs: by name ``ms_per_frame``, ``source_ms_per_frame``, ``memory_mib``, ``updates``, ``every``,
            ``nan_frames``, and with a guard ``guard_forwards`` and the counts of its `Alarms`.
        skipped: (place in the stream, name, reason) of the frames that could not be predicted.
        actions: what the guard did.
        window: frames of the worst window.
        image_level: whether scores are accuracies.
        detected: of a method that detects domains, how many batches of each were detected as which, since the last
            reset.
    """

    domains: tuple[str, ...]
    sources: tuple[str, ...]
    classes: tuple[str, ...]
    places: Sequence[tuple[int, int]]
    counts: Tensor = field(repr=False)
    probes: Probes = field(repr=False)
    costs: Mapping[str, float]
    skipped: Sequence[tuple[int, str, str]]
    actions: Sequence[Action]
    window: int
    image_level: bool = False
    detected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The name of the online score in records."""
        return "online_accuracy" if self.image_level else "online_miou"

    def score(self, counts: Tensor) -> float:
        """The score of confusion counts; NaN without a label."""
        found = judged(counts)
        return found.pixel_accuracy if self.image_level else found.miou

    def online(self, domain: str | None = None, round: int | None = None) -> float:
        """The score of all frames of ``domain`` in ``round`` (from 1), predicted as they came.

        Without one of them it is the mean over the domains and rounds that have a score.
        """
        if domain is None or round is None:
            names = self.domains if domain is None else (domain,)
            rounds = range(1, self.rounds + 1) if round is None else (round,)
            return _mean(self.online(name, number) for name in names for number in rounds)
        wanted = (round - 1, self.domains.index(domain))
        chosen = [index for index, place in enumerate(self.places) if tuple(place) == wanted]
        return self.score(self.counts[chosen].sum(0)) if chosen else math.nan

    @property
    def rounds(self) -> int:
        """The number of rounds."""
        return max((place[0] for place in self.places), default=-1) + 1

    def probe(self, moment: str, domain: str) -> float:
        """The score of a probe; NaN where there was none."""
        counts = self.probes.get(moment, {}).get(domain)
        return math.nan if counts is None else self.score(counts)

    def forgetting(self, domain: str) -> float:
        """By how much a domain's score fell from its last frame to the end of the stream, measured without learning.

        For a source domain it is the fall from before the stream.
        """
        start = "source" if domain in self.sources else "left"
        return self.probe(start, domain) - self.probe("final", domain)

    def forward_gain(self, domain: str) -> float:
        """By how much what was learned before the first frame of ``domain`` changed its score."""
        return self.probe("before", domain) - self.probe("source", domain)

    @property
    def worst(self) -> Window:
        """The worst window."""
        return worst_window(self.counts, self.window, image_level=self.image_level)

    def numbers(self) -> list[Number]:
        """Every number, for records and tables."""
        found = [Number(name, self.metric, self.online(name)) for name in self.domains]
        found.append(Number("stream", self.metric, self.online()))
        for number in range(1, self.rounds + 1):
            found += [Number(name, self.metric, self.online(name, number), number) for name in self.domains]
            found.append(Number("stream", self.metric, self.online(round=number), number))
        found.append(Number("stream", f"worst_window_{self.metric.removeprefix('online_')}", self.worst.score))
        if self.probes:
            found += self._probed()
        found += [Number("stream", name, value) for name, value in self.costs.items()]
        found += [Number(own, f"batches_{name}", n) for own, each in self.detected.items() for name, n in each.items()]
        found += [Number("stream", "frames", len(self.places)), Number("stream", "skipped", len(self.skipped))]
        return found

    def _probed(self) -> list[Number]:
        found = []
        for moment, measured in self.probes.items():
            found += [Number(name, f"probe_{moment}", self.score(counts)) for name, counts in measured.items()]
        lost = {name: self.forgetting(name) for name in (*self.domains, *self.sources)}
        ahead = {name: self.forward_gain(name) for name in self.domains}
        found += [Number(name, "forgetting", value) for name, value in lost.items()]
        found += [Number(name, "forward_gain", value) for name, value in ahead.items()]
        last = self.domains[self.places[-1][1]] if self.places else ""
        found.append(Number("stream", "forgetting", _mean(lost[name] for name in self.domains if name != last)))
        found.append(Number("stream", "forward_gain", _mean(ahead.values())))
        if self.sources:
            found.append(Number("stream", "source_forgetting", _mean(lost[name] for name in self.sources)))
        return found


def worst_window(counts: Tensor, width: int, *, image_level: bool = False) -> Window:
    """The lowest score of ``width`` consecutive frames, or of all where there are fewer; NaN without a label.

    Args:
        counts: confusion counts (n, K + 1, K + 1) of each frame.
        width: frames of a window.
        image_level: score by accuracy.
    """
    if not len(counts):
        return Window(math.nan, 0)
    width = min(width, len(counts))
    worst, total = Window(math.nan, 0), counts[:width].sum(0)
    for start in range(len(counts) - width + 1):
        if start:
            total = total - counts[start - 1] + counts[start + width - 1]
        found = judged(total)
        score = found.pixel_accuracy if image_level else found.miou
        if not math.isnan(score) and not score >= worst.score:
            worst = Window(score, start)
    return worst


def harmful(ours: Tensor, source: Tensor, *, image_level: bool = False) -> bool | None:
    """Whether the ``source`` network's counts score higher on the same images than ``ours``; None without a label."""
    scores = [judged(counts) for counts in (ours, source)]
    mine, theirs = (one.pixel_accuracy if image_level else one.miou for one in scores)
    return None if math.isnan(mine) else theirs > mine


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan


def stacked(counts: Sequence[Tensor], classes: int) -> Tensor:
    """(n, K + 1, K + 1) of n counts, also of none."""
    return torch.stack(list(counts)) if counts else torch.zeros(0, classes + 1, classes + 1, dtype=torch.int64)
