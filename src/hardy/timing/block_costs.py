"""The cost of every block: by its formula, as counted, in memory traffic, and in milliseconds.

Multiply-accumulates alone do not predict time: per value that it moves, a depthwise convolution makes K^2 of them, and
a 1x1 convolution as many as it has channels. So memory limits the first, and computation the second.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hardy.blocks.base import Cost, costed
from hardy.errors import InputError
from hardy.ops import cost
from hardy.timing.clock import interleave

__all__ = ["BlockCost", "block_costs"]

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class BlockCost:
    """The cost of one form of one block.

    Attributes:
        name: of the form.
        formula: the cost by the block's formula.
        counted: the cost counted in the module.
        moved: values read and written by its convolutions and linear layers: inputs, results and weights.
        milliseconds: median of a forward pass in evaluation mode.
    """

    name: str
    formula: Cost
    counted: Cost
    moved: int
    milliseconds: float


def block_costs(channels: int, size: Sequence[int], *, runs: int, device: torch.device) -> list[BlockCost]:
    """The cost of every form of every block on one map of ``channels`` and ``size`` (H, W), timed in turns.

    Raises:
        InputError: for a number of channels that some block does not support.
    """
    height, width = size
    forms = [(block, name, options) for block in costed() for name, options in block.shown.items()]
    try:
        made = [_made(block, channels, options) for block, _, options in forms]
    except AssertionError as error:
        raise InputError(f"channels {channels}: {error}; give a multiple of 32") from None
    example = torch.rand(1, channels, height, width, device=device)
    with torch.inference_mode():
        runners: list[Callable[[], object]] = [_runner(module.to(device), example) for module in made]
        times = [float(np.median(spent)) for spent in interleave(runners, runs, 2, device)]
    return [
        BlockCost(
            name,
            block.cost(channels, channels, (height, width), **options),
            Cost(_weights(module), round(1e9 * cost.operations(module, example))),
            _moved(module, example),
            spent,
        )
        for (block, name, options), module, spent in zip(forms, made, times, strict=True)
    ]


def _made(block: Callable[..., object], channels: int, options: Mapping[str, Any]) -> nn.Module:
    module = block(channels, channels, **options)
    assert isinstance(module, nn.Module), f"{block} is no module"
    return module.eval()


def _runner(module: nn.Module, example: Tensor) -> Callable[[], object]:
    return lambda: module(example)


def _weights(module: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, _LAYERS))


def _moved(module: nn.Module, example: Tensor) -> int:
    """Values that the layers of ``module`` read and write."""
    moved = 0

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        moved += inputs[0].numel() + output.numel() + layer.weight.numel()  # type: ignore[operator,union-attr]

    handles = [layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, _LAYERS)]
    with torch.inference_mode():
        module(example)
    for handle in handles:
        handle.remove()
    return moved
