"""Stopping in good order: Ctrl-C and SIGTERM ask, and the loop stops after the step it is in."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["LEASH", "Stopped", "stop_signal", "stop_with_parent"]

LEASH = "HARDY_LEASH"
"""The environment's variable that names the end of a pipe whose other end the parent holds."""


class Stopped(Exception):  # noqa: N818 - not an error: the run did as it was asked
    """A run stopped after ``step`` steps because signal number ``signal`` asked; its checkpoint is written."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped after step {step}; the same command goes on from there")
        self.step = step
        self.signal_number = signal_number


def stop_with_parent() -> None:
    """From now on end this process as SIGTERM does once the process that started it is gone, if `LEASH` says so.

    The parent holds the other end of a pipe and writes nothing: the system closes it however the parent ends.
    """
    number = os.environ.pop(LEASH, "")  # popped: what this process starts is not on the leash
    if number:
        threading.Thread(target=_wait_for_end, args=(int(number),), daemon=True).start()


def _wait_for_end(handle: int) -> None:
    os.read(handle, 1)
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class Stop:
    """Whether a stop was asked for: the signal's number, or 0."""

    asked: int = 0


@contextmanager
def stop_signal() -> Iterator[Stop]:
    """Within the block SIGINT and SIGTERM set ``asked``; a second one acts as it did before.

    Python delivers signals to the main thread only: in another thread nothing is caught.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
