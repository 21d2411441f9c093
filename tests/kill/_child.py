"""One attempt at a story, in a process forked for it, which may be killed at a file event."""

import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}


@dataclass(frozen=True)
class Attempt:
    """How one ended: exit code (-9 when killed), file events seen, the last one, what was printed."""

    code: int
    events: int
    last: str
    said: str


class _Watch:
    """Counts the file events below a folder and ends the process with SIGKILL just before event ``kill_at``."""

    def __init__(self, folder: Path, log: int, kill_at: int | None) -> None:
        self.folder = os.path.realpath(folder)
        self.log = log
        self.kill_at = kill_at
        self.count = 0
        self.process = os.getpid()

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in EVENTS or not args or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        path = os.path.join(os.getcwd(), os.fsdecode(args[0]))
        if not path.startswith(self.folder + os.sep) or os.getpid() != self.process:
            return
        if event == "open" and not _writes(args, path):
            return
        self.count += 1
        os.write(self.log, f"{event} {path[len(self.folder) + 1 :]}\n".encode())
        if self.count == self.kill_at:
            os.kill(self.process, signal.SIGKILL)


def _writes(args: tuple[Any, ...], path: str) -> bool:
    """Whether a file is opened to write; weights are read back by what wrote them, and that counts as well."""
    return bool(int(args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or path.endswith(".safetensors")


def attempt(story: Any, folder: Path, kill_at: int | None = None) -> Attempt:
    """Run ``story`` in ``folder`` in a forked process: torch is imported once for all of them."""
    log, said = (folder.parent / f"{folder.name}.{end}" for end in ("events", "said"))
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _run(story, folder, log, said, kill_at)
    status = os.waitpid(child, 0)[1]
    events = log.read_text(encoding="utf-8").splitlines()
    last = events[-1] if events else "nothing"
    return Attempt(os.waitstatus_to_exitcode(status), len(events), last, said.read_text(encoding="utf-8"))


def _run(story: Any, folder: Path, log: Path, said: Path, kill_at: int | None) -> None:
    """In the child: never returns."""
    code = 1
    try:
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        events = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.chdir(folder)
        sys.addaudithook(_Watch(folder, events, kill_at))
        story.run()
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
