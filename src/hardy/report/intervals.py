"""Intervals of one network's scores: from the counts of its images if they were kept, else from its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hardy.counts import Counts
from hardy.report import resample
from hardy.report.runs import Network

__all__ = ["Interval", "confusion", "interval"]

RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """The 95 % interval of the score over resampled images, or the lowest and the highest score of the seeds.

    ``of`` says which, with the number of images or seeds.
    """

    low: float
    high: float
    of: str


def interval(network: Network, domain: str) -> Interval | None:
    """The interval of the score of ``network`` on ``domain``; None if neither images nor seeds give one."""
    kept = [one.counts.get(domain) for one in network.runs]
    if all(one is not None and len(one.names) > 1 for one in kept):
        return _of_images([one for one in kept if one is not None], domain, network.metric)
    values = [one.scores.get((domain, network.metric)) for one in network.runs]
    known = [value for value in values if value is not None]
    return Interval(min(known), max(known), f"{len(known)} seeds") if len(known) > 1 else None


def _of_images(kept: Sequence[Counts], domain: str, metric: str) -> Interval | None:
    """The 2.5th and the 97.5th percentile over resampled images; with several seeds, of the mean over seeds."""
    scores, taken = [], resample.score(metric, kept[0].classes)
    for one in kept:
        draws = np.random.default_rng([7, *domain.encode()])
        sums = resample.images(one.names, one.matrices, one.unmatched).sums
        scores.append(resample.resampled([sums], taken, draws, RESAMPLES)[0])
    means = np.mean(scores, axis=0)
    known = means[~np.isnan(means)]
    if not known.size:
        return None
    low, high = np.percentile(known, (2.5, 97.5))
    return Interval(float(low), float(high), f"{len(kept[0].names)} images")


def confusion(network: Network, domains: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray] | None:
    """The classes and the pixel counts (K, K) by truth and prediction, of the first seed over ``domains``.

    None if no counts were kept.
    """
    kept = [one for name in domains if (one := network.first.counts.get(name)) is not None]
    if not kept:
        return None

    return kept[0].classes, np.sum([one.matrices.sum(axis=0) for one in kept], axis=0)
