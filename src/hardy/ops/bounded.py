"""Limits on the tensors and bytes that a network may allocate, checked before each allocation.

A width of a billion, from a typing error in a recipe or a damaged file, would exhaust the memory of the machine. With
these limits it gives an error message of one line, for any option of any network.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hardy.errors import InputError

__all__ = ["BYTES", "TENSORS", "bounded"]

BYTES = 2**32
"""4 GiB: a billion weights in float32, as in the largest encoders."""

TENSORS = 30_000
"""The largest networks have a few thousand tensors; temporary tensors count too."""


class _Counting(TorchDispatchMode):
    """Raises an error before an operation that would exceed the limits."""

    def __init__(self, what: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.what = what
        self.bytes = 0
        self.tensors = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if args and _is_size(args[0]):  # empty, zeros, rand and similar: the size is known before the allocation
            each = torch.empty(0, dtype=given.get("dtype") or torch.get_default_dtype()).element_size()
            count = each
            for side in args[0]:
                count *= max(side, 0)
            self.bytes += count
            self.tensors += 1
            if self.bytes > BYTES or self.tensors > TENSORS:
                raise InputError(
                    f"{self.what}: it needs {self.bytes / 2**30:,.1f} GiB in {self.tensors:,} tensors; at most "
                    f"{BYTES // 2**30} GiB in {TENSORS:,} are allowed; lower its widths or depths"
                )
        return func(*args, **given)


def _is_size(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(type(side) is int for side in value)


@contextmanager
def bounded(what: str) -> Iterator[None]:
    """Inside the block no more tensors are allocated than `BYTES` and `TENSORS` allow.

    Args:
        what: the name of what is built, for the message.

    Raises:
        InputError: if a limit or the memory of the machine is exceeded.
    """
    try:
        with _Counting(what):
            yield
    except (RuntimeError, OverflowError, MemoryError) as error:
        text = str(error)
        if isinstance(error, (OverflowError, MemoryError)) or "llocat" in text or "verflow" in text:
            raise InputError(
                f"{what}: it is too large for this machine ({' '.join(text.split())[:80]}); lower its widths"
            ) from None
        raise
