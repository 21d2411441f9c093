"""Predicting a watched folder until it is stopped or no new image arrives, and keeping what a method has learned.

``adaptation.json`` beside the masks names the state of a method of test-time adaptation, a file of
`hardy.engine.adaptation_state`. Both are written at the end and every `OFTEN` images. The JSON is written last, so that
after a crash it names a complete state, without what was learned from images after it was written.
"""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from hardy.engine.adaptation_state import load_state, save_state
from hardy.engine.adapting import Adapting
from hardy.engine.arrivals import Arrivals
from hardy.engine.mask_writer import DRAWN
from hardy.engine.pictures import decoded
from hardy.engine.predictor import Predicted, Predictor
from hardy.engine.stop import stop_signal
from hardy.errors import InputError, named
from hardy.files import write_text
from hardy.stored import is_integer, json_value

__all__ = ["LAST", "OFTEN", "watch"]

LAST = 1000
"""How many masks, and how many reasons, are held."""

OFTEN = 100
"""After how many images the state of a method is written."""

_FORMAT = "hardy-watch/1"
_NAME = "adaptation.json"


def watch(
    predictor: Predictor, folder: Path, *, idle: float | None = None, say: Callable[[str], None] = lambda line: None
) -> Predicted:
    """Predict the images of ``folder`` as they arrive.

    After Ctrl-C or SIGTERM, the images that are being predicted get their masks; the others stay for the next call.

    Args:
        predictor: predicts and writes; it resumes.
        folder: the watched folder.
        idle: end after so many seconds without a new image; None for never.
        say: gets a line at the start, for each image that is skipped, and when many images wait.

    Raises:
        InputError: when the folder is gone, a mask cannot be written, or the state of a method is damaged.
    """
    say(f"watching {folder}; " + ("Ctrl-C stops" if idle is None else f"Ctrl-C or {idle:g} s without a new image stop"))
    live = _Kept(predictor.live, predictor.folder, predictor.key()) if predictor.live else None
    result = Predicted(last=LAST)
    handled = 0

    def skip(source: str, reason: str) -> None:
        nonlocal handled
        handled += 1
        say(f"skipped: {reason}")
        result.skip(source, reason)

    def goes_on(images: int) -> bool:
        if live:
            live.after(images)
        return not stop.asked

    with stop_signal() as stop:
        arrivals = Arrivals(folder, predictor.folder, idle, tuple(DRAWN.values()), lambda: bool(stop.asked), say)
        with closing(decoded(arrivals, predictor.is_done, predictor.bound)) as found:
            predictor.run(found, result, skip=skip, goes_on=goes_on)
        if live:
            live.save()
    result.waiting = arrivals.waiting + arrivals.handed_on - handled - result.written - result.kept
    return result


class _Kept:
    """What a method has learned, kept in ``folder``; read on construction if it has the same ``owner``."""

    def __init__(self, live: Adapting, folder: Path, owner: str) -> None:
        self._live, self._folder, self._owner = live, folder, owner
        self._since, self._number = 0, 0
        self._read()

    def _read(self) -> None:
        file = self._folder / _NAME
        if not file.exists():
            return
        try:
            stored = json_value(file.read_text(encoding="utf-8"))
            if stored["format"] != _FORMAT or not (is_integer(stored["images"]) and is_integer(stored["number"])):
                raise ValueError(f"no {_FORMAT}")
            self._number, owner, images = stored["number"], stored["owner"], stored["images"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: damaged, or not the state of a watched folder ({error}); remove it") from None
        if owner == self._owner:  # of other settings all masks are written again, and the method starts again
            load_state(self._live.method, self._state())
            self._live.seen = images

    def _state(self) -> Path:
        return self._folder / f"adaptation-{self._number}.safetensors"

    def after(self, images: int) -> None:
        """Count ``images`` that were predicted; write the state after every `OFTEN` of them."""
        self._since += images
        if self._since >= OFTEN:
            self.save()

    def save(self) -> None:
        """Write the state, if there is a new one; a crash at any time leaves the earlier one or this."""
        if not self._since:
            return
        self._number += 1
        state = self._state()
        stored = {"format": _FORMAT, "owner": self._owner, "images": self._live.seen, "number": self._number}
        with named(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            save_state(self._live.method, state)
            write_text(self._folder / _NAME, json.dumps(stored))
            for other in self._folder.glob("adaptation-*.safetensors"):
                if other != state:
                    other.unlink(missing_ok=True)
        self._since = 0
