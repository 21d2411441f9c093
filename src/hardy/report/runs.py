"""The networks of a report, each from the records of its run.

The records of a run describe one network. A network that was measured while it adapted, and a peer that was trained
together with it, are separate networks. A study's records are grouped by cell. Cells that differ only in their seed are
one network, whose numbers are means over the seeds.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from hardy import curves, pictures, records
from hardy.counts import FILE as COUNTS
from hardy.counts import Counts
from hardy.counts import read as read_counts
from hardy.errors import InputError
from hardy.records import Record

__all__ = ["HEADLINES", "Network", "Run", "networks"]

HEADLINES = ("miou", "accuracy")
_OWN = ("train", "prune")
_FILES = ("bench", "export", "quantize")


@dataclass
class Run:
    """The records of one run about one network.

    Attributes:
        folder: of the run.
        lines: its records.
        adapt: the name of the test-time method; empty if it did not adapt.
        peer: its name if it is a peer that was trained together with the run's network; otherwise empty.
    """

    folder: Path
    lines: list[Record]
    adapt: str = ""
    peer: str = ""

    @cached_property
    def own(self) -> list[Record]:
        """The records of scores: first those of train and prune, then those of evaluate, the latest first.

        Those of evaluate in the classes of other data are left out: they cannot be compared with the others.
        """
        measured = [one for one in self.lines if one.stage.split("/")[0] in _OWN]
        home, kept = _classes(measured), list[Record]()
        later = [one for one in self.lines if one.stage == "evaluate"]
        for _, lines in groupby(later, key=lambda one: one.notes):
            group = list(lines)
            mine = _classes(group)
            home = home or mine
            kept += group if mine == home or not mine else []
        return [*measured, *reversed(kept)]

    @cached_property
    def scores(self) -> dict[tuple[str, str], float]:
        """(target, metric) -> value."""
        found: dict[tuple[str, str], float] = {}
        for one in self.own:
            if one.value is not None:
                found.setdefault((one.target, one.metric), one.value)
        return found

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The training domains."""
        return next((one.sources for one in self.own if one.sources), ())

    @cached_property
    def counts(self) -> Mapping[str, Counts]:
        """The confusion counts of every image, by domain; empty if none were kept."""
        kept = (self.folder / COUNTS).exists() and not self.adapt and not self.peer
        return read_counts(self.folder) if kept else {}

    @cached_property
    def worst(self) -> pictures.Worst:
        """The pictures of its worst images."""
        return pictures.Worst({}, {}) if self.peer else pictures.read(pictures.place(self.folder, self.adapt))

    @cached_property
    def curves(self) -> Mapping[str, Mapping[str, curves.Curve]]:
        """Its training curves by stage and term."""
        return {} if self.adapt or self.peer else curves.read(self.folder)

    def note(self, name: str) -> Any:
        """The value of a note in its `own` records; None if there is none."""
        return next((one.notes[name] for one in self.own if one.notes.get(name) is not None), None)

    def cost(self, metric: str) -> float | None:
        """The value of ``metric`` for the target ``cost``; None if it was not measured."""
        return self.scores.get(("cost", metric))


def _classes(lines: Iterable[Record]) -> set[str]:
    """The classes of records, also those that occur in no domain and have no IoU."""
    return {one.metric.removeprefix("iou/") for one in lines if "/" in one.target and one.metric.startswith("iou/")}


