"""Reading JSON files with limits on size and depth, and JSON descriptions with a checksum."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hardy.errors import InputError

__all__ = ["contents", "finite", "intact", "is_integer", "json_lines", "json_value", "read_json", "sealed"]

_SIZE = 64 * 2**20
"""The maximum size of a JSON file in bytes; the plan of a pruned network of 100,000 channels needs one MiB."""

_DEPTH = 50
"""The maximum nesting of lists and mappings; Hardy's own files have seven levels."""


def read_json(file: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: when it cannot be read.
        InputError: when it is too large, nested too deep or not JSON; the message names the file.
    """
    data = contents(file, _SIZE + 1)
    if len(data) > _SIZE:
        raise InputError(f"{file}: it has more than {_SIZE // 2**20} MiB, too much for a description")
    try:
        return json_value(data)
    except ValueError as error:
        raise InputError(f"{file}: not JSON that Hardy wrote ({error})") from None


def json_value(data: bytes | str) -> Any:
    """The value of JSON text.

    Raises:
        ValueError: for text that is not JSON, for NaN, infinity or invalid Unicode, or for more than 50 levels.
    """
    try:
        value = json.loads(data, parse_constant=_no_number, parse_float=_number)
    except RecursionError:
        raise ValueError(f"nested more than {_DEPTH} deep") from None
    level = [value]
    for _ in range(_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError(f"nested more than {_DEPTH} deep")


def json_lines(file: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        OSError: when it cannot be read.
        InputError: when it is not UTF-8 text (the message names file and line), or is a pipe or a device.
    """
    data = contents(file)
    try:
        return data.decode("utf-8").split("\n")[: None if data and data[-1:] != b"\n" else -1]
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{file}:{line}: not text (byte {data[error.start]:#x}); delete the line to continue"
        ) from None


def contents(file: Path, most: int = -1) -> bytes:
    """The first ``most`` bytes of a file, by default all. Pipes and devices, which may never end, are refused.

    Raises:
        OSError: when it cannot be read.
        InputError: for a pipe or a device.
    """
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise InputError(f"{file}: it is a pipe or a device, not a file")
    with file.open("rb") as handle:
        return handle.read(most)


def is_integer(value: Any, least: int = 0) -> bool:
    """Whether ``value`` is an integer of at least ``least`` that fits into 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def finite(value: Any) -> bool:
    """Whether ``value`` is a finite number, with an absolute value below 1e300."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _inside(value: Any) -> list[Any]:
    if isinstance(value, str):
        value.encode("utf-8")  # refuses a lone surrogate: UnicodeEncodeError is a ValueError
        return []
    return [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")


_SEAL = "description_sha256"


def sealed(description: Mapping[str, Any]) -> dict[str, Any]:
    """``description`` with the checksum of its content."""
    return {**description, _SEAL: _sum(description)}


def intact(description: Mapping[str, Any]) -> bool:
    """Whether ``description`` has not changed since it was `sealed`; True for an old one without a checksum."""
    return _SEAL not in description or description[_SEAL] == _sum(description)


def _sum(description: Mapping[str, Any]) -> str:
    content = {key: value for key, value in description.items() if key != _SEAL}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
