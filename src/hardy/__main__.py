"""``python -m hardy`` and ``hardy``: Ctrl-C is answered from here on, while everything else is still being imported.

The current folder, which ``-m`` puts first on the path, holds nobody's modules.
"""

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    from hardy.cli import main as run

    run()


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C: as Python answers it, but in the middle of an import leave at once.

    Libraries catch an exception there, or are left half imported by it: numpy then recurses without end.
    """
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame is None:
        raise KeyboardInterrupt
    sys.stderr.write("hardy: interrupted\n")
    sys.stderr.flush()
    os._exit(128 + number)


if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]
    main()
