"""Shared by the feature losses: aligners to the teacher's map, and standardisation over some dimensions."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hardy.distillation.base import DistillationLoss, FeaturePair, PairedOutputs
from hardy.errors import InputError
from hardy.networks.base import resize

__all__ = ["Aligner", "FeatureLoss", "at_size", "refuse_not_finite", "standardised", "wide"]


def wide(x: Tensor) -> Tensor:
    """``x`` in float32 or wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def at_size(x: Tensor, size: Sequence[int]) -> Tensor:
    """``x`` (B, C, h, w) resized to ``size`` (H, W), bilinear; for a size of one cell, its mean."""
    return x.mean((2, 3), keepdim=True) if tuple(size) == (1, 1) else resize(x, size)


def refuse_not_finite(what: str, *values: Tensor) -> None:
    """Check that ``values``, the teacher's logits or features named by ``what``, are finite.

    Raises:
        InputError: if they are not.
    """
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise InputError(f"teacher: its {what} are not finite on a batch; check its weights or its precision")


class Aligner(nn.Module):
    """Maps the student's value of a pair to the number of channels and the size of the teacher's.

    A 1x1 convolution without bias, then `at_size`. Without a batch norm the two commute; then a map that becomes
    smaller is resized first.

    Args:
        pair: the two taps; a vector is a map of one cell.
        always: False leaves out the convolution if student and teacher have the same number of channels.
        normed: add a batch norm after the convolution, at the student's size.
    """

    def __init__(self, pair: FeaturePair, *, always: bool = True, normed: bool = False) -> None:
        super().__init__()
        self.inner, self.outer = pair.student.channels, pair.teacher.channels
        convolution = nn.Conv2d(self.inner, self.outer, 1, bias=False)
        self.project = convolution if always or self.inner != self.outer else nn.Identity()
        self.norm = nn.BatchNorm2d(self.outer) if normed else nn.Identity()
        self.smaller_first = not normed

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``student`` (B, C, h, w) in the shape of ``teacher`` (B, C', h', w'), in float32 or wider."""
        size = teacher.shape[-2:]
        smaller = self.smaller_first and size.numel() < student.shape[-2:].numel()
        aligned: Tensor = self.norm(self.project(at_size(student, size) if smaller else student))
        return at_size(wide(aligned), size)

    def __str__(self) -> str:
        return "none" if isinstance(self.project, nn.Identity) else f"1x1 convolution {self.inner} to {self.outer}"


def standardised(x: Tensor, over: Sequence[int], eps: float = 1e-6) -> Tensor:
    """``(x - mean) / (std + eps)`` with the mean and the biased standard deviation over the dimensions ``over``.

    Where the deviation is at most ``eps``, the result and its gradient are 0: such a deviation is only rounding error.
    """
    over = tuple(over)
    centred = x - x.mean(over, keepdim=True)
    centred = centred - centred.mean(over, keepdim=True)  # twice: a large constant becomes 0 up to rounding
    variance = centred.square().mean(over, keepdim=True)
    varies = variance > eps**2
    return torch.where(varies, centred, 0.0) / (torch.where(varies, variance, 1.0).sqrt() + eps)


class FeatureLoss(DistillationLoss):
    """A loss that compares features: the sum over pairs of `compare`, which a subclass implements.

    An `Aligner` first maps the student's value to the shape of the teacher's.

    Args:
        weight: of the loss.
        pairs: the taps.
        always: see `Aligner`.
        normed: see `Aligner`.
    """

    def __init__(
        self, weight: float, pairs: tuple[FeaturePair, ...], *, always: bool = True, normed: bool = False
    ) -> None:
        super().__init__(weight)
        self.pairs = pairs
        self.aligners = nn.ModuleList(Aligner(pair, always=always, normed=normed) for pair in pairs)

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor, place: int) -> Tensor:
        """The scalar loss of pair number ``place``, of two maps (B, C', h', w') in float32 or wider."""

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`."""
        found = []
        for place, (pair, align) in enumerate(zip(self.pairs, self.aligners, strict=True)):
            student, teacher = outputs.features(pair)
            found.append(self.compare(align(student, teacher), wide(teacher), place))
        return torch.stack(found).sum()

    def aligner(self, pair: FeaturePair) -> str:
        """See `DistillationLoss.aligner`."""
        return str(self.aligners[self.pairs.index(pair)])
