"""Tensors that a file holds: read with errors of one line, checksums, and checks for NaN and infinity."""

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
"""What safetensors and torch raise for bytes that are no tensors they know."""


@contextmanager
def _readable() -> Iterator[None]:
    """What safetensors and torch raise for bytes that are no tensors they know becomes a `ValueError` of one line."""
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
        OSError: when it is not there.
        ValueError: for anything else.
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
    """The first tensor that holds NaN or infinity, or None; those in ``masks`` may hold minus infinity."""
    for name, value in tensors.items():
        if (value.is_floating_point() or value.is_complex()) and not value.is_meta:
            bad = value[~torch.isfinite(value)]
            if bad.numel() and not (name in masks and (bad == -torch.inf).all()):
                return name
    return None


def check_kinds(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Refuse numbers of another kind (integer, real, complex) than those that they replace.

    Torch would convert them and drop what does not fit.

    Raises:
        ValueError: naming the first of them.
    """
    for name, value in found.items():
        kept = own.get(name)
        if kept is not None and (kept.is_floating_point(), kept.is_complex()) != (
            value.is_floating_point(),
            value.is_complex(),
        ):
            raise ValueError(f"{name} is of {value.dtype}, not of {kept.dtype}")


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put ``tensors`` into the parameters and buffers of ``module``, in place: just those, of their shapes and kinds.

    Raises:
        ValueError: naming what is missing, unknown, or of another shape or kind.
    """
    check_kinds(module.state_dict(), tensors)
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())) from None


def check_finite(network: nn.Module, source: object = None) -> None:
    """Refuse weights that hold NaN or infinity: results computed from them would be meaningless.

    A buffer that is no statistic of a norm may hold minus infinity, as the masks of attention do. The message begins
    with ``source``, the network's folder, if there is one, and else with the network's class.

    Raises:
        InputError: naming the first of them.
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
            "training diverged or its file was damaged: take other weights, or train again with a lower optim.lr or "
            "optim.clip"
        )
