"""Confusion counts per image, kept with a run's records, so that intervals and new metrics need no new measurement.

They are in one file in the folder of a run, a gzip of a safetensors file. For each domain it holds the names of the
images in the order measured, and the non-zero entries of their confusion matrices, which are few per image. A checksum
covers the whole content.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hardy.errors import InputError
from hardy.files import write_together
from hardy.stored import contents, json_value

__all__ = ["FILE", "FORMAT", "Counts", "read", "write"]

FILE = "counts.safetensors.gz"
FORMAT = "hardy-counts/1"

MOST_BYTES = 256 * 2**20
"""The largest size of a file in bytes, also when unpacked; 10,000 images of 19 classes need three million."""

MOST_ENTRIES = 2**27
"""The largest number of entries of all matrices of a domain: 1 GiB."""

_PARTS = ("lengths", "places", "values")


@dataclass(frozen=True)
class Counts:
    """The confusion counts of one domain, image by image.

    Attributes:
        names: of the N images, in the order measured.
        matrices: (N, C, C) int64: row = truth, column = prediction, over the labelled pixels (or one entry of 1 per
            image for image-level classes).
        classes: names of the C classes.
        split: ``source-val`` for held-out images of a training domain, ``unseen`` for any other domain.
        unmatched: (N, C) int64, by truth: pixels with a predicted class that has no counterpart in ``classes``. They
            count as errors of the true class. All 0 if network and labels have the same classes.
    """

    names: tuple[str, ...]
    matrices: np.ndarray
    classes: tuple[str, ...]
    split: str
    unmatched: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    def __post_init__(self) -> None:
        """Fill in ``unmatched`` and check the shapes.

        Raises:
            ValueError: for shapes that do not fit each other, or a negative count.
        """
        count, classes = len(self.names), len(self.classes)
        if not self.unmatched.size:
            object.__setattr__(self, "unmatched", np.zeros((count, classes), np.int64))
        if self.matrices.shape != (count, classes, classes) or self.unmatched.shape != (count, classes):
            raise ValueError(f"matrices of shape {self.matrices.shape} for {count} images of {classes} classes")
        if min(self.matrices.min(initial=0), self.unmatched.min(initial=0)) < 0:
            raise ValueError("a count below 0")


def write(folder: Path, counts: Mapping[str, Counts]) -> None:
    """Write ``counts``, by domain, as `FILE` in ``folder``, completely or not at all; an earlier file is replaced.

    Raises:
        InputError: if the counts need more than `MOST_BYTES`.
        OSError: when it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    said = [
        {"domain": domain, "split": one.split, "classes": list(one.classes), "names": list(one.names)}
        for domain, one in counts.items()
    ]
    packed = [_packed(one) for one in counts.values()]
    arrays = {
        name: _small(np.concatenate([np.zeros(0, np.int64), *(each[place] for each in packed)]))
        for place, name in enumerate(_PARTS)
    }
    about = {"format": FORMAT, "domains": said, "sha256": _checksum(said, arrays)}
    data = save(arrays, {"about": json.dumps(about, sort_keys=True)})  # one key: the order of several is not fixed
    if len(data) > MOST_BYTES:
        raise InputError(f"{file}: it would have more than {MOST_BYTES // 2**20} MiB; measure fewer images at a time")
    write_together({file: gzip.compress(data, mtime=0)})


