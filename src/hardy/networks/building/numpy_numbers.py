"""Reads NumPy numbers in a checkpoint, such as the best score, without running NumPy functions that the file names.

A pickled NumPy number names two NumPy functions, its type and its constructor, and ``torch.load`` with
``weights_only`` refuses to run them. Two functions of Hardy replace them: they accept numbers of plain types only.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["numpy_numbers"]

_PLAIN = {f"{kind}{size}" for kind, sizes in {"b": "1", "i": "1248", "u": "1248", "f": "248"}.items() for size in sizes}
"""Codes of booleans, integers and floating-point numbers of 1 to 8 bytes."""


class _Type:
    """Replaces ``numpy.dtype``: the code of a plain type, and its byte order.

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
    """Replaces ``numpy.core.multiarray.scalar``."""
    if not isinstance(kind, _Type) or not isinstance(data, bytes) or len(data) != np.dtype(kind.code).itemsize:
        raise pickle.UnpicklingError("a NumPy value that is not a number")
    number: float = np.frombuffer(data, kind.code)[0].item()
    return number


@contextmanager
def numpy_numbers() -> Iterator[None]:
    """Inside this context ``torch.load(..., weights_only=True)`` reads NumPy numbers as Python numbers."""
    places = [(_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with torch.serialization.safe_globals([(_Type, "numpy.dtype"), *places]):
        yield
