"""A layer and the modules that a tuner adds to it, which can be merged into the weight and bias of the layer.

Source: Hardy's own.
"""

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Around", "inside"]


class Around(nn.Module, ABC):
    """A layer and the modules that a tuner adds to it.

    ``weight`` and ``bias`` are those of a single layer that computes the same, for code that reads them instead of
    calling the layer. All other attributes are the layer's.

    Args:
        layer: a layer, which becomes a submodule.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer: Any = layer

    @abstractmethod
    def effective(self) -> tuple[Tensor, Tensor | None]:
        """The weight and the bias of a single layer that computes the same."""

    @property
    def weight(self) -> Tensor:
        """See the class."""
        return self.effective()[0]

    @property
    def bias(self) -> Tensor | None:
        """See the class."""
        return self.effective()[1]

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Merge the added modules into the layer's weight and bias, in place and in float64, and return the layer."""
        weight, bias = copy.deepcopy(self).double().effective()
        self.layer.weight.copy_(weight)
        if bias is not None:
            self.layer.bias.copy_(bias)
        layer: nn.Module = self.layer
        return layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


def inside(module: nn.Module) -> nn.Module:
    """The layer in ``module`` if that is an `Around` (or nested ones); otherwise ``module``."""
    while isinstance(module, Around):
        module = module.layer
    return module
