"""The weights of a network: random initialisation, or a file whose names and shapes must all match."""

import hashlib
import logging
import math
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hardy.data.sources import beside_data
from hardy.errors import InputError
from hardy.files import expanded
from hardy.networks.building.numpy_numbers import numpy_numbers
from hardy.ops.tensors import DAMAGED, not_finite, opened

__all__ = ["digest", "fill", "initialise", "is_file", "note", "noted", "read_weights"]

_SWELL = 20
"""The most memory that weights may take, as a multiple of their file's size."""

_log = logging.getLogger("hardy")
_notes: ContextVar[dict[str, Any] | None] = ContextVar("notes", default=None)


@contextmanager
def noted() -> Iterator[dict[str, Any]]:
    """Inside the block, the mapping collects the values that `note` gets about pre-trained weights that are read."""
    found: dict[str, Any] = {}
    token = _notes.set(found)
    try:
        yield found
    finally:
        _notes.reset(token)


def note(**values: Any) -> None:
    """Add ``values`` to the mapping of `noted`; do nothing outside its block.

    Args:
        values: ``mean`` and ``std``; and ``pretrained``, the texts that an artefact keeps (name, sha256, licence,
            origin); they are merged with those of earlier calls.
    """
    found = _notes.get()
    if found is not None:
        before = found.get("pretrained", {})
        found.update(values)
        found["pretrained"] = {**before, **values.get("pretrained", {})}


def initialise(module: nn.Module) -> None:
    """Initialise the convolutions and linear layers of ``module`` at random and its norms as the identity, in place.

    Does nothing on the ``meta`` device.

    Layers without bias (a norm and a ReLU follow): He et al., ICCV 2015, eq. 14, with the fan-out of one group, so that
    depthwise filters are not too small by the number of groups. Layers with bias: variance 1 / fan-in (LeCun et al.,
    "Efficient backprop", 1998, section 4.6), bias 0.
    """
    for layer in module.modules():
        if any(weight.is_meta for weight in layer.parameters(recurse=False)):
            continue
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_out, fan_in = layer.weight.shape[0] * layer.weight[0, 0].numel(), layer.weight[0].numel()
            groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
            nn.init.normal_(layer.weight, std=math.sqrt(2 * groups / fan_out if layer.bias is None else 1 / fan_in))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def is_file(weights: Path | str) -> bool:
    """Whether ``weights`` is a file name, and not the name of weights to download.

    Raises:
        InputError: for a path that `hardy.files.expanded` refuses.
    """
    return expanded(weights).suffix in {".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl"}


def digest(weights: Mapping[str, Tensor]) -> str:
    """The SHA-256 of the bytes of all tensors, ordered by name."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(weights[name].detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def read_weights(file: Path | str) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a torch checkpoint, by name; its SHA-256 is logged.

    A torch checkpoint is read without running its pickle code (``weights_only``). Tensors nested under one of
    `_WRAPPERS` are taken from there, and a common ``module.`` prefix is removed. Numbers and strings next to the
    tensors are left out and logged. A relative path that does not exist is searched in the folder of all datasets
    (`hardy.data.sources.beside_data`).

    Raises:
        InputError: if the file is missing or damaged, holds anything but tensors, or a tensor with NaN or infinity.
    """
    file = beside_data(file)
    if not file.is_file():
        raise InputError(f"{file}: no such weights file")
    if not file.stat().st_size:
        raise InputError(f"{file}: is empty; fetch it again")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    _log.info("weights from %s, sha256 %s", file, sha256)
    note(pretrained={"name": file.name, "sha256": sha256})
    try:
        found = opened(file)[0] if file.suffix == ".safetensors" else _unpickled(file)
    except (struct.error, pickle.UnpicklingError, EOFError, AssertionError, OSError, *DAMAGED) as error:
        foreign = isinstance(error, pickle.UnpicklingError)
        text = "torn, or not a torch checkpoint" if isinstance(error, LookupError) else str(error)
        if "legacy .tar format" in text:
            text = "an archive, or a torch file of before 2017"
        elif "TorchScript" in text:
            text = "a TorchScript archive, which is a program: load it yourself, and save its state_dict()"
        reason = "a pickle of more than tensors, which is not run" if foreign else text.split("\n", 1)[0][:120]
        raise InputError(f"{file}: cannot be read as weights ({reason}); give a .safetensors or state_dict") from None
    weights = _flat(found, file)
    _check(weights, file)
    return weights


def _unpickled(file: Path) -> Any:
    """The content of a torch checkpoint; an archive that unpacks to far more than its size is refused."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _SWELL * file.stat().st_size:
                raise ValueError(f"its archive unpacks to more than {_SWELL} times its size")
    with warnings.catch_warnings(), numpy_numbers():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of the pickle's protocol
        return torch.load(file, map_location="cpu", weights_only=True)


def _check(weights: Mapping[str, Tensor], file: Path) -> None:
    """Check that tensors are dense and finite, and not views that claim far more memory than the file has."""
    for name, value in weights.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise InputError(f"{file}: {name} is sparse, quantised, complex or without values; save plain tensors")
    size = sum(value.numel() * value.element_size() for value in weights.values())
    if size > _SWELL * file.stat().st_size:
        raise InputError(f"{file}: its tensors would take {size:,} bytes, more than {_SWELL} times the file")
    if bad := not_finite(weights):
        raise InputError(f"{file}: {bad} holds NaN or infinite numbers; take a checkpoint from before it diverged")


_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "ema")
"""Keys under which training loops save weights in a checkpoint; the first that exists is used."""


def _flat(found: Any, file: Path) -> dict[str, Tensor]:
    for _ in range(3):  # a file may contain itself
        key = next((k for k in _WRAPPERS if isinstance(found, Mapping) and isinstance(found.get(k), Mapping)), None)
        if key is None:
            break
        others = [name for name in _WRAPPERS if name != key and isinstance(found.get(name), Mapping)]
        _log.info("weights are under %r%s", key, f", not {', '.join(map(repr, others))}" if others else "")
        found = found[key]
    named = {key: value for key, value in found.items() if isinstance(key, str)} if isinstance(found, Mapping) else {}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    beside = [name for name, value in named.items() if isinstance(value, int | float | complex | str | None)]
    if not tensors or len(tensors) + len(beside) < len(found):
        raise InputError(f"{file}: holds something other than named tensors; save the state_dict alone")
    if beside:
        _log.info("left out, because they are not tensors: %s", ", ".join(beside))
    while all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def fill(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    source: str,
    *,
    may_be_left: Callable[[Collection[str]], Collection[str]] = lambda names: (),
) -> None:
    """Load ``weights`` into ``module`` in place; all names and shapes must match.

    Args:
        module: the module to fill.
        weights: tensors by name. Batch counters (``num_batches_tracked``) may be missing.
        source: the name of the weights in messages.
        may_be_left: returns those of the names without a tensor in ``module`` that may be ignored, such as a
            classifier's.

    Raises:
        InputError: for missing names, left-over names or wrong shapes; ``module`` is not changed then.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    left = [name for name in weights if name not in own]
    left = [name for name in left if name not in may_be_left(left)] if left else []
    misfit = [
        f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    found = [("missing", missing), ("left over", left), ("of another shape", misfit)]
    wrong = [f"{len(names)} {what} ({_few(names)})" for what, names in found if names]
    if wrong:
        raise InputError(f"{source}: these are not the weights of this {type(module).__name__}: {'; '.join(wrong)}")
    module.load_state_dict({name: weights[name] for name in own if name in weights}, strict=False)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
