"""What a run starts from: a network by name, an earlier run's, or one in memory, whose weights are then kept beside it.

A recipe names the weights of a network that was in memory by their checksum, so that two networks never share a digest,
and the recipe repeats the run from the file in which they are kept.
"""

import hashlib
from pathlib import Path
from typing import Any

from hardy.data.labels import SPACES, label_space
from hardy.engine import artefact
from hardy.engine.finished import START, WEIGHTS
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import Wrapped
from hardy.ops.tensors import check_finite
from hardy.sections import NetworkChoice

__all__ = ["network", "refuse_other", "section"]


def network(choice: NetworkChoice) -> Network:
    """The network of ``choice``; a new one draws its weights from torch's generator.

    Raises:
        InputError: for weights that are not finite or not those that ``choice`` names, or what loading meets.
    """
    if choice.run:
        refuse_other(choice.sha256, Path(choice.run) / WEIGHTS)
        found = artefact.load(choice.run, classes=choice.classes)
        check_finite(found)
        if found.origin is None and not choice.classes:
            found.origin = artefact.origin(choice.run)
        return found
    assert choice.classes, "a network that is named has classes"
    if choice.weights:
        refuse_other(choice.sha256, Path(choice.weights))
    made = create(choice.name, label_space(choice.classes), weights=choice.weights, **choice.options)
    if choice.weights is None and made.pretrained and (weights := made.architecture["options"].get("encoder_weights")):
        made.origin = {"encoder_weights": weights}
    return made


def section(network: Network, folder: Path | None) -> dict[str, Any]:
    """The section ``network`` of a recipe that starts from ``network`` as it is now.

    Args:
        network: any network.
        folder: of the run, in whose sub-folder `START` the network is to be kept; None where nothing is.
    """
    sha256 = artefact.checksum(network)
    if folder is None:
        return {"run": "a network in memory", "sha256": sha256}
    name, options = network.architecture["name"], network.architecture["options"]
    shipped = SPACES.get(network.labels.name) == network.labels
    as_built = not network.changes and "mean" not in network.architecture and not options.get("encoder_weights")
    if shipped and as_built and not isinstance(network, Wrapped):
        weights = str(folder / START / WEIGHTS)
        return {"name": name, **options, "classes": network.labels.name, "weights": weights, "sha256": sha256}
    return {"run": str(folder / START), "sha256": sha256}


def refuse_other(sha256: str | None, weights: Path, section: str = "network") -> None:
    """Refuse a file with another checksum than the one that a ``section`` of a recipe names, if it names one.

    Raises:
        InputError: naming the file and both checksums.
    """
    if sha256 and weights.is_file():
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise InputError(
                f"{section}.sha256: {weights} holds other weights ({found[:12]}, not {sha256[:12]}); give the "
                "file that the recipe was made with"
            )
