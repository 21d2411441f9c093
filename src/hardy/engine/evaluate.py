"""The one evaluation loop: confusion counts per domain, for any function from images to logits.

Each domain has one confusion matrix and its mean intersection over union; the unseen domains have their mean and the
worst. A domain without a labelled pixel has no score: it is named, and is not part of any mean or minimum. Logits are
computed for one batch at a time, on the device, and are resized to the size of the labels before the argmax. So a score
is always measured at the original size of the labels.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn

from hardy.counts import Counts
from hardy.data.label_spaces import MEANS
from hardy.engine.guard_log import GuardLog
from hardy.engine.worst import Finder
from hardy.metrics import Scores, confusion, scores
from hardy.networks.base import resize
from hardy.ops.kept_memory import kept_memory
from hardy.pictures import Worst
from hardy.types import Batch

__all__ = ["DomainScores", "ScoreTable", "build_table", "count", "evaluating", "judged"]

Predictor = Callable[[Tensor], Tensor]
"""images (B, 3, H, W) in [0, 1] -> logits (B, K, H, W) or (B, K)."""


@dataclass(frozen=True)
class DomainScores:
    """The scores of one domain.

    Attributes:
        domain: its name, such as ``camvid/0001TP``.
        group: ``source-val`` for held-out images of a source domain, ``unseen`` for a domain never trained on.
        images: how many were measured.
        scores: see `hardy.metrics.Scores`.
    """

    domain: str
    group: str
    images: int
    scores: Scores


@dataclass(frozen=True)
class ScoreTable:
    """The scores of an evaluation: a row per domain and the numbers computed from them, all in [0, 1].

    Attributes:
        rows: one per domain, source-val first.
        classes: names of the classes measured, in the order of ``Scores.iou``.
        image_level: True when the headline number is accuracy, not intersection over union.
        partial: True when a dataset lacks some of the classes, so that the `means` are more informative than the mIoU.
        failed: domain -> the reason why it could not be measured, such as a torn image; it has no row.
        named: of ``classes`` those whose IoU is shown with the headline number.
        counts: domain -> confusion counts of every image, where they were kept.
        pictures: of the worst images, where they were kept.
        guard: what the guard of a test-time method did; None without one.
    """

    rows: tuple[DomainScores, ...]
    classes: tuple[str, ...]
    image_level: bool = False
    partial: bool = False
    failed: Mapping[str, str] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    counts: Mapping[str, Counts] = field(default_factory=dict, compare=False, repr=False)
    pictures: Worst = field(default_factory=lambda: Worst({}, {}), compare=False, repr=False)
    guard: GuardLog | None = field(default=None, compare=False, repr=False)

    def headline(self, row: DomainScores) -> float:
        """The headline number of a domain: mIoU, or accuracy for image-level classes."""
        return row.scores.pixel_accuracy if self.image_level else row.scores.miou

    def score(self, row: DomainScores, name: str | None = None) -> float:
        """The `headline` of ``row``, or the IoU of the class ``name``: NaN where it occurs neither in labels nor in
        predictions."""
        return self.headline(row) if name is None else row.scores.iou[self.classes.index(name)]

    def means(self, row: DomainScores) -> Mapping[str, float]:
        """By name, such as ``miou16``: the mean IoU over each set of `hardy.data.label_spaces.MEANS` whose classes are
        all measured. Classes that do not occur are left out; NaN when none occurs."""
        iou = dict(zip(self.classes, row.scores.iou, strict=True))
        inside = {} if self.image_level else {name: over for name, over in MEANS.items() if set(over) <= set(iou)}
        return {name: _mean(iou[one] for one in over) for name, over in inside.items()}

    @property
    def unscored(self) -> tuple[str, ...]:
        """The measured domains without a score, because none of their pixels (or images) is labelled."""
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
        """Mean over the unseen domains with a score; None without any."""
        return self.summary().get("unseen")

    @property
    def worst(self) -> float | None:
        """The lowest score of an unseen domain; None when none has a score."""
        return self.summary().get("worst")

    @property
    def gap(self) -> float | None:
        """The domain gap, `intra` minus `unseen`; None without one of them."""
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
        values = []
        for row in self.rows:
            values.append((row.domain, metric, self.headline(row)))
            if not self.image_level:
                values.append((row.domain, "pixel_accuracy", row.scores.pixel_accuracy))
                values += [(row.domain, name, value) for name, value in self.means(row).items()]
                values += [(row.domain, f"iou/{name}", v) for name, v in zip(self.classes, row.scores.iou, strict=True)]
        for name, measured in ((None, metric), *((name, f"iou/{name}") for name in self.named)):
            values += [(target, measured, value) for target, value in self.summary(name).items()]
        return values


@kept_memory()
@torch.no_grad()
def count(
    predictor: Predictor,
    batches: Iterable[Batch],
    class_count: int,
    *,
    device: torch.device | str = "cpu",
    onto: np.ndarray | None = None,
    each: list[Tensor] | None = None,
    finder: Finder | None = None,
) -> tuple[Tensor, int]:
    """Confusion counts (K, K) int64 on the CPU, and the number of images, of ``predictor`` over ``batches``.

    Args:
        predictor: a network or any callable from images to logits. A module is set to evaluation mode, and back to its
            mode at the end. No gradients are recorded, except by a network that adapts: it enables them itself and
            sets the modes of its own modules.
        batches: images and labels, which may be larger or smaller than the images.
        class_count: K, the number of classes of the labels.
        device: for the predictions and the counts.
        onto: (256,) uint8 map from the predictor's class ids to those of the labels; None when they are the same. A
            predicted class that the labels do not have (255) counts as a miss of the pixel's class.
        each: gets the counts (K + 1, K + 1) of every image, in order.
        finder: gets every image that has pixel labels, in order.
    """
    # One extra column is for predicted classes that the labels do not have.
    counts = torch.zeros(class_count + 1, class_count + 1, dtype=torch.int64, device=device)
    lookup = None if onto is None else torch.from_numpy(np.minimum(onto, class_count)).long().to(device)
    images = 0
    with evaluating(predictor):
        for batch in batches:
            on_device = batch.to(device)
            logits = predictor(on_device.images).float()
            if logits.ndim == 4:
                logits = resize(logits, on_device.labels.shape[-2:])
            best = logits.argmax(dim=1)
            best = best if lookup is None else lookup[best]
            finding = finder is not None and finder.most and best.ndim == 3
            if each is None and not finding:
                counts += confusion(best, on_device.labels, class_count + 1)
            else:
                mine = [confusion(*pair, class_count + 1) for pair in zip(best, on_device.labels, strict=True)]
                counts += torch.stack(mine).sum(dim=0)
                _keep(batch, best, mine, each, finder if finding else None)
            images += len(batch)
    return counts.cpu(), images


@contextmanager
def evaluating(predictor: object) -> Iterator[None]:
    """If ``predictor`` is a module, it is in evaluation mode inside the block, and afterwards in its mode of before."""
    if not isinstance(predictor, nn.Module):
        yield
        return
    was_training = predictor.training
    predictor.eval()
    try:
        yield
    finally:
        predictor.train(was_training)


def _keep(
    batch: Batch, best: Tensor, counts: Sequence[Tensor], each: list[Tensor] | None, finder: Finder | None
) -> None:
    """Add the ``counts`` of the images of ``batch`` to ``each``, and show them to ``finder``, where there is one."""
    if each is not None:
        each += [one.cpu() for one in counts]
    for image, truth, one, mine in zip(batch.images, batch.labels, best, counts, strict=True) if finder else ():
        finder.show(image, truth, one, judged(mine.cpu()).miou)  # type: ignore[union-attr]


def judged(counts: Tensor) -> Scores:
    """The scores of ``counts`` from `count`: predictions in the extra last column are misses, never hits."""
    with_extra = scores(counts)
    classes = with_extra.iou[:-1]
    return Scores(_mean(classes), classes, with_extra.pixel_accuracy)


def _mean(values: Iterable[float]) -> float:
    occurring = [value for value in values if not math.isnan(value)]
    return fmean(occurring) if occurring else float("nan")


def build_table(
    rows: Sequence[tuple[str, str, Tensor, int]],
    classes: Sequence[str],
    *,
    image_level: bool = False,
    partial: bool = False,
    failed: Mapping[str, str] | None = None,
    named: Sequence[str] = (),
    counts: Mapping[str, Counts] | None = None,
    pictures: Worst | None = None,
    guard: GuardLog | None = None,
) -> ScoreTable:
    """A `ScoreTable` from (domain, group, counts, images) rows, source-val first."""
    ordered = sorted(rows, key=lambda row: row[1] != "source-val")
    judged_rows = tuple(DomainScores(name, group, images, judged(found)) for name, group, found, images in ordered)
    kept = counts or {}, pictures or Worst({}, {}), guard
    return ScoreTable(judged_rows, tuple(classes), image_level, partial, failed or {}, tuple(named), *kept)
