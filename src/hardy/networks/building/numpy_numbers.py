"""NumPy's numbers in a checkpoint, such as the best score so far, read without a call into NumPy that a file chooses.

A pickled number names two of NumPy's functions, its type and its constructor, which ``torch.load`` refuses to run with
``weights_only``. Stand-ins of Hardy's take their places: they make a number of a plain type and refuse the rest.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["numpy_numbers"]

_PLAIN = {f"{kind}{size}" for kind, sizes in {"b": "1", "i": "1248", "u": "1248", "f": "248"}.items() for size in sizes}
"""Codes of booleans, whole numbers and floating-point numbers of 1 to 8 bytes."""


class _Type:
    """What stands for ``numpy.dtype``: the code of a plain type, and the order of its bytes.

    Raises:
        UnpicklingError: for any other type.
    """

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or code not in _PLAIN:
            raise pickle.UnpicklingError(f"a NumPy value of type {str(code)[:20]!r}")
        self.code = f"<{code}"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.code = f">{self.code[1:]}"


def _number(kind: object, data: object) -> float:
    """What stands for ``numpy.core.multiarray.scalar``."""
    if not isinstance(kind, _Type) or not isinstance(data, bytes) or len(data) != np.dtype(kind.code).itemsize:
        raise pickle.UnpicklingError("a NumPy value that is no number")
    number: float = np.frombuffer(data, kind.code)[0].item()
    return number


@contextmanager
def numpy_numbers() -> Iterator[None]:
    """Inside this context ``torch.load(..., weights_only=True)`` reads numbers of NumPy as Python's."""
    places = [(_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with torch.serialization.safe_globals([(_Type, "numpy.dtype"), *places]):
        yield