@dataclass
class Network:
    """One network of the report: a run, or the runs of several seeds.

    Attributes:
        name: a short, unique name.
        runs: at least one.
        milliseconds: for one image, in the runtime that the report uses; None if not measured.
        parameters: the number of parameters.
        gmacs: billions of multiply-accumulates for one image.
        parent: the network that it was made from, or the teacher that it learned from, if the report includes it.
        reference: the network that it was timed in turns with, itself for this network; None if it was timed alone.
    """

    name: str
    runs: Sequence[Run]
    milliseconds: float | None = None
    parameters: float | None = None
    gmacs: float | None = None
    parent: "Network | None" = field(default=None, repr=False)
    reference: "Network | None" = field(default=None, repr=False, compare=False)

    @property
    def first(self) -> Run:
        """The run of the first seed."""
        return self.runs[0]

    @cached_property
    def metric(self) -> str:
        """``miou``, or ``accuracy`` for image-level classes."""
        metrics = {metric for _, metric in self.first.scores}
        return next((name for name in HEADLINES if name in metrics), HEADLINES[0])

    @property
    def metric_words(self) -> str:
        """The metric as it is shown: ``mIoU`` or ``accuracy``."""
        return "mIoU" if self.metric == "miou" else "accuracy"

    @cached_property
    def domains(self) -> list[str]:
        """The domains that it was measured on, in order."""
        names = (target for one in self.runs for target, metric in one.scores if metric == self.metric)
        return [name for name in dict.fromkeys(names) if "/" in name]

    @cached_property
    def classes(self) -> list[str]:
        """The classes whose IoU is recorded."""
        found = (m.removeprefix("iou/") for (t, m) in self.first.scores if m.startswith("iou/") and "/" in t)
        return list(dict.fromkeys(found))

    def score(self, target: str, metric: str | None = None) -> float | None:
        """The mean of a number over seeds; None if it was not measured."""
        values = [one.scores.get((target, metric or self.metric)) for one in self.runs]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    def group(self, *, seen: bool) -> list[str]:
        """Its training domains (``seen``) or its unseen domains."""
        return [name for name in self.domains if (name in self.first.sources) == seen]

    def mean(self, *, seen: bool = False) -> float | None:
        """The mean over its seen or unseen domains."""
        recorded = self.score("intra" if seen else "unseen")
        values = [value for name in self.group(seen=seen) if (value := self.score(name)) is not None]
        return recorded if recorded is not None else fmean(values) if values else None

    @cached_property
    def worst(self) -> tuple[float, str] | None:
        """The lowest score of an unseen domain, and that domain."""
        known = [(value, name) for name in self.group(seen=False) if (value := self.score(name)) is not None]
        return min(known) if known else None

    @property
    def headline(self) -> float | None:
        """The score to compare networks by: the mean over unseen domains, or training domains if there are none."""
        unseen = self.mean()
        return unseen if unseen is not None else self.mean(seen=True)

    @property
    def ratio(self) -> float | None:
        """Its time as a share of that of its `reference`; None if it was timed alone."""
        if self.reference is None or not self.milliseconds or not self.reference.milliseconds:
            return None
        return self.milliseconds / self.reference.milliseconds

    def in_turns(self, other: "Network") -> bool:
        """Whether the times of both are from measurements in turns, so that their ratio is reliable."""
        return self.reference is not None and self.reference is other.reference

    @property
    def step(self) -> str:
        """The last step that made it: train, distil, tune, prune or adapt."""
        run = self.first
        if run.adapt:
            return "adapt"
        if any(one.stage == "prune" for one in run.own):
            return "prune"
        if run.note("tuner"):
            return "tune"
        return "distil" if run.note("teacher") or run.note("teacher_precision") else "train"


def networks(paths: Sequence[Path], *, torn: list[str]) -> list[Network]:
    """The networks of all runs at or below ``paths``.

    Args:
        paths: folders of runs or studies, folders that contain such folders, or files of records.
        torn: a list that gets a message for each file of records with an incomplete last line.

    Raises:
        InputError: for a path without records, records that cannot be read, or runs of different label spaces.
    """
    files: list[Path] = []
    for path in paths:
        files += _files(path)
    runs: dict[tuple[Any, ...], list[Run]] = {}
    for file in dict.fromkeys(files):
        for key, run in _runs(file, records.read(file, torn=torn)):
            runs.setdefault(key, []).append(run)
    made = [Network(name, each) for name, each in zip(_names(runs), runs.values(), strict=True)]
    scored = [one for one in made if one.headline is not None]
    if not scored:
        where = ", ".join(map(str, paths))
        raise InputError(f"{where}: the records have no score of a domain; hardy evaluate measures one")
    _refuse_other_spaces(scored)
    return scored


