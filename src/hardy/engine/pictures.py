"""What is predicted: images, folders, patterns, arrays, videos and cameras, as named pictures in order.

Files are decoded in a few threads ahead of their use, in their order; waiting images hold at most about 30 megapixels.
A file that cannot be read becomes a picture without pixels, with the reason.
"""

import glob
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hardy.data import parts
from hardy.data.decoding import MOST_PIXELS, image_size, read_image
from hardy.data.finding import IMAGE_SUFFIXES, files
from hardy.engine import videos
from hardy.errors import InputError

__all__ = ["WHOLE", "Asked", "Bound", "Done", "Picture", "content", "decoded", "find", "frames"]

AHEAD_PIXELS = 30_000_000
"""The limit on decoded pixels that wait, in addition to one image of any size."""

_AHEAD = 16
_THREADS = 2


@dataclass(frozen=True, eq=False)
class Picture:
    """One image.

    Attributes:
        name: of its mask, without the suffix.
        source: its file, or what messages call it.
        content: a checksum of the file, or of the pixels.
        pixels: (H, W, 3) uint8; None if they cannot be read, are not needed, or there are ``parts``.
        reason: why it cannot be read; empty if it can.
        parts: its file, where it is too large to be decoded at once.
    """

    name: str
    source: str
    content: str
    pixels: np.ndarray | None = None
    reason: str = ""
    parts: Path | None = None


Done = Callable[[str, str], bool]
"""``done(name, checksum)``: whether nothing is left to do for this picture, so that its pixels are not needed."""

Asked = tuple[str, Path | np.ndarray] | Picture | None
"""The name of a mask and its image; a picture that is refused; or None when no more images are there for now."""


class Bound(NamedTuple):
    """The size from which an image is too large to be decoded at once.

    Attributes:
        whole: a file of more pixels than this is read in parts, if it can be; None decodes all files at once.
        hint: what to do about a file that is too large.
    """

    whole: int | None = None
    hint: str = "cut it into tiles"


WHOLE = Bound()
"""All images are decoded at once."""


def find(source: Path) -> tuple[dict[str, Path], Path]:
    """The image files of ``source`` by the name of their mask, and the folder to which these names are relative.

    Raises:
        InputError: for a source that is missing or holds no images, or for two images with the same name of a mask.
    """
    if source.is_dir():
        found, root = files(source), source
    elif source.exists():
        found, root = [source], source.parent
    elif glob.has_magic(str(source)):
        found, root = _matching(source)
    else:
        raise InputError(f"{source}: there is no such image, video or folder of images")
    if not found:
        raise InputError(f"{source}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    named: dict[str, Path] = {}
    for path in found:
        name = path.relative_to(root).with_suffix("").as_posix()
        if (other := named.setdefault(name, path)) != path:
            raise InputError(f"{path}: its mask would have the same name as that of {other}; rename one of them")
    return named, root


def _matching(pattern: Path) -> tuple[list[Path], Path]:
    """The image files that match, sorted, and the folder before the first part with a wildcard."""
    parts = pattern.parts
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    places = (Path(place) for place in sorted(glob.glob(str(pattern), recursive=True)))
    return [path for path in places if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES], root


def content(path: Path) -> str:
    """A checksum of a file; empty when it cannot be read."""
    digest = blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def decoded(asked: Iterable[Asked], done: Done, bound: Bound = WHOLE) -> Generator[Picture | None, None, None]:
    """The pictures in order; those that are ``done`` are not decoded, and arrays need no decoding.

    Where ``asked`` has None, all pictures before it are yielded, then None, before the next one is asked for.

    Args:
        asked: see `Asked`, such as names with their files.
        done: says from a picture's name and content that its pixels are not needed.
        bound: see `Bound`.
    """
    waiting: deque[tuple[int, Future[Picture]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for one in asked:
                size = _pixels(one[1]) if isinstance(one, tuple) else 0
                full = len(waiting) >= _AHEAD or size + sum(n for n, _ in waiting) > AHEAD_PIXELS
                while waiting and (full or one is None):
                    yield waiting.popleft()[1].result()
                    full = len(waiting) >= _AHEAD or size + sum(n for n, _ in waiting) > AHEAD_PIXELS
                if one is None:
                    yield None
                else:
                    waiting.append((size, pool.submit(_decoded, one, done, bound)))
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            for _, late in waiting:
                late.cancel()


def _decoded(asked: tuple[str, Path | np.ndarray] | Picture, done: Done, bound: Bound) -> Picture:
    if isinstance(asked, Picture):
        return asked
    name, source = asked
    if isinstance(source, np.ndarray):
        own = blake2b(source.tobytes(), digest_size=16, key=str(source.shape).encode()).hexdigest()
        return Picture(name, name, own, None if done(name, own) else source)
    known = content(source)
    if done(name, known):
        return Picture(name, str(source), known)
    try:
        if _in_parts(source, bound):
            return Picture(name, str(source), known, parts=source)
        return Picture(name, str(source), known, read_image(source))
    except InputError as error:
        return Picture(name, str(source), known, reason=str(error))


def _in_parts(source: Path, bound: Bound) -> bool:
    """Whether the image is larger than the bound and can be read in parts.

    Raises:
        InputError: when it cannot, and is too large to be decoded at once.
    """
    height, width = parts.size_in(source)
    most = MOST_PIXELS if bound.whole is None else bound.whole
    if height * width <= most:
        return False
    if bound.whole is None:
        raise InputError(
            f"{source}: {height}x{width} pixels are more than the {MOST_PIXELS // 10**6} megapixels that are decoded "
            f"at once; {bound.hint}"
        )
    try:
        parts.Parts(source)
    except InputError:
        if height * width > MOST_PIXELS:
            raise
        return False
    return True


def _pixels(source: Path | np.ndarray) -> int:
    """How many pixels the image has; 0 when it cannot be read."""
    if isinstance(source, np.ndarray):
        return int(source.shape[0] * source.shape[1])
    try:
        height, width = image_size(source)
    except InputError:
        return 0
    return height * width


def frames(source: videos.Source, most: int | None, done: Done) -> Iterator[Picture]:
    """The frames of a video or camera; one is decoded in advance. If the stream ends early, the last has no pixels."""
    known = content(source.path) if source.path is not None else ""
    with ThreadPoolExecutor(1) as pool:
        stream = _frames(source, most, done, known)
        waiting = pool.submit(next, stream, None)
        while (picture := waiting.result()) is not None:
            waiting = pool.submit(next, stream, None)
            yield picture


def _frames(source: videos.Source, most: int | None, done: Done, known: str) -> Iterator[Picture]:
    number = 0
    try:
        for number, pixels in enumerate(videos.frames(source)):
            if number == most:
                return
            name = f"{source.name}/{number:06}"
            needed = not done(name, f"{known}:{number}")
            yield Picture(name, f"{source}, frame {number}", f"{known}:{number}", pixels if needed else None)
    except InputError as error:
        yield Picture(f"{source.name}/end", str(source), "", reason=str(error))
