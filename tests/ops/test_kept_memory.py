"""Freed memory stays in the process inside the outermost block, and is returned at its end: page faults are counted."""

import ctypes
import resource
from threading import Thread

import pytest

from hardy.ops import kept_memory as module
from hardy.ops.kept_memory import kept_memory

pytestmark = pytest.mark.skipif(module._library() is None, reason="the C library is not GNU's")

BLOCK = 48 * 2**20
PAGES = BLOCK // resource.getpagesize()


def faults() -> int:
    """Page faults of taking a large block, writing it and freeing it, for the second time."""
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(BLOCK)))
        ctypes.memset(block, 1, BLOCK)
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_the_same_block_faults_once_inside_and_every_time_outside() -> None:
    with kept_memory():
        assert faults() < PAGES / 100
    assert faults() > PAGES / 2


def test_the_outermost_block_decides() -> None:
    with kept_memory():
        with kept_memory():
            assert faults() < PAGES / 100
        assert faults() < PAGES / 100
    assert faults() > PAGES / 2


def test_an_error_returns_the_memory() -> None:
    with pytest.raises(ZeroDivisionError):
        kept_memory()(lambda: 1 / 0)()
    assert faults() > PAGES / 2


def test_blocks_of_other_threads_count() -> None:
    with kept_memory():
        other = Thread(target=kept_memory()(faults))
        other.start()
        other.join()
        assert faults() < PAGES / 100


def test_as_a_decorator_it_opens_a_block_at_each_call() -> None:
    counted = kept_memory()(faults)
    assert counted() < PAGES / 100
    assert counted() < PAGES / 100
    assert faults() > PAGES / 2
