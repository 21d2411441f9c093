"""Atomic writes: files are written under a temporary name and then renamed. Also removes leftovers of killed processes.

The temporary name of a file NAME is ``.NAME.tmp`` in the same folder. It can be a folder, for libraries that write
several files.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hardy.errors import InputError, named

__all__ = ["clear", "expanded", "leftovers", "remove", "replacing", "temporary", "write_text", "write_together"]


def expanded(path: Path | str) -> Path:
    """``path`` with a leading ``~`` replaced by the home folder.

    Raises:
        InputError: when there is no such home folder, or ``path`` is not a path, or contains a NUL character.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{path!r} is not a path; give a text or a Path")
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: a path cannot contain a NUL character; leave it out")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: there is no such home folder; give the full path") from None


def temporary(file: Path) -> Path:
    """The name under which ``file`` is written before it is renamed."""
    return file.with_name(f".{file.name}.tmp")


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a temporary path for the new content of ``file``; when the block ends, it replaces ``file``.

    If the block raises an error, ``file`` does not change.
    """
    waiting = temporary(file)
    try:
        with named(file):
            yield waiting
            os.replace(waiting, file)
    finally:
        waiting.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write ``text`` to ``file`` atomically."""
    with replacing(file) as waiting:
        waiting.write_text(text, encoding="utf-8")


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write ``files`` under temporary names, and rename them when all are on disk; until then old files are kept."""
    try:
        for file, data in files.items():
            with named(file), temporary(file).open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
        for file in files:
            os.replace(temporary(file), file)
    finally:
        for file in files:
            temporary(file).unlink(missing_ok=True)


def leftovers(folder: Path, *within: str) -> list[Path]:
    """Temporary files of killed processes in ``folder`` and in its sub-folders ``within``."""
    folders = [folder, *(folder / name for name in within)]
    return sorted(path for each in folders for path in each.glob(".*.tmp") if Path(path.name[1:-4]).suffix in _OURS)


_OURS = {".gz", ".jpg", ".json", ".jsonl", ".md", ".onnx", ".png", ".safetensors", ".yaml"}
"""The suffixes of files that Hardy writes under a temporary name; other files in the folder are not touched."""


def clear(folder: Path, *within: str) -> None:
    """Remove `leftovers`; only for the process that has locked ``folder`` (`hardy.lock.Lock`)."""
    for path in leftovers(folder, *within):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
