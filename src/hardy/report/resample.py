"""Intervals of a difference between two networks, by resampling the images on which both were measured.

Images are drawn with replacement within each domain. Their confusion counts are summed, and the score is computed from
the sums; a score is never a mean over images. Both networks of a pair, and all pairs measured on the same images, get
the same draws. Neighbouring frames of a drive are similar, so blocks of consecutive frames are drawn instead of single
frames.

The interval is between percentiles of the resampled differences. It shows how the result depends on the choice of
images; the networks, and with them the seeds, are not varied.

Source: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3 (percentiles) and 8.4
(strata); blocks that do not overlap: E. Carlstein, Annals of Statistics 14, 1986, section 2.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hardy.errors import InputError, nearest

__all__ = ["Images", "Interval", "Over", "Score", "block_sums", "bootstrap", "images", "resampled", "score"]

Score = Callable[[np.ndarray], np.ndarray]
"""A function from sums (..., 3, K) to scores (...), NaN if undefined. The 3 rows are, for each class, the number of
correctly predicted pixels, of labelled pixels, and of predicted pixels."""

Over = Literal["mean", "worst", "images"]
"""How the scores of several domains are combined: mean, lowest, or mean weighted by the numbers of images."""

ROOM = 2**22
"""The largest number of values in memory at a time for one set of images."""


@dataclass(frozen=True)
class Images:
    """The results of one network on the images of one domain.

    Attributes:
        names: of the N images, in the order of their frames.
        sums: (N, 3, K) float64: for each image and class the number of correctly predicted pixels, of labelled pixels,
            and of predicted pixels.
    """

    names: tuple[str, ...]
    sums: np.ndarray


@dataclass(frozen=True)
class Interval:
    """The difference between two arms and its interval over resampled images.

    Attributes:
        gain: mean difference over the pairs, arm minus control.
        low: its lower percentile; NaN if there is no interval, as for a domain with a single block.
        high: its upper percentile; NaN if there is no interval.
        blocks: domain -> the smallest number of blocks, or images, of a pair.
        undefined: share of the resamples without a score, which are left out.
    """

    gain: float
    low: float
    high: float
    blocks: Mapping[str, int]
    undefined: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)


def images(names: Sequence[str], matrices: np.ndarray, unmatched: np.ndarray | None = None) -> Images:
    """The images of a domain from their confusion counts, sorted by name (numbers in names are sorted as numbers).

    Args:
        names: of the N images.
        matrices: (N, K, K) whole numbers, row = label, column = prediction.
        unmatched: (N, K), by label: pixels whose predicted class is not among the K classes.
    """
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    labelled = matrices.sum(axis=2) + (0 if unmatched is None else unmatched)
    order = sorted(range(len(names)), key=lambda place: _frame(names[place]))
    sums = np.stack([hits, labelled, matrices.sum(axis=1)], axis=1)[order]
    return Images(tuple(names[place] for place in order), sums.astype(np.float64))


def score(metric: str, classes: Sequence[str]) -> Score:
    """The `Score` for ``metric`` (``miou``, ``accuracy``, ``pixel_accuracy`` or ``iou/CLASS``) and these ``classes``.

    Raises:
        InputError: for a metric that cannot be computed from counts, or an unknown class.
    """
    if metric == "miou":
        return lambda sums: _mean(_iou(sums))
    if metric in ("accuracy", "pixel_accuracy"):
        return lambda sums: _share(sums[..., 0, :].sum(axis=-1), sums[..., 1, :].sum(axis=-1))
    known = {f"iou/{name}": place for place, name in enumerate(classes)}
    if metric not in known:
        have = ["miou", "accuracy", "pixel_accuracy", *known]
        raise InputError(
            f"metric {metric!r}: it cannot be computed from counts{nearest(metric, have)}; use {', '.join(have)}"
        )
    return lambda sums: _iou(sums[..., known[metric] : known[metric] + 1])[..., 0]


def block_sums(sums: np.ndarray, length: int) -> np.ndarray:
    """``sums`` (N, 3, K) summed over blocks of ``length`` images; the last block can be shorter."""
    return np.add.reduceat(sums, np.arange(0, len(sums), length), axis=0)


def resampled(blocks: Sequence[np.ndarray], taken: Score, draws: np.random.Generator, resamples: int) -> np.ndarray:
    """The scores (M, resamples) of M networks on the same images, with the same resamples for all.

    Args:
        blocks: for each network, the sums of its n blocks (n, 3, K).
        taken: the score.
        draws: the generator that draws n of the n blocks, with replacement, ``resamples`` times.
        resamples: the number of resamples.
    """
    whole = np.stack(blocks, axis=1)  # (n, M, 3, K)
    count, flat = len(whole), whole.reshape(len(whole), -1)
    most = max(1, ROOM // max(flat.shape))
    found = []
    for first in range(0, resamples, most):
        many = min(most, resamples - first)
        picked = draws.integers(0, count, (many, count)) + count * np.arange(many)[:, None]
        weights = np.bincount(picked.ravel(), minlength=many * count).reshape(many, count)
        # Sums of whole numbers below 2 ** 53 are exact in any order, so equal networks have bit-identical scores.
        found.append(taken((weights.astype(np.float64) @ flat).reshape(many, *whole.shape[1:])))
    return np.concatenate(found).T


def bootstrap(
    pairs: Sequence[tuple[Mapping[str, Images], Mapping[str, Images]]],
    taken: Score,
    *,
    lengths: Mapping[str, int] | None = None,
    over: Over = "mean",
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The mean difference of ``pairs``, arm minus control, with its interval.

    Args:
        pairs: for each (arm, control) the images by domain; both have the same domains and images.
        taken: the score.
        lengths: domain -> number of consecutive frames in a block; 1 for other domains.
        over: how the domains of a network are combined.
        resamples: the number of resamples.
        level: the share of the resampled differences inside the interval, such as 0.95.
        seed: the seed of all draws, together with the names of the images.

    Raises:
        InputError: without pairs, or if the two networks of a pair were not measured on the same images.
    """
    if not pairs:
        raise InputError("there is no pair to compare; measure both arms")
    lengths = lengths or {}
    of_network = _resampled_sets([side for pair in pairs for side in pair], taken, lengths, resamples, seed)
    gains, fewest = [], dict[str, int]()
    for place, (arm, control) in enumerate(pairs):
        _refuse_other_images(arm, control)
        weights = [len(arm[domain].names) for domain in arm]
        both = [
            _over(np.stack([of_network[2 * place + side][domain] for domain in arm]), over, weights) for side in (0, 1)
        ]
        gains.append(both[0] - both[1])
        for domain, one in arm.items():
            many = math.ceil(len(one.names) / lengths.get(domain, 1))
            fewest[domain] = min(many, fewest.get(domain, many))
    # The first number of each row is the score of the original images.
    mean = np.mean(gains, axis=0)
    drawn = mean[1:][~np.isnan(mean[1:])]
    if min(fewest.values()) < 2 or not len(drawn):
        return Interval(float(mean[0]), math.nan, math.nan, fewest)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(mean[0]), float(low), float(high), fewest, 1 - len(drawn) / resamples)


