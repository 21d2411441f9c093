"""Batches in the caller's memory, used instead of the images of domains."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hardy.errors import InputError
from hardy.types import Batch

__all__ = ["Batches", "MemoryBatches"]

Batches = Iterable[Batch | tuple[Tensor, Tensor]]
"""Batches, or pairs of images (B, C, H, W) and labels (B, ...) of class ids with 255 where unlabelled."""


class MemoryBatches:
    """Batches that can be read several times from the start, even when they come from an iterator.

    Args:
        data: the batches, or None.

    Raises:
        InputError: for names of domains in place of batches.
    """

    def __init__(self, data: Batches | None = None) -> None:
        if isinstance(data, (str, Mapping)):
            raise InputError("data of a plain module are batches: give data=[(images, labels), ...], or hardy.wrap it")
        self.given = data is not None
        self._rest = iter(() if data is None else data)
        self._read: list[Batch] = []

    def __iter__(self) -> Iterator[Batch]:
        """The batches, from the first one.

        Raises:
            InputError: for one that is neither a `Batch` nor a pair of tensors.
        """
        yield from self._read
        for one in self._rest:
            self._read.append(_batch(one))
            yield self._read[-1]


def _batch(one: Any) -> Batch:
    if isinstance(one, Batch):
        return one
    if not isinstance(one, (tuple, list)) or len(one) != 2 or not all(isinstance(part, Tensor) for part in one):
        raise InputError(f"data: a batch is a Batch or a pair of tensors (images, labels), not {type(one).__name__}")
    images, labels = one
    return Batch(images, labels.long(), torch.zeros(len(images), dtype=torch.int64))
