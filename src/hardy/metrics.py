"""Confusion counts, and the scores computed from them.

The standard mean intersection over union: one confusion matrix per data set (not a mean over images), intersection over
union per class, and the mean over the classes that occur in the labels or in the predictions of that data set.
Source: Everingham et al., IJCV 2010 (VOC challenge), section 4.1; Cordts et al., CVPR 2016 (Cityscapes), section 4.1.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hardy.types import IGNORE

__all__ = ["Scores", "confusion", "scores"]


def confusion(predictions: Tensor, labels: Tensor, class_count: int) -> Tensor:
    """Counts (K, K) int64: row = label, column = prediction, over all pixels whose label is not `IGNORE`.

    The counts are on the device of ``labels``. On the CPU numpy is used, which is 8 to 20 times faster than torch.

    Args:
        predictions: class ids, any shape, in [0, K).
        labels: class ids of the same shape, with `IGNORE` where unlabelled.
        class_count: K.
    """
    count = _by_numpy if labels.device.type == "cpu" else _by_torch
    return count(predictions, labels, class_count).view(class_count, class_count)


def _by_numpy(predictions: Tensor, labels: Tensor, class_count: int) -> Tensor:
    truth, guess = labels.numpy().ravel(), predictions.numpy().ravel()
    kept = truth != IGNORE
    flat = truth[kept].astype(np.int64) * class_count + guess[kept]
    return torch.from_numpy(np.bincount(flat, minlength=class_count**2))


def _by_torch(predictions: Tensor, labels: Tensor, class_count: int) -> Tensor:
    # The ignored pixels go to one extra bin: faster on a GPU than a masked copy.
    flat = torch.where(labels == IGNORE, class_count**2, labels.long() * class_count + predictions.long())
    return torch.bincount(flat.flatten(), minlength=class_count**2 + 1)[: class_count**2]


@dataclass(frozen=True)
class Scores:
    """The scores of a confusion matrix, all in [0, 1].

    Attributes:
        miou: mean intersection over union over the classes that occur; NaN if no class occurs.
        iou: per class; NaN for a class that occurs neither in labels nor in predictions.
        pixel_accuracy: share of labelled pixels (or images) with a correct prediction.
    """

    miou: float
    iou: tuple[float, ...]
    pixel_accuracy: float


def scores(counts: Tensor) -> Scores:
    """The scores of a confusion matrix (K, K), rows labels, columns predictions."""
    table = counts.double().cpu()
    hits = table.diagonal()
    union = table.sum(0) + table.sum(1) - hits
    iou = torch.where(union > 0, hits / union.clamp(min=1), torch.nan)
    accuracy = float(hits.sum() / table.sum()) if table.sum() > 0 else float("nan")
    return Scores(float(iou.nanmean()), tuple(iou.tolist()), accuracy)
