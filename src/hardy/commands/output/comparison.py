"""The comparison in a study: its arms, their records and per-image counts, and the table."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from hardy.counts import Counts
from hardy.errors import InputError, nearest
from hardy.records import Record
from hardy.report.arms import arms, groups, plain_step, scores, size, steps
from hardy.report.comparison import Line, Numbers, Rules, compare, known, missing, shown
from hardy.report.pivot import HEADLINES, Coordinates, Pivot, coordinates, markdown
from hardy.report.resample import Images, Interval, Over, bootstrap, images, score
from hardy.studies.study import Comparison, Study, listed, paired

__all__ = ["Compared", "ComparisonTable", "Reader", "refuse"]

Reader = Callable[[str], Mapping[str, Counts]]
"""Reads the counts of a cell by domain; empty if none are kept."""


@dataclass(frozen=True)
class ComparisonTable:
    """One table of a comparison: its title, its rows, and notes on how to read them."""

    title: str
    table: Pivot
    notes: tuple[str, ...]


def refuse(study: Study, places: Sequence[Coordinates], domains: Iterable[str], file: str) -> None:
    """Refuse a comparison whose names do not match the cells of the study, or the ``domains`` it reads.

    Raises:
        InputError: for an unknown arm, axis or domain; the message names the nearest known one.
    """
    if (asked := study.comparison) is None:
        return
    pairs, by = paired(study, asked), listed(asked.by)
    for group in groups(places, by).values():
        found = arms(group, pairs, list(study.grid), by)
        known(asked.control, found, f"{file}: comparison.control")
        for name, cells in found.items():
            lacks = [axis for axis in pairs if axis not in dict(next(iter(cells)))]
            if lacks:
                raise InputError(f"{file}: comparison.pairs: the cells of {name!r} do not have the axis {lacks[0]!r}")
    given = [one.removesuffix("/*") for one in domains]
    have = dict.fromkeys(part for one in given for part in (one, one.split("/")[0]))
    for name in asked.blocks:
        if name not in have and name.split("/", maxsplit=1)[0] not in given:
            raise InputError(f"{file}: comparison.blocks: the study does not read {name!r}{nearest(name, have)}")


class Compared:
    """The results of a study's comparison.

    Args:
        study: the study, which has a ``comparison``.
        name: its name.
        places: the coordinates of the cells to show, measured or not, in order.
        records: the records of these and other cells.
        counts: reads the per-image counts of a cell.
    """

    def __init__(
        self, study: Study, name: str, places: Sequence[Coordinates], records: Sequence[Record], counts: Reader
    ) -> None:
        assert study.comparison is not None, "asked for by the study"
        self._asked: Comparison = study.comparison
        self._study, self._name, self._places, self._counts = study, name, places, counts
        self._pairs = paired(study, self._asked)
        there = set(places)
        self._records = [record for record in records if _where(record) in there]
        self._cells = {_where(record): str(record.notes.get("cell")) for record in self._records}
        self._metric = self._asked.metric or next(
            (one.metric for one in self._records if one.metric in HEADLINES and one.target == "unseen"), HEADLINES[0]
        )
        self._kept: dict[Coordinates, tuple[dict[str, Images], tuple[str, ...]]] = {}

    @cached_property
    def tables(self) -> list[ComparisonTable]:
        """One table, or one for each label of the axes ``by``; none if the control is not among the cells."""
        asked = self._asked
        numbers, seeds = self._numbers(), paired(self._study, asked, seeds=True)
        rules = Rules(asked.control, seeds, asked.value, asked.tolerance, asked.tolerance_ms)
        made = []
        for group, cells in groups(self._places, listed(asked.by)).items():
            found = arms(cells, self._pairs, list(self._study.grid), listed(asked.by))
            head = ", ".join([f"{self._name}: {self._metric}", *(f"{axis} {label}" for axis, label in group)])
            if asked.control in found:
                lines = compare(found, numbers, rules, self._interval)
                notes = (*self._notes(lines, numbers.plain_step), *missing(lines, rules))
                table = shown(lines, rules, percent=self._percent)
                made.append(ComparisonTable(f"{head}, against {asked.control}", table, notes))
        return made

    def markdown(self) -> list[str]:
        """The lines of all tables in Markdown."""
        found: list[str] = []
        for one in self.tables:
            found += ["", one.title, "", *markdown(one.table), "", *(f"- {note}" for note in one.notes)]
        return found

    @property
    def _percent(self) -> bool:
        return self._metric in (*HEADLINES, "pixel_accuracy") or self._metric.startswith("iou/")

    def _numbers(self) -> Numbers:
        found = scores(self._records, self._asked.metric)
        for name in listed(self._asked.beside):
            found[f"unseen {name}"] = scores(self._records, name)["unseen"]
        after = {name: stage.after for name, stage in self._study.stages.items()}
        took = steps(self._records)
        times = f"milliseconds_p50_{self._asked.runtime}"
        return Numbers(
            found,
            size(self._records, self._places, after, "gmacs"),
            size(self._records, self._places, after, times, turns=self._pairs),
            took,
            plain_step([took[where] for where in self._plain[1] if where in took]),
        )

    @cached_property
    def _plain(self) -> tuple[str, list[Coordinates]]:
        """The first arm of the first stage that continues from no other; the time of its steps is the unit."""
        stages = self._study.stages.items()
        stage = next(name for name, one in stages if one.after is None)
        found = arms(self._places, self._pairs, list(self._study.grid))
        first = (one for one in found.items() if dict(next(iter(one[1].values())))["stage"] == stage)
        name, cells = next(first, (stage, {}))
        return name, list(cells.values())

    def _interval(self, pairs: Sequence[tuple[Coordinates, Coordinates]]) -> Interval | str:
        """The interval of the mean difference over ``pairs``, or why there is none."""
        over: Over = "mean"
        if self._asked.value == "worst":
            over = "worst"
        elif self._asked.value == "intra" and self._metric == "accuracy":
            over = "images"
        try:
            sides = [(self._images(arm), self._images(control)) for arm, control in pairs]
            classes = {one[1] for pair in sides for one in pair}
            if len(classes) > 1:
                raise InputError("its cells have different classes")
            found = bootstrap(
                [(arm[0], control[0]) for arm, control in sides],
                score(self._metric, classes.pop()),
                lengths={domain: self._length(domain) for side, _ in sides for domain in side[0]},
                over=over,
                resamples=self._asked.resamples,
                seed=self._asked.seed,
            )
        except InputError as error:
            return str(error)
        values = scores(self._records, self._asked.metric)[self._asked.value]
        recorded = fmean(values[arm] - values[control] for arm, control in pairs)
        if abs(recorded - found.gain) > 1e-6:
            return (
                f"the counts give a difference of {found.gain:.4g}, the records {recorded:.4g}; measure the runs again"
            )
        return found

    def _images(self, where: Coordinates) -> tuple[dict[str, Images], tuple[str, ...]]:
        """The images of a cell that belong to the compared value, by domain; and the classes."""
        if where not in self._kept:
            group = "source-val" if self._asked.value == "intra" else "unseen"
            mine = {name: one for name, one in self._counts(self._cells[where]).items() if one.split == group}
            if not mine:
                raise InputError(f"no counts of {group} images are kept; evaluate.keep_counts: true keeps them")
            made = {name: images(one.names, one.matrices, one.unmatched) for name, one in mine.items()}
            self._kept[where] = made, next(iter(mine.values())).classes
        return self._kept[where]

    def _length(self, domain: str) -> int:
        blocks = self._asked.blocks
        return blocks.get(domain) or blocks.get(domain.split("/", maxsplit=1)[0], 1)

    def _notes(self, lines: Sequence[Line], rate: float | None) -> Iterator[str]:
        """Notes on how to read the table."""
        asked = self._asked
        unit = " in points" if self._percent else ""
        yield (
            f"difference{unit}: {asked.value}, mean over pairs with the same {' and '.join(self._pairs)}, less "
            f"{asked.control}; p: two-sided exact sign test over the pairs, equal ones left out"
        )
        drawn = {d: n for line in lines if isinstance(line.interval, Interval) for d, n in line.interval.blocks.items()}
        if drawn:
            of = [
                f"{domain}: {many}{f' blocks of {self._length(domain)}' if self._length(domain) > 1 else ''}"
                for domain, many in drawn.items()
            ]
            images_of = f"the images ({', '.join(of)})"
            yield f"[ ]: 95 % of {asked.resamples:,} resamples of {images_of}; the seeds are as they are"
        yield (
            f"equal in: GMACs within {100 * asked.tolerance:g} % and ms ({asked.runtime}) within "
            f"{100 * asked.tolerance_ms:g} % of {asked.control}; ≠ after a difference: not at equal GMACs; ?: not known"
        )
        if rate:
            took = f"in training steps of {self._plain[0]} ({rate:.3g} s)"
            yield f"plain steps: seconds of the arm's own stages, {took}; ≥: some seconds were not recorded"
        if any(line.gains and not line.claim for line in lines):
            yield "illustration: fewer than 6 seeds and fewer than 12 pairs; no claim rests on it"


def _where(record: Record) -> Coordinates:
    return coordinates(record.notes.get("of", record.stage), record.notes.get("axes", {}))
