"""Memory that a loop frees and takes again stays with the process.

The allocator of the C library gives large blocks back to the system when they are freed, and the system clears each
page that it hands out again. A network that predicts one window after another takes the same blocks for each, and up to
half of the CPU's time goes into clearing them. See ``mallopt`` in the manual of the GNU C library, section "Malloc
Tunable Parameters".
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["kept_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
_LARGEST = 32 * 2**20
"""The threshold that the GNU C library reaches by itself once a block of this size was freed."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """In the block, freed memory of the CPU stays with the process; at its end it is given back.

    The results are the same. Does nothing where the C library is another than GNU's.
    """
    found = _library()
    if found is None:
        yield
        return
    mallopt, trim = found
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        for what, value in ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2 * _LARGEST)):
            mallopt(what, value)
        trim(0)


@cache
def _library() -> tuple[Callable[[int, int], int], Callable[[int], int]] | None:
    """``mallopt`` and ``malloc_trim`` of the GNU C library; None where there is another."""
    try:
        library = ctypes.CDLL(None)
        return library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library without a name
        return None
