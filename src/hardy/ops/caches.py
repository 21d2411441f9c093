"""Tensors that modules keep from one call to the next, and what a copy of a module does with them.

Torch refuses to copy a tensor that has a history, such as the weight that its older weight norm makes before each call
and leaves in the module. A tensor that each call computes again may be copied without its history.
"""

from torch import Tensor, nn

__all__ = ["without_history"]


def without_history(module: nn.Module) -> dict[int, object]:
    """For `copy.deepcopy`: what it is to put in place of tensors with a history that the modules inside hold."""
    held = (value for one in module.modules() for value in vars(one).values())
    return {
        id(value): value.detach().clone() for value in held if isinstance(value, Tensor) and value.grad_fn is not None
    }
