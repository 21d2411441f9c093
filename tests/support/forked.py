"""A command in a process forked for it: what a shell sees of it, without the seconds that importing torch takes."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path

from hardy.__main__ import main

__all__ = ["forked"]


def forked(words: Sequence[object], said: Path, first: Callable[[], object] = lambda: None) -> tuple[int | None, str]:
    """The exit code of ``hardy`` with ``words``, and what it wrote to standard error, into the file ``said``.

    In the process, ``first`` is called before the command.
    """
    process = get_context("fork").Process(target=_command, args=(list(map(str, words)), said, first))
    process.start()
    process.join(timeout=120)
    return process.exitcode, said.read_text(encoding="utf-8")


def _command(words: list[str], said: Path, first: Callable[[], object]) -> None:
    for file, number in ((os.devnull, 1), (said, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    warnings.resetwarnings()
    first()
    sys.argv = ["hardy", *words]
    main()
