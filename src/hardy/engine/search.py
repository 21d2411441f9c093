"""Searching for an architecture: shared weights are trained, architectures are tried on them, the best is measured.

An architecture is tried by taking its weights out of the shared ones, counting its batch norms anew and measuring it on
held-out images; see `hardy.searching`. What was tried stands in a ledger of JSON lines, so that a search goes on where
it stopped. At the end the best are measured in milliseconds until one keeps the budget in fact.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from hardy.data.labels import LabelSpace
from hardy.device import pick
from hardy.engine import protocol
from hardy.engine.protocol import Part
from hardy.engine.safeguards import Sight, spread
from hardy.engine.stop import Stopped, stop_signal
from hardy.errors import InputError
from hardy.files import write_text
from hardy.networks.architectures.multipath import Architecture, content, parse
from hardy.networks.base import Network
from hardy.ops import norms
from hardy.searching.evolution import Evaluated, Proposer
from hardy.searching.supernet import Supernet
from hardy.stored import json_lines, json_value
from hardy.types import Batch

__all__ = ["Found", "Judge", "kept_within", "search"]

_CHECKED = 8
"""Networks measured, at most, to find one that keeps the budget in fact."""

_MARGIN = 0.03
"""By how much of the budget the next must be predicted to take less, for each that was too slow."""

_log = logging.getLogger("hardy")

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        best: the architecture, what was predicted for it, and its score with the shared weights.
        milliseconds: measured.
        budget: the most that it was to take.
        tried: how many architectures were.
        checked: how many of them were measured at the end.
        where: runtime, device, size and threads, in words.
    """

    best: Evaluated
    milliseconds: float
    budget: float
    tried: int
    checked: int
    where: str

    @property
    def met(self) -> bool:
        """Whether it keeps the budget in fact."""
        return self.milliseconds <= self.budget

    def meta(self) -> dict[str, Any]:
        """What the architecture's file says of where it comes from."""
        return {
            "predicted_ms": self.best.milliseconds,
            "measured_ms": self.milliseconds,
            "budget_ms": self.budget,
            "met": self.met,
            "where": self.where,
            "score": self.best.score,
            "tried": self.tried,
        }

    def __str__(self) -> str:
        """One line, with the verdict in plain words."""
        apart = self.best.milliseconds / self.milliseconds - 1
        verdict = "met" if self.met else f"NOT met by any of the {self.checked} best that were measured"
        return (
            f"budget_ms {self.budget:g}: predicted {self.best.milliseconds:.4g}, measured {self.milliseconds:.4g} "
            f"({apart:+.1%}): {verdict} ({self.where}; {self.tried} tried, {self.checked} measured)"
        )


class Judge:
    """Scores architectures on held-out images, with weights that are taken out of shared ones.

    Args:
        supernet: the shared weights, on the CPU.
        sight: the images and how they are measured.
        reestimate: batches from which the batch norms of each network are counted anew.
        images: how many held-out images are measured, in all.

    Raises:
        InputError: when no images may select, or there are none to train on.
    """

    def __init__(self, supernet: Supernet, sight: Sight, *, reestimate: int, images: int) -> None:
        self._supernet, self._sight = supernet, sight
        select = sight.settings.evaluate.select
        chosen = {"source-val": sight.parts.val, "oracle": sight.parts.unseen, "last": ()}[select]
        if not sight.parts.train or not chosen:
            where = {"source-val": "name data.sources", "oracle": "name data.unseen"}
            fix = where.get(select, "set evaluate.select to source-val")
            raise InputError(f"search: architectures are ranked on held-out images, and none may choose; {fix}")
        self._parts = [("source-val", part) for part in spread(chosen, images)]
        seen: dict[str, list[Batch]] = {}
        read = protocol.reading(sight.settings)

        def kept(part: Part, space: LabelSpace) -> Iterable[Batch]:
            if part[0].name not in seen:
                seen[part[0].name] = list(read(part, space))
            return seen[part[0].name]

        self._stream = kept if sight.settings.data.cache else read
        self._drawn = _kept(self._draw(reestimate), keep=sight.settings.data.cache)

    def network(self, architecture: Architecture) -> Network:
        """``architecture`` with the shared weights, its batch norms counted anew, in evaluation mode."""
        device = pick(self._sight.settings.run.device)
        network = self._supernet.network(architecture).to(device)
        try:
            norms.reestimate(network, (images.to(device) for images in self._drawn()))
        except ValueError as error:
            if isinstance(error, InputError) or "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"optim.batch: {self._sight.settings.optim.batch} image at a time is too few to count a 1x1 map's "
                "batch norm anew; use 2 or more, or larger images"
            ) from None
        return network.eval()

    def __call__(self, architecture: Architecture) -> float:
        """The mean over the domains of the mIoU of ``architecture``.

        Raises:
            InputError: when no image that is measured has a labelled pixel.
        """
        table = protocol.measure(self.network(architecture), self._parts, self._sight.settings, self._stream)
        if table.intra is None:
            raise InputError("search.images: those measured have no labelled pixel; measure more images")
        for name in table.unscored:
            _log.info("search: %s: its images have no labelled pixel, so it has no part in the score", name)
        return table.intra

    def _draw(self, count: int) -> Callable[[], Iterable[Tensor]]:
        def drawn() -> Iterable[Tensor]:
            return (batch.images for batch in islice(self._sight.batches(self._supernet, "reestimate"), count))

        return drawn


