"""Confusion counts per image, kept beside a run's records: intervals and new metrics then need no new training.

One file in the folder of a run, a gzip of a safetensors file. Per domain it holds the names of the images in the order
measured, and the entries of their confusion matrices that are not zero: an image has few. A checksum in it is over all
that it says.
"""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hardy.errors import InputError, named
from hardy.files import temporary
from hardy.stored import contents, json_value

__all__ = ["FILE", "FORMAT", "Counts", "read", "write"]

FILE = "counts.safetensors.gz"
FORMAT = "hardy-counts/1"

MOST_BYTES = 256 * 2**20
"""Bytes of a file at most, unpacked too; 10,000 images of 19 classes take three million."""

MOST_ENTRIES = 2**27
"""Entries of all matrices of a domain at most: 1 GiB."""

_PARTS = ("lengths", "places", "values")


@dataclass(frozen=True)
class Counts:
    """The confusion counts of one domain, image by image.

    Attributes:
        names: of the N images, in the order measured.
        matrices: (N, C, C) int64: row = truth, column = prediction, over the labelled pixels (or 1 for a picture).
        classes: names of the C classes.
        split: ``source-val`` for held-out images of a domain trained on, ``unseen`` for a domain never trained on.
        unmatched: (N, C) int64, by truth: pixels for which a class was predicted that has no counterpart among
            ``classes``. They are misses of the true class. All 0 where network and labels share their classes.
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
    """Write ``counts``, by domain, as `FILE` in ``folder``, whole or not at all; what was there before is replaced.

    Raises:
        InputError: for more than a file may hold.
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
    data = save(arrays, {"about": json.dumps(about, sort_keys=True)})  # one key: of several the order is not fixed
    if len(data) > MOST_BYTES:
        raise InputError(f"{file}: would have more than {MOST_BYTES // 2**20} MiB; measure fewer images at a time")
    waiting = temporary(file)
    try:
        with named(file), waiting.open("wb") as handle:
            handle.write(gzip.compress(data, mtime=0))
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(waiting, file)
    finally:
        waiting.unlink(missing_ok=True)


def read(folder: Path | str) -> dict[str, Counts]:
    """The counts in ``folder`` (or in a file of that name), by domain, in the order measured.

    Raises:
        InputError: when there are none, or the file is torn, too large or not what `write` wrote.
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
            raise ValueError("its checksum is another")
        return _unpacked(domains, arrays)
    except (ValueError, TypeError, KeyError, zlib.error, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: torn, or not counts that Hardy wrote ({reason}); measure the run again") from None


def _packed(one: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The number of entries that are not 0 of each image, and their places and values.

    A place is ``truth * (C + 1) + prediction``; the last prediction stands for what has no counterpart.
    """
    width = len(one.classes) * (len(one.classes) + 1)
    whole = np.concatenate([one.matrices, one.unmatched[:, :, None]], axis=2).reshape(len(one.names), width)
    image, place = np.nonzero(whole)
    lengths = np.bincount(image, minlength=len(one.names)).astype(np.int64)
    return lengths, place.astype(np.int64), whole[image, place].astype(np.int64)


def _unpacked(domains: list[dict[str, Any]], arrays: Mapping[str, np.ndarray]) -> dict[str, Counts]:
    """The counts of each domain.

    Raises:
        ValueError: for numbers that do not fit each other.
    """
    lengths, places, values = (arrays[name].astype(np.int64) for name in _PARTS)
    if len(lengths) != sum(len(one["names"]) for one in domains):
        raise ValueError("the images are not as many as their names")
    if min(lengths.min(initial=0), places.min(initial=0), values.min(initial=1)) < 0 or lengths.sum() != len(places):
        raise ValueError("a number is out of range")
    if len(values) != len(places):
        raise ValueError("there are not as many values as places")
    ends = np.concatenate([[0], np.cumsum(lengths)])
    found, first = {}, 0
    for one in domains:
        count, classes = len(one["names"]), len(one["classes"])
        wide = classes * (classes + 1)
        here = slice(ends[first], ends[first + count])
        if count * wide > MOST_ENTRIES or places[here].max(initial=-1) >= max(wide, 0):
            raise ValueError("a place lies outside the matrix")
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
    """What one gzip stream holds.

    Raises:
        ValueError, zlib.error: for anything else, or for more than `MOST_BYTES`.
    """
    stream = zlib.decompressobj(wbits=31)
    found = stream.decompress(data, MOST_BYTES)
    if stream.unconsumed_tail or len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES // 2**20} MiB")
    if not stream.eof or stream.unused_data:
        raise ValueError("its end is not where it should be")
    return found


def _header(data: bytes) -> dict[str, Any]:
    """What the header of a safetensors file says beside its tensors, of the format that is read here.

    Raises:
        ValueError, KeyError, TypeError: for anything else.
    """
    about = json_value(json_value(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["about"])
    if about["format"] != FORMAT:
        raise ValueError(f"its format is {about['format']!r}, and this Hardy reads {FORMAT!r}")
    return dict(about)


def _described(domains: Any) -> list[dict[str, Any]]:
    """``domains``, each value of the type that `write` gives it.

    Raises:
        ValueError, KeyError, TypeError: naming what is not.
    """
    for one in domains:
        lists = isinstance(one["classes"], list) and isinstance(one["names"], list)
        if not lists or len(one) != 4:
            raise ValueError("a domain has a name, a split, classes and names")
        if not all(isinstance(text, str) for text in (one["domain"], one["split"], *one["classes"], *one["names"])):
            raise ValueError("domain, split, classes and names are texts")
    if len({one["domain"] for one in domains}) < len(domains):
        raise ValueError("a domain is there twice")
    return list(domains)
