"""The rest of a tuned network: the weights that its tuner freezes. Its file need not hold them.

The file names the checksum of the rest and its origin: the run that was tuned (its folder, relative to the file's, and
the checksum of its weights), or the encoder's pre-trained weights.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hardy.engine.changes import replay, untrained
from hardy.errors import InputError, quoted
from hardy.networks.base import Network
from hardy.networks.building.create import create, unwarned
from hardy.ops.tensors import checksum
from hardy.stored import read_json

__all__ = ["Load", "check_rest", "fetched", "origin_of", "rest_of"]

Load = Callable[[Path], Network]
"""``load(folder)``: the network saved there."""


def rest_of(network: Network, weights: Mapping[str, Tensor], folder: Path) -> dict[str, Any] | None:
    """The entry ``rest`` of a file in ``folder``; None when the file must hold all weights, as without a known origin.

    Args:
        network: tuned or not.
        weights: its tensors by name, as they will be saved.
        folder: the folder of the file.
    """
    origin = network.origin
    if origin is None or "rest" not in origin or network.changes[-1]["change"] != "tune":
        return None
    if checksum({name: weights[name] for name in untrained(network)}, {}) != origin["rest"]:
        return None
    place = {key: value for key, value in origin.items() if key != "rest"}
    if "run" in place:
        run, here = Path(place["run"]).resolve(), folder.resolve()
        if run == here or not _holds(run, place["sha256"]):
            return None
        place["run"] = Path(os.path.relpath(run, here)).as_posix()
    return {"sha256": origin["rest"], "from": place}


def _holds(run: Path, sha256: str) -> bool:
    """Whether ``run`` holds a complete network whose weights have the checksum ``sha256``."""
    try:
        description = read_json(run / "network.json")
        return bool(description["sha256"] == sha256 and "rest" not in description)
    except (OSError, InputError, KeyError, TypeError):
        return False


def origin_of(rest: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The attribute ``origin`` of the network that the file in ``folder`` describes."""
    place = dict(rest["from"])
    if "run" in place:
        place["run"] = str((folder / place["run"]).resolve())
    return {**place, "rest": rest["sha256"]}


def check_rest(rest: Any) -> None:
    """Refuse an entry ``rest`` that `rest_of` did not write.

    Raises:
        InputError: naming what it is and what it must be.
    """
    places = ({"run", "sha256"}, {"encoder_weights"})
    place = rest.get("from") if isinstance(rest, Mapping) and rest.keys() == {"sha256", "from"} else None
    if not isinstance(place, Mapping) or set(place) not in places:
        must = '{"sha256": ..., "from": {"run": ..., "sha256": ...} or {"encoder_weights": ...}}'
        raise InputError(f"rest is {quoted(rest)}; it must be {must}")
    for key, text in (("rest.sha256", rest["sha256"]), *((f"rest.from.{key}", text) for key, text in place.items())):
        if not isinstance(text, str) or not text or "\0" in text:
            raise InputError(f"{key} is {quoted(text)}; it must be a text")


def fetched(description: Mapping[str, Any], folder: Path, network: Network, load: Load) -> dict[str, Tensor]:
    """The rest of ``network``, by name, from the origin that ``description`` names.

    Args:
        description: of the file in ``folder``, with an entry ``rest``.
        folder: the folder of the file.
        network: built from the description.
        load: loads the run that was tuned.

    Raises:
        InputError: when the origin is missing or has other weights.
    """
    rest, names = description["rest"], untrained(network)
    if not names:
        raise InputError("names a rest, but no tuner with frozen weights is attached; save the network again")
    own = network.state_dict()
    present = {name: own[name] for name in names}
    if checksum(present, {}) == rest["sha256"]:  # the network in memory is the one that was tuned
        return present
    where, origin = _origin(description, folder, network, load)
    known = len(origin.changes)
    if origin.changes != network.changes[:known] or type(origin) is not type(network):
        raise InputError(f"holds only the tuned weights, and {where} holds a network of another form; {_ADVICE}")
    replay(origin, network.changes[known:])
    state = origin.state_dict()
    frozen = {name: state[name] for name in names if name in state}
    if checksum(frozen, {}) != rest["sha256"]:
        raise InputError(
            f"holds only the tuned weights, and {where} holds other weights than it was tuned with; {_ADVICE}"
        )
    return frozen


_ADVICE = "restore what it was tuned from (hardy.save(network, folder, complete=True) writes all weights)"


def _origin(description: Mapping[str, Any], folder: Path, network: Network, load: Load) -> tuple[str, Network]:
    """The network that was tuned, and its name in messages."""
    place = description["rest"]["from"]
    if "encoder_weights" in place:
        options = network.architecture["options"]
        weights = place["encoder_weights"]
        if options.get("encoder_weights") != weights:
            raise InputError(f"rest.from.encoder_weights is {weights!r}, but the network has other encoder_weights")
        try:
            with unwarned():
                made = create(network.architecture["name"], network.label_space, **options)
        except InputError as error:
            raise InputError(
                f"holds only the tuned weights, and the rest cannot be loaded: {error}; {_ADVICE}"
            ) from error
        return f"encoder_weights {weights}", made
    run = (folder / place["run"]).resolve()
    if not (run / "network.json").is_file():
        raise InputError(f"holds only the tuned weights, and the rest is in {run}, which holds no network; {_ADVICE}")
    if not _holds(run, place["sha256"]):
        raise InputError(
            f"holds only the tuned weights, and {run} holds other weights than it was tuned with; {_ADVICE}"
        )
    return str(run), load(run)
