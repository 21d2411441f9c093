"""Moving averages of weights.

Source: Polyak and Juditsky, SIAM J. Control and Optimization 1992; in the exponential form of Tarvainen and Valpola,
NeurIPS 2017, section 2.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["average_into"]


@torch.no_grad()
def average_into(averaged: Mapping[str, Tensor], module: nn.Module, decay: float, step: int) -> None:
    """Update ``averaged`` in place: ``a = d a + (1 - d) w`` for floating-point state, and a copy of all other state.

    Args:
        averaged: the averages, by the names of ``module.state_dict()``.
        module: the module whose weights are averaged.
        decay: d in (0, 1).
        step: the number of this update, from 1. d is at most ``step / (step + 9)``, so that the random start soon has
            little weight.
    """
    decay = min(decay, step / (step + 9))
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            averaged[name].lerp_(value, 1 - decay)
        else:
            averaged[name].copy_(value)
