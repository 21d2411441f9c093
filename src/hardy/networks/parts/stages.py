"""The features of a network, their strides and channels, without computing one value.

A copy of the network is traced on fake tensors, which have a shape, a type and a device, but no memory. The shapes of
its features for images of H x W pixels give the strides.

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
"""Heights that are tried, 128 times 2, 3, 5 and 7, so that most strides divide one of them; widths are twice that."""

_FIXED = ((224, 224), (256, 256), (384, 384), (512, 512))
"""Sizes that many networks for images of one size were made for."""


class _Seen(NamedTuple):
    """A feature's name, the pixels of the image per cell along its height and its width, and its channels."""

    name: str
    height: float
    width: float
    channels: int


def stages_of(network: "Network", size: Sequence[int] | None = None) -> list[Stage]:
    """What `Network.feature_stages` returns; arguments and errors as there."""
    found: list[_Seen] | None = None
    error: Exception | None = None
    for at in _sizes(network.least_size) if size is None else [(size[0], size[1])]:
        if found is not None and at in _FIXED:
            break
        try:
            found = _traced(network, at)
        except Exception as caught:  # what does not run at this size may run at another
            error = error or caught
            continue
        if all(seen.height == seen.width == round(seen.width) for seen in found):
            break
    if found is None:
        if error is None or isinstance(error, InputError):
            raise error or InputError("no size to trace with")
        said = " ".join(str(error).split())[:120]
        raise InputError(
            f"{type(network).__name__} cannot be traced without values ({type(error).__name__}: {said}); give "
            "feature_stages a size (H, W) that it takes, or read the shapes of the features of outputs(images)"
        ) from error
    return [Stage(seen.name, max(1, round(seen.width)), seen.channels) for seen in found]


def _sizes(least: int) -> Iterator[tuple[int, int]]:
    """Those to try in turn, none smaller than ``least``."""
    times = math.ceil(least / _SIDES[0])
    yield from ((times * side, 2 * times * side) for side in _SIDES)
    yield from _FIXED


@torch.no_grad()
def _traced(network: "Network", size: tuple[int, int]) -> list[_Seen]:
    """The features of one image of ``size`` (H, W); ``network`` and the random state stay as they are."""
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
    """For `copy.deepcopy`: in place of each tensor that a module holds one of its shape, type and device."""
    held = (value for module in network.modules() for value in _values(module) if isinstance(value, Tensor))
    return {id(value): value if isinstance(value, FakeTensor) else mode.from_tensor(value) for value in held}


def _values(module: nn.Module) -> Iterator[object]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)
    yield from vars(module).values()
