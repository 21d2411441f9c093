"""One artefact from dense to shipped: a folder with ``network.safetensors`` and ``network.json``.

The JSON names the architecture and its options, the label space and the channel plan (what was removed); loading
builds the dense network, replays the plan and fills in the weights. No pickle is read or written.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from hardy import __version__
from hardy.data.labels import LabelSpace, label_space
from hardy.engine.checkpoint import apart
from hardy.engine.classes import for_classes
from hardy.errors import InputError
from hardy.files import expanded, write_together
from hardy.networks.base import Network
from hardy.networks.building.create import rebuild
from hardy.networks.building.wrapped import Wrapped
from hardy.ops.tensors import decoded, load_strictly
from hardy.pruning.remove import replay
from hardy.stored import contents, intact, json_value, sealed
from hardy.trust import from_file, names_in

__all__ = ["FORMAT", "check", "checksum", "like", "load", "save", "weights"]

FORMAT = "hardy-network/1"


def save(network: Network, folder: Path | str, *, weights: Mapping[str, Tensor] | None = None) -> Path:
    """Write ``network`` to ``folder``: both files or neither, and the JSON names the weights' checksum.

    Args:
        network: any network of Hardy's, pruned or not.
        folder: made if it is not there.
        weights: saved in place of the network's own, such as its moving average.

    Returns:
        the folder.

    Raises:
        InputError: for a network that could not be built again.
    """
    check(network)
    folder = expanded(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = _encoded(weights if weights is not None else network.state_dict())
    description = sealed(
        {
            "format": FORMAT,
            "hardy": __version__,
            "architecture": network.architecture,
            "labels": network.labels.to_json(),
            "plan": network.plan,
            "sha256": _sha256(data),
        }
    )
    text = json.dumps(description, indent=1) + "\n"
    write_together({folder / "network.safetensors": data, folder / "network.json": text.encode()})
    return folder


def checksum(network: Network) -> str:
    """The sha256 of the weights of ``network`` as `save` writes them, in hexadecimal digits."""
    return _sha256(_encoded(network.state_dict()))


def _encoded(weights: Mapping[str, Tensor]) -> bytes:
    return save_tensors(apart(weights), {"format": FORMAT})


def check(network: Network) -> None:
    """Refuse a network whose artefact could not be loaded.

    Raises:
        InputError: for one that neither `hardy.create` nor `hardy.wrap` made.
    """
    if not isinstance(network, Network):
        raise InputError(
            f"{type(network).__name__} is no Network, so it cannot be saved; wrap it: "
            "hardy.save(hardy.wrap(module, classes=...), folder)"
        )
    if not network.architecture:
        name = type(network).__name__
        raise InputError(
            f"this {name} does not know how it was made, so it cannot be saved; make it by hardy.create, with "
            f"'your.module:{name}' for a class of your own"
        )


def load(
    folder: Path | str,
    *,
    module: nn.Module | None = None,
    classes: str | Path | LabelSpace | None = None,
    trust: str | Iterable[str] = (),
) -> Network:
    """The network saved in ``folder``, in evaluation mode. No code runs but Hardy's and that of modules in ``trust``.

    Args:
        folder: a run's folder, or the ``network.json`` in it.
        module: for a wrapped module saved without a factory, the module itself, built as it was before pruning.
        classes: a label space, its name, or the path of a ``classes.yaml``, in place of the classes that the network
            was trained for: its last layer is new, by the names of the classes where they agree, and else drawn.
        trust: modules such as ``["their.module"]`` whose code may run where the folder names it, as a class
            ``"their.module:Class"`` or a factory.

    Raises:
        InputError: when the folder holds no network, a torn one, one of another version, a pickle, a description from
            which no network can be built, the name of code that is not trusted, or a network whose last layer cannot be
            told from the others.
    """
    folder = expanded(folder)
    folder = folder.parent if folder.name == "network.json" else folder
    description = _describe(folder)
    data = _read(folder / "network.safetensors")
    if _sha256(data) != description["sha256"]:
        raise InputError(f"{folder}: network.safetensors does not match network.json (torn write?); save it again")
    try:
        with from_file(trust):
            network = rebuild(
                description["architecture"], LabelSpace.from_json(description["labels"]), module=module, size=len(data)
            )
        replay(network, description["plan"])
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error.__cause__
    try:
        load_strictly(network, decoded(data))
    except ValueError as error:
        raise InputError(f"{folder}: the weights do not fit the network: {str(error)[:300]}") from None
    return network.eval() if classes is None else for_classes(network, label_space(classes), source=str(folder))


def like(folder: Path, network: Network) -> Network:
    """The network saved in ``folder``, which was made of ``network``: the code of that one is trusted."""
    module = deepcopy(network.module) if isinstance(network, Wrapped) else None
    return load(folder, trust=names_in(network.architecture), module=module)


def weights(folder: Path) -> dict[str, Tensor]:
    """The weights of the network saved in ``folder``, by name.

    Raises:
        InputError: when they are torn or gone.
    """
    if _sha256(data := _read(folder / "network.safetensors")) != _describe(folder)["sha256"]:
        raise InputError(f"{folder}: network.safetensors does not match network.json (torn write?); save it again")
    return decoded(data)


def _describe(folder: Path) -> dict[str, Any]:
    file = folder / "network.json"
    if not file.exists():
        pickles = [path.name for path in folder.glob("*.pt*")] if folder.is_dir() else []
        hint = f"; {pickles[0]} is a pickle, which Hardy does not run" if pickles else ""
        raise InputError(f"{folder}: no network.json here, so this is no network of Hardy's{hint}")
    data = _read(file)
    try:
        description: dict[str, Any] = json_value(data)
        version = description["format"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file}: not a network's description; save the network again") from None
    if version != FORMAT:
        raise InputError(f"{file}: format {version!r}, but this Hardy reads {FORMAT!r}; save it with this version")
    if lacking := sorted({"architecture", "labels", "plan", "sha256"} - description.keys()):
        raise InputError(f"{file}: lacks {', '.join(lacking)}; save the network again")
    if not intact(description):
        raise InputError(f"{file}: does not match its own checksum (damaged or edited); save the network again")
    return description


def _read(file: Path) -> bytes:
    try:
        return contents(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