def _resampled_sets(
    sides: Sequence[Mapping[str, Images]], taken: Score, lengths: Mapping[str, int], resamples: int, seed: int
) -> list[dict[str, np.ndarray]]:
    """For each network, its scores (1 + resamples) by domain: first as measured, then resampled.

    Networks that were measured on the same images of a domain have the same draws, independent of other networks.
    """
    found: list[dict[str, np.ndarray]] = [{} for _ in sides]
    shared: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for place, side in enumerate(sides):
        for domain, one in side.items():
            shared.setdefault((domain, one.names), []).append(place)
    for (domain, names), places in shared.items():
        if not names:
            raise InputError(f"{domain}: it has no counts of images; measure it again")
        blocks = [block_sums(sides[place][domain].sums, lengths.get(domain, 1)) for place in places]
        as_measured = taken(np.stack([each.sum(axis=0) for each in blocks]))[:, None]
        draws = np.random.default_rng([seed, *_words(domain, names)])
        rows = np.concatenate([as_measured, resampled(blocks, taken, draws, resamples)], axis=1)
        for place, row in zip(places, rows, strict=True):
            found[place][domain] = row
    return found


def _refuse_other_images(arm: Mapping[str, Images], control: Mapping[str, Images]) -> None:
    if arm.keys() != control.keys() or not arm:
        raise InputError(
            f"a pair was measured on {', '.join(arm) or 'nothing'} and on {', '.join(control) or 'nothing'}"
        )
    for domain, one in arm.items():
        if one.names != control[domain].names:
            counts = f"{len(one.names)} and {len(control[domain].names)}"
            raise InputError(f"{domain}: the two networks of a pair were measured on different images ({counts})")


def _over(scores: np.ndarray, over: Over, weights: Sequence[int]) -> np.ndarray:
    """Scores (D, R) of D domains combined to (R,); a domain without a score is left out, as in
    `hardy.engine.evaluate`."""
    if over == "worst":
        lowest: np.ndarray = np.where(np.isnan(scores), np.inf, scores).min(axis=0)
        return np.where(np.isinf(lowest), np.nan, lowest)
    return _mean(scores.T, np.asarray(weights, float) if over == "images" else None)


def _iou(sums: np.ndarray) -> np.ndarray:
    """Intersection over union (..., K), NaN for a class that is neither labelled nor predicted."""
    hits = sums[..., 0, :]
    return _share(hits, sums[..., 1, :] + sums[..., 2, :] - hits)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole``, NaN where ``whole`` is 0."""
    found = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found


def _mean(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The (weighted) mean over the last axis of the values that are not NaN."""
    there = ~np.isnan(values)
    heavy = there * (1.0 if weights is None else weights)
    return _share((np.where(there, values, 0.0) * heavy).sum(axis=-1), heavy.sum(axis=-1))


def _frame(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts ``f9`` before ``f10``."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _words(domain: str, names: Iterable[str]) -> list[int]:
    """Numbers computed from the names, which seed the draws."""
    digest = hashlib.sha256("\n".join([domain, *names]).encode()).digest()
    return [int.from_bytes(digest[place : place + 4], "little") for place in (0, 4, 8, 12)]
