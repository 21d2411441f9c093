"""Runs mutated cases through the real command line and says how each ended.

A kind of target is a module of this folder: its name is the file's, and it has two functions::

    def prepare(folder: Path) -> Any: ...                            # sound originals, made once
    def case(draw: Random, base: Any, folder: Path) -> Case: ...     # one mutated case; `folder` is empty and its own

``SHORT = 20`` beside them says how many cases the test suite can afford, where they train.
The number of a case and the seed fix the case, so that any one can be repeated alone.
"""

import importlib.util
import io
import logging
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import torch

from hardy.cli import main

__all__ = ["GOOD", "Case", "Ended", "Kind", "kinds"]

GOOD = ("clean", "refused")
"""How a case may end; every other end is a defect: traceback, hang, signal, silent, leftover, lines, exit."""

WAIT = 300
"""Seconds by the clock after which a case that waits for something, such as a pipe, is a hang on any machine."""

MEMORY = 6 * 2**30
"""Bytes of address space that a case may take beyond what the process has."""


@dataclass(frozen=True)
class Case:
    """One mutated input.

    Attributes:
        words: of the command line, without ``hardy``; or the function to call in place of it.
        note: what was changed, for the report.
        same: called when the command ended well: whether its result is what the sound input gives, or what the
            changed input rightly gives. False is a silent difference. None where nothing can be compared.
        seconds: of the processor's time; a hang is what takes longer, or waits for `WAIT`.
    """

    words: tuple[object, ...] | Callable[[], object]
    note: str
    same: Callable[[], bool] | None = None
    seconds: int = 20


@dataclass(frozen=True)
class Ended:
    """How a case ended: one of `GOOD` or the kind of defect, with what was changed and what was said."""

    how: str
    note: str
    said: str


class _HangError(BaseException):
    """Not an `Exception`, so that no handler takes it for a bad input."""


class Kind:
    """A kind of target: its sound originals and its cases by number."""

    def __init__(self, file: Path, folder: Path, seed: int) -> None:
        spec = importlib.util.spec_from_file_location(f"fuzz_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.name, self.folder, self.seed = file.stem, folder, seed
        (folder / "base").mkdir(parents=True)
        self.base: Any = self.module.prepare(folder / "base")

    def run(self, number: int) -> Ended:
        """Make case ``number``, run it, and judge it."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            found: Case = self.module.case(Random(f"{self.seed}/{self.name}/{number}"), self.base, place)
            how, said = _judged(found, place)
            return Ended(how, found.note, said)
        finally:
            torch.set_num_threads(1)  # a recipe may have asked for hundreds
            shutil.rmtree(place, ignore_errors=True)


def kinds() -> dict[str, Path]:
    """The file of every kind by its name."""
    files = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    return {file.stem: file for file in files if not file.stem.startswith("test_")}


def _judged(case: Case, place: Path) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    try:
        with _bounded(case.seconds), _quiet(), redirect_stdout(out), redirect_stderr(err):
            code = _code(case.words)
    except _HangError:
        return "hang", f"more than {case.seconds} s of the processor, or {WAIT} s of waiting"
    except BaseException:
        return "traceback", traceback.format_exc()
    said = err.getvalue().strip()
    if left := sorted(str(file.relative_to(place)) for file in place.rglob(".*.tmp*")):
        return "leftover", f"{left} after: {said}"
    if code == 0:
        return ("clean" if case.same is None or case.same() else "silent"), said
    if code == 1 and all(line.startswith("hardy: skipped: ") for line in said.split("\n")):
        return "refused", said
    *warnings, last = said.split("\n")
    one = last.startswith("hardy: ") and not any(line.startswith(("hardy: ", "Traceback")) for line in warnings)
    return ("refused" if code == 2 and one else "lines" if code == 2 else "exit"), f"exit code {code}: {said}"


def _code(words: tuple[object, ...] | Callable[[], object]) -> int:
    before = sys.argv
    sys.argv = ["hardy", *map(str, words)] if isinstance(words, tuple) else before
    try:
        main() if isinstance(words, tuple) else words()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    finally:
        sys.argv = before
    return 0


@contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    """Inside, a case that takes longer is a hang, and one that takes too much memory a `MemoryError`."""

    def stop(*_: object) -> None:
        raise _HangError

    earlier = {kind: signal.signal(kind, stop) for kind in (signal.SIGPROF, signal.SIGALRM)}
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(WAIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for kind, handler in earlier.items():
            signal.signal(kind, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _quiet() -> Iterator[None]:
    """Warnings of Hardy's log are no lines of a refusal."""
    log = logging.getLogger("hardy")
    level = log.level
    log.addHandler(silent := logging.NullHandler())
    try:
        yield
    finally:
        log.removeHandler(silent)
        log.setLevel(level)
