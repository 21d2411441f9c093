"""Pictures of the worst images of each domain, kept beside a run's records so that a report can show them.

The folder ``worst`` of a run (``worst-NAME`` if the network adapted with the method NAME) holds three small files for
each picture: the image as JPEG, and its truth and its prediction as PNG in the colours of the classes. ``index.json``
lists them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardy.errors import InputError
from hardy.files import write_together
from hardy.stored import contents, finite, read_json

__all__ = ["FOLDER", "PARTS", "Colours", "Picture", "Worst", "place", "read", "write"]

FOLDER = "worst"

PARTS = ("image", "truth", "prediction")
"""The files of a picture, in the order in which they are shown."""

MOST_BYTES = 4 * 2**20
"""The largest size of one file in bytes; a file of 512 pixels needs a hundredth of that."""

_SUFFIXES = {"image": ".jpg", "truth": ".png", "prediction": ".png"}

Colours = Mapping[str, tuple[int, int, int]]
"""Class name -> RGB, 0 to 255."""


@dataclass(frozen=True)
class Picture:
    """One image with its truth and its prediction.

    Attributes:
        name: of the image.
        score: the mean IoU of this image, 0 to 1.
        files: the bytes of each file, by the names in `PARTS`.
    """

    name: str
    score: float
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Worst:
    """The worst images of every domain, the worst first, and the colours of the classes."""

    domains: Mapping[str, Sequence[Picture]]
    colours: Colours


def place(run: Path, adaptation: str = "") -> Path:
    """The folder for the pictures of the network in the folder ``run``, or of that network with an adaptation."""
    return run / "-".join([FOLDER, *re.findall(r"[A-Za-z0-9_]+", adaptation.rpartition(":")[2])])


def write(folder: Path, worst: Worst) -> None:
    """Write ``worst`` into ``folder``, all of it or nothing; files of earlier pictures are removed.

    Raises:
        OSError: when it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[Path, bytes] = {}
    domains: dict[str, list[dict[str, Any]]] = {}
    for domain, pictures in worst.domains.items():
        for number, one in enumerate(pictures, start=1):
            stem = f"{re.sub(r'[^A-Za-z0-9]+', '-', domain)}-{number}"
            names = {part: f"{stem}-{part}{_SUFFIXES[part]}" for part in PARTS}
            files |= {folder / names[part]: one.files[part] for part in PARTS}
            domains.setdefault(domain, []).append({"name": one.name, "score": one.score, "files": names})
    about = {"colours": {name: list(rgb) for name, rgb in worst.colours.items()}, "domains": domains}
    write_together({**files, folder / "index.json": json.dumps(about, indent=1).encode()})
    for file in [*folder.glob("*.jpg"), *folder.glob("*.png")]:
        if file not in files:
            file.unlink(missing_ok=True)


def read(folder: Path) -> Worst:
    """The pictures in ``folder``; none if there is no such folder.

    Raises:
        InputError: for an index that `write` did not write, or a missing or too large file.
    """
    if not (folder / "index.json").exists():
        return Worst({}, {})
    about = read_json(folder / "index.json")
    try:
        colours = {str(name): _rgb(rgb) for name, rgb in about["colours"].items()}
        domains = {
            str(domain): [_picture(folder, one) for one in pictures] for domain, pictures in about["domains"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: these pictures were not written by Hardy ({reason}); delete the folder") from None
    return Worst(domains, colours)


def _rgb(value: Any) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in value)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError("a colour is three numbers from 0 to 255")
    return red, green, blue


def _picture(folder: Path, one: Mapping[str, Any]) -> Picture:
    if not finite(one["score"]):
        raise ValueError("a score is not a finite number")
    names = {part: Path(str(one["files"][part])).name for part in PARTS}  # never outside of the folder
    data = {part: contents(folder / name, MOST_BYTES + 1) for part, name in names.items()}
    if too_large := [names[part] for part in PARTS if len(data[part]) > MOST_BYTES]:
        raise ValueError(f"{too_large[0]} is too large")
    return Picture(str(one["name"]), float(one["score"]), data)
