"""Errors of the libraries that build and run an encoder, as one line: what was chosen, why not, and what would do."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hardy.errors import InputError

__all__ = ["reason", "refused", "sized"]

_MULTIPLES = (8, 16, 32, 64, 128, 256)
"""Of which the sides of an image are tried to be, where an encoder does not take it as it is."""


def reason(error: Exception) -> str:
    """The kind of ``error`` and the beginning of what it says, in one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:120]}{'...' * (len(said) > 120)}" if said else type(error).__name__


@contextmanager
def refused(what: str, fix: str) -> Iterator[None]:
    """Inside the block, any error but `InputError` and lack of memory becomes one line of ``what``, why and ``fix``."""
    try:
        yield
    except (InputError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{what} ({reason(error)}); {fix}") from error


@contextmanager
def sized(name: str, model: nn.Module, run: Callable[[Tensor], object], images: Tensor) -> Iterator[None]:
    """Inside the block, in which encoder ``name`` runs on ``images``, an error names their size and one that would do.

    What a batch norm says of one value per channel stays as it is, for it is about the batch; so does every error while
    a graph is exported.

    Args:
        name: of the encoder.
        model: the encoder.
        run: what is tried on images of other sizes.
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
        fix = f"sides such as {found[0]}x{found[1]} do (data.size, data.crop)" if found else "choose another encoder"
        raise InputError(f"encoder {name!r} does not take {size[0]}x{size[1]} ({reason(error)}); {fix}") from error


@torch.no_grad()
def _fitting(model: nn.Module, run: Callable[[Tensor], object], images: Tensor) -> tuple[int, int] | None:
    """The least size of at least that of ``images`` that ``run`` takes, of those tried; None where it takes none."""
    training, found = model.training, None
    model.eval()
    for multiple in _MULTIPLES:
        height, width = (math.ceil(side / multiple) * multiple for side in images.shape[-2:])
        try:
            run(images.new_zeros(1, 3, height, width))
        except Exception:  # noqa: S112 - what does not run is not proposed
            continue
        found = (height, width)
        break
    model.train(training)
    return found