def read(folder: Path | str) -> dict[str, Counts]:
    """The counts in ``folder`` (or in a file of that name), by domain, in the order measured.

    Raises:
        InputError: if there is no such file, or if it is damaged, too large or not written by `write`.
    """
    file = Path(folder) / FILE if Path(folder).is_dir() else Path(folder)
    if not file.exists():
        raise InputError(f"{file}: there is no such file; a recipe with evaluate.keep_counts: true writes it")
    try:
        data = _unzipped(contents(file, MOST_BYTES + 1))
        about, arrays = _header(data), load(data)
        domains = _described(about["domains"])
        if arrays.keys() != set(_PARTS) or not all(a.ndim == 1 and a.dtype.kind in "iu" for a in arrays.values()):
            raise ValueError(f"its parts are not lists of whole numbers called {', '.join(_PARTS)}")
        if about["sha256"] != _checksum(domains, arrays):
            raise ValueError("its checksum does not match")
        return _unpacked(domains, arrays)
    except (ValueError, TypeError, KeyError, zlib.error, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: damaged, or not written by Hardy ({reason}); measure the run again") from None


def _packed(one: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The number of non-zero entries of each image, and their places and values.

    A place is ``truth * (C + 1) + prediction``; the prediction C means a class without a counterpart.
    """
    width = len(one.classes) * (len(one.classes) + 1)
    whole = np.concatenate([one.matrices, one.unmatched[:, :, None]], axis=2).reshape(len(one.names), width)
    image, place = np.nonzero(whole)
    lengths = np.bincount(image, minlength=len(one.names)).astype(np.int64)
    return lengths, place.astype(np.int64), whole[image, place].astype(np.int64)


def _unpacked(domains: list[dict[str, Any]], arrays: Mapping[str, np.ndarray]) -> dict[str, Counts]:
    """The counts of each domain.

    Raises:
        ValueError: for numbers that are inconsistent.
    """
    lengths, places, values = (arrays[name].astype(np.int64) for name in _PARTS)
    if len(lengths) != sum(len(one["names"]) for one in domains):
        raise ValueError("the numbers of images and of names differ")
    if min(lengths.min(initial=0), places.min(initial=0), values.min(initial=1)) < 0 or lengths.sum() != len(places):
        raise ValueError("a number is out of range")
    if len(values) != len(places):
        raise ValueError("the numbers of values and of places differ")
    ends = np.concatenate([[0], np.cumsum(lengths)])
    found, first = {}, 0
    for one in domains:
        count, classes = len(one["names"]), len(one["classes"])
        wide = classes * (classes + 1)
        here = slice(ends[first], ends[first + count])
        if count * wide > MOST_ENTRIES or places[here].max(initial=-1) >= max(wide, 0):
            raise ValueError("a place is outside of the matrix")
        table = np.zeros((count, wide), np.int64)
        table[np.repeat(np.arange(count), lengths[first : first + count]), places[here]] = values[here]
        square = table.reshape(count, classes, classes + 1)
        found[one["domain"]] = Counts(
            tuple(one["names"]),
            np.ascontiguousarray(square[:, :, :-1]),
            tuple(one["classes"]),
            one["split"],
            np.ascontiguousarray(square[:, :, -1]),
        )
        first += count
    return found


def _small(values: np.ndarray) -> np.ndarray:
    """``values`` in the smallest unsigned type that holds them all."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def _checksum(domains: list[dict[str, Any]], arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256(json.dumps(domains, sort_keys=True).encode())
    for name in _PARTS:
        found.update(arrays[name].astype("<i8").tobytes())
    return found.hexdigest()


def _unzipped(data: bytes) -> bytes:
    """The content of a single gzip stream.

    Raises:
        ValueError, zlib.error: if ``data`` is not one complete gzip stream, or has more than `MOST_BYTES`.
    """
    stream = zlib.decompressobj(wbits=31)
    found = stream.decompress(data, MOST_BYTES)
    if stream.unconsumed_tail or len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES // 2**20} MiB")
    if not stream.eof or stream.unused_data:
        raise ValueError("it is incomplete, or has extra bytes at its end")
    return found


def _header(data: bytes) -> dict[str, Any]:
    """The description in the header of a safetensors file.

    Raises:
        ValueError, KeyError, TypeError: if there is none, or if it has another format than `FORMAT`.
    """
    about = json_value(json_value(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["about"])
    if about["format"] != FORMAT:
        raise ValueError(f"its format is {about['format']!r}, and this Hardy reads {FORMAT!r}")
    return dict(about)


def _described(domains: Any) -> list[dict[str, Any]]:
    """``domains``, after a check that every value has the type that `write` gives it.

    Raises:
        ValueError, KeyError, TypeError: for a value of another type.
    """
    for one in domains:
        lists = isinstance(one["classes"], list) and isinstance(one["names"], list)
        if not lists or len(one) != 4:
            raise ValueError("a domain has a name, a split, classes and names")
        if not all(isinstance(text, str) for text in (one["domain"], one["split"], *one["classes"], *one["names"])):
            raise ValueError("domain, split, classes and names are texts")
    if len({one["domain"] for one in domains}) < len(domains):
        raise ValueError("a domain occurs twice")
    return list(domains)
