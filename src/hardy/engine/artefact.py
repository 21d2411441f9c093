"""The artefact of a network: a folder with ``network.safetensors`` and ``network.json``.

The JSON holds the architecture and its options, the label space, the list of changes since the network was built, in
order (channels pruned, a tuner attached or merged), and what it learned from besides labelled images
(`hardy.networks.building.lineage`). Loading builds the network, replays the changes and loads the weights. For a tuned
network with a known origin the file holds only the trained weights (`hardy.engine.rest`). No pickle is read or
written. Format 1, which had one channel plan in place of the changes, will always be supported.
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
from hardy.data.label_spaces import LabelSpace, find_label_space
from hardy.engine.changes import replay, untrained
from hardy.engine.checkpoint import apart
from hardy.engine.classes import for_classes
from hardy.engine.rest import Load, check_rest, fetched, origin_of, rest_of
from hardy.errors import InputError
from hardy.files import expanded, write_together
from hardy.networks.base import Network
from hardy.networks.building.create import rebuild
from hardy.networks.building.lineage import checked
from hardy.networks.building.wrapped import Wrapped
from hardy.ops.tensors import decoded, load_strictly
from hardy.stored import contents, intact, json_value, sealed
from hardy.trust import from_file, names_in

__all__ = [
    "FORMAT",
    "check",
    "checksum",
    "form",
    "like",
    "load",
    "origin",
    "restore",
    "save",
    "saved_checksum",
    "saved_form",
]

FORMAT, _FIRST = "hardy-network/2", "hardy-network/1"
_TENSORS = "hardy-network/1"
"""The format in the header of the weights file, which has not changed."""

_KEYS = {"format", "hardy", "architecture", "labels", "changes", "sha256", "rest", "lineage", "description_sha256"}


def save(
    network: Network, folder: Path | str, *, weights: Mapping[str, Tensor] | None = None, complete: bool = False
) -> Path:
    """Write ``network`` to ``folder``: both files or neither. The JSON holds the checksum of the weights.

    Args:
        network: any Hardy network, pruned or not.
        folder: made if it is missing.
        weights: saved instead of the network's own, such as its moving average.
        complete: write all weights of a tuned network. Else the weights that its tuner freezes are left out when their
            origin is known: a run, or pre-trained encoder weights.

    Returns:
        the folder.

    Raises:
        InputError: for a network that could not be loaded again.
    """
    check(network)
    folder = expanded(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = weights if weights is not None else network.state_dict()
    description: dict[str, Any] = {
        "format": FORMAT,
        "hardy": __version__,
        "architecture": network.architecture,
        "labels": network.label_space.to_json(),
        "changes": network.changes,
    }
    if not complete and (rest := rest_of(network, state, folder)):
        out = untrained(network)
        state = {name: value for name, value in state.items() if name not in out}
        description["rest"] = rest
    if network.lineage:
        description["lineage"] = list(network.lineage)
    data = _encoded(state)
    description = sealed({**description, "sha256": _sha256(data)})
    text = json.dumps(description, indent=1) + "\n"
    write_together({folder / "network.safetensors": data, folder / "network.json": text.encode()})
    return folder


def checksum(network: Network) -> str:
    """The sha256 of the weights of ``network`` as `save` writes them, in hexadecimal digits."""
    return _sha256(_encoded(network.state_dict()))


def form(network: Network) -> str:
    """Twelve hexadecimal digits that identify the architecture, the classes and the changes of ``network``.

    Two networks with the same weights may differ in these, for example in the normalisation of their images.
    """
    return _form(network.architecture, network.label_space.to_json(), network.changes)


def saved_form(folder: Path) -> str:
    """The `form` of the network saved in ``folder``, read from its description."""
    description = _describe(folder)
    return _form(description["architecture"], description["labels"], description["changes"])


def _form(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()


def _encoded(weights: Mapping[str, Tensor]) -> bytes:
    return save_tensors(apart(weights), {"format": _TENSORS})


def check(network: Network) -> None:
    """Refuse a network whose artefact could not be loaded.

    Raises:
        InputError: for one that neither `hardy.create` nor `hardy.wrap` made.
    """
    if not isinstance(network, Network):
        raise InputError(
            f"{type(network).__name__} is not a Network, so it cannot be saved; wrap it: "
            "hardy.save(hardy.wrap(module, classes=...), folder)"
        )
    if not network.architecture:
        name = type(network).__name__
        raise InputError(
            f"this {name} has no description of its architecture, so it cannot be saved; make it by hardy.create, with "
            f"'your.module:{name}' for a class of your own"
        )


def load(
    folder: Path | str,
    *,
    module: nn.Module | None = None,
    classes: str | Path | LabelSpace | None = None,
    trust: str | Iterable[str] = (),
) -> Network:
    """The network saved in ``folder``, in evaluation mode. Only code of Hardy and of modules in ``trust`` runs.

    Args:
        folder: a run's folder, or the ``network.json`` in it.
        module: for a wrapped module saved without a factory, the module itself, as it was before pruning.
        classes: a label space, its name, or the path of a ``classes.yaml``, to replace the classes that the network was
            trained for. The last layer is new: classes with the same name keep their weights, others get random ones.
        trust: modules such as ``["their.module"]`` whose code may run when the folder names it, as a class
            ``"their.module:Class"`` or a factory.

    Raises:
        InputError: when the folder holds no network, a damaged one, one of another version, a pickle, a description
            from which no network can be built, the name of code that is not trusted, or a network whose last layer
            cannot be identified.
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
    return network.eval() if classes is None else for_classes(network, find_label_space(classes), source=str(folder))


