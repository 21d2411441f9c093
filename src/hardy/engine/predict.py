"""Masks of the user's own images: index PNGs in the colours of the label space, and drawings beside them.

Other threads decode the next images and write finished masks while the network computes. A mask holds a checksum of
the network, the settings and its image: a later call with the same ones leaves it as it is.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hardy.engine.adapting import chosen
from hardy.engine.mask_writer import DRAWN
from hardy.engine.pictures import Picture
from hardy.engine.predict_source import pictures_of, watched_of
from hardy.engine.predictor import Predicted, Predictor, kinds_of
from hardy.engine.watch import watch as watching
from hardy.errors import InputError
from hardy.files import expanded
from hardy.networks.base import Network
from hardy.recipe import Adapt

__all__ = ["DRAWN", "Predicted", "predict", "predict_all"]

_log = logging.getLogger("hardy")


def predict(network: Network, source: Path | str | np.ndarray, target: Path | str, **options: Any) -> list[Path]:
    """Write a mask for every image of ``source`` into the folder ``target``; returns the masks' paths, in order.

    A mask ``a/b.png`` belongs to the image ``a/b.*`` below ``source`` and has its (upright) size; that of frame 7 of
    ``b.mp4`` is ``b/000007.png``. Its pixels are class ids and its palette holds the classes' colours. Each file is
    written atomically. Masks that the same network wrote with the same settings for the same image stay, except with
    ``adapt`` without ``watch``. The network does not change: it predicts in evaluation mode, in a copy where it is in
    another, and with ``adapt`` a copy learns.

    Args:
        network: predicts a class per pixel; also an exported file, whose fixed size is the default of ``size``.
        source: a folder of images (searched at any depth, except ``target``), one image file, a pattern such as
            ``photos/**/*.jpg``, a video, ``camera:0``, or one image (H, W, 3) uint8, whose mask is ``image.png``.
        target: the folder for the masks; made if it is missing.
        options: any of these, by name. size: (height, width) that images are resized to for the network; None keeps
            each image's size. window: (height, width) of a sliding window, as in `hardy.evaluate`; images over 90
            megapixels need it. draw: more pictures, each in a folder below ``target``: ``overlay`` (the image mixed
            with its classes, and a legend), ``coloured`` (RGB masks), ``confidence`` (the probability of each pixel's
            class, 255 for 1). overlay: True for ``draw=["overlay"]``. batch: how many images of equal size are
            predicted at once. device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``. adapt: a method of ``hardy list
            adaptation`` by which the copy learns from the images, in order and as one domain, or ``{"name": ...,
            "reset": ..., options}``; a window is refused. seed: decides the method's random draws. source_images: see
            `hardy.adapt`. frames: of a video
            or camera only this many. watch: ``source`` is a folder to which images are still added; each is predicted
            when it is complete, until Ctrl-C, SIGTERM, or ``idle`` seconds without a new one. What the method of
            ``adapt`` has learned is then kept beside the masks, and the next call with ``watch`` continues from it. Of
            the masks the last 1000 are returned.

    Raises:
        InputError: for a source that is missing or empty, two images with the same mask name, a target that cannot be
            written, weights that are not finite, an image-level network, or an unknown adaptation method; and, after
            the masks of all others are written, for images that cannot be read or have no size for the network.
    """
    found = predict_all(network, source, target, **options)
    if found.skipped:
        first = next(iter(found.skipped.values()))
        others = f" ({len(found.skipped)} images were skipped, the other masks are written)"
        raise InputError(first + (others if found.masks or len(found.skipped) > 1 else ""))
    return found.masks


def predict_all(
    network: Network,
    source: Path | str | np.ndarray,
    target: Path | str,
    *,
    size: Sequence[int] | None = None,
    window: Sequence[int] | None = None,
    overlay: bool = False,
    draw: Sequence[str] = (),
    batch: int = 1,
    device: str = "cpu",
    adapt: str | Mapping[str, Any] | Adapt | None = None,
    seed: int = 0,
    source_images: Iterable[Tensor] | Tensor | None = None,
    frames: int | None = None,
    watch: bool = False,
    idle: float | None = None,
    say: Callable[[str], None] = _log.warning,
    over: Callable[[Iterable[Picture | None], int | None], Iterable[Picture | None]] = lambda found, _: found,
) -> Predicted:
    """As `predict`, but images that cannot be read are skipped and named in what is returned.

    ``over`` iterates over the pictures and gets their number if it is known, as a progress bar does. With ``watch``,
    ``say`` gets a line at the start, for each image that is skipped, and when many images wait.

    Raises:
        InputError: as `predict`, but for single images.
    """
    folder, kinds, method = expanded(target), kinds_of(network, overlay, draw), chosen(adapt)
    _refuse(watch=watch, idle=idle, frames=frames)
    seen = watched_of(source, folder) if watch else None
    predictor = Predictor(
        network,
        folder,
        kinds,
        size=size,
        window=window,
        batch=batch,
        device=device,
        adapt=method,
        seed=seed,
        source_images=source_images,
        resumes=watch or method is None,
    )
    if seen is not None:
        return watching(predictor, seen, idle=idle, say=say)
    found, count = pictures_of(source, folder, kinds, frames)
    result = Predicted()
    predictor.run(over(found(predictor.is_done, predictor.bound), count), result)
    return result


def _refuse(*, watch: bool, idle: float | None, frames: int | None) -> None:
    if idle is not None and not (watch and idle > 0):
        raise InputError(f"idle {idle:g}: " + ("must be above 0 seconds" if watch else "is for watch; leave it out"))
    if watch and frames is not None:
        raise InputError(f"frames {frames}: is for a video or camera, and watch for a folder; leave one out")
