"""The loss of a set of queries, each a class and a mask: matched to the classes present, compared at sampled points.

Every class of an image is one binary mask. The Hungarian method assigns one query to each mask. The target of the other
queries is "nothing". Points that touch an ignored pixel do not count, nor do images without labelled pixels.

Source: Cheng, Misra, Schwing, Kirillov and Girdhar, "Masked-attention mask transformer for universal image
segmentation", CVPR 2022, sections 3.3 and 4.1; points as in Kirillov, Wu, He and Girdhar, "PointRend", CVPR 2020.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.parts.stages import is_fake
from hardy.types import IGNORE

__all__ = ["CLASS", "MASK", "NOTHING", "Targets", "match", "set_loss", "targets_of"]

CLASS, MASK = 2.0, 5.0
"""Weights of the class's cross-entropy and of each of the mask's two terms, in the costs and in the loss."""
NOTHING = 0.1
"""Weight of the queries without a mask in the class's cross-entropy."""
_OVERSAMPLED, _UNCERTAIN = 3.0, 0.75
"""The number of candidate points, as a multiple of the points; the share of points that are the most uncertain ones."""


class Targets(NamedTuple):
    """The targets of the queries, for the images that have labelled pixels.

    Attributes:
        images: (B',) int64, the indices of these images in the batch.
        classes: for each of them (n,) int64, the classes present, ascending.
        masks: for each of them (n, H, W) of 0 and 1.
        ignored: (B', H, W) of 0 and 1.
    """

    images: Tensor
    classes: list[Tensor]
    masks: list[Tensor]
    ignored: Tensor


def targets_of(labels: Tensor, dtype: torch.dtype = torch.float32, *, most: int = 1) -> Targets:
    """The targets of ``labels`` (B, H, W), with masks of ``dtype``. For labels without values (`is_fake`) every image
    has ``most`` classes."""
    fake, ignored = is_fake(labels), labels == IGNORE
    everywhere = torch.arange(len(labels), device=labels.device)
    images = everywhere if fake else everywhere[~ignored.flatten(1).all(dim=1)]
    classes, masks = [], []
    for image in range(len(labels)) if fake else images.tolist():
        present = torch.arange(most, device=labels.device) if fake else labels[image][~ignored[image]].unique()
        classes.append(present)
        masks.append((labels[image] == present[:, None, None]).to(dtype))
    return Targets(images, classes, masks, ignored[images].to(dtype))


def set_loss(classes: Tensor, masks: Tensor, targets: Targets, points: int) -> Tensor:
    """``2 CE + 5 BCE + 5 Dice`` of the queries of one layer; 0 without labelled pixels.

    CE: weighted mean over all queries. BCE: mean over points. Dice: ``1 - (2 sum p t + 1) / (sum p + sum t + 1)``. Both
    are summed over the matched masks of the batch and divided by their number. The points are drawn with torch's
    global generator.

    Args:
        classes: (B, Q, K + 1) logits, the last for "nothing".
        masks: (B, Q, h, w) logits.
        targets: from `targets_of`.
        points: the number of points sampled in each mask.

    Raises:
        InputError: if SciPy is not installed.
    """
    if len(targets.images) == 0:
        return 0.0 * (classes.sum() + masks.sum())
    classes, masks = classes[targets.images], masks[targets.images]
    wide = torch.promote_types(masks.dtype, torch.float32)
    classes, masks = classes.to(wide), masks.to(wide)
    pairs = match(classes, masks, targets, points)
    binary, dice = _mask_losses(masks, targets, pairs, points)
    return CLASS * _class_loss(classes, targets, pairs) + MASK * binary + MASK * dice


