"""Weight norm: the weight of a layer is ``g v / ||v||``, so ``g`` and ``v`` are cut and masked.

``||v||`` is computed over all axes of ``v`` but one. If channels are removed along one of these axes, ``g`` is reduced
in proportion to ``||v||``, so the other weights keep their values. Torch stores ``g`` and ``v`` in a parametrization.
Its older function stores them in the module, with a hook that computes the weight before each call.

Source: Salimans and Kingma, "Weight normalization: a simple reparameterization to accelerate training of deep neural
networks", NeurIPS 2016, equation 2.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from hardy.ops.caches import without_history

__all__ = ["NormedWeight", "duplicate", "make_plain", "unfollowed", "weight_norm_of"]

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class NormedWeight:
    """The two parameters that a layer's weight is made of.

    Attributes:
        owner: the module that holds them.
        scale, direction: the names of ``g`` and ``v`` in it.
        axis: the axis of the weight along which each index has its own ``||v||``; -1 for one value for the complete
            weight.
    """

    owner: nn.Module
    scale: str
    direction: str
    axis: int

    @property
    def g(self) -> nn.Parameter:
        """The scales."""
        return self.owner.get_parameter(self.scale)

    @property
    def v(self) -> nn.Parameter:
        """The directions, with the shape of the weight."""
        return self.owner.get_parameter(self.direction)

    def keep(self, kept: Sequence[int], axis: int) -> None:
        """Cut the weight to the channels ``kept`` along ``axis``, in place."""
        chosen = torch.tensor(kept, device=self.v.device)
        g, v = self.g.detach(), self.v.detach()
        left = v.index_select(axis, chosen)
        g = g.index_select(axis, chosen) if axis == self.axis else g * self._length(left) / self._length(v)
        for name, value, before in ((self.scale, g, self.g), (self.direction, left, self.v)):
            setattr(self.owner, name, nn.Parameter(value, requires_grad=before.requires_grad))
        if "weight" in vars(self.owner):  # computed by the hook of the older function before the last call
            self.owner.weight = torch._weight_norm(self.v.detach(), self.g.detach(), self.axis)

    @torch.no_grad()
    def zero(self, gone: Tensor, axis: int) -> None:
        """Set the weight to zero for the channels ``gone`` along ``axis``, in place; other weights do not change."""
        left = self.v.index_fill(axis, gone, 0.0)
        norm = self._length(left)
        self.g.mul_(norm / self._length(self.v))
        self.v.copy_(torch.where(norm > 0, left, self.v))  # a zero direction would divide by zero

    def _length(self, v: Tensor) -> Tensor:
        return torch.norm_except_dim(v, 2, self.axis)


def weight_norm_of(module: nn.Module) -> NormedWeight | None:
    """``g`` and ``v`` of the weight of ``module``; None without weight norm, or if it has other parametrizations."""
    if parametrize.is_parametrized(module, "weight"):
        held = module.parametrizations["weight"]  # type: ignore[index,union-attr]
        steps = list(held)  # type: ignore[call-overload]
        if len(steps) == 1 and isinstance(steps[0], _WeightNorm):
            return NormedWeight(held, "original0", "original1", steps[0].dim)  # type: ignore[arg-type]
        return None
    hook = _hook(module)
    return None if hook is None else NormedWeight(module, f"{hook.name}_g", f"{hook.name}_v", hook.dim)


def unfollowed(module: nn.Module) -> str | None:
    """The reason why ``module`` cannot be cut: a parametrization other than weight norm; None if it can be cut."""
    if not parametrize.is_parametrized(module) or weight_norm_of(module) is not None:
        return None
    for name, steps in module.parametrizations.items():  # type: ignore[operator,union-attr]
        return f"its {name} is computed by the parametrization {', '.join(type(one).__name__ for one in steps)}"
    return None


def duplicate(network: Module) -> Module:
    """A copy of ``network``, which does not change; cached tensors are copied without their autograd graph."""
    return copy.deepcopy(network, without_history(network))


def make_plain(network: nn.Module) -> None:
    """Turn every parametrized tensor and every weight with weight norm into a plain parameter, in place.

    Only for a copied network. Torch's own function would delete the property from the class that the original shares.
    """
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            kind = parametrize.type_before_parametrizations(module)
            values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}  # type: ignore[union-attr]
            del module.parametrizations
            module.__class__ = kind
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))
        elif (hook := _hook(module)) is not None:
            hook.remove(module)
            for number, one in list(module._forward_pre_hooks.items()):
                if one is hook:
                    del module._forward_pre_hooks[number]


def _hook(module: nn.Module) -> WeightNorm | None:
    """The hook of torch's older function on the weight of ``module``."""
    found = (hook for hook in module._forward_pre_hooks.values() if isinstance(hook, WeightNorm))
    return next((hook for hook in found if hook.name == "weight"), None)
