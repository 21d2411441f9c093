"""Frames of a video file or of a camera, through PyAV, which is an extra."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from hardy.errors import InputError

__all__ = ["SUFFIXES", "Source", "frames", "source_of"]

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".flv")
"""The endings, in lower case, of files that count as videos."""

_CAMERA = "camera:"
_LEAST_MISSING = 0.5
"""By how many seconds a video without sound may be shorter than its stated length."""

_DEVICES = {"linux": ("/dev/video{}", "v4l2"), "darwin": ("{}", "avfoundation"), "win32": ("video={}", "dshow")}


@dataclass(frozen=True)
class Source:
    """A video or a camera.

    Attributes:
        name: of the folder of its masks.
        path: the video's file; None for a camera.
        address: what is opened.
        kind: the input format of a camera; None for a file.
    """

    name: str
    path: Path | None
    address: str
    kind: str | None = None

    def __str__(self) -> str:
        return str(self.path or self.name)


def source_of(word: str) -> Source | None:
    """The video or camera that ``word`` names: a file with a video's ending, or ``camera:0``; else None.

    Raises:
        InputError: for a camera on a system where none can be opened.
    """
    if word.startswith(_CAMERA):
        number = word.removeprefix(_CAMERA)
        if sys.platform not in _DEVICES or not number:
            raise InputError(f"{word}: this names no camera; give its number, such as camera:0")
        address, kind = _DEVICES[sys.platform]
        return Source(f"camera{number}", None, address.format(number), kind)
    path = Path(word)
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        return Source(path.stem, path, str(path))
    return None


def frames(source: Source) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 RGB, in order, upright.

    Raises:
        InputError: when PyAV is missing, the source cannot be opened or holds no video, or the stream breaks off, with
            the number of frames before.
    """
    av = _package()
    if source.path is not None and not source.path.is_file():
        raise InputError(f"{source}: there is no such video")
    number = 0
    try:
        with av.open(source.address, format=source.kind) as container:
            if not container.streams.video:
                raise InputError(f"{source}: holds no video that can be read; fetch it again")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            last = 0.0
            for frame in container.decode(stream):
                yield _upright(frame)
                number, last = number + 1, frame.time or 0.0
            length = 0 if container.streams.audio else (container.duration or 0) / av.time_base
            if number < stream.frames or last + _LEAST_MISSING < length:
                raise InputError(f"{source}: breaks off after {number} frames; fetch it again")
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        where = f"breaks off after {number} frames" if number else "cannot be read as a video"
        raise InputError(f"{source}: {where} ({reason}); fetch it again") from None
    if not number:
        raise InputError(f"{source}: holds no frames")


def _upright(frame: Any) -> np.ndarray:
    """A frame turned as its metadata say."""
    pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, (frame.rotation // 90) % 4))


def _package() -> Any:
    """PyAV, imported on first use.

    Raises:
        InputError: naming the extra if it is not installed.
    """
    try:
        return import_module("av")
    except ModuleNotFoundError:
        raise InputError("videos and cameras need PyAV, which comes with: pip install 'hardy[video]'") from None
