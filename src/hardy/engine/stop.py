"""Stopping cleanly: after Ctrl-C or SIGTERM a training loop stops after the current step, a stream after its batch."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["LEASH", "Stop", "Stopped", "stop_signal", "stop_with_parent"]

LEASH = "HARDY_LEASH"
"""The environment variable with the file descriptor of a pipe whose other end the parent process has open."""


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """A run stopped after ``step`` steps, or another ``unit``, because of signal number ``signal_number``.

    Its checkpoint is written.
    """

    def __init__(self, step: int, signal_number: int, unit: str = "step") -> None:
        super().__init__(f"stopped after {unit} {step}; the same command resumes from there")
        self.step = step
        self.signal_number = signal_number


def stop_with_parent() -> None:
    """If `LEASH` is set, send SIGTERM to this process as soon as the process that started it has ended.

    The parent has the other end of a pipe open and writes nothing to it. The system closes it when the parent ends, for
    whatever reason.
    """
    number = os.environ.pop(LEASH, "")  # popped, so that processes started by this one do not read it
    if number:
        threading.Thread(target=_wait_for_end, args=(int(number),), daemon=True).start()


def _wait_for_end(handle: int) -> None:
    os.read(handle, 1)
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class Stop:
    """Whether a stop was requested: the signal's number, or 0."""

    asked: int = 0


@contextmanager
def stop_signal() -> Iterator[Stop]:
    """Within the block the first SIGINT or SIGTERM sets ``asked``; a second one has its usual effect.

    Python delivers signals to the main thread only, so in another thread nothing is caught.
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
