"""The features of a network, their strides and channels, without computing one value.

A copy of the network is traced on fake tensors, which have a shape, a type and a device, but no memory. The strides
follow from the shapes of its features for images of H x W pixels.

Source: Hardy's own; fake tensors are PyTorch's (``FakeTensorMode``).
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from hardy.errors import InputError
from hardy.types import Stage

if TYPE_CHECKING:
    from hardy.networks.base import Network

__all__ = ["stages_of"]

_SIDES = (256, 384, 640, 896)
"""Heights to try, 128 times 2, 3, 5 and 7, so that most strides divide one of them; widths are twice that."""

_FIXED = ((224, 224), (256, 256), (384, 384), (512, 512))
"""Common sizes of networks with a fixed image size."""


class _Seen(NamedTuple):
    """A feature: its name, image pixels per cell along height and width, and channels."""

    name: str
    height: float
    width: float
    channels: int


def stages_of(network: "Network", size: Sequence[int] | None = None) -> list[Stage]:
    """See `Network.feature_stages`."""
    found: list[_Seen] | None = None
    error: Exception | None = None
    for at in _sizes(network.least_size) if size is None else [(size[0], size[1])]:
        if found is not None and at in _FIXED:
            break
        try:
            found = _traced(network, at)
        except Exception as caught:  # it may run at another size
            error = error or caught
            continue
        if all(seen.height == seen.width == round(seen.width) for seen in found):
            break
    if found is None:
        if error is None or isinstance(error, InputError):
            raise error or InputError("no size to trace with")
        text = " ".join(str(error).split())[:120]
        raise InputError(
            f"{type(network).__name__} cannot be traced without values ({type(error).__name__}: {text}); give "
            "feature_stages a size (H, W) that it takes, or read the shapes of the features of outputs(images)"
        ) from error
    return [Stage(seen.name, max(1, round(seen.width)), seen.channels) for seen in found]


def _sizes(least: int) -> Iterator[tuple[int, int]]:
    """The sizes to try, in order, none smaller than ``least``."""
    times = math.ceil(least / _SIDES[0])
    yield from ((times * side, 2 * times * side) for side in _SIDES)
    yield from _FIXED


@torch.no_grad()
def _traced(network: "Network", size: tuple[int, int]) -> list[_Seen]:
    """The features for one image of ``size`` (H, W); ``network`` and the random state do not change."""
    height, width = size
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    copied = copy.deepcopy(network, _fakes(network, mode)).eval()
    with torch.random.fork_rng(devices=[]), mode:
        image = torch.empty(1, 3, height, width, dtype=network.mean.dtype, device=network.mean.device)
        features = copied.outputs(image).features
    return [
        _Seen(name, height / value.shape[-2], width / value.shape[-1], value.shape[1])
        for name, value in features.items()
    ]


def _fakes(network: nn.Module, mode: FakeTensorMode) -> dict[int, object]:
    """A memo for `copy.deepcopy` that replaces each tensor of a module by a fake one of its shape, type and device."""
    held = (value for module in network.modules() for value in _values(module) if isinstance(value, Tensor))
    return {id(value): value if isinstance(value, FakeTensor) else mode.from_tensor(value) for value in held}


def _values(module: nn.Module) -> Iterator[object]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)
    yield from vars(module).values()
