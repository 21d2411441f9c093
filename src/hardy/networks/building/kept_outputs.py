"""A cache of a teacher's logits on disk, so that the runs of a study compute them once.

The key of an entry is the hash of the image as the teacher gets it, augmented and resized. Runs with the same seed,
images, batches and transforms, such as the cells of a study that differ in the student, use the same entries. Another
view of an image has another key. A folder belongs to one teacher and one choice of data sets; others are refused.
Entries keep the type in which the teacher computes, so that a run with a cache has the same bits as one without. Each
entry has a checksum: an incomplete or damaged entry is computed again.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hardy.data.kept_files import KeptFiles
from hardy.errors import InputError
from hardy.files import write_text
from hardy.stored import read_json

__all__ = ["OWN", "KeptOutputs", "name_of", "stacked"]

OWN = "hardy-teacher"
"""The sub-folder of a cache that holds only these files."""

_ABOUT = "about.json"
_FORMAT = "hardy-teacher/2"
_HASH = 16


def name_of(image: Tensor) -> str:
    """The name of ``image`` (3, H, W): the hash of its values, shape and type."""
    found = blake2b(f"{image.dtype}:{tuple(image.shape)}:".encode(), digest_size=_HASH)
    found.update(image.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


class KeptOutputs:
    """Logits by the names of their images, in the sub-folder `OWN` of ``folder``, of at most ``most`` bytes.

    Args:
        folder: made if it is missing.
        teacher: the checksum of the teacher's weights or file.
        data: the names of the data sets and folders of the images.
        settings: everything else that determines the values: precision, size, library and device.
        most: the largest size of all files there, in bytes.

    Raises:
        InputError: for a folder of another teacher or of other data, or one that is damaged or cannot be written.
    """

    def __init__(
        self, folder: Path, teacher: str, data: Sequence[str], settings: Mapping[str, str], *, most: int
    ) -> None:
        own = folder / OWN
        self._refuse_other(own, {"format": _FORMAT, "teacher": teacher, "data": sorted(set(data))})
        self._place = own / blake2b(json.dumps(dict(settings), sort_keys=True).encode(), digest_size=8).hexdigest()
        instead = "the others are computed each time"
        self._files = KeptFiles(own, self._place, most, what="outputs of the teacher", instead=instead)

    def read(self, name: str) -> tuple[str, Tensor] | None:
        """The entry of the image ``name``: ``"coarse"`` or ``"logits"``, and its value; None if it is missing or
        damaged."""
        try:
            file = self._file(name)
            if not file.is_file():  # reading a pipe may never end
                return None
            data = file.read_bytes()
            if data[:_HASH] != _sum(name, data[_HASH:]):
                return None
            ((key, value),) = load(data[_HASH:]).items()
        except (OSError, SafetensorError, ValueError):
            return None
        return key, value

    def write(self, name: str, key: str, value: Tensor) -> None:
        """Store ``value`` of the image ``name`` under ``key``, if the size limit allows it.

        Raises:
            InputError: if the folder cannot be written.
        """
        data = save({key: value.detach().cpu().contiguous()})
        self._files.write(self._file(name), _sum(name, data) + data)

    def _file(self, name: str) -> Path:
        return self._place / name[:2] / name

    @staticmethod
    def _refuse_other(folder: Path, about: dict[str, Any]) -> None:
        """Refuse a folder of another teacher or other data; write the description into a new folder."""
        file = folder / _ABOUT
        where = f"teacher.cache_folder: {folder.parent}"
        try:
            if not file.exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_text(file, json.dumps(about, indent=1) + "\n")
                return
            found = read_json(file)
        except OSError as error:
            raise InputError(f"{where} cannot be written ({error.strerror}); give another folder") from None
        if not isinstance(found, dict) or found.keys() != about.keys() or found["format"] != _FORMAT:
            raise InputError(f"{where}: {_ABOUT} in it is damaged or of another version; remove {folder}")
        if found["teacher"] != about["teacher"]:
            other, own = (str(each["teacher"])[:12] for each in (found, about))
            raise InputError(f"{where} holds the outputs of another teacher ({other}, not {own}); give another folder")
        if found["data"] != about["data"]:
            other, own = (", ".join(map(str, each["data"])) for each in (found, about))
            raise InputError(f"{where} holds outputs for other data ({other}, not {own}); give another folder")


def _sum(name: str, data: bytes) -> bytes:
    return blake2b(name.encode() + b":" + data, digest_size=_HASH).digest()


def stacked(found: Sequence[tuple[str, Tensor] | None]) -> tuple[str, Tensor] | None:
    """The kind and the values (B, ...) of a batch if all entries exist and have one kind and shape; else None."""
    known = [each for each in found if each is not None]
    if len(known) < len(found) or len({(key, value.shape) for key, value in known}) != 1:
        return None
    return known[0][0], torch.stack([value for _, value in known])
