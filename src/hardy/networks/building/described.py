"""An architecture that a file describes: checks of its form, and limits on the memory of the network built from it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from hardy.errors import InputError, quoted
from hardy.stored import finite

__all__ = ["check_architecture", "check_wrapped", "in_proportion"]

_MODULES = 100_000
"""The largest number of modules that a network may have; the largest timm models have about 5,000."""

_LEAST, _TIMES = 2**30, 1000
"""A network may take this many bytes, or this multiple of its file's size (it is built dense, before pruning)."""


_ENTRIES = ("name", "options", "mean", "std", "pretrained")
"""Entries of an architecture; the last three may be missing."""

_WRAPPED = ("factory", "mean", "std", "image_level", "last", "features", "embedding")
"""Options of a wrapped module."""


def check_architecture(architecture: Any) -> None:
    """Check a description: ``{"name": string, "options": mapping}``, optionally with mean, std and ``pretrained``.

    Raises:
        InputError: naming the entry, its value and the allowed values.
    """
    if not isinstance(architecture, Mapping) or not {"name", "options"} <= architecture.keys():
        raise InputError(f'architecture is {architecture!r}; it must be {{"name": ..., "options": {{...}}}}')
    if unknown := sorted(architecture.keys() - set(_ENTRIES)):
        raise InputError(f"architecture has an unknown entry {unknown[0]!r}; it has: {', '.join(_ENTRIES)}")
    name, options = architecture["name"], architecture["options"]
    if not isinstance(name, str) or not isinstance(options, Mapping):
        raise InputError(f"architecture: name {name!r} must be a string and options {options!r} a mapping")
    if ("mean" in architecture) != ("std" in architecture):
        raise InputError("architecture: mean and std must both be given; one of them is missing")
    for key in ("mean", "std"):
        if key in architecture:
            _check_colours(f"architecture.{key}", architecture[key])
    if not _texts(origin := architecture.get("pretrained", {})):
        raise InputError(f"architecture.pretrained is {quoted(origin)}; it must be {{what: text}}")


def check_wrapped(options: Mapping[str, Any]) -> None:
    """Check the options of a wrapped module.

    Raises:
        InputError: naming the option, its value and the allowed values.
    """
    for key, value in options.items():
        if key in ("mean", "std"):
            _check_colours(f"wrapped.{key}", value)
        elif key == "factory" and not (value is None or isinstance(value, str)):
            raise InputError(f"wrapped.factory is {value!r}; it must be 'package.module:function' or null")
        elif key == "image_level" and not isinstance(value, bool):
            raise InputError(f"wrapped.image_level is {value!r}; it must be true or false")
        elif key == "last" and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise InputError(f"wrapped.last is {value!r}; it must be a list of names of modules")
        elif key == "features" and not _texts(value):
            raise InputError(f"wrapped.features is {value!r}; it must be {{feature: name of a module}}")
        elif key == "embedding" and not (value is None or isinstance(value, str)):
            raise InputError(f"wrapped.embedding is {value!r}; it must be the name of a module or null")
        elif key not in _WRAPPED:
            raise InputError(f"wrapped has no option {key!r}; it has: {', '.join(_WRAPPED)}")


def _texts(value: Any) -> bool:
    """Whether ``value`` is a mapping of strings to strings."""
    return isinstance(value, Mapping) and all(isinstance(one, str) for pair in value.items() for one in pair)


def _check_colours(what: str, numbers: Any) -> None:
    """Check that ``numbers`` is a list of three finite numbers.

    Raises:
        InputError: naming it.
    """
    if not isinstance(numbers, list) or len(numbers) != 3 or not all(finite(number) for number in numbers):
        raise InputError(f"{what} {numbers!r} is not one number for each of R, G and B")


@contextmanager
def in_proportion(size: int) -> Iterator[None]:
    """Inside the block, a network whose parameters are far larger than ``size`` is refused while it is built.

    Args:
        size: bytes of the file that holds the weights.

    Raises:
        InputError: if parameters take more than the free memory, or more than both 1 GiB and 1,000 times ``size``; or
            for more than 100,000 modules.
    """
    most = min(max(_LEAST, _TIMES * size), _free())
    modules, taken = 0, 0

    def count(*_: object) -> None:
        nonlocal modules
        modules += 1
        if modules > _MODULES:
            raise InputError(f"its options need more than {_MODULES:,} modules")

    def weigh(_: nn.Module, name: str, value: Tensor) -> None:
        nonlocal taken
        taken += value.numel() * value.element_size()
        if taken > most:
            raise InputError(
                f"its options need more than {most / 2**30:.3g} GiB of parameters, for a weights file of {size:,} bytes"
            )

    hooks = [register_module_module_registration_hook(count), register_module_parameter_registration_hook(weigh)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _free() -> int:
    """Free memory in bytes; 2^60 if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 2**60
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 2**60)