def search(
    proposer: Proposer,
    judge: Callable[[Architecture], float],
    evaluations: int,
    file: Path,
    told: Callable[[int, dict[str, float]], None] = lambda number, values: None,
) -> list[Evaluated]:
    """Try ``evaluations`` architectures, those in ``file`` among them, and write each to it; all of them in order.

    Fewer are tried where the space has no more within the budget.

    Raises:
        InputError: when ``file`` is damaged.
        Stopped: after Ctrl-C or SIGTERM.
    """
    history = _read(file)
    with stop_signal() as stop:
        while len(history) < evaluations:
            if stop.asked:
                raise Stopped(len(history), stop.asked)
            proposed = proposer.next(history)
            if proposed is None:
                _log.warning("search: no new architecture within the budget was found after %d", len(history))
                break
            tried = Evaluated(proposed, proposer.price(proposed), judge(proposed))
            history.append(tried)
            write_text(file, "".join(_line(number, each) for number, each in enumerate(history)))
            told(len(history), {"score": tried.score, "best": max(each.score for each in history)})
    return history


def kept_within(
    history: Sequence[Evaluated], milliseconds: Callable[[Architecture], float], budget: float
) -> tuple[Evaluated, float, int]:
    """The best of ``history`` that keeps ``budget`` in fact, what it was measured to take, and how many were measured.

    After each that was too slow, the next must be predicted to take another 3 % less. When eight were too slow, or none
    is left, the fastest of those measured is given.
    """
    missed: list[tuple[float, Evaluated]] = []
    for tried in sorted(history, key=lambda each: -each.score):
        if tried.milliseconds > budget * (1 - _MARGIN * len(missed)):
            continue
        value = milliseconds(tried.architecture)
        if value <= budget:
            return tried, value, len(missed) + 1
        missed.append((value, tried))
        if len(missed) == _CHECKED:
            break
    value, tried = min(missed, key=lambda each: each[0])
    return tried, value, len(missed)


def _kept(make: Callable[[], Iterable[T]], *, keep: bool) -> Callable[[], Iterable[T]]:
    """``make``, or what it made the first time again and again."""
    made: list[T] = []

    def again() -> Iterable[T]:
        if not made:
            made.extend(make())
        return made

    return again if keep else make


def _line(number: int, tried: Evaluated) -> str:
    told = {"number": number, "score": tried.score, "predicted_ms": tried.milliseconds}
    return json.dumps({**told, "architecture": content(tried.architecture)}) + "\n"


def _read(file: Path) -> list[Evaluated]:
    found = []
    for number, text in enumerate(json_lines(file) if file.exists() else ()):
        try:
            told = json_value(text)
            architecture = parse(told["architecture"], f"{file}:{number + 1}")
            found.append(Evaluated(architecture, float(told["predicted_ms"]), float(told["score"])))
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{file}:{number + 1}: not an evaluation; delete the file to search anew") from None
    return found
