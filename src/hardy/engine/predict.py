"""Masks of the user's own images: index PNGs in the colours of the label space, and what is drawn beside them.

Images are decoded ahead and masks written behind, in threads, while the network computes. A mask holds a checksum of
the network, the settings and its image: a later call with the same ones leaves it as it is.
"""

import copy
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hardy.data.labels import LabelSpace
from hardy.deployment.exported import Exported
from hardy.deployment.exported_classes import ExportedClasses
from hardy.device import pick
from hardy.engine import artefact, drawing, pictures, videos
from hardy.engine.adapting import Adapting, chosen
from hardy.engine.classify import classes, refusal
from hardy.engine.pictures import Picture
from hardy.errors import InputError, check_size
from hardy.files import expanded
from hardy.networks.base import Network, refuse_plain
from hardy.ops import windows
from hardy.ops.tensors import check_finite
from hardy.recipe import Adapt, Evaluate

__all__ = ["DRAWN", "Predicted", "check", "fixed_size", "predict", "predict_all"]

DRAWN = {"overlay": "overlays", "coloured": "coloured", "confidence": "confidence"}
"""What may be drawn beside a mask, and the folder below the target that holds it."""

_KEY = "hardy"
_FORM = "hardy-mask/1"
_WRITERS = 2
_BEHIND_PIXELS = 30_000_000


