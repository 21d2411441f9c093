"""Architecture search: shared weights are trained, architectures are evaluated with them, the best are timed.

An architecture is evaluated with its slice of the shared weights, after batch-norm re-estimation, on held-out images;
see `hardy.searching`. All evaluations are written to a file of JSON lines, so that a stopped search can be resumed. At
the end the best architectures are timed, in order, until the measured time of one is within the budget.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from hardy.data.base import DomainItems
from hardy.data.label_spaces import LabelSpace
from hardy.device import pick
from hardy.engine import protocol
from hardy.engine.safeguards import DataView, spread
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

__all__ = ["Judge", "SearchResult", "kept_within", "search"]

_CHECKED = 8
"""The most networks that are timed to find one within the budget."""

_MARGIN = 0.03
"""The share of the budget by which the next prediction must be lower, for each network that was too slow."""

_log = logging.getLogger("hardy")

T = TypeVar("T")


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        best: the architecture, its predicted milliseconds, and its score with the shared weights.
        milliseconds: measured.
        budget: the upper limit of its milliseconds.
        tried: how many architectures were evaluated.
        checked: how many of them were timed at the end.
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
        """Whether the measured time is within the budget."""
        return self.milliseconds <= self.budget

    def meta(self) -> dict[str, Any]:
        """The entries of the architecture's file that say how it was found."""
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
    """Scores architectures on held-out images, each with its slice of the shared weights.

    Args:
        supernet: the shared weights, on the CPU.
        view: the images and how they are measured.
        reestimate: the number of batches for the batch-norm re-estimation of each network.
        images: the number of held-out images that are measured, in total.

    Raises:
        InputError: when there are no images to select by, or none to train on.
    """

    def __init__(self, supernet: Supernet, view: DataView, *, reestimate: int, images: int) -> None:
        self._supernet, self._view = supernet, view
        select = view.settings.evaluate.select
        chosen = {"source-val": view.parts.val, "oracle": view.parts.unseen, "last": ()}[select]
        if not view.parts.train or not chosen:
            where = {"source-val": "name data.sources", "oracle": "name data.unseen"}
            fix = where.get(select, "set evaluate.select to source-val")
            raise InputError(f"search: architectures are ranked on held-out images, and there are none; {fix}")
        self._parts = [("source-val", part) for part in spread(chosen, images)]
        seen: dict[str, list[Batch]] = {}
        read = protocol.reading(view.settings)

        def kept(part: DomainItems, space: LabelSpace) -> Iterable[Batch]:
            if part[0].name not in seen:
                seen[part[0].name] = list(read(part, space))
            return seen[part[0].name]

        self._stream = kept if view.settings.data.cache else read
        self._drawn = _kept(self._draw(reestimate), keep=view.settings.data.cache)

    def network(self, architecture: Architecture) -> Network:
        """``architecture`` with the shared weights, after batch-norm re-estimation, in evaluation mode."""
        device = pick(self._view.settings.run.device)
        network = self._supernet.network(architecture).to(device)
        try:
            norms.reestimate(network, (images.to(device) for images in self._drawn()))
        except ValueError as error:
            if isinstance(error, InputError) or "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"optim.batch: {self._view.settings.optim.batch} image at a time is too few to re-estimate the "
                "batch norm of a 1x1 map; use 2 or more, or larger images"
            ) from None
        return network.eval()

    def __call__(self, architecture: Architecture) -> float:
        """The mIoU (or the IoU of ``evaluate.select_class``) of ``architecture``, averaged over the domains.

        Raises:
            InputError: when no measured image has a labelled pixel.
        """
        table = protocol.measure(self.network(architecture), self._parts, self._view.settings, self._stream)
        score = table.intra_of(self._view.settings.evaluate.select_class)
        if score is None:
            raise InputError("search.images: the measured images have no labelled pixel; measure more images")
        for name in table.unscored:
            _log.info("search: %s: its images have no labelled pixel, so it does not count in the score", name)
        return score

    def _draw(self, count: int) -> Callable[[], Iterable[Tensor]]:
        def drawn() -> Iterable[Tensor]:
            return (batch.images for batch in islice(self._view.batches(self._supernet, "reestimate"), count))

        return drawn


def search(
    proposer: Proposer,
    judge: Callable[[Architecture], float],
    evaluations: int,
    file: Path,
    progress: Callable[[int, dict[str, float]], None] = lambda number, values: None,
) -> list[Evaluated]:
    """Evaluate architectures until there are ``evaluations`` in ``file``, and write each to it; returns all, in order.

    There are fewer when no new architecture within the budget is found.

    Args:
        proposer: proposes the next architecture.
        judge: scores an architecture.
        evaluations: the total number, with those that ``file`` holds already.
        file: JSON lines, one per evaluation.
        progress: called with the number of evaluations, and the last and the best score.

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
            evaluated = Evaluated(proposed, proposer.price(proposed), judge(proposed))
            history.append(evaluated)
            write_text(file, "".join(_line(number, each) for number, each in enumerate(history)))
            progress(len(history), {"score": evaluated.score, "best": max(each.score for each in history)})
    return history


def kept_within(
    history: Sequence[Evaluated], milliseconds: Callable[[Architecture], float], budget: float
) -> tuple[Evaluated, float, int]:
    """The best of ``history`` whose measured time is within ``budget``, that time, and how many were timed.

    After each one that was too slow, the limit on the next prediction is 3 % of the budget lower. When eight were too
    slow, or none is left, the fastest of the timed ones is returned.
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
    """``make``; with ``keep`` a function that calls it once and always returns the same items."""
    items: list[T] = []

    def stored() -> Iterable[T]:
        if not items:
            items.extend(make())
        return items

    return stored if keep else make


def _line(number: int, tried: Evaluated) -> str:
    values = {"number": number, "score": tried.score, "predicted_ms": tried.milliseconds}
    return json.dumps({**values, "architecture": content(tried.architecture)}) + "\n"


def _read(file: Path) -> list[Evaluated]:
    history = []
    for number, text in enumerate(json_lines(file) if file.exists() else ()):
        try:
            values = json_value(text)
            architecture = parse(values["architecture"], f"{file}:{number + 1}")
            history.append(Evaluated(architecture, float(values["predicted_ms"]), float(values["score"])))
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{file}:{number + 1}: not an evaluation; delete the file to search again") from None
    return history
