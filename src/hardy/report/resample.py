"""Intervals of a difference between two networks, by resampling the images on which both were measured.

Images are drawn with replacement within each domain, their confusion counts added up, and the score taken of the sums;
a score is never a mean over images. Both networks of a pair, and all pairs measured on the same images, are given the
same draws. Frames of one drive resemble their neighbours: there, blocks of consecutive frames are drawn, not frames.

The interval lies between the percentiles of the resampled differences. It says how the result depends on which images
were measured; the networks, and with them the seeds, stay as they are.

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
"""Sums (..., 3, K) -> score (...), NaN where it is undefined. The 3 are pixels of a class predicted right, labelled so,
and predicted so."""

Over = Literal["mean", "worst", "images"]
"""How the scores of several domains become one: their mean, the lowest, or their mean weighted by numbers of images."""

ROOM = 2**22
"""Numbers held at a time for one set of images."""


@dataclass(frozen=True)
class Images:
    """What one network made of the images of one domain.

    Attributes:
        names: of the N images, in the order of their frames.
        sums: (N, 3, K) float64: per image and class the pixels predicted right, labelled so, and predicted so.
    """

    names: tuple[str, ...]
    sums: np.ndarray


@dataclass(frozen=True)
class Interval:
    """The difference between two arms, and where it lies when other images are drawn.

    Attributes:
        gain: mean difference over the pairs, arm less control.
        low: its lower percentile; NaN where nothing can be said, as of a domain with a single block.
        high: its upper percentile.
        blocks: domain -> the fewest blocks, or images, that were drawn from in a pair.
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
    """The images of a domain from their confusion counts, sorted by name with numbers in it read as numbers.

    Args:
        names: of the N images.
        matrices: (N, K, K) whole numbers, row = label, column = prediction.
        unmatched: (N, K), by label: pixels for which something outside the K classes was predicted.
    """
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    labelled = matrices.sum(axis=2) + (0 if unmatched is None else unmatched)
    order = sorted(range(len(names)), key=lambda place: _frame(names[place]))
    sums = np.stack([hits, labelled, matrices.sum(axis=1)], axis=1)[order]
    return Images(tuple(names[place] for place in order), sums.astype(np.float64))


def score(metric: str, classes: Sequence[str]) -> Score:
    """``metric`` (``miou``, ``accuracy``, ``pixel_accuracy`` or ``iou/CLASS``) of sums over these ``classes``.

    Raises:
        InputError: for a metric that counts do not give, or a class that is not there.
    """
    if metric == "miou":
        return lambda sums: _mean(_iou(sums))
    if metric in ("accuracy", "pixel_accuracy"):
        return lambda sums: _share(sums[..., 0, :].sum(axis=-1), sums[..., 1, :].sum(axis=-1))
    known = {f"iou/{name}": place for place, name in enumerate(classes)}
    if metric not in known:
        have = ["miou", "accuracy", "pixel_accuracy", *known]
        raise InputError(
            f"metric {metric!r}: counts do not give it{nearest(metric, have)}; they give {', '.join(have)}"
        )
    return lambda sums: _iou(sums[..., known[metric] : known[metric] + 1])[..., 0]


def block_sums(sums: np.ndarray, length: int) -> np.ndarray:
    """``sums`` (N, 3, K) added up over blocks of ``length`` images, the last one perhaps shorter."""
    return np.add.reduceat(sums, np.arange(0, len(sums), length), axis=0)


def resampled(blocks: Sequence[np.ndarray], taken: Score, draws: np.random.Generator, resamples: int) -> np.ndarray:
    """The scores (M, resamples) of M networks on the same images, each resample the same for all.

    Args:
        blocks: of each network, (n, 3, K).
        taken: the score of sums.
        draws: draws n of the n blocks, with replacement, ``resamples`` times.
        resamples: how many.
    """
    whole = np.stack(blocks, axis=1)  # (n, M, 3, K)
    count, flat = len(whole), whole.reshape(len(whole), -1)
    most = max(1, ROOM // max(flat.shape))
    found = []
    for first in range(0, resamples, most):
        many = min(most, resamples - first)
        picked = draws.integers(0, count, (many, count)) + count * np.arange(many)[:, None]
        weights = np.bincount(picked.ravel(), minlength=many * count).reshape(many, count)
        # Whole numbers below 2 ** 53 add up exactly in any order, so equal networks have equal scores to the last bit.
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
    """The mean difference of ``pairs``, arm less control, with its interval.

    Args:
        pairs: of each (arm, control) the images by domain; both hold the same domains and images.
        taken: the score of sums.
        lengths: domain -> consecutive frames of a block; 1 where it is not named.
        over: how the domains of a network become one number.
        resamples: how many times images are drawn.
        level: share of the resampled differences that lies inside.
        seed: with the names of the images, of all draws.

    Raises:
        InputError: without pairs, or where the two of a pair were not measured on the same images.
    """
    if not pairs:
        raise InputError("nothing to compare: there is no pair; measure both arms")
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
    # The first number of each row is of the images as they are.
    mean = np.mean(gains, axis=0)
    drawn = mean[1:][~np.isnan(mean[1:])]
    if min(fewest.values()) < 2 or not len(drawn):
        return Interval(float(mean[0]), math.nan, math.nan, fewest)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(mean[0]), float(low), float(high), fewest, 1 - len(drawn) / resamples)


def _resampled_sets(
    sides: Sequence[Mapping[str, Images]], taken: Score, lengths: Mapping[str, int], resamples: int, seed: int
) -> list[dict[str, np.ndarray]]:
    """Of each network by domain its scores (1 + resamples): first as measured, then resampled.

    Networks measured on the same images of a domain share the draws, whichever other networks there are.
    """
    found: list[dict[str, np.ndarray]] = [{} for _ in sides]
    shared: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for place, side in enumerate(sides):
        for domain, one in side.items():
            shared.setdefault((domain, one.names), []).append(place)
    for (domain, names), places in shared.items():
        if not names:
            raise InputError(f"{domain}: counts of no image; measure it again")
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
            raise InputError(f"{domain}: the two of a pair were not measured on the same images ({counts} of them)")


def _over(scores: np.ndarray, over: Over, weights: Sequence[int]) -> np.ndarray:
    """Scores (D, R) of D domains as one; a domain without a score is left out, as in `hardy.engine.evaluate`."""
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
    """The mean over the last axis of what is not NaN."""
    there = ~np.isnan(values)
    heavy = there * (1.0 if weights is None else weights)
    return _share((np.where(there, values, 0.0) * heavy).sum(axis=-1), heavy.sum(axis=-1))


def _frame(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts ``f9`` before ``f10``."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _words(domain: str, names: Iterable[str]) -> list[int]:
    """The names as numbers that seed the draws."""
    digest = hashlib.sha256("\n".join([domain, *names]).encode()).digest()
    return [int.from_bytes(digest[place : place + 4], "little") for place in (0, 4, 8, 12)]
