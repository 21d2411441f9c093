"""A network that predicts pictures and writes their masks: groups of equal size, one forward pass each."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from hardy.data.parts import Parts, TornError
from hardy.deployment.exported import Exported
from hardy.deployment.exported_classes import ExportedClasses, read_exported
from hardy.device import pick
from hardy.engine import artefact, pictures
from hardy.engine.adapting import Adapting
from hardy.engine.classify import MOST_PIXELS, bands, classes, refusal
from hardy.engine.guard_log import GuardLog
from hardy.engine.mask_writer import DRAWN, MaskWriter, clear
from hardy.engine.pictures import Picture
from hardy.errors import InputError, check_size
from hardy.networks.base import Network, refuse_plain
from hardy.ops import windows
from hardy.ops.kept_memory import kept_memory
from hardy.ops.tensors import check_finite
from hardy.recipe import Adapt, Evaluate

__all__ = ["Predicted", "Predictor", "check", "fixed_size", "kinds_of", "network_of"]

_FORM = "hardy-mask/1"


@dataclass
class Predicted:
    """The result of a call of `hardy.engine.predict.predict_all`.

    Attributes:
        masks: of every image that has one now, in order; of a watched folder the last ``last`` ones.
        kept: how many masks an earlier call had written.
        written: how many masks this call wrote.
        skipped: image without a mask -> the reason; of a watched folder the last ``last`` ones.
        waiting: how many images of a watched folder were left when it was stopped.
        last: how many masks and reasons are held; None for all.
        guard: what the guard of a test-time method did; None without one.
    """

    masks: list[Path] = field(default_factory=list)
    kept: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    written: int = 0
    waiting: int = 0
    last: int | None = None
    guard: GuardLog | None = None

    def note(self, mask: Path, source: str, *, new: bool) -> None:
        """Note that the image ``source`` has a mask, in place."""
        self.skipped.pop(source, None)
        self.masks.append(mask)
        self.written, self.kept = self.written + new, self.kept + (not new)
        if self.last is not None:
            del self.masks[: -self.last]

    def skip(self, source: str, reason: str) -> None:
        """Note that the image ``source`` has no mask, in place."""
        self.skipped.pop(source, None)
        self.skipped[source] = reason
        if self.last is not None and len(self.skipped) > self.last:
            del self.skipped[next(iter(self.skipped))]


class Predictor:
    """A ``network`` that predicts and writes into a folder; the arguments are those of `predict_all`.

    It is copied where it is on another device, or not in evaluation mode.

    Args:
        resumes: masks hold a checksum, and those that are there stay.

    Attributes:
        folder: of the masks.
        live: the method of test-time adaptation, or None.
        bound: images that are larger are predicted in parts where they can be.
        key: gives a checksum of all that decides a mask beside its image, computed once; empty unless it resumes.

    Raises:
        InputError: for a network, a size or a method that cannot be used.
    """

    def __init__(
        self,
        network: Network,
        folder: Path,
        kinds: Sequence[str],
        *,
        size: Sequence[int] | None,
        window: Sequence[int] | None,
        batch: int,
        device: str,
        adapt: Adapt | None,
        seed: int,
        resumes: bool,
        source_images: Iterable[Tensor] | Tensor | None = None,
    ) -> None:
        self.folder = folder
        self._size, self._batch = fixed_size(network, size, window, batch)
        self._window = window
        check(network, {"size": self._size, "window": window}, self._batch)
        fixed = isinstance(network, Exported | ExportedClasses)
        self._where = torch.device("cpu") if fixed else pick(device)
        self._network = network if fixed or _is_ready(network, self._where) else _readied(network, self._where)
        self._forward = _forward(self._network, window, adapt, seed, source_images)
        self.live = self._forward if isinstance(self._forward, Adapting) else None
        self._sure = "confidence" in kinds
        self.bound = _bound(self._size, window, kinds)
        clear(folder, *(folder / DRAWN[kind] for kind in kinds))
        learns = {"adapt": adapt.model_dump(mode="json"), "seed": seed} if adapt else {}
        self.key = _once(lambda: _settings(self._network, self._size, window, learns) if resumes else "")
        self._write = MaskWriter(folder, kinds, self._network.label_space, self.key if resumes else None)

    def is_done(self, name: str, content: str) -> bool:
        """Whether the mask of this picture, and what is drawn beside it, are there already."""
        return self._write.is_done(name, content)

    def run(
        self,
        found: Iterable[Picture | None],
        result: Predicted,
        *,
        skip: Callable[[str, str], None] | None = None,
        goes_on: Callable[[int], bool] = lambda images: True,
    ) -> None:
        """Predict ``found``, write the masks, and note everything in ``result``; when it returns, all is written.

        Args:
            found: pictures; a None ends a group.
            result: is updated in place.
            skip: called with the source and the reason of each image without a mask; by default `Predicted.skip`.
            goes_on: called after each group with its number of new images; False ends the run.

        Raises:
            InputError: when a mask cannot be written, or a method of adaptation diverges.
        """
        skip = skip or result.skip
        result.guard = self.live.guard if self.live else None
        with kept_memory() if self._window is not None else nullcontext(), self._write.running():
            for group in self._groups(found, skip):
                made = self._predicted(group, skip)
                news = [picture.pixels is not None or picture.parts is not None for picture in made]
                for picture, new in zip(made, news, strict=True):
                    result.note(self.folder / f"{picture.name}.png", picture.source, new=new)
                if not goes_on(sum(news)):
                    break

    def _predicted(self, group: Sequence[Picture], skip: Callable[[str, str], None]) -> Sequence[Picture]:
        """Predict what has no mask in ``group``; return the pictures that have one now, or soon."""
        if group[0].parts is not None:
            return self._in_parts(group[0], group[0].parts, skip)
        seen = [(picture, picture.pixels) for picture in group if picture.pixels is not None]
        if seen:
            images = [pixels for _, pixels in seen]
            made = classes(
                self._network, self._forward, images, self._size, self._window, self._where, confidence=self._sure
            )
            for (picture, _), (ids, confidence) in zip(seen, made, strict=True):
                self._write.add(picture, ids, confidence)
        return group

    def _in_parts(self, picture: Picture, file: Path, skip: Callable[[str, str], None]) -> Sequence[Picture]:
        assert self._window is not None, "parts are windows"
        try:
            parts = Parts(file)
            if short := self._refusal(parts.shape):
                raise TornError(f"{file}: {short}")
            found = bands(
                self._network,
                lambda rows, columns: [parts.take(rows, columns)],
                parts.shape,
                self._window,
                self._where,
                confidence=self._sure,
            )
            self._write.in_bands(
                picture, parts.shape, ((ids[0], sure if sure is None else sure[0]) for _, ids, sure in found)
            )
        except TornError as error:
            skip(picture.source, str(error))
            return []
        return [picture]

    def _refusal(self, shape: Sequence[int]) -> str:
        return refusal(self._network, shape, self._size, self._window)

    def _groups(self, found: Iterable[Picture | None], skip: Callable[[str, str], None]) -> Iterator[list[Picture]]:
        """Consecutive pictures, of which up to ``batch`` are to be predicted and have one size for the network.

        One that is predicted in parts is alone.
        """
        group: list[Picture] = []
        shape, count = None, 0
        for picture in found:
            if picture is None:
                if group:
                    yield group
                group, count = [], 0
                continue
            reason = picture.reason
            if picture.pixels is not None and (short := self._refusal(picture.pixels.shape[:2])):
                reason = f"{picture.source}: {short}"
            if reason:
                skip(picture.source, reason)
                continue
            if picture.parts is not None:
                yield from ([group] if group else [])
                yield [picture]
                group, count = [], 0
                continue
            if picture.pixels is not None:
                if count == self._batch or (count and self._size is None and picture.pixels.shape != shape):
                    yield group
                    group, count = [], 0
                shape, count = picture.pixels.shape, count + 1
            group.append(picture)
        if group:
            yield group


def _is_ready(network: Network, where: torch.device) -> bool:
    """Whether ``network`` can predict as it is: nothing would change in it."""
    places = {value.device for value in (*network.parameters(), *network.buffers())}
    return places <= {where} and not any(module.training for module in network.modules())


def _readied(network: Network, where: torch.device) -> Network:
    return copy.deepcopy(network).to(where).eval()


def _once(make: Callable[[], str]) -> Callable[[], str]:
    """``make``, called only by the first thread that needs what it gives."""
    lock, found = Lock(), list[str]()

    def get() -> str:
        with lock:
            if not found:
                found.append(make())
            return found[0]

    return get


def network_of(place: Path) -> Network:
    """The network of a run's folder, or of an exported ``.onnx`` file.

    Raises:
        InputError: when it cannot be loaded, or its weights are not finite.
    """
    if place.suffix.lower() == ".onnx" and not place.is_dir():
        return read_exported(place)
    network = artefact.load(place)
    check_finite(network, place)
    return network


def kinds_of(network: Network, overlay: bool, draw: Sequence[str]) -> tuple[str, ...]:
    """What is drawn beside masks, in the order of `DRAWN`.

    Raises:
        InputError: for another kind, or one that the network cannot give.
    """
    if wrong := [kind for kind in draw if kind not in DRAWN]:
        raise InputError(f"draw {wrong[0]!r}: there are {', '.join(DRAWN)}")
    if "confidence" in draw and isinstance(network, ExportedClasses):
        raise InputError(f"{network.path}: returns classes without their probabilities; export it with --logits")
    return tuple(kind for kind in DRAWN if kind in draw or (overlay and kind == "overlay"))


def _bound(size: Sequence[int] | None, window: Sequence[int] | None, kinds: Sequence[str]) -> pictures.Bound:
    """Images are predicted in parts only in windows, and only masks and confidence are written in parts."""
    if window is None or size is not None:
        return pictures.Bound(hint=f"give a window such as 1024x1024{', and no size' if size is not None else ''}")
    if {"overlay", "coloured"} & set(kinds):
        return pictures.Bound(hint="leave out overlay and coloured, which are drawn of whole images")
    return pictures.Bound(whole=MOST_PIXELS)


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


def _forward(
    network: Network,
    window: Sequence[int] | None,
    adapt: Adapt | None,
    seed: int,
    source_images: Iterable[Tensor] | Tensor | None,
) -> windows.Forward:
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
    return Adapting(network, adapt, seed, source_images)


def _settings(
    network: Network, size: Sequence[int] | None, window: Sequence[int] | None, learns: Mapping[str, Any]
) -> str:
    """A checksum of all that decides a mask beside its image."""
    if isinstance(network, Exported | ExportedClasses):
        weights = [pictures.content(network.path)]
    else:
        weights = [artefact.checksum(network), artefact.form(network), type(network).__qualname__]
    settings: list[Any] = [_FORM, *weights, network.label_space.to_json(), size and list(size), window and list(window)]
    settings += [learns] if learns else []
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()