def _files(path: Path) -> list[Path]:
    """The files of records at or below ``path``, except those of a study's cells: the study's file includes them."""
    if path.is_file():
        return [path]
    found = sorted(path.rglob("records.jsonl")) if path.is_dir() else []
    studies = [file.parent / "cells" for file in found if (file.parent / "cells").is_dir()]
    if not found:
        raise InputError(f"{path}: there is no records.jsonl at or below it; hardy train writes one")
    return [file for file in found if not any(cells in file.parents for cells in studies)]


def _runs(file: Path, lines: Sequence[Record]) -> Iterable[tuple[tuple[Any, ...], Run]]:
    """The runs in ``file``, each with a key; runs with the same key differ only in their seed."""
    for (cell,), group in records.group(lines, "notes.cell"):
        folder = file.parent / "cells" / str(cell) if cell else file.parent
        axes = {name: value for name, value in (group[0].notes.get("axes") or {}).items() if name != "seed"}
        place = (
            (str(file.parent), group[0].notes.get("of", ""), json.dumps(axes, sort_keys=True)) if cell else (folder,)
        )
        parts: dict[tuple[str, str], list[Record]] = {}
        for one in group:
            parts.setdefault((str(one.notes.get("peer") or ""), _adaptation(one)), []).append(one)
        for number, ((peer, adapt), mine) in enumerate(parts.items()):
            others = [] if number else [one for one in group if one.stage in _FILES and one not in mine]
            yield (*place, peer, adapt), Run(folder, [*mine, *others], adapt, peer)


def _adaptation(one: Record) -> str:
    """The method that the measured network adapted by; empty for none, and for a stream, which is a step of its own."""
    adapt = one.notes.get("adapt") if one.stage != "stream" else None
    return str(adapt.get("name", "")) if isinstance(adapt, dict) else ""


def _names(runs: Mapping[tuple[Any, ...], Sequence[Run]]) -> list[str]:
    """A short name for each network: the distinguishing part of its folder, or the axis values of its cell."""
    folders = [each[0].folder.resolve() for each in runs.values()]
    above = os.path.commonpath([str(one.parent) for one in folders]) if folders else ""
    names = []
    for (key, each), folder in zip(runs.items(), folders, strict=True):
        name = Path(os.path.relpath(folder, above)).as_posix()
        axes = each[0].lines[0].notes.get("axes")
        if isinstance(axes, dict):
            words = [str(value) for axis, value in axes.items() if axis != "seed"]
            name = " ".join([str(each[0].lines[0].notes.get("of", "")), *words]).strip() or name
        peer, adapt = key[-2:]
        names.append(name + (f" / {peer}" if peer else "") + (f" + {adapt}" if adapt else ""))
    return [name if names.count(name) == 1 else f"{name} #{place}" for place, name in enumerate(names, start=1)]


def _refuse_other_spaces(made: Sequence[Network]) -> None:
    """Check that the scores of all networks are over the same classes.

    Raises:
        InputError: if they are not; the message names two networks.
    """
    first = made[0]
    for other in made[1:]:
        both = [_classes(one.first.own) for one in (first, other)]
        if both[0] != both[1] or other.metric != first.metric:
            said = [
                f"{one.first.folder} has {len(space) or 'no'} classes of pixels"
                for one, space in zip((first, other), both, strict=True)
            ]
            apart = sorted(both[0] ^ both[1])[:3]
            named = f" ({', '.join(apart)} only in one)" if apart else ""
            raise InputError(
                f"{said[0]}, {said[1]}{named}: scores over different label spaces cannot be compared; make two reports"
            )
