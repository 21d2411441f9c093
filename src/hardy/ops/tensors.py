"""Tensors in files: reading with one-line errors, checksums, and checks for NaN and infinity."""

import errno
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from hardy.errors import InputError

__all__ = ["DAMAGED", "check_finite", "check_kinds", "checksum", "decoded", "load_strictly", "not_finite", "opened"]

DAMAGED = (SafetensorError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""The errors that safetensors and torch raise for bytes that they cannot read as tensors."""


@contextmanager
def _readable() -> Iterator[None]:
    """Turn the errors of safetensors and torch for unreadable bytes (`DAMAGED`) into a one-line `ValueError`."""
    try:
        yield
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or "damaged"
        raise ValueError(f"unknown type {reason}" if isinstance(error, LookupError) else reason) from None


def decoded(data: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file's bytes.

    Raises:
        ValueError: for anything else.
    """
    with _readable():
        return load(data)


def opened(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and the texts in its header.

    Raises:
        OSError: if the file does not exist or cannot be read.
        ValueError: if it is not a readable safetensors file.
    """
    if not file.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    with _readable(), safe_open(file, framework="pt") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118


def checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """The SHA-256 of names, types, shapes and bytes of ``tensors``, in the order of their names, and of ``texts``."""
    total = hashlib.sha256()
    for name, text in sorted(texts.items()):
        total.update(f"{name}={len(text)}:{text}\n".encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():
            total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def not_finite(tensors: Mapping[str, Tensor], masks: Collection[str] = ()) -> str | None:
    """The name of the first tensor with NaN or infinity, or None; those in ``masks`` may hold minus infinity."""
    for name, value in tensors.items():
        if (value.is_floating_point() or value.is_complex()) and not value.is_meta:
            bad = value[~torch.isfinite(value)]
            if bad.numel() and not (name in masks and (bad == -torch.inf).all()):
                return name
    return None


def check_kinds(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Check that new tensors are of the same kind (integer, real, complex) as those that they replace.

    Torch would convert them without an error and lose digits.

    Raises:
        ValueError: for a tensor of another kind; the message names the first.
    """
    for name, value in found.items():
        kept = own.get(name)
        if kept is not None and (kept.is_floating_point(), kept.is_complex()) != (
            value.is_floating_point(),
            value.is_complex(),
        ):
            raise ValueError(f"{name} is of {value.dtype}, not of {kept.dtype}")


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load ``tensors`` into the parameters and buffers of ``module``, in place; names, shapes and kinds must match.

    Raises:
        ValueError: for tensors that are missing, unknown, or of another shape or kind; the message names them.
    """
    check_kinds(module.state_dict(), tensors)
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())) from None


def check_finite(network: nn.Module, source: object = None) -> None:
    """Check that no weight is NaN or infinity, which would make all results meaningless.

    A buffer that is not a statistic of a norm may hold minus infinity, like an attention mask. The message begins with
    ``source`` (the network's folder) if it is given, otherwise with the network's class.

    Raises:
        InputError: for NaN or infinity; the message names the first such tensor.
    """
    statistics = {
        f"{name}.{part}"
        for name, module in network.named_modules()
        if isinstance(module, _NormBase)
        for part, _ in module.named_buffers(recurse=False)
    }
    masks = {name for name, _ in network.named_buffers() if name not in statistics}
    if bad := not_finite(network.state_dict(), masks):
        raise InputError(
            f"{source or type(network).__name__}: {bad} holds NaN or infinity, so nothing can be computed with it; its "
            "training diverged or its file was damaged: use other weights, or train again with a lower optim.lr or "
            "optim.clip"
        )