@torch.no_grad()
def match(classes: Tensor, masks: Tensor, targets: Targets, points: int) -> list[tuple[Tensor, Tensor]]:
    """For each image the assigned queries and the indices of their masks in its targets, both (min(Q, n),) int64.

    The sum of the costs is minimal. The cost of a pair is its loss, with ``-softmax`` in place of the cross-entropy, at
    points that all masks of an image share. A cost that is not finite is replaced by the largest number.

    Raises:
        InputError: if SciPy is not installed.
    """
    assign = _assignment()
    pairs = []
    for image, (present, binary) in enumerate(zip(targets.classes, targets.masks, strict=True)):
        places = torch.rand(1, points, 2, device=masks.device).to(masks.dtype)
        wanted, found = _at(binary[None], places)[0], _at(masks[image : image + 1], places)[0]
        counted = (_at(targets.ignored[image : image + 1, None], places)[0, 0] == 0).to(found.dtype)
        number = counted.sum().clamp(min=1)
        positive, negative = F.softplus(-found) * counted / number, F.softplus(found) * counted / number
        cost = MASK * (positive @ wanted.T + negative @ (1 - wanted).T)
        chance = found.sigmoid() * counted
        total = chance.sum(1)[:, None] + (wanted * counted).sum(1)[None]
        cost = cost + MASK * (1 - (2 * chance @ wanted.T + 1) / (total + 1))
        cost = cost - CLASS * classes[image].softmax(-1)[:, present]
        most = torch.finfo(cost.dtype).max
        cost = cost.nan_to_num(nan=most, posinf=most, neginf=most)
        if is_fake(cost):
            queries = places_of_masks = torch.arange(min(cost.shape))
        else:
            queries, places_of_masks = map(torch.as_tensor, assign(cost.cpu().numpy()))
        pairs.append((queries.to(masks.device), places_of_masks.to(masks.device)))
    return pairs


def _class_loss(classes: Tensor, targets: Targets, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Cross-entropy of all queries (B', Q, K + 1), those without a mask with weight `NOTHING`."""
    nothing = classes.shape[-1] - 1
    wanted = torch.full(classes.shape[:2], nothing, dtype=torch.int64, device=classes.device)
    for image, (queries, place) in enumerate(pairs):
        wanted[image, queries] = targets.classes[image][place]
    weights = classes.new_ones(nothing + 1)
    weights[nothing] = NOTHING
    return F.cross_entropy(classes.transpose(1, 2), wanted, weights)


def _mask_losses(
    masks: Tensor, targets: Targets, pairs: list[tuple[Tensor, Tensor]], points: int
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and Dice of the matched masks, at points where they are uncertain and at random ones."""
    found = torch.cat([masks[image][queries] for image, (queries, _) in enumerate(pairs)])[:, None]
    wanted = torch.cat([targets.masks[image][place] for image, (_, place) in enumerate(pairs)])[:, None]
    ignored = torch.cat([targets.ignored[image].expand(len(one), 1, -1, -1) for image, (one, _) in enumerate(pairs)])
    with torch.no_grad():
        places = _places(found, ignored, points)
        counted = (_at(ignored, places)[:, 0] == 0).to(found.dtype)
        wanted = _at(wanted, places)[:, 0]
    found = _at(found, places)[:, 0]
    single = F.binary_cross_entropy_with_logits(found, wanted, reduction="none")
    binary = (single * counted).sum(1) / counted.sum(1).clamp(min=1)
    chance, wanted = found.sigmoid() * counted, wanted * counted
    dice = 1 - (2 * (chance * wanted).sum(1) + 1) / (chance.sum(1) + wanted.sum(1) + 1)
    return binary.sum() / len(found), dice.sum() / len(found)


def _places(found: Tensor, ignored: Tensor, points: int) -> Tensor:
    """(N, points, 2) in [0, 1]: the most uncertain ones of three times as many random points, and new random points.

    Points that touch an ignored pixel are the least uncertain.
    """
    count, uncertain = len(found), int(_UNCERTAIN * points)
    drawn = torch.rand(count, int(points * _OVERSAMPLED), 2, device=found.device).to(found.dtype)
    certainty = _at(found, drawn)[:, 0].abs().masked_fill(_at(ignored, drawn)[:, 0] != 0, torch.inf)
    chosen = (-certainty).topk(uncertain, dim=1).indices
    first = drawn.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat([first, torch.rand(count, points - uncertain, 2, device=found.device).to(found.dtype)], dim=1)


def _at(maps: Tensor, places: Tensor) -> Tensor:
    """The values (N, C, P) of ``maps`` (N, C, h, w) at ``places`` (N, P, 2), x and y in [0, 1], bilinear."""
    return F.grid_sample(maps, 2 * places[:, None] - 1, align_corners=False)[:, :, 0]


def _assignment() -> Callable[[Any], tuple[Any, Any]]:
    try:
        from scipy.optimize import linear_sum_assignment
    except ModuleNotFoundError:
        raise InputError(
            "decoders with queries: scipy, which matches queries to classes in training, is not installed; "
            "pip install 'hardy[heads]'"
        ) from None
    assign: Callable[[Any], tuple[Any, Any]] = linear_sum_assignment
    return assign
