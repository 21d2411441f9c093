"""The features of a network, their strides and channels, without computing any values.

A copy of the network is traced with fake tensors, which have a shape, a dtype and a device, but no memory. The strides
follow from the shapes of its features for images of H x W pixels.

Source: Hardy's own; fake tensors are PyTorch's (``FakeTensorMode``).
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.hooks import RemovableHandle

from hardy.errors import InputError
from hardy.types import Outputs, Stage

if TYPE_CHECKING:
    from hardy.networks.base import Network

__all__ = ["EMBEDDING", "INPUT", "fakes", "is_fake", "places_of", "stages_of", "traced", "watch"]

EMBEDDING = "embedding"
"""The name of `Outputs.embedding` among the places of a network."""

INPUT = ".input"
"""The end of a name that means the first input of a module, not its output."""

_T = TypeVar("_T")

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
    return [_stage(seen) for seen in _found(network, size, _features, _whole)]


def places_of(network: "Network", modules: Sequence[str] = ()) -> list[Stage]:
    """The features of ``network``, its embedding, if it has one, as `EMBEDDING`, and the values of ``modules``.

    The stride of a vector (B, C), which has no positions, is 0.

    Args:
        network: see `Network.feature_stages`.
        modules: names of modules, as in ``named_modules``, whose outputs are read, or with `INPUT` whose inputs.

    Raises:
        InputError: for a module whose value is neither a map (B, C, h, w) nor a vector (B, C), or that does not run;
            and as `Network.feature_stages`.
    """
    return [_stage(seen) for seen in _found(network, None, lambda copied, image: _all(copied, image, modules), _whole)]


def watch(network: nn.Module, name: str, keep: Callable[[Any], object]) -> RemovableHandle:
    """Call ``keep`` with each output of the module ``name``, or with each first input if ``name`` ends with `INPUT`.

    Removing the returned handle ends this.
    """
    if name.endswith(INPUT) and name not in dict(network.named_modules()):
        module = network.get_submodule(name.removesuffix(INPUT))
        return module.register_forward_pre_hook(lambda _, given: (keep(given[0]), None)[1])
    return network.get_submodule(name).register_forward_hook(lambda _, __, value: (keep(value), None)[1])


def traced(network: "Network", look: Callable[["Network", Tensor], _T]) -> _T:
    """The result of ``look`` for a copy of ``network`` without values and an image (1, 3, H, W) of a size that it
    takes.

    Raises:
        InputError: see `Network.feature_stages`.
    """
    return _found(network, None, look, lambda _: True)


def _stage(seen: _Seen) -> Stage:
    return Stage(seen.name, max(1, round(seen.width)) if seen.width else 0, seen.channels)


def _whole(seen: Sequence[_Seen]) -> bool:
    """Whether every stride is a whole number."""
    return all(each.height == each.width == round(each.width) for each in seen)


def _found(
    network: "Network",
    size: Sequence[int] | None,
    look: Callable[["Network", Tensor], _T],
    good: Callable[[_T], bool],
) -> _T:
    """The first result of ``look``, over the sizes to try, that is ``good``; else that of the last size that works."""
    found: _T | None = None
    error: Exception | None = None
    for at in _sizes(network.least_size) if size is None else [(size[0], size[1])]:
        if found is not None and at in _FIXED:
            break
        try:
            found = _looked(network, at, look)
        except Exception as caught:  # it may run at another size
            error = error or caught
            continue
        if good(found):
            break
    if found is None:
        if error is None or isinstance(error, InputError):
            raise error or InputError("no size to trace with")
        text = " ".join(str(error).split())[:120]
        raise InputError(
            f"{type(network).__name__} cannot be traced without values ({type(error).__name__}: {text}); give "
            "feature_stages a size (H, W) that it takes, or read the shapes of the features of outputs(images)"
        ) from error
    return found


def _sizes(least: int) -> Iterator[tuple[int, int]]:
    """The sizes to try, in order, none smaller than ``least``."""
    times = math.ceil(least / _SIDES[0])
    yield from ((times * side, 2 * times * side) for side in _SIDES)
    yield from _FIXED


@torch.no_grad()
def _looked(network: "Network", size: tuple[int, int], look: Callable[["Network", Tensor], _T]) -> _T:
    """The result of ``look`` for one image of ``size`` (H, W); ``network`` and the random state do not change."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    copied = copy.deepcopy(network, fakes(network, mode)).eval()
    with torch.random.fork_rng(devices=[]), mode:
        return look(copied, torch.empty(1, 3, *size, dtype=network.mean.dtype, device=network.mean.device))


def _features(network: "Network", image: Tensor) -> list[_Seen]:
    return [_seen(name, value, image) for name, value in network.outputs(image).features.items()]


def _all(network: "Network", image: Tensor, modules: Sequence[str]) -> list[_Seen]:
    """See `places_of`."""
    given: dict[str, object] = {}
    for name in modules:
        watch(network, name, partial(given.__setitem__, name))
    outputs: Outputs = network.outputs(image)
    if missing := [name for name in modules if name not in given]:
        raise InputError(f"the module {missing[0]!r} of {type(network).__name__} does not run in evaluation mode")
    embedding = {} if outputs.embedding is None else {EMBEDDING: outputs.embedding}
    return [_seen(name, value, image) for name, value in {**outputs.features, **embedding, **given}.items()]


def _seen(name: str, value: object, image: Tensor) -> _Seen:
    """The size of ``value`` relative to ``image`` (1, 3, H, W)."""
    if not isinstance(value, Tensor) or value.ndim not in (2, 4):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{name!r} gives {shape}; a map (B, C, h, w) or a vector (B, C) is needed")
    if value.ndim == 2:
        return _Seen(name, 0, 0, value.shape[1])
    return _Seen(name, image.shape[-2] / value.shape[-2], image.shape[-1] / value.shape[-1], value.shape[1])


def fakes(network: nn.Module, mode: FakeTensorMode) -> dict[int, object]:
    """A memo for `copy.deepcopy` that replaces each tensor of a module by a fake one of its shape, dtype and device."""
    held = (value for module in network.modules() for value in _values(module) if isinstance(value, Tensor))
    return {id(value): value if isinstance(value, FakeTensor) else mode.from_tensor(value) for value in held}


def is_fake(value: Tensor) -> bool:
    """Whether ``value`` has no values: only shapes are traced, and code that reads values must assume some."""
    return isinstance(value, FakeTensor)


def _values(module: nn.Module) -> Iterator[object]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)
    yield from vars(module).values()
