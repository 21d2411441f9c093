"""A watched folder: its images as they arrive, each as soon as it is complete.

The folder is listed repeatedly, with a pause in between. An image is complete when its size and time of change have
stayed the same for a while. Waiting images stay on disk: at most `MOST_TAKEN` names are handed on after each listing.
So memory holds only file names, even when images arrive faster than they are predicted.
"""

import heapq
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from hardy.data.finding import IMAGE_SUFFIXES
from hardy.engine.pictures import Asked, Picture
from hardy.errors import InputError

__all__ = ["MOST_TAKEN", "Arrivals", "Clock"]

MOST_TAKEN = 64
"""How many images are handed on before the folder is listed again."""

_POLL = 0.5
_SETTLED = 1.0
_NAP = 0.1
_LISTING_SHARE = 5
"""A list that takes long is made again after this many times its own time."""


class Stamp(NamedTuple):
    """The time of change in ns and the size of a file; at least one differs after it was written to or replaced."""

    time: int
    size: int


@dataclass(frozen=True)
class Clock:
    """The time, and how to wait, in seconds."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep


@dataclass
class Arrivals:
    """The images below ``folder`` as they arrive, in the order of their times of change and names.

    Hidden files and folders do not count, so that a writer may use them and rename; links to folders are not followed.
    An image that changes after it was handed on is handed on again. Iterating yields `hardy.engine.pictures.Asked`:
    None before each wait.

    Args:
        folder: the watched folder.
        outside: a folder whose files do not count.
        idle: end when no file has appeared or grown for so many seconds; None for never.
        drawn: names of folders whose images are refused, since their masks would be written among drawings.
        stop: end when it returns True.
        say: gets a line when many images wait, and for a folder that cannot be read.
        clock: the time.

    Attributes:
        waiting: how many images were there, and not handed on, when the folder was last listed.
        handed_on: how many were handed on.
    """

    folder: Path
    outside: Path
    idle: float | None = None
    drawn: Sequence[str] = ()
    stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda line: None
    clock: Clock = field(default_factory=Clock)
    waiting: int = field(default=0, init=False)
    handed_on: int = field(default=0, init=False)
    _taken: dict[Path, Stamp] = field(default_factory=dict, init=False)
    _since: dict[Path, tuple[Stamp, float]] = field(default_factory=dict, init=False)
    _named: dict[str, Path] = field(default_factory=dict, init=False)
    _unread: set[str] = field(default_factory=set, init=False)
    _active: float = field(default=0.0, init=False)
    _said: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Asked]:
        self._active = self.clock.now()
        while not self.stop():
            began = self.clock.now()
            ready = self._listed()
            pause = max(_POLL, _LISTING_SHARE * (self.clock.now() - began))
            for path, stamp in ready:
                if self.stop():
                    return
                self._taken[path] = stamp
                self.waiting, self.handed_on = self.waiting - 1, self.handed_on + 1
                yield self._asked(path)
                self._active = self.clock.now()
            if ready:
                continue
            yield None
            if self.idle is not None and not self.waiting and self.clock.now() - self._active >= self.idle:
                return
            self._sleep(pause)

    def _sleep(self, seconds: float) -> None:
        until = self.clock.now() + seconds
        while not self.stop() and (left := until - self.clock.now()) > 0:
            self.clock.wait(min(left, _NAP))

    def _listed(self) -> list[tuple[Path, Stamp]]:
        """The first images that are complete and not handed on, in their order."""
        found = dict(self._images())
        now = self.clock.now()
        self._taken = {path: stamp for path, stamp in self._taken.items() if path in found}
        self._named = {name: path for name, path in self._named.items() if path in found}
        fresh = {path: stamp for path, stamp in found.items() if self._taken.get(path) != stamp}
        since = {}
        for path, stamp in fresh.items():
            known = self._since.get(path)
            if known is None or known[0] != stamp:
                self._active = now
            since[path] = known if known is not None and known[0] == stamp else (stamp, now)
        self._since, self.waiting = since, len(fresh)
        self._report_waiting()
        whole = ((path, stamp) for path, (stamp, start) in since.items() if now - start >= _SETTLED)
        return heapq.nsmallest(MOST_TAKEN, whole, key=lambda one: (one[1].time, str(one[0])))

    def _report_waiting(self) -> None:
        """Say that many wait, and again when there are twice as many."""
        if self.waiting > max(MOST_TAKEN, 2 * self._said):
            self._said = self.waiting
            self.say(
                f"{self.waiting} images wait in {self.folder}: they stay there, and are taken {MOST_TAKEN} at a time"
            )
        elif self.waiting <= MOST_TAKEN:
            self._said = 0

    def _asked(self, path: Path) -> Asked:
        name = path.relative_to(self.folder).with_suffix("").as_posix()
        if (other := self._named.setdefault(name, path)) != path:
            reason = f"{path}: its mask would have the same name as that of {other}; rename one of them"
            return Picture(name, str(path), "", reason=reason)
        if (first := name.partition("/")[0]) != name and first in self.drawn:
            return Picture(
                name, str(path), "", reason=f"{path}: its mask would be written among drawings; rename {first}"
            )
        return name, path

    def _images(self) -> Iterator[tuple[Path, Stamp]]:
        """The image files below the folder as they are now."""
        places, outside = [self.folder], self.outside.resolve()
        while places:
            place = places.pop()
            try:
                with os.scandir(place) as entries:
                    for entry in entries:
                        path = Path(entry.path)
                        if entry.name.startswith("."):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            places += [] if path.resolve() == outside else [path]
                        elif path.suffix.lower() in IMAGE_SUFFIXES and (stamp := _stamp(path)):
                            yield path, stamp
            except OSError as error:
                self._not_listed(place, error)

    def _not_listed(self, place: Path, error: OSError) -> None:
        if place == self.folder:
            raise InputError(f"{place}: can no longer be listed: {error.strerror}") from None
        if place.is_dir() and str(place) not in self._unread:
            self._unread.add(str(place))
            self.say(f"{place}: cannot be read: {error.strerror}; its images are left out until it can")


def _stamp(path: Path) -> Stamp | None:
    """None for a file that is gone, or for something else than a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(found.st_mtime_ns, found.st_size) if S_ISREG(found.st_mode) else None
