"""The network that a run starts from: a named one, an earlier run's, or one in memory, which is saved in the folder.

For a network in memory the recipe holds the checksum of its weights, its architecture or a checksum of its form, and
the file that it is saved in. So two different networks never have the same digest, and the recipe can repeat the run.
"""

import hashlib
from pathlib import Path
from typing import Any

from hardy.data.label_spaces import SPACES, find_label_space
from hardy.engine import artefact, changes
from hardy.engine.run_files import START, WEIGHTS
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import Wrapped
from hardy.ops.tensors import check_finite
from hardy.sections import NetworkChoice

__all__ = ["checksum_of", "network", "refuse_other", "refuse_other_form", "section"]


def network(choice: NetworkChoice) -> Network:
    """The network of ``choice``; the weights of a new one are drawn from torch's generator.

    Raises:
        InputError: for weights that are not finite, a checksum or a form that ``choice`` does not name, and what
            loading and merging raise.
    """
    if choice.run:
        refuse_other(choice.sha256, Path(choice.run) / WEIGHTS)
        refuse_other_form(choice.form, Path(choice.run))
        loaded = artefact.load(choice.run, classes=choice.classes)
        check_finite(loaded, choice.run)
        if choice.merge:
            changes.merge(loaded)
        if loaded.origin is None and not choice.classes:
            loaded.origin = artefact.origin(choice.run)
        return loaded
    assert choice.classes, "a network that is named has classes"
    if choice.weights:
        refuse_other(choice.sha256, Path(choice.weights))
    made = create(choice.name, find_label_space(choice.classes), weights=choice.weights, **choice.options)
    if choice.weights is None and made.pretrained and (weights := made.architecture["options"].get("encoder_weights")):
        made.origin = {"encoder_weights": weights}
    return made


def section(network: Network, folder: Path | None) -> dict[str, Any]:
    """The section ``network`` of a recipe that starts from ``network`` as it is now.

    Args:
        network: any network.
        folder: the run's folder, whose sub-folder `START` the network will be saved in; None when it is not saved.
    """
    sha256 = artefact.checksum(network)
    identity = {"sha256": sha256, "form": artefact.form(network)}
    if folder is None:
        return {"run": "a network in memory", **identity}
    name, options = network.architecture["name"], network.architecture["options"]
    shipped = SPACES.get(network.label_space.name) == network.label_space
    as_built = not network.changes and "mean" not in network.architecture and not options.get("encoder_weights")
    if shipped and as_built and not isinstance(network, Wrapped):
        weights = str(folder / START / WEIGHTS)
        return {"name": name, **options, "classes": network.label_space.name, "weights": weights, "sha256": sha256}
    return {"run": str(folder / START), **identity}


def refuse_other(sha256: str | None, weights: Path, section: str = "network") -> None:
    """Refuse a weights file whose checksum differs from the one in the ``section`` of a recipe, if it has one.

    Raises:
        InputError: naming the file and both checksums.
    """
    if sha256 and weights.is_file():
        checksum = checksum_of(weights)
        if checksum != sha256:
            raise InputError(
                f"{section}.sha256: {weights} holds other weights ({checksum[:12]}, not {sha256[:12]}); give the "
                "file that the recipe was made with"
            )


def refuse_other_form(form: str | None, folder: Path, section: str = "network") -> None:
    """Refuse a network in ``folder`` whose form differs from the one in the ``section`` of a recipe, if it has one.

    Raises:
        InputError: naming the folder and both forms.
    """
    if form and (saved := artefact.saved_form(folder)) != form:
        raise InputError(
            f"{section}.form: {folder} holds another network with these weights ({saved}, not {form}); give the folder "
            "that the recipe was made with"
        )


def checksum_of(file: Path) -> str:
    """The sha256 of ``file``, in hexadecimal digits."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
