"""``python -m hardy`` and ``hardy``: Ctrl-C and SIGTERM are handled from here on, also during all other imports.

The current folder, which ``-m`` puts first on the path, is removed from it: no module is imported from there.
"""

import os
import signal
import sys
from functools import partial
from types import FrameType

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, partial(_terminated, os.getpid()))
    from hardy.cli import main as run

    run()


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Handle Ctrl-C as Python does, but during an import exit at once.

    During an import, libraries catch the exception, or they stay half imported and numpy then recurses endlessly.
    """
    if not _importing(frame):
        raise KeyboardInterrupt
    sys.stderr.write("hardy: interrupted\n")
    sys.stderr.flush()
    os._exit(128 + number)


def _terminated(process: int, number: int, frame: FrameType | None) -> None:
    """Exit as `sys.exit` does, which removes temporary files; a process forked from ``process`` ends at once.

    Runs and streams, which save their state first, have their own handler. A second SIGTERM has its usual effect.
    """
    signal.signal(number, signal.SIG_DFL)
    if os.getpid() != process:
        os.kill(os.getpid(), number)
        return
    sys.stderr.write("hardy: terminated\n")
    sys.stderr.flush()
    if _importing(frame):
        os._exit(128 + number)
    sys.exit(128 + number)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]
    main()
