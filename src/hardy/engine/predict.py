"""Masks of the user's own images: index PNGs in the colours of the label space, and optional overlays.

With windows, logits are computed in bands of one window's height. Logits are resized one class at a time. So apart from
the decoded image and its mask, the memory does not grow with the image's height or the number of classes.
"""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hardy.data.decoding import read_image
from hardy.data.finding import IMAGE_SUFFIXES, files
from hardy.data.labels import LabelSpace
from hardy.data.transforms import evaluation
from hardy.device import pick
from hardy.engine.adapting import Adapting, chosen
from hardy.errors import InputError, check_size
from hardy.files import expanded
from hardy.networks.base import Network, refuse_plain, resize
from hardy.ops import windows
from hardy.ops.tensors import check_finite
from hardy.recipe import Adapt, Evaluate

__all__ = ["mask_image", "overlay_image", "predict"]

_OVERLAYS = "overlays"

_ROWS = 256
"""Rows of an overlay that are mixed at once, since the sums take twice the memory of the image."""

MOST_PIXELS = 90_000_000
"""The largest image, in pixels, that is predicted without windows."""


def predict(
    network: Network,
    source: Path | str | np.ndarray,
    target: Path | str,
    *,
    size: Sequence[int] | None = None,
    window: Sequence[int] | None = None,
    overlay: bool = False,
    batch: int = 1,
    device: str = "cpu",
    adapt: str | Mapping[str, Any] | Adapt | None = None,
    seed: int = 0,
) -> list[Path]:
    """Write a mask for every image of ``source`` into the folder ``target``; returns the masks' paths, in order.

    A mask ``a/b.png`` belongs to the image ``a/b.*`` below ``source`` and has its (upright) size. Its pixels are class
    ids and its palette holds the classes' colours. Each file is written atomically; masks written before an error stay.
    The network does not change: a copy in evaluation mode predicts, or with ``adapt`` a copy that learns.

    Args:
        network: predicts a class per pixel.
        source: a folder of images (searched at any depth, except ``target``), one image file, or one image (H, W, 3)
            uint8, whose mask is ``image.png``.
        target: the folder for the masks; made if it is missing.
        size: (height, width) that images are resized to for the network; None keeps each image's size.
        window: (height, width) of a sliding window, as in `hardy.evaluate`; images over 90 megapixels need it.
        overlay: also write the image with its mask on top, below ``target/overlays``.
        batch: how many images of equal size are predicted at once.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``.
        adapt: a method of ``hardy list adaptation`` by which the copy learns from the images, in order and as one
            domain; or ``{"name": ..., "reset": ..., options}``. A window is refused.
        seed: decides the method's random draws.

    Raises:
        InputError: for a source that is missing, empty or damaged, two images with the same mask name, an image too
            small or too large for the network, a target that cannot be written, weights that are not finite, an
            image-level network, or an unknown adaptation method.
    """
    folder = expanded(target)
    _check(network, {"size": size, "window": window}, batch)
    named = {"image": source} if isinstance(source, np.ndarray) else _named(expanded(source), folder, overlay)
    copied = copy.deepcopy(network).to(where := pick(device)).eval()
    forward = _forward(copied, window, chosen(adapt), seed)
    _clear(folder, folder / _OVERLAYS)
    written = []
    for names, images in _batches(named, batch, size):
        masks = _classes(copied, forward, images, size, window, where, names)
        for name, image, ids in zip(names, images, masks, strict=True):
            written.append(_write(folder, name, image, ids, network.labels, overlay=overlay))
    return written


def _write(folder: Path, name: str, image: np.ndarray, ids: np.ndarray, labels: LabelSpace, *, overlay: bool) -> Path:
    """Write the mask of an image, and its overlay if asked; returns the mask's path."""
    file = _save(mask_image(ids, labels), folder / f"{name}.png")
    if overlay:
        _save(overlay_image(image, ids, labels), folder / _OVERLAYS / f"{name}.png")
    return file


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


def _check(network: Network, sizes: Mapping[str, Sequence[int] | None], batch: int) -> None:
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


def mask_image(ids: np.ndarray, labels: LabelSpace) -> Image.Image:
    """Class ids (H, W) uint8 as a palette image in the classes' colours; unknown ids are black."""
    image = Image.fromarray(ids)
    image.putpalette(_palette(labels).flatten().tolist())
    return image


def overlay_image(image: np.ndarray, ids: np.ndarray, labels: LabelSpace) -> Image.Image:
    """``image`` (H, W, 3) uint8, averaged with the colours of its classes."""
    mixed, palette = np.empty_like(image), _palette(labels).astype(np.uint16)
    for top in range(0, len(image), _ROWS):
        rows = slice(top, top + _ROWS)
        mixed[rows] = (image[rows] + palette[ids[rows]]) // 2
    return Image.fromarray(mixed)


