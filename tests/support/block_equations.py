"""What tests hold blocks against: weights that are all drawn, and a 1x1 convolution with its norm by the equation."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["drawn", "mixed"]

Block = TypeVar("Block", bound=nn.Module)


def drawn(make: Callable[[], Block]) -> Block:
    """A block in float64 and evaluation mode, no weight of it as it starts."""
    torch.manual_seed(0)
    block = make().double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    return block


def mixed(x: Tensor, layer: nn.Sequential) -> Tensor:
    """A 1x1 convolution and a batch norm that has seen nothing; channels last."""
    return (x @ layer[0].weight[:, :, 0, 0].T) / (1 + layer[1].eps) ** 0.5 * layer[1].weight + layer[1].bias
