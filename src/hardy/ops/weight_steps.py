"""Changes of weights that are not optimiser steps: towards other weights, back to them, and along the gradient.

Source: Tarvainen and Valpola, NeurIPS 2017, section 2 (`approach`); Wang, Fink, Van Gool and Dai, "Continual test-time
domain adaptation", CVPR 2022, eq. 7 and 8 (`restore_some`); Foret, Kleiner, Mobahi and Neyshabur, "Sharpness-aware
minimization for efficiently improving generalization", ICLR 2021, eq. 2 (`climb`).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from hardy.errors import InputError

__all__ = ["approach", "climb", "copies", "refuse_narrow", "restore_some", "set_to"]


def refuse_narrow(weights: Iterable[Tensor], method: str) -> None:
    """Check that ``weights`` have 32 bits or more.

    In 16 bits small steps are lost, and Adam divides by values that were rounded to 0.

    Raises:
        InputError: for 16-bit weights; the message names the ``method``, the type and the fix.
    """
    for value in weights:
        if torch.finfo(value.dtype).bits < 32:
            raise InputError(
                f"adapt: {method} trains weights, but the weights of the network are "
                f"{str(value.dtype).split('.')[-1]}, in which its small steps are lost; use network.float()"
            )


def copies(weights: Iterable[Tensor]) -> nn.ParameterList:
    """Copies of ``weights`` as parameters that are not trained."""
    return nn.ParameterList([nn.Parameter(value.detach().clone(), requires_grad=False) for value in weights])


@torch.no_grad()
def set_to(weights: Iterable[Tensor], goal: Iterable[Tensor]) -> None:
    """``w = g`` for each of ``weights``, in place."""
    for value, end in zip(weights, goal, strict=True):
        value.copy_(end)


@torch.no_grad()
def approach(weights: Iterable[Tensor], goal: Iterable[Tensor], share: float) -> None:
    """``w = (1 - s) w + s g`` for each of ``weights``, in place; the ``share`` s is in [0, 1]."""
    for value, end in zip(weights, goal, strict=True):
        value.lerp_(end.to(value.dtype), share)


@torch.no_grad()
def restore_some(weights: Iterable[Tensor], goal: Iterable[Tensor], probability: float) -> None:
    """``w = m g + (1 - m) w`` for each of ``weights``, in place; each element of m is 1 with ``probability``.

    m is drawn from torch's CPU generator."""
    for value, end in zip(weights, goal, strict=True):
        chosen = (torch.rand(value.shape) < probability).to(value.device)
        value.copy_(torch.where(chosen, end, value))


@torch.no_grad()
def climb(weights: Sequence[Tensor], radius: float) -> list[Tensor]:
    """Move all ``weights`` together by a step of length ``radius`` along their gradients, in place.

    Returns copies of the weights before the step. A weight without a gradient does not change."""
    before = [value.detach().clone() for value in weights]
    slopes = [value.grad for value in weights if value.grad is not None]
    if slopes:
        length = torch.stack([slope.norm() for slope in slopes]).norm()
        for value in weights:
            if value.grad is not None:
                value.add_(value.grad * (radius / (length + 1e-12)))
    return before