def saved_checksum(folder: Path) -> str:
    """The sha256 of the weights of the network saved in ``folder``, read from its description."""
    return str(_describe(folder)["sha256"])


def _fill(network: Network, data: bytes, description: Mapping[str, Any], folder: Path, load_run: Load) -> None:
    """Load the weights of ``network``, in place: those in ``data``, and the rest from its origin."""
    try:
        tensors = decoded(data)
        if "rest" in description:
            if wrong := sorted(tensors.keys() & untrained(network)):
                raise ValueError(f"{wrong[0]} is not trained")
            tensors |= fetched(description, folder, network, load_run)
            network.origin = origin_of(description["rest"], folder)
        load_strictly(network, tensors)
        network.lineage = checked(description.get("lineage", []))
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        raise InputError(f"the weights do not fit the network: {' '.join(str(error).split())[:300]}") from None


def origin(folder: Path | str) -> dict[str, Any]:
    """The attribute ``origin`` of a network that was loaded from ``folder``."""
    folder = expanded(folder)
    folder = folder.parent if folder.name == "network.json" else folder
    return {"run": str(folder.resolve()), "sha256": _describe(folder)["sha256"]}


def like(folder: Path, network: Network) -> Network:
    """The network saved in ``folder``, which was made from ``network``; the code of ``network`` is trusted."""
    description = _describe(folder)
    known = len(network.changes)
    trust = names_in([network.architecture, network.changes])
    if isinstance(network, Wrapped) and known and description["changes"][:known] == network.changes:
        made = deepcopy(network)  # its module differs from the one before the first change
        restore(made, folder, trust=trust)
        return made.eval()
    return load(folder, trust=trust, module=deepcopy(network.module) if isinstance(network, Wrapped) else None)


def restore(network: Network, folder: Path, *, trust: Iterable[str] = ()) -> None:
    """Load the weights saved in ``folder`` into ``network``, in place, after replaying the changes that it lacks.

    Args:
        network: the network in ``folder`` was made from it.
        folder: holds a network.
        trust: see `load`.

    Raises:
        InputError: when the network in ``folder`` is damaged or missing, or was made from another network.
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
    """The bytes of the weights file in ``folder``.

    Raises:
        InputError: when their checksum is not the one in ``description``.
    """
    data = _read(folder / "network.safetensors")
    if _sha256(data) != description["sha256"]:
        raise InputError(f"{folder}: network.safetensors does not match network.json (torn write?); save it again")
    return data


def _describe(folder: Path) -> dict[str, Any]:
    """The content of ``network.json``, converted to format 2."""
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