def _palette(labels: LabelSpace) -> np.ndarray:
    """(256, 3) uint8."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(labels)] = labels.colours
    return palette


def _named(source: Path, target: Path, overlay: bool) -> dict[str, Path]:
    """The images by the name of their mask, without its suffix."""
    if not source.exists():
        raise InputError(f"{source}: there is no such image or folder of images")
    if source.is_file():
        found, root = [source], source.parent
    else:
        found, root = _outside(files(source), source, target), source
    if not found:
        raise InputError(f"{source}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    named: dict[str, Path] = {}
    images = {path.resolve() for path in found}
    for path in found:
        name = path.relative_to(root).with_suffix("").as_posix()
        other = named.setdefault(name, path)
        if other != path:
            raise InputError(f"{path}: its mask would have the same name as that of {other}; rename one of them")
        for what, where in (("mask", target), ("overlay", target / _OVERLAYS))[: 2 if overlay else 1]:
            file = where / f"{name}.png"
            if file.resolve() in images:
                victim = "it" if file.resolve() == path.resolve() else str(file)
                raise InputError(f"{path}: its {what} would overwrite {victim}; choose another target folder")
    if overlay and (clash := sorted({f"{_OVERLAYS}/{name}" for name in named} & named.keys())):
        raise InputError(f"{named[clash[0]]}: its mask would have the same name as an overlay; rename its folder")
    return named


def _outside(found: Sequence[Path], source: Path, target: Path) -> list[Path]:
    """The images without the masks of an earlier run in a target folder below the source."""
    below = target.resolve()
    if below == source.resolve() or not below.is_relative_to(source.resolve()):
        return list(found)
    return [path for path in found if not path.resolve().is_relative_to(below)]


def _batches(
    named: Mapping[str, Path | np.ndarray], batch: int, size: Sequence[int] | None
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Names and images, up to ``batch`` consecutive ones at a time that have the same size for the network."""
    names: list[str] = []
    images: list[np.ndarray] = []
    for name, source in named.items():
        image = source if isinstance(source, np.ndarray) else read_image(source)
        if images and (len(images) == batch or (size is None and image.shape != images[0].shape)):
            yield names, images
            names, images = [], []
        names.append(name)
        images.append(image)
    yield names, images


@torch.inference_mode()
def _classes(
    network: Network,
    forward: windows.Forward,
    images: Sequence[np.ndarray],
    size: Sequence[int] | None,
    window: Sequence[int] | None,
    device: torch.device,
    names: Sequence[str],
) -> Iterator[np.ndarray]:
    """Class ids (H, W) uint8 of each image at its own size."""
    height, width = size or images[0].shape[:2]
    if min(height, width) < network.least_size:
        raise InputError(
            f"{names[0]}: {height}x{width} pixels, but {type(network).__name__} needs at least {network.least_size} "
            f"on each side; give a size"
        )
    if window is None and height * width > MOST_PIXELS:
        raise InputError(
            f"{names[0]}: {height}x{width} pixels are more than the {MOST_PIXELS // 10**6} megapixels that are "
            "predicted without windows; give a window such as 1024x1024"
        )
    if window is not None and size is None:
        yield from _by_bands(network, images, window, device)
        return
    seen = torch.stack([_tensor(image, size) for image in images]).to(device)
    for image, logits in zip(images, forward(seen), strict=True):
        yield _best(logits, image.shape[:2]).cpu().numpy()


def _by_bands(
    network: Network, images: Sequence[np.ndarray], window: Sequence[int], device: torch.device
) -> Iterator[np.ndarray]:
    """As `_classes`, for images of one size, in windows."""

    def take(region: windows.Region) -> Tensor:
        rows, columns = region[1:]
        return torch.stack([_tensor(image[rows, columns], None) for image in images]).to(device)

    height, width = images[0].shape[:2]
    ids = np.empty((len(images), height, width), dtype=np.uint8)
    for top, logits in windows.bands(network, take, (height, width), window, windows.strides(window)):
        ids[:, top : top + logits.shape[-2]] = logits.argmax(1).to(torch.uint8).cpu().numpy()
        del logits  # frees the memory before the next band is computed
    yield from ids


def _best(logits: Tensor, size: Sequence[int]) -> Tensor:
    """The class (H, W) uint8 of the largest of ``logits`` (K, h, w) resized to ``size``, one class at a time."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits.argmax(0).to(torch.uint8)
    best = resize(logits[None, :1], size)[0, 0]
    ids = torch.zeros_like(best, dtype=torch.uint8)
    for index in range(1, len(logits)):
        other = resize(logits[None, index : index + 1], size)[0, 0]
        ids[(other > best) | (other.isnan() & ~best.isnan())] = index  # as argmax does
        torch.maximum(best, other, out=best)
    return ids


def _tensor(image: np.ndarray, size: Sequence[int] | None) -> Tensor:
    """(3, h, w) in [0, 1], exactly the input that `hardy.evaluate` gives a network."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"an image array must be (H, W, 3) uint8; got {image.shape} {image.dtype}")
    return evaluation(None if size is None else (size[0], size[1]))(image, np.zeros((), dtype=np.int64))[0]


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


def _save(image: Image.Image, path: Path) -> Path:
    """Write a PNG under a temporary name, then rename it."""
    waiting = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # two processes may write to one folder
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            image.save(waiting, format="PNG")
            os.replace(waiting, path)
        finally:
            waiting.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path
