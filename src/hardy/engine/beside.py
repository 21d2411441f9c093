"""The predictions of several networks for one image, side by side: overlay, time, and the share of each class."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hardy.deployment.exported import Exported
from hardy.deployment.exported_classes import ExportedClasses
from hardy.device import pick
from hardy.engine.classify import classes, refusal
from hardy.engine.drawing import overlay_image
from hardy.engine.predictor import check, fixed_size
from hardy.networks.base import Network
from hardy.ops import windows

__all__ = ["Look", "look"]


@dataclass(frozen=True)
class Look:
    """The prediction of one network for an image.

    Attributes:
        name: of the network.
        overlay: the image mixed with the colours of its classes, and a legend; None where it cannot be predicted.
        milliseconds: of resizing, the forward pass and the classes at full size, once and after a first pass.
        shares: class -> its share of the pixels, the largest first; only those that occur.
        reason: why the image cannot be predicted; empty if it can.
    """

    name: str
    overlay: Image.Image | None
    milliseconds: float
    shares: Mapping[str, float]
    reason: str = ""


def look(
    networks: Mapping[str, Network], image: np.ndarray, *, size: Sequence[int] | None = None, device: str = "cpu"
) -> list[Look]:
    """The prediction of each of ``networks`` for ``image``, by the same steps as `hardy.predict`.

    Args:
        networks: by name, in evaluation mode, exported ones too; those of PyTorch are moved to ``device``, in place.
        image: (H, W, 3) uint8.
        size: (height, width) that it is resized to for the networks; None keeps its own, or that of an exported file.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.

    Raises:
        InputError: for a network of image-level classes or with weights that are not finite, or a wrong size.
    """
    return [_look(name, network, image, size, device) for name, network in networks.items()]


def _look(name: str, network: Network, image: np.ndarray, size: Sequence[int] | None, device: str) -> Look:
    size, _ = fixed_size(network, size, None, 1)
    check(network, {"size": size}, 1)
    if reason := refusal(network, image.shape[:2], size, None):
        return Look(name, None, 0.0, {}, reason)
    where = pick("cpu" if isinstance(network, Exported | ExportedClasses) else device)
    forward = windows.views(network.to(where), window=None)

    def predicted() -> np.ndarray:
        ((ids, _),) = classes(network, forward, [image], size, None, where)
        return ids

    predicted()  # the first pass allocates memory and chooses kernels
    began = time.perf_counter()
    ids = predicted()
    took = 1e3 * (time.perf_counter() - began)
    counts = np.bincount(ids.ravel(), minlength=256)[: len(network.label_space)]
    order = [place for place in np.argsort(-counts, kind="stable") if counts[place]]
    shares = {network.label_space.classes[place]: float(counts[place] / ids.size) for place in order}
    return Look(name, overlay_image(image, ids, network.label_space), took, shares)
