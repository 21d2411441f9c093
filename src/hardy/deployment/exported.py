"""An exported file as a network: onnxruntime computes its logits; it has no features.

Its classes and the shape of its images come from the metadata that `hardy.deployment.export` wrote into the file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hardy.data.label_spaces import LabelSpace
from hardy.deployment.graph import Session
from hardy.deployment.seal import check_seal
from hardy.errors import InputError, quoted
from hardy.networks.base import Network
from hardy.networks.building.lineage import checked
from hardy.stored import json_value
from hardy.types import Outputs

__all__ = ["Exported", "described", "opened"]

_LARGEST = 4096
"""The largest `hardy.networks.base.Network.least_size` that a file may name."""


class Exported(Network):
    """The network in the ONNX file ``path``: it runs on the CPU in float32, cannot be trained and gives logits only.

    Args:
        path: a file of `hardy.export` with logits at the size of the images (``output="logits"``,
            ``upsample="full"``).

    Attributes:
        takes: (B, H, W) of the images that the file takes; None for an open dimension.
        least_size: that of the network, for a file of dynamic sizes that names it; otherwise 1.
        weights_from: licence and origin of the encoder weights that the network started from, if the file names them.

    Raises:
        InputError: if onnxruntime is missing or cannot read the file, or if the file does not name its classes, returns
            classes, or returns logits smaller than its images.
    """

    least_size = 1
    gives_features = False

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file; give an ONNX file that hardy export wrote")
        session = opened(path)
        label_space, description = described(path, session.described)
        output, upsample = description["output"], description["upsample"]
        if output != "logits" or upsample != "full":
            what = f"{quoted(output)} at upsample {quoted(upsample)}"
            raise InputError(f"{path}: returns {what}, but logits at full size are needed; export it with --logits")
        super().__init__(label_space, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.least_size = description["least_size"]
        self.weights_from, self.lineage = description.get("pretrained", {}), checked(description.get("lineage", []))
        self.path, self._session = path, session
        takes, gives = session.takes, session.gives
        self.takes = tuple(side if isinstance(side, int) else None for side in (takes[0], *takes[2:]))
        self.image_level = len(gives) == 2
        if len(takes) != 4 or len(gives) not in (2, 4) or gives[1] != len(self.label_space):
            raise InputError(
                f"{path}: its logits {_shown(gives)} for images {_shown(takes)} do not fit {len(self.label_space)} "
                "classes; export the network again"
            )

    def outputs(self, images: Tensor) -> Outputs:
        """The logits (B, K, H, W), or (B, K), in float32 on the device of ``images`` (B, 3, H, W).

        Raises:
            InputError: for a batch size or an image size that the file does not take.
        """
        self._check(images)
        given = (len(images), *images.shape[-2:])
        if any(want not in (None, have) for want, have in zip(self.takes, given, strict=True)):
            raise InputError(
                f"{self.path}: takes images {_shown(self.takes)} (batch, height, width), not {_shown(given)}; "
                "export it with dynamic sizes, or train on batches and crops of that size"
            )
        return Outputs(self._session(images.detach().float().cpu().contiguous()).to(images.device))


def opened(path: Path) -> Session:
    """The graph in the file, ready to run.

    Raises:
        InputError: if onnxruntime is missing or cannot read the file, or the file differs from its checksum.
    """
    check_seal(path)
    try:
        return Session(path)
    except InputError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no common base class
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: onnxruntime cannot read it ({reason}); export the network again") from None


def described(path: Path, text: str | None) -> tuple[LabelSpace, Mapping[str, Any]]:
    """The classes of a file whose metadata is ``text``, and the metadata, which have ``output``, ``upsample`` and
    ``least_size``.

    Raises:
        InputError: naming the file, if it does not name its classes.
    """
    if text is None:
        raise InputError(
            f"{path}: does not name the classes it predicts; export the network with hardy export --logits"
        )
    try:
        description: dict[str, Any] = json_value(text)
        described = {"upsample": "full", "least_size": 1, **description, "output": description["output"]}
        label_space, least = description["labels"], described["least_size"]
        if not (isinstance(least, int) and 1 <= least <= _LARGEST):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: its description is damaged; export the network again") from None
    try:
        return LabelSpace.from_json(label_space), described
    except InputError as error:
        raise InputError(f"{path}: {error}; export the network again") from None


def _shown(shape: tuple[Any, ...]) -> str:
    return "x".join("any" if side is None else str(side) for side in shape)
