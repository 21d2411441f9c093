"""The provenance of a recorded number: versions, the commit of Hardy's own source, and the hardware."""

import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import hardy
from hardy.timing.hardware import fingerprint

__all__ = ["command", "commit", "provenance"]

_SECONDS = 20
"""The time limit of a git command."""


def provenance() -> dict[str, str]:
    """Versions, commit, hardware and the command line."""
    machine = {name: str(value) for name, value in fingerprint().to_json().items()}
    return {"hardy": hardy.__version__, "commit": _own_commit(), **machine, "command": command()}


@cache
def _own_commit() -> str:
    """The commit of the code that runs, read once in a process."""
    return commit(Path(hardy.__file__).parent)


def command() -> str:
    """The command line of this process, as a shell takes it; ``a Python program`` when it is not Hardy's."""
    program = Path(sys.argv[0] if sys.argv else "")
    ours = program.stem == "hardy" or program == Path(hardy.__file__).with_name("__main__.py")
    line = shlex.join(["hardy", *sys.argv[1:]]) if ours else "a Python program"
    return "".join(letter if letter.isprintable() else " " for letter in line)


def commit(package: Path) -> str:
    """The commit of the source tree in which ``package`` is ``src/hardy``, with ``-dirty`` when files differ from it.

    ``unknown`` for an installed package, even inside another repository, and without git. Nothing is written, not even
    to the repository's index.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() / "src" / "hardy" != package.resolve():
        return "unknown"
    if not _git(package, "ls-files", "--", "__init__.py"):
        return "unknown"
    revision = _git(package, "rev-parse", "--short", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return (revision + "-dirty" * bool(changed)) if revision else "unknown"


def _git(folder: Path, *words: str) -> str:
    """The output of git; empty when it is missing or fails."""
    # A hook or an alias that runs hardy may have set variables that name its own repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(folder), *words],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
