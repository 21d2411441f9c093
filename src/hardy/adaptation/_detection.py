"""The domain of a batch, detected from the statistics of the first norms of the source network.

The distance between a batch and a domain is the symmetric Kullback-Leibler divergence of normal distributions with
mean m and variance v of a channel, averaged over the channels of a norm and then over the norms:

    ((v + (m - m')^2) / v' + (v' + (m - m')^2) / v) / 2 - 1

Each domain has a band of distances: up to the mean + 3 standard deviations of its earlier distances. A batch belongs to
the current domain if its distance is within the band. Otherwise it votes for the nearest other domain whose band
contains it, or for a new domain. After ``votes`` equal votes in a row the domain changes. Batches that vote for another
domain change no prototype. A domain with fewer than `LEAST` distances has no band yet: it takes every batch while it is
the current domain, and no batch otherwise.

Source: Hardy's own, for the method of Reddy, Baktashmotlagh and Arora, "Towards domain-aware knowledge distillation for
continual model generalization", WACV 2024, which does not say how the domain is found.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from hardy.adaptation._prototypes import Names, Prototypes
from hardy.ops.batch_statistics import Norm

__all__ = ["LEAST", "Detection", "Domains", "distance", "first_third"]

LEAST = 10
"""The number of distances that a domain needs before its band is used."""

SMALLEST = 1e-3
"""The smallest width of a band, so that nearly equal images, with distances near 0, belong to the same domain."""

_NEW, _NONE = -1, -2


def first_third(norms: Mapping[str, Norm]) -> dict[str, Norm]:
    """The first third of ``norms``, rounded up."""
    return dict(islice(norms.items(), (len(norms) + 2) // 3))


def distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The distance between two lists of statistics (2, C) of the same norms; 0 if they are equal."""
    total = 0.0
    for (mean, var), (mean_, var_) in zip(one, other, strict=True):
        v, w, square = var.clamp_min(1e-5), var_.clamp_min(1e-5), (mean - mean_).square()
        total += float((((v + square) / w + (w + square) / v) / 2 - 1).mean())
    return total / len(one)


class Detection(nn.Module):
    """Names the domain of each batch: ``detected/1``, ``detected/2`` and so on.

    Args:
        norms: the norms whose statistics are compared.
        most: the largest number of domains in memory; a further domain replaces the least recently used one.
        votes: the number of batches in a row that must vote for another domain.
    """

    bands: Tensor
    state: Tensor

    def __init__(self, norms: Mapping[str, Norm], most: int, votes: int = 3) -> None:
        super().__init__()
        self.needed = votes
        self.prototypes = Prototypes(norms, most)
        self.register_buffer("bands", torch.zeros(most, 3, dtype=torch.float64))  # count, mean, variance
        self.register_buffer("state", torch.tensor([_NONE, _NONE, 0, 0]))  # current, candidate, its votes, opened

    @torch.no_grad()
    def forward(self, statistics: Sequence[Tensor]) -> str:
        """The name of the domain of the batch with these ``statistics`` (2, C) per norm; updates itself in place."""
        current, candidate, votes, opened = self.state.tolist()
        away = {at: distance(statistics, self.prototypes.at(at)) for at in self.prototypes.names.listed().values()}
        choice = self._vote(current, away)
        if choice != current:
            votes = votes + 1 if choice == candidate else 1
            candidate = choice
            if current == _NONE or votes >= self.needed:
                if choice == _NEW:
                    opened += 1
                    choice = self.prototypes.place(f"detected/{opened}")[0]
                    self.bands[choice] = 0
                current = choice
        if choice == current:
            candidate, votes = _NONE, 0
            self._learn(current, statistics, away)
        self.state.copy_(torch.tensor([current, candidate, votes, opened]))
        return next(name for name, at in self.prototypes.names.listed().items() if at == current)

    def current(self) -> str | None:
        """The name of the domain of the last batch; None before the first."""
        place = int(self.state[0])
        return next((name for name, at in self.prototypes.names.listed().items() if at == place), None)

    def _vote(self, current: int, away: Mapping[int, float]) -> int:
        if current != _NONE and (self.bands[current, 0] < LEAST or away[current] <= self._limit(current)):
            return current
        inside = [at for at in away if at != current and self.bands[at, 0] >= LEAST and away[at] <= self._limit(at)]
        return min(inside, key=lambda at: away[at], default=_NEW)

    def _limit(self, place: int) -> float:
        _, mean, variance = self.bands[place].tolist()
        return float(mean + max(3 * variance**0.5, SMALLEST))

    def _learn(self, place: int, statistics: Sequence[Tensor], away: Mapping[int, float]) -> None:
        """Update the band and the prototype of the domain at ``place``, in place."""
        if place in away and self.prototypes.counts[place]:
            count, mean, variance = self.bands[place].tolist()
            weight = 1 / min(count + 1, 100)
            apart = away[place] - mean
            self.bands[place] = torch.tensor(
                [count + 1, mean + weight * apart, (1 - weight) * (variance + weight * apart**2)]
            )
        self.prototypes.names.place(next(n for n, at in self.prototypes.names.listed().items() if at == place))
        self.prototypes.update(place, statistics)


class Domains(nn.Module):
    """The domain of every batch, given or detected, and counts of how given and detected domains match.

    Args:
        norms: all norms of the source network; the first third of them is used.
        most: the largest number of domains in memory.
        detected: always detect the domain; a given domain is then used only in `confusion`.
    """

    met: Tensor

    def __init__(self, norms: Mapping[str, Norm], most: int, *, detected: bool) -> None:
        super().__init__()
        self.detected = detected
        self.norms = list(first_third(norms).values())
        self.detection = Detection(first_third(norms), most)
        self.given, self.found = Names(most), Names(most)
        self.register_buffer("met", torch.zeros(most, most, dtype=torch.int64))

    def of(self, given: str | None, statistics: Callable[[], Sequence[Tensor]]) -> str:
        """The name of the domain of a batch; updates itself in place.

        Args:
            given: the name that was entered, or None.
            statistics: called if the domain is detected; returns the statistics of the first third of the source's
                norms.
        """
        if given is not None and not self.detected:
            return given
        name: str = self.detection(statistics())
        if given is not None:
            row, new = self.given.place(given)
            self.met[row] *= not new
            column, new = self.found.place(name)
            self.met[:, column] *= not new
            self.met[row, column] += 1
        return name

    def last(self, given: str | None) -> str | None:
        """The name of the domain without a new detection: ``given``, or the last detected one; None before it."""
        return given if given is not None and not self.detected else self.detection.current()

    def confusion(self) -> dict[str, dict[str, int]]:
        """For each given domain, the number of its batches by detected domain."""
        found = self.found.listed()
        return {
            given: {name: int(self.met[row, column]) for name, column in found.items() if self.met[row, column]}
            for given, row in self.given.listed().items()
        }
