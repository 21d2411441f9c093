"""The first layers of a network as a separate encoder: from images to the maps at the first strides.

Source: the layers are the network's; that the channel statistics of the first layers represent an image's style is the
basis of Huang and Belongie, ICCV 2017, and Zhou et al., ICLR 2021 (MixStyle).
"""

import math
from contextlib import ExitStack
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network

__all__ = ["FirstLayers"]

STRIDES = (2, 4, 8)


class _Reached(BaseException):  # not an Exception, so that the network's code does not catch it
    """Ends a forward pass when the last map is computed."""


class FirstLayers(nn.Module):
    """Images (B, 3, H, W) RGB in [0, 1] -> the network's maps at strides 2, 4, .. up to ``stride``, finest first. For
    each stride it is the last map before the first coarser one.

    The layers are a frozen copy, always in evaluation mode; layers after the last map do not run.

    Args:
        network: the network; it does not change.
        stride: the stride of the last map: 2, 4 or 8.

    Attributes:
        network: the copy, without the modules that the last map does not need.
        channels: channels of the last map.
        stride: stride of the last map.

    Raises:
        InputError: for a network that has no map at ``stride``.
    """

    def __init__(self, network: Network, stride: int) -> None:
        super().__init__()
        self.network = deepcopy(network).requires_grad_(False).eval()
        self.stride = stride
        probe = _probe(self.network)
        self.taps, self.channels = _taps(self.network, probe, stride)
        _trim(self.network, self._entered(probe))

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the layers stay in evaluation mode."""
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        maps: dict[str, Tensor] = {}

        def keep(name: str, output: Tensor) -> None:
            maps[name] = output
            if name == self.taps[-1]:
                raise _Reached

        with ExitStack() as hooks:
            for name in self.taps:
                _watch(self.network.get_submodule(name), name, keep, hooks)
            _pass(self.network, images)
        return [maps[name] for name in self.taps]

    def _entered(self, probe: Tensor) -> tuple[set[str], set[str]]:
        """The names of the modules that start to run before the last map, and of those that also finish."""
        entered: set[str] = set()
        left: set[str] = set()
        with ExitStack() as hooks:
            for name, module in self.network.named_modules():
                handle = module.register_forward_pre_hook(lambda m, i, name=name: entered.add(name))
                hooks.callback(handle.remove)
                _watch(module, name, lambda name, output: left.add(name), hooks)
            self(probe)
        return entered, left


def _watch(module: nn.Module, name: str, seen: Any, hooks: ExitStack) -> None:
    """Call ``seen(name, output)`` after each call of ``module`` until ``hooks`` is closed."""
    handle = module.register_forward_hook(lambda m, inputs, output: seen(name, output))
    hooks.callback(handle.remove)


def _pass(network: Network, images: Tensor) -> None:
    try:
        network.outputs(images)
    except _Reached:
        return


def _probe(network: Network) -> Tensor:
    """An image with different height, width and number of channels."""
    height = 64 * math.ceil(network.least_size / 64)
    device = next(network.parameters()).device
    return torch.zeros(1, 3, height, height + 64, device=device)


def _taps(network: Network, probe: Tensor, stride: int) -> tuple[list[str], int]:
    """The names of the modules that return the maps, finest first, and the channels of the last."""
    height, width = probe.shape[-2:]
    sizes: dict[tuple[int, ...], int] = {(height // s, width // s): s for s in (1, *STRIDES, 16, 32, 64)}
    last: dict[int, tuple[str, int]] = {1: ("", 3)}

    def note(name: str, output: Any) -> None:
        found = sizes.get(tuple(output.shape[-2:])) if isinstance(output, Tensor) and output.ndim == 4 else None
        if found is not None and found > stride:
            raise _Reached
        if found is not None and found >= max(last):
            last[found] = (name, output.shape[1])

    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.named_modules():
            if name:
                _watch(module, name, note, hooks)
        _pass(network, probe)
    if stride not in last:
        have = ", ".join(str(found) for found in sorted(last) if found > 1) or "none"
        raise InputError(f"StyleVAE.stride: {type(network).__name__} has no map at stride {stride}; it has: {have}")
    return [last[s][0] for s in STRIDES if s in last and s <= stride], last[stride][1]


def _trim(network: Network, seen: tuple[set[str], set[str]]) -> None:
    """Remove the modules that never run, in place; a module that finishes keeps all its submodules."""
    entered, left = seen
    for name, _ in list(network.named_modules()):
        inside = any(other == name or other.startswith(f"{name}.") for other in entered)
        part = any(name.startswith(f"{other}.") for other in left)
        if name and not inside and not part:
            parent, _, child = name.rpartition(".")
            if parent == "" or any(other == parent or other.startswith(f"{parent}.") for other in entered):
                setattr(network.get_submodule(parent), child, nn.Identity())
