"""Freed memory stays in the process inside the outermost block, and is returned at its end: page faults are counted.

Each claim is checked in a process of its own. In one that ran other tests, the heap may have a hole that is large
enough for the block, and memory inside the heap is not returned by a free.
"""

import ctypes
import resource
from collections.abc import Callable
from multiprocessing import get_context
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


def the_same_block_faults_once_inside_and_every_time_outside() -> None:
    with kept_memory():
        assert faults() < PAGES / 100
    assert faults() > PAGES / 2


def the_outermost_block_decides() -> None:
    with kept_memory():
        with kept_memory():
            assert faults() < PAGES / 100
        assert faults() < PAGES / 100
    assert faults() > PAGES / 2


def an_error_returns_the_memory() -> None:
    with pytest.raises(ZeroDivisionError):
        kept_memory()(lambda: 1 / 0)()
    assert faults() > PAGES / 2


def blocks_of_other_threads_count() -> None:
    with kept_memory():
        other = Thread(target=kept_memory()(faults))
        other.start()
        other.join()
        assert faults() < PAGES / 100


def as_a_decorator_it_opens_a_block_at_each_call() -> None:
    counted = kept_memory()(faults)
    assert counted() < PAGES / 100
    assert counted() < PAGES / 100
    assert faults() > PAGES / 2


@pytest.mark.parametrize(
    "claim",
    [
        the_same_block_faults_once_inside_and_every_time_outside,
        the_outermost_block_decides,
        an_error_returns_the_memory,
        blocks_of_other_threads_count,
        as_a_decorator_it_opens_a_block_at_each_call,
    ],
    ids=lambda claim: claim.__name__,
)
def test_in_a_new_process(claim: Callable[[], None]) -> None:
    process = get_context("spawn").Process(target=claim)
    process.start()
    process.join()
    assert process.exitcode == 0
