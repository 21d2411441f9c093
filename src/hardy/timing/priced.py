"""Milliseconds of an architecture of a space: a table of its parts, calibrated by complete networks.

Every part that the space can have is measured once (`hardy.timing.layer_tables.LayerTable`). The sum over an
architecture's parts is the raw prediction. The time outside the parts (concatenation, work of the runtime between
kernels) is about a constant plus a share of the sum. So the prediction is a linear function of the sum, fitted to
measurements of complete networks of the space: the fastest, and some with a prediction near the budget.

Networks are timed in turns with the fastest one, as `hardy.timing.targets.Turns` does: a higher load an hour
later does not change the budget. One file stores all measurements, so that a resumed search predicts the same
values, to the last bit.

Source: the look-up table and its sum: Chen et al., "FasterSeg", ICLR 2020, section 3.3; the line is ours.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError
from hardy.files import write_text
from hardy.networks.architectures.multipath import Architecture, content, parse
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.searching.cost import every_part, parts
from hardy.searching.evolution import within_budget
from hardy.searching.space import Space
from hardy.seed import key, seeded
from hardy.stored import read_json
from hardy.timing.clock import Runtime
from hardy.timing.layer_tables import LayerTable, name_of
from hardy.timing.targets import Clock, Turns

__all__ = ["Bench", "Priced", "line"]

_NEAR = (1.0, 0.6, 0.8, 1.0)
"""Networks near these shares of the budget are measured to fit the line."""

_log = logging.getLogger("hardy")

Point = tuple[float, float]
"""Of a network: the sum of its parts, and its measured milliseconds."""


@dataclass
class Bench:
    """The conditions of the measurements.

    Attributes:
        space: of the architectures.
        label_space: the classes that the networks predict.
        size: (height, width) of the image.
        runtime: see `hardy.timing.clock.Runtime`.
        device: for the networks.
        times: the table of parts.
        clock: times networks in turns with the first one that `timed` gets; `Turns` by default.
    """

    space: Space
    label_space: LabelSpace
    size: Sequence[int]
    runtime: Runtime
    device: torch.device
    times: LayerTable
    clock: Clock | None = None

    def network(self, architecture: Architecture) -> Network:
        """``architecture`` with random weights, which do not affect the time."""
        with seeded(0, "priced"):
            return create("fasterseg", self.label_space, arch=content(architecture)).eval()

    def timed(self, architecture: Architecture, beside: Architecture) -> tuple[float, float]:
        """Milliseconds of ``beside``, always the same one, and the ratio of the time of ``architecture`` to them."""
        self.clock = self.clock or Turns(self.network(beside), self.size, self.runtime, self.device)
        return self.clock(self.network(architecture))

    def about(self) -> dict[str, Any]:
        """The conditions that the numbers depend on."""
        return {**self.times.machine, "size": list(self.size), "classes": len(self.label_space)}


@dataclass
class Priced:
    """Milliseconds of architectures, predicted and measured.

    Attributes:
        bench: measures.
        file: for all measurements.
        table: milliseconds of every part by its name.
        anchors: (architecture, milliseconds) of the networks that the line is fitted to; the first is the fastest.
        measured: the same for networks measured later, which do not change the predictions.
    """

    bench: Bench
    file: Path
    table: dict[str, float] = field(default_factory=dict)
    anchors: list[tuple[Architecture, float]] = field(default_factory=list)
    measured: list[tuple[Architecture, float]] = field(default_factory=list)
    _line: tuple[float, float] = (0.0, 1.0)

    def prepare(self, budget: float, seed: int) -> None:
        """Measure what is not in the file yet: all parts, then the networks for the line, drawn by ``seed``.

        Raises:
            InputError: when ``budget`` is below the time of the fastest network, or the file is of another machine.
        """
        self._read()
        space = self.bench.space
        if not self.table:
            shapes = every_part(space, self.bench.size, len(self.bench.label_space))
            _log.info("search: a table of %d parts, %d of them to be measured", len(shapes), self._fill(shapes))
            self._keep()
        if not self.anchors:
            fastest = min(space.lightest(), key=self.sum)
            self._anchor(fastest, self.bench.timed(fastest, fastest)[0])
        if self.anchors[0][1] > budget:
            words = ", ".join(f"{key} {value}" for key, value in self.bench.times.machine.items() if key != "version")
            size = "x".join(map(str, self.bench.size))
            raise InputError(
                f"search.budget_ms: {budget:g} cannot be reached: the fastest network of the space takes "
                f"{self.anchors[0][1]:.4g} ms here ({size}, {words}); raise it, lower search.filters, or give smaller "
                "images"
            )
        self._line = line(self._points())
        for number in range(len(self.anchors), len(_NEAR) + 1):
            rng = Random(key(seed, "anchor", number))
            near = within_budget(space, space.draw(rng), self.predicted, _NEAR[number - 1] * budget, rng)
            self._anchor(near, dict(self.anchors).get(near) or self._time(near))

    def sum(self, architecture: Architecture) -> float:
        """The milliseconds of the parts of ``architecture``, added up."""
        shapes = parts(architecture, self.bench.size, len(self.bench.label_space))
        return sum(self.table[name_of(shape)] for shape in shapes)

    def predicted(self, architecture: Architecture) -> float:
        """Milliseconds predicted for ``architecture``."""
        base, slope = self._line
        return base + slope * self.sum(architecture)

    def gmacs(self, architecture: Architecture) -> float:
        """Billions of multiply-accumulates of ``architecture`` for one image."""
        return sum(shape.macs for shape in parts(architecture, self.bench.size, len(self.bench.label_space))) / 1e9

    def milliseconds(self, architecture: Architecture) -> float:
        """Milliseconds of ``architecture``, measured unless they are known."""
        for known, value in (*self.measured, *self.anchors):
            if known == architecture:
                return value
        value = self._time(architecture)
        self.measured.append((architecture, value))
        self._keep()
        return value

    def _time(self, architecture: Architecture) -> float:
        fastest, value = self.anchors[0]
        return value * self.bench.timed(architecture, fastest)[1]

    def _anchor(self, architecture: Architecture, value: float) -> None:
        self.anchors.append((architecture, value))
        self._line = line(self._points())
        self._keep()

    def _points(self) -> list[Point]:
        return [(self.sum(architecture), value) for architecture, value in self.anchors]

    def _fill(self, shapes: Sequence[Any]) -> int:
        new = self.bench.times.fill(shapes)
        self.table = {name_of(shape): self.bench.times[shape] for shape in shapes}
        return new

    def _keep(self) -> None:
        lists = {"anchors": self.anchors, "measured": self.measured}
        stored: dict[str, Any] = {"machine": self.bench.about(), "parts_ms": self.table}
        for name, found in lists.items():
            stored[name] = [{"ms": value, "architecture": content(architecture)} for architecture, value in found]
        write_text(self.file, json.dumps(stored, indent=0) + "\n")

    def _read(self) -> None:
        if not self.file.exists():
            return
        try:
            stored = read_json(self.file)
            machine, self.table = stored["machine"], {name: float(value) for name, value in stored["parts_ms"].items()}
            for name, found in (("anchors", self.anchors), ("measured", self.measured)):
                found[:] = [(parse(each["architecture"], str(self.file)), float(each["ms"])) for each in stored[name]]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{self.file}: damaged; delete it to measure again") from None
        if machine != self.bench.about():
            raise InputError(
                f"{self.file}: was measured on another machine, runtime or version, or for other images; "
                "continue there, or give another run.folder"
            )


def line(points: Sequence[Point]) -> tuple[float, float]:
    """(base, slope) of ``base + slope * sum``, with the least squared relative error at ``points``.

    The base is 0 for a single point, and where it would be negative or the slope not positive.
    """
    weights = [1 / value**2 for _, value in points]
    total = sum(weights)
    mean, level = (sum(w * p[side] for w, p in zip(weights, points, strict=True)) / total for side in (0, 1))
    across = sum(w * (x - mean) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    along = sum(w * (x - mean) * (y - level) for w, (x, y) in zip(weights, points, strict=True))
    if across > 0 and along > 0 and (base := level - along / across * mean) >= 0:
        return base, along / across
    through = sum(w * x * y for w, (x, y) in zip(weights, points, strict=True))
    return 0.0, through / sum(w * x**2 for w, (x, _) in zip(weights, points, strict=True))