@dataclass
class Predicted:
    """What a call of `predict_all` did.

    Attributes:
        masks: of every image that has one now, in order.
        kept: how many of them an earlier call had written.
        skipped: the images that have none -> the reason.
    """

    masks: list[Path] = field(default_factory=list)
    kept: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def predict(network: Network, source: Path | str | np.ndarray, target: Path | str, **options: Any) -> list[Path]:
    """Write a mask for every image of ``source`` into the folder ``target``; returns the masks' paths, in order.

    A mask ``a/b.png`` belongs to the image ``a/b.*`` below ``source`` and has its (upright) size; that of frame 7 of
    ``b.mp4`` is ``b/000007.png``. Its pixels are class ids and its palette holds the classes' colours. Each file is
    written atomically. Masks that the same network wrote with the same settings for the same image stay, except with
    ``adapt``. The network does not change: a copy in evaluation mode predicts, or with ``adapt`` a copy that learns.

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
            "reset": ..., options}``; a window is refused. seed: decides the method's random draws. frames: of a video
            or camera only this many.

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
    frames: int | None = None,
    over: Callable[[Iterable[Picture], int | None], Iterable[Picture]] = lambda found, _: found,
) -> Predicted:
    """As `predict`, but images that cannot be read are skipped and named in what is returned.

    ``over`` goes over the pictures, of this number if it is known, such as a progress bar.

    Raises:
        InputError: as `predict`, but for single images.
    """
    folder, kinds = expanded(target), _kinds(network, overlay, draw)
    size, batch = fixed_size(network, size, window, batch)
    check(network, {"size": size, "window": window}, batch)
    found, count = _source(source, folder, kinds, frames)
    live = isinstance(network, Exported | ExportedClasses)
    where = torch.device("cpu") if live else pick(device)
    copied = network if live else copy.deepcopy(network).to(where).eval()
    forward = _forward(copied, window, chosen(adapt), seed)
    _clear(folder, *(folder / DRAWN[kind] for kind in kinds))
    write = _Writer(folder, kinds, copied.labels, "" if adapt else _settings(copied, size, window))
    result, sure = Predicted(), "confidence" in kinds
    with write.running():
        for together in _batches(over(found(write.is_done), count), batch, size, result, write, copied, window):
            images = [picture.pixels for picture in together if picture.pixels is not None]
            made = classes(copied, forward, images, size, window, where, confidence=sure)
            for picture, (ids, confidence) in zip(together, made, strict=True):
                write.add(picture, ids, confidence)
    return result


Found = Callable[[pictures.Done], Iterator[Picture]]


def _source(
    source: Path | str | np.ndarray, target: Path, kinds: Sequence[str], most: int | None
) -> tuple[Found, int | None]:
    """What gives the pictures, and their number if it is known."""
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise InputError(f"an image array must be (H, W, 3) uint8; got {source.shape} {source.dtype}")
        return lambda done: pictures.decoded({"image": source}, done), 1
    if video := videos.source_of(str(expanded(source))):
        if video.path is not None and not video.path.is_file():
            raise InputError(f"{video}: there is no such video")
        return lambda done: pictures.frames(video, most, done), most
    if most is not None:
        raise InputError(f"frames {most}: {source} is no video or camera; leave it out")
    place = expanded(source)
    named, root = pictures.find(place)
    named = _outside(named, root if place.is_dir() else None, target)
    if not named:
        raise InputError(f"{source}: holds no images outside {target}")
    _check_targets(named, target, kinds)
    return lambda done: pictures.decoded(named, done), len(named)


def _outside(named: pictures.Pictures, root: Path | None, target: Path) -> dict[str, Path | np.ndarray]:
    """The images without the masks of an earlier run in a target folder below their folder ``root``."""
    below = target.resolve()
    if root is None or below == root.resolve() or not below.is_relative_to(root.resolve()):
        return dict(named)
    return {name: path for name, path in named.items() if not Path(str(path)).resolve().is_relative_to(below)}


def _check_targets(named: pictures.Pictures, target: Path, kinds: Sequence[str]) -> None:
    """Refuse a mask or drawing that would replace an image of the source, or a mask that is named as a drawing."""
    images = {path.resolve() for path in named.values() if isinstance(path, Path)}
    places = {"mask": target, **{kind: target / DRAWN[kind] for kind in kinds}}
    for name, path in named.items():
        for what, where in places.items():
            file = where / f"{name}.png"
            if isinstance(path, Path) and file.resolve() in images:
                victim = "it" if file.resolve() == path.resolve() else str(file)
                raise InputError(f"{path}: its {what} would overwrite {victim}; choose another target folder")
    for kind in kinds:
        if clash := sorted({f"{DRAWN[kind]}/{name}" for name in named} & named.keys()):
            raise InputError(
                f"{named[clash[0]]}: its mask would have the same name as an {DRAWN[kind].removesuffix('s')}; rename "
                "its folder"
            )


def _kinds(network: Network, overlay: bool, draw: Sequence[str]) -> tuple[str, ...]:
    """What is drawn beside masks, in the order of `DRAWN`."""
    if wrong := [kind for kind in draw if kind not in DRAWN]:
        raise InputError(f"draw {wrong[0]!r}: there are {', '.join(DRAWN)}")
    if "confidence" in draw and isinstance(network, ExportedClasses):
        raise InputError(f"{network.path}: returns classes without their probabilities; export it with --logits")
    return tuple(kind for kind in DRAWN if kind in draw or (overlay and kind == "overlay"))


def fixed_size(
    network: Network, size: Sequence[int] | None, window: Sequence[int] | None, batch: int
) -> tuple[Sequence[int] | None, int]:
    """The size and the batch, which an exported file may fix.

    Raises:
        InputError: for a size or window other than that of the file, or a file that takes several images at a time.
    """
    if not isinstance(network, Exported | ExportedClasses):
        return size, batch
    most, *sides = network.takes
    fixed = None if None in sides else tuple(side for side in sides if side is not None)
    seen = window if window is not None else size
    if fixed and seen is not None and tuple(seen) != fixed:
        what = "window" if window is not None else "size"
        raise InputError(f"{network.path}: takes images of {fixed[0]}x{fixed[1]} pixels only; leave the {what} out")
    if most not in (None, 1):
        raise InputError(f"{network.path}: takes {most} images at a time; export it with --dynamic, or for one image")
    return (fixed if window is None and fixed else size), 1 if most else batch


def check(network: Network, sizes: Mapping[str, Sequence[int] | None], batch: int) -> None:
    """Refuse an image-level network, and wrong sizes, which have the names of their arguments.

    Raises:
        InputError: naming the value and what is needed.
    """
    refuse_plain(network)
    check_finite(network)
    if network.image_level:
        raise InputError(f"{type(network).__name__} predicts one class per image; it has no masks to write")
    if batch < 1:
        raise InputError(f"batch {batch}: must be at least 1")
    for name, sides in sizes.items():
        if sides is not None:
            check_size(name, sides, network.least_size)


def _forward(network: Network, window: Sequence[int] | None, adapt: Adapt | None, seed: int) -> windows.Forward:
    """The forward pass of ``network``: in windows, or with adaptation.

    Raises:
        InputError: for both together.
    """
    if adapt is None:
        return windows.views(network, window=window)
    try:
        adapt.refuse_views(Evaluate(window=None if window is None else (window[0], window[1])))
    except ValueError as error:
        raise InputError(str(error)) from None
    return Adapting(network, adapt, seed)


def _settings(network: Network, size: Sequence[int] | None, window: Sequence[int] | None) -> str:
    """A checksum of all that decides a mask beside its image."""
    if isinstance(network, Exported | ExportedClasses):
        weights = [pictures.content(network.path)]
    else:
        weights = [artefact.checksum(network), artefact.form(network), type(network).__qualname__]
    told = [_FORM, *weights, network.labels.to_json(), size and list(size), window and list(window)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _batches(
    found: Iterable[Picture],
    batch: int,
    size: Sequence[int] | None,
    result: Predicted,
    write: "_Writer",
    network: Network,
    window: Sequence[int] | None,
) -> Iterator[list[Picture]]:
    """Up to ``batch`` consecutive pictures at a time that have the same size for the network; others are noted."""
    together: list[Picture] = []
    for picture in found:
        reason = picture.reason
        if picture.pixels is not None and (short := refusal(network, picture.pixels, size, window)):
            reason = f"{picture.source}: {short}"
        if reason:
            result.skipped[picture.source] = reason
            continue
        result.masks.append(write.folder / f"{picture.name}.png")
        if picture.pixels is None:
            result.kept += 1
            continue
        first = together[0].pixels if together else None
        if first is not None and (len(together) == batch or (size is None and picture.pixels.shape != first.shape)):
            yield together
            together = []
        together.append(picture)
    if together:
        yield together


class _Writer:
    """Writes masks, and what is drawn beside them, in threads behind the network.

    Args:
        folder: of the masks.
        kinds: what is drawn; see `DRAWN`.
        labels: the classes.
        key: a checksum of network and settings; empty to write no checksums and find nothing done.
    """

    def __init__(self, folder: Path, kinds: Sequence[str], labels: LabelSpace, key: str) -> None:
        self.folder, self._kinds, self._labels, self._key = folder, kinds, labels, key
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """The block in which `add` can be called; at its end everything is written."""
        with ThreadPoolExecutor(_WRITERS) as self._pool:
            yield
            while self._waiting:
                self._waiting.popleft()[1].result()

    def add(self, picture: Picture, ids: np.ndarray, confidence: np.ndarray | None) -> None:
        """Write this mask soon; waits while too many others wait.

        Raises:
            InputError: when an earlier one cannot be written.
        """
        assert self._pool is not None, "inside running()"
        while self._waiting and ids.size + sum(pixels for pixels, _ in self._waiting) > _BEHIND_PIXELS:
            self._waiting.popleft()[1].result()
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()[1].result()
        self._waiting.append((ids.size, self._pool.submit(self._write, picture, ids, confidence)))

    def _write(self, picture: Picture, ids: np.ndarray, confidence: np.ndarray | None) -> None:
        assert picture.pixels is not None, "only what was predicted is written"
        name = f"{picture.name}.png"
        for kind in self._kinds:
            if kind == "overlay":
                image = drawing.overlay_image(picture.pixels, ids, self._labels)
            elif kind == "coloured":
                image = drawing.coloured_image(ids, self._labels)
            else:
                assert confidence is not None, "asked for"
                image = drawing.confidence_image(confidence)
            _save(image, self.folder / DRAWN[kind] / name)
        # The mask last: where it is, all is there.
        _save(drawing.mask_image(ids, self._labels), self.folder / name, self._of(picture.content))

    def is_done(self, name: str, content: str) -> bool:
        """Whether the mask of this picture, and what is drawn beside it, are there already."""
        files = [self.folder / f"{name}.png", *(self.folder / DRAWN[kind] / f"{name}.png" for kind in self._kinds)]
        if not self._key or not content or not all(file.is_file() for file in files):
            return False
        try:
            with Image.open(files[0], formats=("PNG",)) as mask:
                return mask.info.get(_KEY) == self._of(content)
        except Exception:  # no mask of ours: it is written again
            return False

    def _of(self, content: str) -> str:
        return hashlib.sha256(f"{self._key}:{content}".encode()).hexdigest() if self._key else ""


def _clear(*folders: Path) -> None:
    """Remove the temporary files that `_save` of a killed process left in ``folders``."""
    for path in (path for folder in folders for path in folder.glob(".*.png.*.tmp")):
        number = path.name.rsplit(".", 2)[1]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (ValueError, OverflowError, OSError):  # not a name of ours, or a process of another user
            continue


def _save(image: Image.Image, path: Path, key: str = "") -> Path:
    """Write a PNG under a temporary name, then rename it."""
    told = PngInfo()
    if key:
        told.add_text(_KEY, key)
    waiting = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # two processes may write to one folder
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            image.save(waiting, format="PNG", pnginfo=told)
            os.replace(waiting, path)
        finally:
            waiting.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path
