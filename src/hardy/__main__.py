"""``python -m hardy`` and ``hardy``: Ctrl-C is handled from here on, also during the import of everything else.

The current folder, which ``-m`` puts first on the path, is removed from it: no module is imported from there.
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
    """Handle Ctrl-C as Python does, but during an import exit at once.

    During an import, libraries catch the exception, or they stay half imported and numpy then recurses endlessly.
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
