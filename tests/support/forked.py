"""A command in a process of its own, as a shell starts it, but that torch is imported already.

The processes are forked from one that has imported Hardy and has done nothing else: autograd refuses to run in a fork
of a process in which it has run.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

__all__ = ["ended", "forked", "started"]


def forked(words: Sequence[object], said: Path, first: Callable[[], object] | None = None) -> tuple[int | None, str]:
    """The exit code of ``hardy`` with ``words``, and what it wrote to standard error, into the file ``said``.

    In the process, ``first`` is called before the command; it can be pickled.
    """
    return ended(started(words, said, first), said)


def started(words: Sequence[object], said: Path, first: Callable[[], object] | None = None) -> BaseProcess:
    """The process of the command, the first of a process group."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["hardy.__main__", "hardy.commands.train"])
    process = context.Process(target=_command, args=(list(map(str, words)), said, first))
    process.start()
    return process


def ended(process: BaseProcess, said: Path) -> tuple[int | None, str]:
    """The exit code of the process, and what it wrote to the file ``said``."""
    process.join(timeout=120)
    return process.exitcode, said.read_text(encoding="utf-8")


def _command(words: list[str], said: Path, first: Callable[[], object] | None) -> None:
    from hardy.__main__ import main

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for file, number in ((os.devnull, 1), (said, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    warnings.resetwarnings()
    if first is not None:
        first()
    sys.argv = ["hardy", *words]
    main()
