"""Times of the layers of a network on one device and runtime: measured once, stored, interpolated, summed.

The table holds milliseconds per layer shape. A layer is measured at four input and four output widths where pruning can
change them (the minimum, about a quarter, a half, full) and interpolated bilinearly; values never decrease with a
width. The sum over the layers is the raw prediction of `hardy.pruning.cost_goal.Anchored`.

Source: layer-wise look-up tables as in Yang et al., "NetAdapt", ECCV 2018, section 3.3, there with every width
measured; the bilinear grid is ours.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import torch

from hardy.errors import InputError
from hardy.files import expanded, write_text
from hardy.lock import Lock
from hardy.pruning.coupled import Unit
from hardy.pruning.select import Limits
from hardy.pruning.shapes import Layers, Shape, Widths, at_floors, dense_widths, widths_left
from hardy.stored import read_json
from hardy.timing.clock import Runtime
from hardy.timing.hardware import fingerprint
from hardy.timing.layer_times import layer_times

__all__ = ["LayerTable", "Measure", "Sum", "cache_folder", "grid", "name_of", "open_table", "preferred_multiple"]

Measure = Callable[[Sequence[Shape]], Sequence[float]]
"""Milliseconds of shapes."""

_MULTIPLES = (1, 2, 4, 8, 16, 32)
_FORM = "products, class by class"
"""How exports resize and choose the classes; times of files with another form are measured again."""

_BETTER = 0.93
"""A larger multiple is preferred when the time per multiply-accumulate falls below this share."""


def cache_folder() -> Path:
    """The folder of this machine's measurements: HARDY_CACHE, or ``hardy`` in the user's cache folder.

    A user without a home folder, as in some containers, has it among the temporary files.
    """
    if own := os.environ.get("HARDY_CACHE"):
        return expanded(own)
    if given := os.environ.get("XDG_CACHE_HOME"):
        return expanded(given) / "hardy"
    try:
        return Path.home() / ".cache" / "hardy"
    except RuntimeError:
        return Path(gettempdir()) / "hardy"


class LayerTable:
    """Milliseconds of layer shapes on one machine, measured at first use and stored in a file.

    Args:
        machine: what the numbers depend on besides the shape: device, runtime, threads, versions.
        measure: measures shapes; all shapes of one layer are measured in one call.
        folder: for the file, whose name depends on ``machine``. Measurements that another process has added are kept.

    Attributes:
        machine: as given.
        path: the file.
    """

    def __init__(self, machine: Mapping[str, str], measure: Measure, folder: Path) -> None:
        self.machine = dict(machine)
        digest = blake2b(json.dumps(self.machine, sort_keys=True).encode(), digest_size=8).hexdigest()
        self.path = folder / "latency" / f"{self.machine.get('runtime', 'layers')}-{digest}.json"
        self._measure = measure
        self._known = self._stored()

    def fill(self, shapes: Iterable[Shape]) -> int:
        """Measure and store the ``shapes`` that are not known yet; returns how many."""
        layers: dict[Shape, list[Shape]] = {}
        for shape in dict.fromkeys(shapes):
            if name_of(shape) not in self._known:
                layers.setdefault(shape.narrowed(1, 1), []).append(shape)
        for together in layers.values():
            values = self._measure(together)
            self._known |= {name_of(shape): float(value) for shape, value in zip(together, values, strict=True)}
            self._store()
        return sum(map(len, layers.values()))

    def __getitem__(self, shape: Shape) -> float:
        """Milliseconds of ``shape``; measured now if they are not known."""
        self.fill([shape])
        return self._known[name_of(shape)]

    def _stored(self) -> dict[str, float]:
        """The content of the file; empty when it is missing, damaged or of another machine."""
        try:
            content = read_json(self.path)
            if content["machine"] == self.machine:
                return {str(name): float(value) for name, value in content["milliseconds"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return {}

    def _store(self) -> None:
        """Write the file atomically; when that fails, or another process is writing it, only this process has the
        times."""
        self._known = self._stored() | self._known
        text = json.dumps({"machine": self.machine, "milliseconds": self._known}, indent=0)
        with contextlib.suppress(OSError, InputError), Lock(self.path.parent):
            write_text(self.path, text)


def open_table(runtime: Runtime, device: torch.device) -> LayerTable:
    """The table of this machine for ``runtime`` on ``device``, with torch's current number of threads."""
    machine = fingerprint()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else machine.cpu
    version = machine.torch if runtime == "eager" else f"{machine.onnxruntime}, {_FORM}"
    key = {"device": where, "system": machine.system, "runtime": runtime, "threads": str(machine.threads)}
    return LayerTable({**key, "version": version}, lambda shapes: layer_times(shapes, runtime, device), cache_folder())


