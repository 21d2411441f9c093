"""Keeps freed memory in the process, for loops that allocate the same blocks again and again.

The allocator of the C library returns large blocks to the system when they are freed, and the system clears each page
before it gives it out again. Training steps, and a network that predicts window after window, allocate the same blocks
each time, and up to half of the CPU time is spent on clearing pages. See ``mallopt`` in the manual of the GNU C
library, section "Malloc Tunable Parameters".
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

__all__ = ["kept_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
_LARGEST = 32 * 2**20
"""The largest threshold that the GNU C library sets by itself, after a block of this size was freed."""

_lock = Lock()
_depth = 0
"""Blocks of `kept_memory` that are open, in all threads."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside the block, freed CPU memory stays in the process; at its end it is returned to the system.

    Blocks may be nested; the outermost decides. Results do not change. Has no effect with a C library other than GNU's.
    """
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)


def _enter(more: int) -> None:
    """Set the allocator as the number of open blocks, changed by ``more``, asks for."""
    global _depth
    found = _library()
    if found is None:
        return
    mallopt, trim = found
    with _lock:
        before, _depth = _depth, _depth + more
        if not before:
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, _NEVER)
        elif not _depth:
            for what, value in ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2 * _LARGEST)):
                mallopt(what, value)
            trim(0)


@cache
def _library() -> tuple[Callable[[int, int], int], Callable[[int], int]] | None:
    """``mallopt`` and ``malloc_trim`` of the GNU C library; None with another C library."""
    try:
        library = ctypes.CDLL(None)
        return library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library without a name
        return None
