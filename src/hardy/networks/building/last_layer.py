"""Finds the layers of a wrapped module that predict the classes, and replaces them for other classes.

A layer predicts the classes if rolling its output rows by one rolls the logits by one. This is measured, so it does not
depend on names.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from hardy.networks.base import Network
from hardy.ops.axes import weight_axis

__all__ = ["last_layers", "resize_last_layer"]

_SAME = 1e-4
"""The largest difference allowed between rolled logits and logits of rolled rows, as a share of the largest logit."""

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


@torch.no_grad()
def last_layers(network: Network) -> list[str]:
    """The names of the layers of ``network`` that predict its classes, alone or as a sum; empty if none is found."""
    trial = deepcopy(network).eval()
    count = len(network.label_space)
    named = [
        (name, layer)
        for name, layer in trial.named_modules()
        if isinstance(layer, Layer) and _has_one_output_axis(layer)
    ]
    having = [name for name, layer in named if layer.weight.shape[weight_axis(layer, "out")] == count]
    side = 2 * max(network.least_size, 64)
    weight = next(trial.parameters())
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)).to(weight)
    before = trial(images)
    for names in (*([name] for name in reversed(having)), having):
        for name in names:
            _roll(trial.get_submodule(name))
        after = trial(images)
        for _ in range(count - 1):
            for name in names:
                _roll(trial.get_submodule(name))
        if names and _is_rolled(before, after):
            return names
    return []


def resize_last_layer(network: nn.Module, name: str, old: Sequence[str], new: Sequence[str]) -> None:
    """Replace the layer ``name`` of ``network`` by one for the classes ``new``, in place.

    Rows of classes that are also in ``old`` keep their weights; torch initialises the others.
    """
    layer = network.get_submodule(name)
    assert isinstance(layer, Layer)
    axis, fresh = weight_axis(layer, "out"), deepcopy(layer)
    for key, value in layer.named_parameters(recurse=False):
        at = axis if key == "weight" else 0
        shape = [len(new) if place == at else size for place, size in enumerate(value.shape)]
        setattr(fresh, key, nn.Parameter(value.new_empty(shape), requires_grad=value.requires_grad))
    if isinstance(fresh, nn.Linear):
        fresh.out_features = len(new)
    else:
        fresh.out_channels = len(new)
    fresh.reset_parameters()
    with torch.no_grad():
        for key, value in layer.named_parameters(recurse=False):
            at = axis if key == "weight" else 0
            for place, one in enumerate(new):
                if one in old:
                    getattr(fresh, key).select(at, place).copy_(value.select(at, list(old).index(one)))
    network.set_submodule(name, fresh)


def _has_one_output_axis(layer: Layer) -> bool:
    """Whether the layer's outputs are along one axis of its weight; not so in a grouped transposed convolution."""
    return not (isinstance(layer, nn.ConvTranspose2d) and layer.groups > 1)


def _roll(layer: nn.Module) -> None:
    assert isinstance(layer, Layer)
    layer.weight.copy_(layer.weight.roll(1, weight_axis(layer, "out")))
    if layer.bias is not None:
        layer.bias.copy_(layer.bias.roll(1, 0))


def _is_rolled(before: Tensor, after: Tensor) -> bool:
    """Whether ``after`` (B, K, ...) is ``before`` with its classes rolled by one, and differs from ``before``."""
    if before.shape[1] == 1:
        return False
    most = float(before.abs().max())
    moved = float((after - before).abs().max()) > _SAME * most
    return moved and float((after - before.roll(1, 1)).abs().max()) <= _SAME * most
