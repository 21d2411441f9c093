"""An architecture that a file describes: its form is checked, and what is built from it is bounded as it grows."""

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
"""Modules that a network may have while it is built; the largest of timm's have some 5,000."""

_LEAST, _TIMES = 2**30, 1000
"""Bytes that any network may take, and how many times its file's size a dense network may take before its plan."""


_ENTRIES = ("name", "options", "mean", "std", "pretrained")
"""Entries of an architecture; the last three may be missing."""

_WRAPPED = ("factory", "mean", "std", "image_level", "last", "features", "embedding")
"""Options of a wrapped module."""


def check_architecture(architecture: Any) -> None:
    """Refuse a description that is not ``{"name": text, "options": mapping}``, with ``mean`` and ``std`` or without.

    Raises:
        InputError: naming the entry, what it holds and what it must hold.
    """
    if not isinstance(architecture, Mapping) or not {"name", "options"} <= architecture.keys():
        raise InputError(f'architecture is {architecture!r}; it must be {{"name": ..., "options": {{...}}}}')
    if unknown := sorted(architecture.keys() - set(_ENTRIES)):
        raise InputError(f"architecture has an unknown entry {unknown[0]!r}; it has: {', '.join(_ENTRIES)}")
    name, options = architecture["name"], architecture["options"]
    if not isinstance(name, str) or not isinstance(options, Mapping):
        raise InputError(f"architecture: name {name!r} must be a text and options {options!r} a mapping")
    if ("mean" in architecture) != ("std" in architecture):
        raise InputError("architecture: mean and std go together; one of them is missing")
    for key in ("mean", "std"):
        if key in architecture:
            _check_colours(f"architecture.{key}", architecture[key])
    if not _texts(told := architecture.get("pretrained", {})):
        raise InputError(f"architecture.pretrained is {quoted(told)}; it must be {{what: text}}")


def check_wrapped(options: Mapping[str, Any]) -> None:
    """Refuse options that no wrapped module was saved with.

    Raises:
        InputError: naming the option, what it holds and what it must hold.
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
    """Whether ``value`` is a mapping of texts to texts."""
    return isinstance(value, Mapping) and all(isinstance(one, str) for pair in value.items() for one in pair)


def _check_colours(what: str, numbers: Any) -> None:
    """Refuse what is not three finite numbers.

    Raises:
        InputError: naming it.
    """
    if not isinstance(numbers, list) or len(numbers) != 3 or not all(finite(number) for number in numbers):
        raise InputError(f"{what} {numbers!r} is not one number for each of R, G and B")


@contextmanager
def in_proportion(size: int) -> Iterator[None]:
    """Building inside the block stops before its parameters take memory out of proportion to ``size``.

    Args:
        size: bytes of the file that holds the weights.

    Raises:
        InputError: where parameters would have more than 1 GiB and 1,000 times the file's size, or more than is free;
            or for more than 100,000 modules.
    """
    most = min(max(_LEAST, _TIMES * size), _free())
    modules, taken = 0, 0

    def count(*_: object) -> None:
        nonlocal modules
        modules += 1
        if modules > _MODULES:
            raise InputError(f"its options ask for more than {_MODULES:,} modules")

    def weigh(_: nn.Module, name: str, value: Tensor) -> None:
        nonlocal taken
        taken += value.numel() * value.element_size()
        if taken > most:
            raise InputError(
                f"its options ask for parameters of more than {most / 2**30:.3g} GiB, for weights of {size:,} bytes"
            )

    hooks = [register_module_module_registration_hook(count), register_module_parameter_registration_hook(weigh)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _free() -> int:
    """Bytes of memory that are free here; a great many where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 2**60
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 2**60)
