"""A module that is used and never trained: it adds no parameter, state or mode to the module that holds it."""

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["Frozen"]


class Frozen(nn.Module):
    """A frozen copy of ``module`` in evaluation mode, for use inside a module that is trained.

    It moves to a device or dtype with the module that holds it. Nothing else affects it: its parameters are not
    parameters of the holder, so no optimiser, checkpoint or count includes them, and `train` does not change its mode.

    Args:
        module: the module to copy; it is not changed.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._held = (copy.deepcopy(module).requires_grad_(False).eval(),)  # in a tuple, so it is not a submodule
        self.training = False

    @property
    def module(self) -> nn.Module:
        """The copy."""
        return self._held[0]

    @torch.no_grad()
    def forward(self, *args: Any) -> Any:
        """The output of the copy for ``args``, without gradient."""
        return self.module(*args)

    def train(self, mode: bool = True) -> Self:
        """Do nothing."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.module._apply(fn, recurse)  # so that it moves with its holder
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
