"""One artefact from dense to shipped: a folder with ``network.safetensors`` and ``network.json``.

The JSON names the architecture and its options, the label space and the changes since it was built, in order (channels
pruned, a tuner attached or merged); loading builds the network, replays the changes and fills in the weights. Of a
tuned network whose origin is known the file holds only what was trained (`hardy.engine.rest`). No pickle is read or
written. Format 1, which had one channel plan in place of the changes, is read for ever.
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
from hardy.engine.changes import replay, untrained
from hardy.engine.checkpoint import apart
from hardy.engine.classes import for_classes
from hardy.engine.rest import Load, check_rest, fetched, origin_of, rest_of
from hardy.errors import InputError
from hardy.files import expanded, write_together
from hardy.networks.base import Network
from hardy.networks.building.create import rebuild
from hardy.networks.building.wrapped import Wrapped
from hardy.ops.tensors import decoded, load_strictly
from hardy.stored import contents, intact, json_value, sealed
from hardy.trust import from_file, names_in

__all__ = ["FORMAT", "check", "checksum", "like", "load", "origin", "restore", "save", "saved_checksum"]

FORMAT, _FIRST = "hardy-network/2", "hardy-network/1"
_TENSORS = "hardy-network/1"
"""The format in the header of the tensors' file, which has not changed."""

_KEYS = {"format", "hardy", "architecture", "labels", "changes", "sha256", "rest", "description_sha256"}


def save(
    network: Network, folder: Path | str, *, weights: Mapping[str, Tensor] | None = None, complete: bool = False
) -> Path:
    """Write ``network`` to ``folder``: both files or neither, and the JSON names the weights' checksum.

    Args:
        network: any network of Hardy's, pruned or not.
        folder: made if it is not there.
        weights: saved in place of the network's own, such as its moving average.
        complete: write all weights of a tuned network; else those that its tuner leaves as they are stay out where it
            is known which run, or which encoder's weights, they can be read from again.

    Returns:
        the folder.

    Raises:
        InputError: for a network that could not be built again.
    """
    check(network)
    folder = expanded(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = weights if weights is not None else network.state_dict()
    description: dict[str, Any] = {
        "format": FORMAT,
        "hardy": __version__,
        "architecture": network.architecture,
        "labels": network.labels.to_json(),
        "changes": network.changes,
    }
    if not complete and (rest := rest_of(network, state, folder)):
        out = untrained(network)
        state = {name: value for name, value in state.items() if name not in out}
        description["rest"] = rest
    data = _encoded(state)
    description = sealed({**description, "sha256": _sha256(data)})
    text = json.dumps(description, indent=1) + "\n"
    write_together({folder / "network.safetensors": data, folder / "network.json": text.encode()})
    return folder


def checksum(network: Network) -> str:
    """The sha256 of the weights of ``network`` as `save` writes them, in hexadecimal digits."""
    return _sha256(_encoded(network.state_dict()))


def _encoded(weights: Mapping[str, Tensor]) -> bytes:
    return save_tensors(apart(weights), {"format": _TENSORS})


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
    data = _weights(folder, description)
    try:
        with from_file(trust):
            spare = deepcopy(module) if "rest" in description else None
            network = rebuild(
                description["architecture"],
                LabelSpace.from_json(description["labels"]),
                module=module,
                size=len(data),
            )
            replay(network, description["changes"], size=len(data))
            _fill(network, data, description, folder, lambda run: load(run, module=spare))
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error.__cause__
    return network.eval() if classes is None else for_classes(network, label_space(classes), source=str(folder))


def saved_checksum(folder: Path) -> str:
    """The sha256 of the weights of the network saved in ``folder``, as its description names it."""
    return str(_describe(folder)["sha256"])


def _fill(network: Network, data: bytes, description: Mapping[str, Any], folder: Path, load_run: Load) -> None:
    """Give ``network`` its weights, in place: those in ``data``, and the rest from where it is."""
    try:
        tensors = decoded(data)
        if "rest" in description:
            if wrong := sorted(tensors.keys() & untrained(network)):
                raise ValueError(f"{wrong[0]} is not trained")
            tensors |= fetched(description, folder, network, load_run)
            network.origin = origin_of(description["rest"], folder)
        load_strictly(network, tensors)
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        raise InputError(f"the weights do not fit the network: {' '.join(str(error).split())[:300]}") from None


def origin(folder: Path | str) -> dict[str, Any]:
    """Where a network that was loaded from ``folder`` has its weights from, for its attribute ``origin``."""
    folder = expanded(folder)
    folder = folder.parent if folder.name == "network.json" else folder
    return {"run": str(folder.resolve()), "sha256": _describe(folder)["sha256"]}


def like(folder: Path, network: Network) -> Network:
    """The network saved in ``folder``, which was made of ``network``: the code of that one is trusted."""
    description = _describe(folder)
    known = len(network.changes)
    trust = names_in([network.architecture, network.changes])
    if isinstance(network, Wrapped) and known and description["changes"][:known] == network.changes:
        made = deepcopy(network)  # its module is not the one that it was before the first change
        restore(made, folder, trust=trust)
        return made.eval()
    return load(folder, trust=trust, module=deepcopy(network.module) if isinstance(network, Wrapped) else None)


def restore(network: Network, folder: Path, *, trust: Iterable[str] = ()) -> None:
    """Give ``network`` the weights saved in ``folder``, in place, after the changes that it has not seen yet.

    Args:
        network: what the network in ``folder`` was made of.
        folder: holds a network.
        trust: see `load`.

    Raises:
        InputError: when it is torn or gone, or was made of another network.
    """
    description = _describe(folder)
    data = _weights(folder, description)
    known = len(network.changes)
    try:
        if description["changes"][:known] != network.changes:
            raise InputError("holds a network of another form")
        with from_file(trust):
            spare = deepcopy(network.module) if isinstance(network, Wrapped) and not known else None
            replay(network, description["changes"][known:], size=len(data))
            _fill(network, data, description, folder, lambda run: load(run, module=spare))
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error.__cause__


def _weights(folder: Path, description: Mapping[str, Any]) -> bytes:
    """The bytes of the tensors' file in ``folder``.

    Raises:
        InputError: when they are not those that ``description`` names.
    """
    data = _read(folder / "network.safetensors")
    if _sha256(data) != description["sha256"]:
        raise InputError(f"{folder}: network.safetensors does not match network.json (torn write?); save it again")
    return data


def _describe(folder: Path) -> dict[str, Any]:
    """What ``network.json`` says, as format 2 would say it."""
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
    if version not in (FORMAT, _FIRST):
        raise InputError(
            f"{file}: format {version!r}, but this Hardy reads {_FIRST!r} and {FORMAT!r}; save it with this version"
        )
    changes = "changes" if version == FORMAT else "plan"
    if lacking := sorted({"architecture", "labels", changes, "sha256"} - description.keys()):
        raise InputError(f"{file}: lacks {', '.join(lacking)}; save the network again")
    if not intact(description):
        raise InputError(f"{file}: does not match its own checksum (damaged or edited); save the network again")
    if version == FORMAT and (unknown := sorted(description.keys() - _KEYS)):
        raise InputError(f"{file}: has an unknown entry {unknown[0]!r}; it has: {', '.join(sorted(_KEYS))}")
    if version == _FIRST:
        plan = description.pop("plan")
        return {**description, "changes": [] if plan == {} else [{"change": "prune", "plan": plan}]}
    if "rest" in description:
        try:
            check_rest(description["rest"])
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
    return description


def _read(file: Path) -> bytes:
    try:
        return contents(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
