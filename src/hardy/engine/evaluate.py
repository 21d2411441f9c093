"""THE evaluation loop: confusion counts per domain of anything that maps images to logits.

One confusion matrix per domain; mean intersection over union per domain, and over the unseen domains the mean and
the worst. A domain without a labelled pixel has no score: it is named, and stays out of every mean and minimum. Logits
exist for one batch at a time, on the device, and are resized to the labels' own size before the argmax: a score is
always at the size the labels were drawn.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn

from hardy.counts import Counts
from hardy.data.labels import MEANS
from hardy.metrics import Scores, confusion, scores
from hardy.networks.base import resize
from hardy.types import Batch

__all__ = ["DomainScores", "Table", "count", "judged", "table"]

Predictor = Callable[[Tensor], Tensor]
"""images (B, 3, H, W) in [0, 1] -> logits (B, K, H, W) or (B, K)."""


@dataclass(frozen=True)
class DomainScores:
    """The scores of one domain.

    Attributes:
        domain: its name, such as ``camvid/0001TP``.
        group: ``source-val`` for held-out images of a domain trained on, ``unseen`` for one never trained on.
        images: how many were measured.
        scores: see `hardy.metrics.Scores`.
    """

    domain: str
    group: str
    images: int
    scores: Scores


@dataclass(frozen=True)
class Table:
    """What an evaluation found: a row per domain and the numbers drawn from them, all in [0, 1].

    Attributes:
        rows: one per domain, source-val first.
        classes: names of the classes measured, in the order of ``Scores.iou``.
        image_level: True when accuracy, not intersection over union, is the headline.
        partial: True when a dataset measured lacks some of the classes, so that the `means` say more than the mIoU.
        failed: domains that could not be measured -> why, such as a torn image; they have no row.
        named: of ``classes`` those whose IoU stands beside the headline.
        counts: domain -> confusion counts of every image, where they were kept.
    """

    rows: tuple[DomainScores, ...]
    classes: tuple[str, ...]
    image_level: bool = False
    partial: bool = False
    failed: Mapping[str, str] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    counts: Mapping[str, Counts] = field(default_factory=dict, compare=False, repr=False)

    def headline(self, row: DomainScores) -> float:
        """The number by which a domain is judged: mIoU, or accuracy for image-level classes."""
        return row.scores.pixel_accuracy if self.image_level else row.scores.miou

    def score(self, row: DomainScores, name: str | None = None) -> float:
        """The `headline` of ``row``, or the IoU of the class ``name``: NaN where it occurs neither in labels nor in
        predictions."""
        return self.headline(row) if name is None else row.scores.iou[self.classes.index(name)]

    def means(self, row: DomainScores) -> Mapping[str, float]:
        """By name, such as ``miou16``: the mean IoU over the classes of each of `hardy.data.labels.MEANS` that lies
        within the classes measured; over those that occur, NaN where none does."""
        iou = dict(zip(self.classes, row.scores.iou, strict=True))
        inside = {} if self.image_level else {name: over for name, over in MEANS.items() if set(over) <= set(iou)}
        return {name: _mean(iou[one] for one in over) for name, over in inside.items()}

    @property
    def unscored(self) -> tuple[str, ...]:
        """The domains measured that have no score, for none of their pixels (or images) is labelled."""
        return tuple(row.domain for row in self.rows if math.isnan(self.headline(row)))

    def _of(self, group: str, name: str | None) -> list[tuple[float, int]]:
        """(score, number of images) of each domain of ``group`` that has a score."""
        found = [(self.score(row, name), row.images) for row in self.rows if row.group == group]
        return [(score, images) for score, images in found if not math.isnan(score)]

    def intra_of(self, name: str | None = None) -> float | None:
        """Mean over the source-val domains that have a score (for image-level classes over all their images) of the
        headline, or of the IoU of the class ``name``; None without any."""
        rows = self._of("source-val", name)
        weights = [images for _, images in rows] if self.image_level else None
        return fmean((score for score, _ in rows), weights) if rows else None

    @property
    def intra(self) -> float | None:
        """See `intra_of`."""
        return self.intra_of()

    @property
    def unseen(self) -> float | None:
        """Mean over the unseen domains that have a score, or None without any."""
        return self.summary().get("unseen")

    @property
    def worst(self) -> float | None:
        """The lowest score of an unseen domain, or None where none has a score."""
        return self.summary().get("worst")

    @property
    def gap(self) -> float | None:
        """Intra minus unseen: what leaving home costs."""
        return self.summary().get("gap")

    def summary(self, name: str | None = None) -> dict[str, float]:
        """The numbers above that exist, by name: of the headline, or of the IoU of the class ``name``."""
        intra, away = self.intra_of(name), [score for score, _ in self._of("unseen", name)]
        found = {} if intra is None else {"intra": intra}
        if away:
            found |= {"unseen": fmean(away), "worst": min(away)}
        return found if intra is None or not away else {**found, "gap": intra - found["unseen"]}

    def values(self) -> list[tuple[str, str, float]]:
        """(target, metric, value) of every number, for records."""
        metric = "accuracy" if self.image_level else "miou"
        found = []
        for row in self.rows:
            found.append((row.domain, metric, self.headline(row)))
            if not self.image_level:
                found.append((row.domain, "pixel_accuracy", row.scores.pixel_accuracy))
                found += [(row.domain, name, value) for name, value in self.means(row).items()]
                found += [(row.domain, f"iou/{name}", v) for name, v in zip(self.classes, row.scores.iou, strict=True)]
        for name, measured in ((None, metric), *((name, f"iou/{name}") for name in self.named)):
            found += [(target, measured, value) for target, value in self.summary(name).items()]
        return found


@torch.no_grad()
def count(
    predictor: Predictor,
    batches: Iterable[Batch],
    class_count: int,
    *,
    device: torch.device | str = "cpu",
    onto: np.ndarray | None = None,
    each: list[Tensor] | None = None,
) -> tuple[Tensor, int]:
    """Confusion counts (K, K) int64 on the CPU, and the number of images, of ``predictor`` over ``batches``.

    Args:
        predictor: a network or any callable from images to logits; a module is put in evaluation mode and back. No
            gradients are recorded but by a network that adapts: it turns them on for itself, and keeps its own modes.
        batches: images and labels; labels may be larger or smaller than the images.
        class_count: K of the labels' space.
        device: where predictions are made and counted.
        onto: (256,) uint8 map from the predictor's class ids onto the labels' space, or None when they are the same.
            Predictions of a class without counterpart (255) count as a miss of the pixel's class.
        each: gets the counts (K + 1, K + 1) of every image, in order.
    """
    # One column more than there are classes takes the predictions without counterpart.
    counts = torch.zeros(class_count + 1, class_count + 1, dtype=torch.int64, device=device)
    lookup = None if onto is None else torch.from_numpy(np.minimum(onto, class_count)).long().to(device)
    was_training = isinstance(predictor, nn.Module) and predictor.training
    if isinstance(predictor, nn.Module):
        predictor.eval()
    images = 0
    for batch in batches:
        there = batch.to(device)
        logits = predictor(there.images).float()
        if logits.ndim == 4:
            logits = resize(logits, there.labels.shape[-2:])
        guess = logits.argmax(dim=1)
        guess = guess if lookup is None else lookup[guess]
        if each is None:
            counts += confusion(guess, there.labels, class_count + 1)
        else:
            mine = [confusion(*pair, class_count + 1) for pair in zip(guess, there.labels, strict=True)]
            counts += torch.stack(mine).sum(dim=0)
            each += [one.cpu() for one in mine]
        images += len(batch)
    if isinstance(predictor, nn.Module):
        predictor.train(was_training)
    return counts.cpu(), images


def judged(counts: Tensor) -> Scores:
    """The scores of counts with the extra last row and column of `count`: its predictions are misses, never hits."""
    found = scores(counts)
    classes = found.iou[:-1]
    return Scores(_mean(classes), classes, found.pixel_accuracy)


def _mean(values: Iterable[float]) -> float:
    occurring = [value for value in values if not math.isnan(value)]
    return fmean(occurring) if occurring else float("nan")


def table(
    rows: Sequence[tuple[str, str, Tensor, int]],
    classes: Sequence[str],
    *,
    image_level: bool = False,
    partial: bool = False,
    failed: Mapping[str, str] | None = None,
    named: Sequence[str] = (),
    counts: Mapping[str, Counts] | None = None,
) -> Table:
    """A `Table` from (domain, group, counts, images) rows, source-val first."""
    ordered = sorted(rows, key=lambda row: row[1] != "source-val")
    judged_rows = tuple(DomainScores(name, group, images, judged(found)) for name, group, found, images in ordered)
    return Table(judged_rows, tuple(classes), image_level, partial, failed or {}, tuple(named), counts or {})
