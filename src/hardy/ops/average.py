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
    """Update ``averaged`` in place: ``a = d a + (1 - d) w`` for floating point state, a copy for the rest.

    Args:
        averaged: the averages by the names of ``module.state_dict()``.
        module: the module whose weights are averaged.
        decay: d in (0, 1), the share kept of the past.
        step: the number of updates made so far, from 1; early on d is at most ``step / (step + 9)`` so that the
            random start is soon forgotten.
    """
    decay = min(decay, step / (step + 9))
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            averaged[name].lerp_(value, 1 - decay)
        else:
            averaged[name].copy_(value)