@lru_cache(4096)
def name_of(shape: Shape) -> str:
    """The key of ``shape`` in the file."""
    return " ".join("x".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in astuple(shape))


class Sum:
    """The milliseconds of all layers of a network at any widths of its units, added up.

    Args:
        layers: of the network.
        units: the units that can be narrowed.
        limits: their minimum widths.
        times: the table; missing shapes are measured now.
    """

    def __init__(self, layers: Layers, units: Sequence[Unit], limits: Limits, times: LayerTable) -> None:
        self._layers = layers
        narrow, full = (
            layers.at(widths) for widths in (widths_left(units, at_floors(units, limits)), dense_widths(units))
        )
        self._ends = list(zip(narrow, full, strict=True))
        points = {ends: _points(*ends, limits.round_to) for ends in self._ends}
        times.fill(shape for rows in points.values() for row in rows for shape in row)
        self._surfaces = {ends: _Surface(rows, times) for ends, rows in points.items()}

    def __call__(self, widths: Widths) -> float:
        """The sum at ``widths``."""
        shapes = zip(self._ends, self._layers.at(widths), strict=True)
        return sum(self._surfaces[ends].at(shape) for ends, shape in shapes)


class _Surface:
    """One layer over its (output, input) widths, bilinear, never decreasing."""

    def __init__(self, rows: Sequence[Sequence[Shape]], times: LayerTable) -> None:
        self._outputs = [row[0].outputs for row in rows]
        self._inputs = [shape.inputs for shape in rows[0]]
        values = np.array([[times[shape] for shape in row] for row in rows])
        self._values = np.maximum.accumulate(np.maximum.accumulate(values, 0), 1)

    def at(self, shape: Shape) -> float:
        """Milliseconds of ``shape``."""
        across = [float(np.interp(shape.inputs, self._inputs, row)) for row in self._values]
        return float(np.interp(shape.outputs, self._outputs, across))


def _points(narrow: Shape, full: Shape, multiple: int) -> list[list[Shape]]:
    """The shapes that are measured between two shapes of one layer: a row per output width."""
    if narrow.groups < full.groups:  # it loses complete groups, as a depthwise layer does
        return [[full.of_groups(groups)] for groups in grid(narrow.groups, full.groups, multiple)]
    multiple = math.lcm(multiple, full.groups)  # of every group as many
    outputs = grid(narrow.outputs, full.outputs, multiple)
    inputs = grid(narrow.inputs, full.inputs, multiple)
    return [[full.narrowed(given, made) for given in inputs] for made in outputs]


def grid(least: int, most: int, multiple: int) -> list[int]:
    """The widths measured from ``least`` to ``most``: both, and a quarter and a half of the full width.

    When ``multiple`` is below 8 they are odd multiples of it: typical widths after pruning, not the few widths that are
    fast on the device.
    """
    between = set()
    for share in (4, 2):
        width = most // share // multiple * multiple
        between.add(width - multiple if multiple < 8 and width // multiple % 2 == 0 else width)
    return sorted({least, most, *(width for width in between if least < width < most)})


def preferred_multiple(times: LayerTable) -> int:
    """The m of which widths should be multiples on this device, from measurements of a 1x1 and a 3x3 convolution.

    For m = 1, 2, 4, 8, 16, widths around 48 that are multiples of m and not of 2 m are measured; for m = 32, the widths
    32 and 64. The result is the smallest m for which larger ones reduce the time per multiply-accumulate by less than
    7 %.
    """
    layers = [Shape("convolution", 48, 48, 32, 64), Shape("convolution", 48, 48, 32, 64, (3, 3), padding=(1, 1))]
    around = {m: (48 - m, 48 + m) for m in _MULTIPLES} | {16: (48,), 32: (32, 64)}
    shapes = {m: [layer.narrowed(w, w) for layer in layers for w in around[m]] for m in _MULTIPLES}
    times.fill(shape for each in shapes.values() for shape in each)
    rates = {
        m: sum(
            float(np.mean([times[shape] / shape.macs for shape in each if shape.kernel == layer.kernel]))
            / (times[layer] / layer.macs)
            for layer in layers
        )
        for m, each in shapes.items()
    }
    for index, m in enumerate(_MULTIPLES):
        if all(rates[later] > _BETTER * rates[m] for later in _MULTIPLES[index + 1 :]):
            return m
    return _MULTIPLES[-1]
