"""Writing masks and drawings in background threads, while the network predicts.

A mask holds a checksum of the network, the settings and its image, so that a later call leaves it as it is.
"""

import hashlib
import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hardy.data.label_spaces import LabelSpace
from hardy.engine import drawing
from hardy.engine.pictures import Picture
from hardy.errors import InputError

__all__ = ["DRAWN", "MaskWriter", "clear", "save"]

DRAWN = {"overlay": "overlays", "coloured": "coloured", "confidence": "confidence"}
"""What may be drawn beside a mask, and the folder below the target that holds it."""

_KEY = "hardy"
_MACHINE = f"{crc32(platform.node().encode()):08x}"
_WRITERS = 2
_BEHIND_PIXELS = 30_000_000


class MaskWriter:
    """Writes masks, and what is drawn beside them, in threads behind the network.

    Args:
        folder: of the masks.
        kinds: what is drawn; see `DRAWN`.
        label_space: the classes.
        key: gives a checksum of network and settings, when the first mask is written or found; None to write no
            checksums and find nothing done.
    """

    def __init__(
        self, folder: Path, kinds: Sequence[str], label_space: LabelSpace, key: Callable[[], str] | None
    ) -> None:
        self.folder, self._kinds, self._label_space, self._key = folder, kinds, label_space, key
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
                image = drawing.overlay_image(picture.pixels, ids, self._label_space)
            elif kind == "coloured":
                image = drawing.coloured_image(ids, self._label_space)
            else:
                assert confidence is not None, "asked for"
                image = drawing.confidence_image(confidence)
            save(image, self.folder / DRAWN[kind] / name)
        # The mask last: where it is, all is there.
        save(drawing.mask_image(ids, self._label_space), self.folder / name, self._of(picture.content))

    def in_bands(
        self, picture: Picture, size: tuple[int, int], bands: Iterable[tuple[np.ndarray, np.ndarray | None]]
    ) -> None:
        """Write the mask, and the confidence, of a picture of ``size`` from its bands (h, W), from top to bottom.

        They wait in files beside the mask, not in memory; nothing else is drawn.
        """
        mask, sure = self.folder / f"{picture.name}.png", self.folder / DRAWN["confidence"] / f"{picture.name}.png"
        with ExitStack() as stack:
            ids_file = stack.enter_context(_raw(mask))
            sure_file = stack.enter_context(_raw(sure)) if "confidence" in self._kinds else None
            for ids, confidence in bands:
                ids_file.write(ids.tobytes())
                if sure_file is not None:
                    assert confidence is not None, "asked for"
                    sure_file.write(drawing.confidence_bytes(confidence).tobytes())
            if sure_file is not None:
                save(Image.fromarray(_mapped(sure_file, size)), sure)
            save(drawing.mask_image(_mapped(ids_file, size), self._label_space), mask, self._of(picture.content))

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
        return hashlib.sha256(f"{self._key()}:{content}".encode()).hexdigest() if self._key else ""


def clear(*folders: Path) -> None:
    """Remove the temporary files that a killed process of this machine left in ``folders``."""
    for path in (path for folder in folders for path in folder.glob(".*.png.*.tmp")):
        number, _, machine = path.name.rsplit(".", 2)[1].partition("-")
        if machine not in ("", _MACHINE):
            continue
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (ValueError, OverflowError, OSError):  # not a name of ours, or a process of another user
            continue


def save(image: Image.Image, path: Path, key: str = "") -> Path:
    """Write a PNG under a temporary name, then rename it."""
    info = PngInfo()
    if key:
        info.add_text(_KEY, key)
    waiting = path.with_name(f".{path.name}.{os.getpid()}-{_MACHINE}.tmp")  # several may write to one folder
    with _cannot(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            image.save(waiting, format="PNG", pnginfo=info)
            os.replace(waiting, path)
        finally:
            waiting.unlink(missing_ok=True)
    return path


@contextmanager
def _raw(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside ``path``, which is removed after the block, or by `clear` after a crash."""
    waiting = path.with_name(f".{path.stem}.raw.png.{os.getpid()}-{_MACHINE}.tmp")
    with _cannot(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with waiting.open("w+b") as file:
                yield file
        finally:
            waiting.unlink(missing_ok=True)


def _mapped(file: BinaryIO, size: tuple[int, int]) -> np.ndarray:
    """The bytes in ``file`` as an array of ``size``, on disk."""
    file.flush()
    return np.memmap(file, dtype=np.uint8, mode="r", shape=size)


@contextmanager
def _cannot(path: Path) -> Iterator[None]:
    """Inside the block an `OSError` becomes an `InputError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
