"""Values of a student and a teacher by hand, for the losses that compare them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hardy.distillation.base import FeaturePair, PairedOutputs, Tap


class Given:
    """A `Matching` of given channels (student, teacher), one for each pair ``f0``, ``f1``, ...; vectors: stride 0."""

    def __init__(self, *channels: tuple[int, int], stride: int = 8) -> None:
        self.found = tuple(
            FeaturePair(Tap(f"f{place}", stride, student), Tap(f"f{place}", stride, teacher))
            for place, (student, teacher) in enumerate(channels)
        )

    def pairs(self, taps: Sequence[Any], owner: str, *, vectors: bool = False) -> tuple[FeaturePair, ...]:
        return self.found


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logits(student: Tensor, teacher: Tensor, counted: Tensor | None = None) -> PairedOutputs:
    """A pair of logits; every position counts unless ``counted`` says otherwise."""
    every = torch.ones(student.shape[:1] + student.shape[2:], dtype=torch.bool)
    return PairedOutputs(torch.zeros(len(student), 3, 8, 8), student, teacher, every if counted is None else counted)


def features(*pairs: tuple[Tensor, Tensor], size: tuple[int, int] = (512, 512)) -> PairedOutputs:
    """Pairs of features of images of ``size``, as `Given` names them."""
    count = len(pairs[0][0])
    nothing = torch.zeros(count, 2, dtype=torch.float64)
    values = [{f"f{place}": pair[side] for place, pair in enumerate(pairs)} for side in (0, 1)]
    images = torch.zeros(1, 3, 1, 1).expand(count, 3, *size)
    return PairedOutputs(images, nothing, nothing, torch.ones(count, dtype=torch.bool), None, *values)
