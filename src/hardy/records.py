"""Records: one JSON line per measured number in a run's ``records.jsonl``, from which all reports are made."""

import errno
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from hardy.errors import InputError, named
from hardy.lock import lock_open_file
from hardy.stored import contents, finite, json_lines, json_value

__all__ = ["Record", "append", "group", "heard", "plain", "read"]


@dataclass(frozen=True)
class Record:
    """One measured number, with everything needed to compare it with others.

    Attributes:
        recipe: short hash of the completed recipe, without seed and folder.
        stage: ``train``, ``prune``, ``evaluate``, ``bench``, ``export``.
        sources: names of the source domains.
        target: the domain or the group of domains, such as ``camvid/0001TP``, ``unseen``, ``source-val``.
        seed: the run's seed.
        metric: such as ``miou``, ``iou/road``, ``gmacs``, ``milliseconds_p50``.
        value: the number; None when it is undefined (a class that does not occur).
        cost: the resources used, such as ``{"seconds": 12.1, "steps": 500}``.
        versions: of hardy, torch and Python, the commit and the hardware.
        notes: other properties, such as ``{"criterion": "ior", "ratio": 0.5}``.
    """

    recipe: str
    stage: str
    sources: tuple[str, ...]
    target: str
    seed: int
    metric: str
    value: float | None
    cost: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


def append(file: Path, records: Iterable[Record], *, once: bool = False) -> None:
    """Append ``records`` to ``file`` under a lock, so that lines are complete even with several writers.

    If a crash left the last line incomplete, it is removed first: it is no record, and none can be read past it. With
    ``once``, records that the file already has (apart from cost and versions) are not written again. This is for runs
    that were killed after a measurement and repeat it.

    Raises:
        InputError: if ``file`` is a pipe or a device.
        OSError: if it cannot be written, such as on a full disk; then its records do not change.
    """
    records = list(records)
    if (listener := _listener.get()) is not None:
        listener += records
    lines = [json.dumps(plain(asdict(record)), sort_keys=True, allow_nan=False) for record in records]
    if not lines:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b", buffering=0) as handle, named(file):
        lock_open_file(handle.fileno())
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise InputError(f"{file}: it is a pipe or a device, not a file")
        size, ended = _last_line(handle)
        if once:
            handle.seek(0)
            present = {_measured(line) for line in handle.read().decode("utf-8", "replace").splitlines()}
            lines = [line for line in lines if _measured(line) not in present]
            if not lines:
                return
        data = ("\n" * (not ended) + "\n".join(lines) + "\n").encode()
        if os.write(handle.fileno(), data) < len(data):
            os.ftruncate(handle.fileno(), size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle.fileno())


def _last_line(handle: IO[bytes]) -> tuple[int, bool]:
    """The size of the open file, and whether its last line is ended; an incomplete record there is removed."""
    size = handle.seek(0, os.SEEK_END)
    handle.seek(max(0, size - 1))
    if handle.read() in (b"", b"\n"):
        return size, True
    handle.seek(0)
    before, _, last = handle.read().rpartition(b"\n")
    with suppress(ValueError):
        json.loads(last)
        return size, False
    kept = len(before) + 1 if before else 0
    os.ftruncate(handle.fileno(), kept)
    return kept, True


@contextmanager
def heard() -> Iterator[list[Record]]:
    """Collect, inside the block, all records that are appended to any file."""
    found: list[Record] = []
    token = _listener.set(found)
    try:
        yield found
    finally:
        _listener.reset(token)


_listener: ContextVar[list[Record] | None] = ContextVar("listener", default=None)


def _measured(line: str) -> str:
    """The record in a line without cost and versions; the line itself when it is not a record."""
    try:
        values = json.loads(line)
        return json.dumps({name: values[name] for name in sorted(values.keys() - {"cost", "versions"})}, sort_keys=True)
    except (ValueError, AttributeError, RecursionError):
        return line


def read(file: Path, *, torn: list[str] | None = None) -> list[Record]:
    """All records of ``file``, oldest first.

    Args:
        file: one JSON record per line.
        torn: a list for messages. If it is given, an incomplete last line, as a crash leaves it, is left out and a
            message is added to the list. Without it such a line is an error.

    Raises:
        OSError: when the file cannot be read.
        InputError: when a line is not a record; the message names file and line.
    """
    records = []
    lines = json_lines(file)
    open_end = torn is not None and bool(lines) and contents(file)[-1:] != b"\n"
    for number, line in enumerate(lines, start=1):
        try:
            values = json_value(line)
            record = Record(**{**values, "sources": tuple(values["sources"])})
            _check(record)
        except (ValueError, TypeError, KeyError) as error:
            if torn is not None and open_end and number == len(lines):
                torn.append(f"{file}:{number}: the last line is incomplete and was left out")
                break
            raise InputError(f"{file}:{number}: not a record: {error}; delete the line to continue") from None
        records.append(record)
    return records


def _check(record: Record) -> None:
    """Raise `ValueError` for a field of a wrong type."""
    texts = (record.recipe, record.stage, record.target, record.metric, *record.sources)
    tables = (record.cost, record.versions, record.notes)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("recipe, stage, target, metric and sources are texts")
    if not all(isinstance(table, dict) for table in tables):
        raise ValueError("cost, versions and notes are mappings")
    numbers = (record.seed, 0 if record.value is None else record.value)
    if not all(finite(number) for number in numbers) or not isinstance(record.seed, int):
        raise ValueError("value and seed are numbers")


def group(records: Iterable[Record], *by: str) -> Iterator[tuple[tuple[Any, ...], list[Record]]]:
    """Groups of records with equal fields ``by`` (``notes.x`` is a note), in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(_field(record, name) for name in by), []).append(record)
    yield from groups.items()


def _field(record: Record, name: str) -> Any:
    return record.notes.get(name[6:]) if name.startswith("notes.") else getattr(record, name)


def plain(value: Any) -> Any:
    """``value`` with NaN and infinity replaced by None, and tuples by lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (tuple, list)) else value
