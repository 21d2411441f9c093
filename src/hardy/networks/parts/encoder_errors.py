"""Errors from the libraries that build and run an encoder, as one line: the choice, the reason and a fix."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hardy.errors import InputError

__all__ = ["one_line_errors", "reason", "size_errors"]

_MULTIPLES = (8, 16, 32, 64, 128, 256)
"""To find a size that an encoder takes, the sides of the image are rounded up to multiples of these, in turn."""


def reason(error: Exception) -> str:
    """The type of ``error`` and the beginning of its message, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}{'...' * (len(text) > 120)}" if text else type(error).__name__


@contextmanager
def one_line_errors(what: str, fix: str) -> Iterator[None]:
    """Inside the block, every error but `InputError` and out-of-memory becomes one line: ``what``, reason, ``fix``."""
    try:
        yield
    except (InputError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{what} ({reason(error)}); {fix}") from error


@contextmanager
def size_errors(name: str, model: nn.Module, run: Callable[[Tensor], object], images: Tensor) -> Iterator[None]:
    """Inside the block, in which encoder ``name`` runs on ``images``, an error names their size and a size that works.

    The error of a batch norm with one value per channel does not change, because its reason is the batch. No error
    changes during an export.

    Args:
        name: the encoder's name.
        model: the encoder.
        run: called with images of other sizes.
        images: (B, 3, H, W).
    """
    try:
        yield
    except (InputError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        if (
            torch.compiler.is_compiling()
            or torch.compiler.is_exporting()
            or "more than 1 value per channel" in str(error)
        ):
            raise
        size = tuple(images.shape[-2:])
        found = _fitting(model, run, images)
        fix = f"sides such as {found[0]}x{found[1]} work (data.size, data.crop)" if found else "choose another encoder"
        raise InputError(f"encoder {name!r} does not take {size[0]}x{size[1]} ({reason(error)}); {fix}") from error


@torch.no_grad()
def _fitting(model: nn.Module, run: Callable[[Tensor], object], images: Tensor) -> tuple[int, int] | None:
    """The smallest tried size that ``run`` accepts; all are at least as large as ``images``. None if it accepts
    none."""
    training, found = model.training, None
    model.eval()
    for multiple in _MULTIPLES:
        height, width = (math.ceil(side / multiple) * multiple for side in images.shape[-2:])
        try:
            run(images.new_zeros(1, 3, height, width))
        except Exception:  # noqa: S112 - a size that does not run is not proposed
            continue
        found = (height, width)
        break
    model.train(training)
    return found
