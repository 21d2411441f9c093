"""The parts of `dose` as functions: its settings, views, pseudo-labels and the terms of its loss.

Source: see `hardy.adaptation.dose`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from hardy.errors import InputError, nearest, quoted
from hardy.ops.views import View, draw_views, jittered, noisy

__all__ = [
    "CONFIDENT",
    "Memory",
    "Parts",
    "apart",
    "cross_entropy",
    "filled",
    "pseudo_labels",
    "restore_",
    "two_batches",
    "undone",
]

CONFIDENT = 0.69
"""With ``labels="confident"``, pseudo-labels with a probability above this are used."""

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[int, Field(ge=1)]


class Parts(BaseModel):
    """Settings of one update: weights of the terms, their distance, the number of views, and so on; see `DoSe`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    layer: Weight = 1.0
    domain: Weight = 1.0
    distance: Literal["mean", "sum", "scaled"] = "mean"
    views: Positive = 4
    restore_every: Positive = 1
    optimiser: Literal["adam", "sgd"] = "adam"
    prediction: Literal["prototype", "batch", "source"] = "prototype"


class Memory(BaseModel):
    """Settings of the buffer; see `DoSe`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    capacity: Annotated[int, Field(ge=0, le=4096)] = 64
    vog: Literal["code", "printed", "random"] = "code"
    every: Positive = 10
    replay_every: Positive = 100
    replayed: Positive = 8


Settings = TypeVar("Settings", bound=BaseModel)


def filled(kind: type[Settings], name: str, given: Mapping[str, Any]) -> Settings:
    """The settings ``kind`` of the option ``name``, with defaults for the keys that are not ``given``.

    Raises:
        InputError: for an unknown key or a wrong value.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        unknown = next((key for key in given if key not in kind.model_fields), None)
        if unknown is not None:
            hint = nearest(str(unknown), kind.model_fields)
            raise InputError(
                f"dose: {name} has no {quoted(unknown)}{hint}; it has: {', '.join(kind.model_fields)}"
            ) from None
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"dose: {name}.{key} {quoted(first['input'])} does not fit ({first['msg']}); {name} has: "
            f"{', '.join(kind.model_fields)}"
        ) from None


def two_batches(
    images: Tensor, views: int, *, light: bool, least: int
) -> tuple[list[View], Tensor, list[View], Tensor]:
    """Views of ``images`` (B, 3, H, W) in two batches: (geometry, images) of the first, then of the second.

    The first batch holds the images and half of the other views, at the original size. The second holds the other half
    at a single random scale. Each view is mirrored with probability 1/2. With one view both batches are the images.
    With ``light`` the second batch is the mirrored images with noise.
    """
    if light:
        return [View()], images, [View(flip=True)], noisy(images.flip(-1), 0.005)
    if views == 1:
        return [View()], images, [View()], images
    scale = draw_views(1)[0].scale
    here = [View(), *draw_views((views + 1) // 2 - 1, (1.0,))]
    there = draw_views(views // 2, (scale,))
    seen = [images, *(view.of(jittered(images)) for view in here[1:])]
    return here, torch.cat(seen), there, torch.cat([view.of(jittered(images), least) for view in there])


def undone(logits: Tensor, views: Sequence[View], size: Sequence[int]) -> list[Tensor]:
    """The logits of each view in a batch, mapped back to the geometry of images of ``size`` (H, W)."""
    return [view.undo(part, size) for view, part in zip(views, logits.chunk(len(views)), strict=True)]


def pseudo_labels(probabilities: Tensor, kind: str) -> Tensor:
    """Targets (B, K, ...) from mean probabilities of the same shape; all 0 at pixels that do not count.

    Args:
        probabilities: of the teacher.
        kind: ``soft`` for the probabilities, ``hard`` for one-hot targets of the most probable class, ``confident`` for
            one-hot targets only where that class has a probability above `CONFIDENT`.
    """
    if kind == "soft":
        return probabilities
    best, classes = probabilities.max(1, keepdim=True)
    hard = torch.zeros_like(probabilities).scatter_(1, classes, 1.0)
    return hard * (best > CONFIDENT) if kind == "confident" else hard


def cross_entropy(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """The mean over views of ``-sum_k y_k log p_k``, averaged over the pixels that count; 0 if none does."""
    counted = targets.sum(1).gt(0).sum().clamp_min(1)
    each = [-(targets * view.float().log_softmax(1)).sum() / counted for view in logits]
    return torch.stack(each).mean()


def apart(one: Iterable[Tensor], other: Iterable[Tensor], form: str, source: Iterable[Tensor]) -> Tensor:
    """The mean over norms of the squared distance between two statistics (2, C).

    Args:
        one: the first statistics of each norm.
        other: the second statistics of each norm.
        form: ``mean`` over the 2 C numbers, so that wide and narrow norms have the same weight; ``sum``, the squared
            Frobenius norm; or ``scaled``, the mean after means are divided by the source's standard deviation and
            variances by the source's variance.
        source: the source's statistics of each norm.
    """
    norms = list(one)
    mine, theirs, start = (torch.cat(list(of), 1) for of in (norms, other, source))
    square = (mine - theirs).square()
    if form == "scaled":
        var = start[1].clamp_min(1e-5)
        square = square / torch.stack((var, var.square()))
    if form != "sum":
        square = square / torch.cat([value.new_full((value.shape[1],), value.numel()) for value in norms])
    return square.sum() / len(norms)


@torch.no_grad()
def restore_(values: Sequence[Tensor], source: Sequence[Tensor], probability: float) -> None:
    """Set each number of ``values`` to that of ``source`` with ``probability``, in place."""
    sizes = [value.numel() for value in values]
    places = _hits(sum(sizes), probability)
    ends = torch.tensor(sizes).cumsum(0)
    own = places.split(torch.diff(torch.searchsorted(places, ends), prepend=torch.zeros(1, dtype=torch.int64)).tolist())
    for value, start, hit, end, size in zip(values, source, own, ends.tolist(), sizes, strict=True):
        here = (hit - (end - size)).to(value.device)
        flat = value.reshape(-1)  # a view, or where the channels are stored last a copy
        flat.index_copy_(0, here, start.reshape(-1).index_select(0, here))
        if not value.is_contiguous():
            value.copy_(flat.view(value.shape))


def _hits(count: int, probability: float) -> Tensor:
    """The indices (N,), in order, of the successes among ``count`` independent draws with ``probability``.

    The gaps between successes have a geometric distribution, so only about N numbers are drawn (Devroye, "Non-uniform
    random variate generation", 1986, chapter X.2).
    """
    if probability in (0, 1):
        return torch.arange(count if probability else 0)
    found, last = [], -1
    while last < count:
        mean = (count - last) * probability
        gaps = torch.rand(int(mean + 6 * math.sqrt(mean)) + 1).neg_().log1p_().div_(math.log1p(-probability)).floor_()
        found.append(gaps.long().add_(1).cumsum_(0).add_(last))
        last = int(found[-1][-1])
    places = torch.cat(found)
    return places[: int(torch.searchsorted(places, count))]
