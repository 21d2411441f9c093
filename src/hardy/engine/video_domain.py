"""A video as a domain without labels: its frames are decoded in order, and again from the start for an earlier one."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from hardy.data.base import Dataset, Domain, DomainItems, Item
from hardy.data.label_spaces import LabelSpace
from hardy.engine import videos
from hardy.errors import InputError
from hardy.files import expanded
from hardy.types import IGNORE

__all__ = ["video_of", "video_part"]


class _Video(Dataset):
    """The frames of ``source``; an item is the number of a frame, from 0. All labels are `IGNORE`."""

    def __init__(self, source: videos.Source, label_space: LabelSpace, *, image_level: bool) -> None:
        self.source, self.label_space, self.image_level = source, label_space, image_level
        self._left, self._next = videos.frames(source), 0

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Empty: the caller gives the numbers of the frames."""
        return {}

    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """See `Dataset.read`."""
        assert isinstance(item, int)
        if item < self._next:
            self._left, self._next = videos.frames(self.source), 0
        skipped, self._next = item - self._next, item + 1
        image = next(islice(self._left, skipped, None))
        return image, np.array(IGNORE) if self.image_level else np.full(image.shape[:2], IGNORE, dtype=np.uint8)

    def name_of(self, item: Item) -> str:
        """See `Dataset.name_of`."""
        return f"{self.source}, frame {item}"


def video_of(word: str, root: Path) -> videos.Source | None:
    """The video that ``word`` names, also below ``root``; None if it names a folder.

    Raises:
        InputError: for a camera, which has no end.
    """
    place = expanded(word)
    found = videos.source_of(str(place if place.exists() or not (root / place).is_file() else root / place))
    if found is not None and found.path is None:
        raise InputError(f"stream.unlabelled: {word}: a stream has an end; record the camera as a video and name that")
    return found


def video_part(name: str, source: videos.Source, label_space: LabelSpace, *, image_level: bool) -> DomainItems:
    """The domain ``name`` with the numbers of all frames of ``source``, which are counted by decoding them once.

    If the video breaks off, the last number is that of the first missing frame: to read it gives the error.

    Raises:
        InputError: for a video without a frame that can be decoded, or without PyAV.
    """
    count = 0
    try:
        for _ in videos.frames(source):
            count += 1
    except InputError as error:
        if not count:
            raise InputError(f"stream.unlabelled: {error}") from None
        count += 1
    return Domain(name, _Video(source, label_space, image_level=image_level), {}), range(count)
