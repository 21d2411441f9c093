"""Masked generation: a generator predicts the teacher's features from a quarter of the student's positions.

    L = 2e-5 (512 1024 / (H W)) / N * sum over pairs and elements of (G(m A(f_s)) - f_t)^2

A is a 1x1 convolution without bias, trained with the student; it is left out if the channels are the same. A new mask m
is drawn for each image and position, the same for all channels: 0 with probability ``masked``, else 1. G is a 3x3
convolution, ReLU and a 3x3 convolution with the teacher's channels. If the maps differ in size, the student's is
resized to the teacher's before it is masked.

N is the number of images and H x W their size. The paper's sum grows with the map, so it is scaled to the paper's crops
of 512 x 1024: at that size the value is the paper's.

Source: Yang et al., "Masked generative distillation", ECCV 2022, eq. 2 to 5 and section 4.3.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hardy.distillation._features import FeatureLoss
from hardy.distillation._matching import Matching
from hardy.distillation.base import PairedOutputs
from hardy.errors import InputError

__all__ = ["MGD"]

_PIXELS = 512 * 1024
"""The number of pixels of the paper's crops."""

_ALPHA = 2e-5


class MGD(FeatureLoss):
    """Args:
        matching: the features that belong together.
        weight: of the loss.
        taps: the features to compare, see `Matching`; maps only.
        masked: probability that a position is masked, in [0, 1).

    Raises:
        InputError: for a ``masked`` outside [0, 1), a negative ``weight``, and what `Matching.pairs` raises.
    """

    draws = True

    def __init__(
        self,
        matching: Matching,
        *,
        weight: float = 1.0,
        taps: Sequence[Any] = ("deepest",),
        masked: float = 0.75,
    ) -> None:
        if not 0 <= masked < 1:
            raise InputError(f"MGD.masked: {masked} is out of range; it must be at least 0 and below 1")
        super().__init__(weight, matching.pairs(taps, "MGD.taps"), always=False)
        self.masked = masked
        self.generators = nn.ModuleList(_generator(pair.teacher.channels) for pair in self.pairs)

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`."""
        return super().forward(outputs) * (_ALPHA * _PIXELS / outputs.images.shape[-2:].numel())

    def compare(self, student: Tensor, teacher: Tensor, place: int) -> Tensor:
        """See `FeatureLoss.compare`; without the factors in front of the sum over pairs."""
        size = (len(student), 1, *student.shape[-2:])
        kept = torch.rand(size, device=student.device) >= self.masked
        generated: Tensor = self.generators[place](student * kept)
        return (generated - teacher).square().sum() / len(student)


def _generator(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
    )
