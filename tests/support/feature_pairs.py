"""Features given by hand to a loss of features, in place of those of two networks."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from hardy.distillation.base import FeaturePair, PairedOutputs, Tap


class Given:
    """Stands for `Matching`: one pair of maps of the given channels, whatever taps are asked for."""

    def __init__(self, student: int, teacher: int, pairs: int = 1) -> None:
        self.student = SimpleNamespace(image_level=False)
        self.found = tuple(
            FeaturePair(Tap(f"own{place}", 4, student), Tap(f"taught{place}", 4, teacher)) for place in range(pairs)
        )

    def pairs(self, taps: Any, owner: str, *, vectors: bool = False) -> tuple[FeaturePair, ...]:
        return self.found


def given(
    student: Tensor, teacher: Tensor, labels: Tensor | None = None, counted: Tensor | None = None
) -> PairedOutputs:
    """``student`` and ``teacher`` (B, C, h, w) as the values of the first pair."""
    every = torch.ones(len(student), *student.shape[-2:], dtype=torch.bool)
    images = torch.zeros(len(student), 3, 8, 8)
    counted = every if counted is None else counted
    return PairedOutputs(images, student, student, counted, labels, {"own0": student}, {"taught0": teacher})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(x: Tensor, seed: int = 9) -> Tensor:
    """``x`` (B, C, h, w) with its channels rotated, and each position longer by a factor of its own: equal cosines."""
    turn = torch.linalg.qr(draw(x.shape[1], x.shape[1], seed=seed))[0]
    return torch.einsum("dc,bchw->bdhw", turn, x) * (1 + draw(len(x), 1, *x.shape[2:], seed=seed).abs())
