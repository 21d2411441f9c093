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
    """

    rows: tuple[DomainScores, ...]
    classes: tuple[str, ...]
    image_level: bool = False
    partial: bool = False
    failed: Mapping[str, str] = field(default_factory=dict)

    def headline(self, row: DomainScores) -> float:
        """The number by which a domain is judged: mIoU, or accuracy for image-level classes."""
        return row.scores.pixel_accuracy if self.image_level else row.scores.miou

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

    def _of(self, group: str) -> list[DomainScores]:
        return [row for row in self.rows if row.group == group and not math.isnan(self.headline(row))]

    @property
    def intra(self) -> float | None:
        """Mean over the source-val domains that have a score, or for image-level classes over all their images; None
        without any."""
        rows = self._of("source-val")
        weights = [row.images for row in rows] if self.image_level else None
        return fmean(map(self.headline, rows), weights) if rows else None

    @property
    def unseen(self) -> float | None:
        """Mean over the unseen domains that have a score, or None without any."""
        rows = self._of("unseen")
        return fmean(map(self.headline, rows)) if rows else None

    @property
    def worst(self) -> float | None:
        """The lowest score of an unseen domain, or None where none has a score."""
        return min(map(self.headline, self._of("unseen")), default=None)

    @property
    def gap(self) -> float | None:
        """Intra minus unseen: what leaving home costs."""
        return None if self.intra is None or self.unseen is None else self.intra - self.unseen

    def summary(self) -> dict[str, float]:
        """The numbers above that exist, by name."""
        named = {"intra": self.intra, "unseen": self.unseen, "worst": self.worst, "gap": self.gap}
        return {name: value for name, value in named.items() if value is not None}

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
        return found + [(name, metric, value) for name, value in self.summary().items()]


@torch.no_grad()
def count(
    predictor: Predictor,
    batches: Iterable[Batch],
    class_count: int,
    *,
    device: torch.device | str = "cpu",
    onto: np.ndarray | None = None,
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
        counts += confusion(guess if lookup is None else lookup[guess], there.labels, class_count + 1)
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
) -> Table:
    """A `Table` from (domain, group, counts, images) rows, source-val first."""
    ordered = sorted(rows, key=lambda row: row[1] != "source-val")
    judged_rows = tuple(DomainScores(name, group, images, judged(counts)) for name, group, counts, images in ordered)
    return Table(judged_rows, tuple(classes), image_level, partial, failed or {})
