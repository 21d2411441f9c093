"""Copies of modules that keep computed tensors from one call to the next.

Torch cannot copy a tensor that has a gradient history, such as the weight that its older weight norm computes before
each call and stores in the module. A tensor that every call recomputes can be copied without its history.
"""

from torch import Tensor, nn

__all__ = ["without_history"]


def without_history(module: nn.Module) -> dict[int, object]:
    """A memo for `copy.deepcopy` that replaces tensors with a history, held by modules inside, by plain copies."""
    held = (value for one in module.modules() for value in vars(one).values())
    return {
        id(value): value.detach().clone() for value in held if isinstance(value, Tensor) and value.grad_fn is not None
    }
