"""Every arm against one control: paired differences, their interval, a sign test, and costs.

Cells of two arms with the same labels on the axes of the pairs (such as seed and fold) are a pair. If one of the two
cells is missing, there is no pair, and the table says so. Arms are compared at equal cost: first at equal GMACs, then
at equal milliseconds. An arm with another cost than the control is marked; nothing is interpolated.

Results with fewer than six seeds and fewer than twelve pairs are marked as an illustration: even if all of five pairs
are won, p is 0.0625.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from hardy.errors import InputError, nearest
from hardy.report.arms import Arms, Cost, own_cost
from hardy.report.pivot import CellValues, Coordinates, Pivot, sign_test, spread
from hardy.report.resample import Interval

__all__ = ["SEEDS", "Line", "Numbers", "Rules", "compare", "known", "missing", "shown"]

SEEDS, PAIRS = 6, 12
"""The smallest number of seeds, or of pairs, that supports a claim."""

NAMED = 6
"""The largest number of missing pairs that a note names."""

Taken = Callable[[Sequence[tuple[Coordinates, Coordinates]]], Interval | str]
"""A function from (arm, control) cells to the interval of their mean difference, or to the reason why there is none."""


@dataclass(frozen=True)
class Rules:
    """The settings of a comparison.

    Attributes:
        control: the arm that all others are compared with.
        seeds: the axes of the pairs that are seeds.
        value: ``unseen``, ``worst`` or ``intra``: the score whose difference is shown.
        tolerance: the largest relative difference in GMACs at which costs are equal.
        tolerance_ms: the largest relative difference in milliseconds at which costs are equal.
    """

    control: str
    seeds: tuple[str, ...]
    value: str = "unseen"
    tolerance: float = 0.05
    tolerance_ms: float = 0.1


@dataclass(frozen=True)
class Numbers:
    """The recorded numbers of the cells.

    Attributes:
        scores: name -> cell -> score: ``intra``, ``unseen``, ``worst``, and the further metrics.
        gmacs: cell -> GMACs, for the cells that have a record.
        milliseconds: cell -> milliseconds, for the cells that have a record.
        took: cell -> seconds and steps by stage.
        plain_step: the seconds of a plain training step, the unit of a method's cost; None if not recorded.
    """

    scores: Mapping[str, CellValues]
    gmacs: CellValues = field(default_factory=dict)
    milliseconds: CellValues = field(default_factory=dict)
    took: Mapping[Coordinates, Mapping[str, float]] = field(default_factory=dict)
    plain_step: float | None = None


@dataclass(frozen=True)
class Line:
    """One arm.

    Attributes:
        arm: its name.
        expected: the number of its seeds, measured or not.
        scores: name -> for each seed the mean over its folds, or the lowest for ``worst``; only seeds with all folds.
        gains: arm minus control for each pair; empty for the control.
        interval: of the mean gain, or the reason why there is none.
        claim: whether there are enough seeds or pairs for a claim.
        gmacs: median over the cells; None if not recorded.
        milliseconds: median over the cells; None if not recorded.
        level: whether GMACs, and whether milliseconds, equal the control's; None if one of the two is not recorded.
        cost: in plain training steps, the median over the cells; None if not recorded.
        alone: the incomplete pairs, each with what is missing.
    """

    arm: str
    expected: int
    scores: Mapping[str, tuple[float, ...]]
    gains: tuple[float, ...] = ()
    interval: Interval | str = ""
    claim: bool = False
    gmacs: float | None = None
    milliseconds: float | None = None
    level: tuple[bool | None, bool | None] = (None, None)
    cost: Cost | None = None
    alone: tuple[str, ...] = ()

    @property
    def won(self) -> int:
        """The number of pairs in which the arm is higher."""
        return sum(gain > 0 for gain in self.gains)

    @property
    def lost(self) -> int:
        """The number of pairs in which the arm is lower."""
        return sum(gain < 0 for gain in self.gains)

    @property
    def p(self) -> float:
        """The p of the two-sided exact sign test; equal pairs are left out."""
        return sign_test(self.won, self.lost)


def known(control: str, found: Arms, where: str) -> None:
    """Check that ``control`` is an arm.

    Raises:
        InputError: if it is not; the message names the nearest arm and all arms.
    """
    if control not in found:
        have = ", ".join(found)
        raise InputError(f"{where}: there is no arm {control!r}{nearest(control, found)}; there are: {have}")


def compare(found: Arms, numbers: Numbers, rules: Rules, taken: Taken) -> list[Line]:
    """A line for each arm, the control first."""
    control = found[rules.control]
    sizes = {
        name: [_middle(side, cells) for side in (numbers.gmacs, numbers.milliseconds)] for name, cells in found.items()
    }
    value = numbers.scores[rules.value]
    lines = []
    for name, cells in sorted(found.items(), key=lambda one: one[0] != rules.control):
        pairs, alone = _paired(cells, control, value) if name != rules.control else ([], [])
        costs = [own_cost(numbers.took[where], numbers.plain_step) for where in cells.values() if where in numbers.took]
        line = Line(
            arm=name,
            expected=len(_by_seed(cells.values(), rules.seeds)),
            scores={key: _of_seeds(key, one, cells.values(), rules.seeds) for key, one in numbers.scores.items()},
            gains=tuple(value[arm] - value[other] for arm, other in pairs),
            interval=taken(pairs) if pairs else "",
            claim=_claim([arm for arm, _ in pairs], rules.seeds),
            gmacs=sizes[name][0],
            milliseconds=sizes[name][1],
            level=_level(sizes[name], sizes[rules.control], rules),
            cost=_median_cost([one for one in costs if one is not None]),
            alone=tuple(alone),
        )
        lines.append(line)
    return lines


def shown(lines: Sequence[Line], rules: Rules, *, percent: bool = True) -> Pivot:
    """The table of ``lines``."""
    beside = [name for name in lines[0].scores if name not in ("intra", "unseen", "worst")]
    scores = ["intra", "unseen", "worst", *beside]
    unit = " %" if percent else ""
    head = [
        "arm",
        *(f"{name}{unit}" for name in scores),
        "difference",
        "won",
        "p",
        "equal in",
        "GMACs",
        "ms",
        "plain steps",
    ]
    rows = [
        (
            line.arm,
            *(spread(line.scores[name], line.expected, percent=percent) for name in scores),
            *_against(line, control=line.arm == rules.control, scale=100 if percent else 1),
            _number(line.gmacs),
            _number(line.milliseconds),
            _steps(line.cost),
        )
        for line in lines
    ]
    return Pivot(tuple(head), tuple(rows), 1, "")


def missing(lines: Sequence[Line], rules: Rules) -> list[str]:
    """Notes on what is missing in the table, and why."""
    found: dict[str, list[str]] = {}
    for line in lines:
        for text in _lacks(line, rules.control):
            found.setdefault(text, []).append(line.arm)
    return [f"{text}: {', '.join(names)}" for text, names in found.items()]


def _lacks(line: Line, control: str) -> Iterator[str]:
    if line.alone and not line.gains:
        yield f"no pair with {control} is measured"
    elif line.alone:
        more = f" and {len(line.alone) - NAMED} more" if len(line.alone) > NAMED else ""
        yield f"left out of the pairs: {'; '.join(line.alone[:NAMED])}{more}"
    if isinstance(line.interval, Interval):
        if not line.interval.known:
            yield "no interval, because a domain has fewer than two images or blocks"
        elif line.interval.undefined:
            yield f"{line.interval.undefined:.1%} of the resamples have no score"
    elif line.interval:
        yield f"no interval, because {line.interval}"
    if any(line.scores.values()):
        for name, one in (("GMACs", line.gmacs), ("ms", line.milliseconds), ("plain steps", line.cost)):
            if one is None:
                yield f"no {name} recorded"


def _paired(
    arm: Mapping[Coordinates, Coordinates], control: Mapping[Coordinates, Coordinates], value: CellValues
) -> tuple[list[tuple[Coordinates, Coordinates]], list[str]]:
    """The measured pairs as (arm, control) cells, and texts about the other pairs with what is missing."""
    pairs, alone = [], []
    for key in dict.fromkeys((*arm, *control)):
        sides = {"the arm": arm.get(key), "the control": control.get(key)}
        lacks = [
            f"{name} has no such cell" if where is None else f"{name} is not measured"
            for name, where in sides.items()
            if where is None or where not in value
        ]
        if lacks:
            labels = ",".join(f"{axis}={text}" for axis, text in key) or "the only pair"
            alone.append(f"{labels} ({' and '.join(lacks)})")
        else:
            pairs.append((arm[key], control[key]))
    return pairs, alone


def _claim(cells: Sequence[Coordinates], seeds: Sequence[str]) -> bool:
    """Whether there are enough pairs, or enough seeds, for a claim."""
    return len(cells) >= PAIRS or len(_by_seed(cells, seeds)) >= SEEDS


def _by_seed(cells: Iterable[Coordinates], seeds: Sequence[str]) -> dict[Coordinates, list[Coordinates]]:
    """Labels on the axes of seeds -> the cells with them, one for each fold."""
    found: dict[Coordinates, list[Coordinates]] = {}
    for where in cells:
        found.setdefault(tuple(pair for pair in where if pair[0] in seeds), []).append(where)
    return found


def _of_seeds(name: str, values: CellValues, cells: Iterable[Coordinates], seeds: Sequence[str]) -> tuple[float, ...]:
    folds = [[values[where] for where in one if where in values] for one in _by_seed(cells, seeds).values()]
    expected = [len(one) for one in _by_seed(cells, seeds).values()]
    reduce = min if name == "worst" else fmean
    return tuple(reduce(one) for one, many in zip(folds, expected, strict=True) if len(one) == many)


def _level(
    mine: Sequence[float | None], control: Sequence[float | None], rules: Rules
) -> tuple[bool | None, bool | None]:
    found = [
        None if one is None or other is None else abs(one - other) <= tolerance * other
        for one, other, tolerance in zip(mine, control, (rules.tolerance, rules.tolerance_ms), strict=True)
    ]
    return found[0], found[1]


def _middle(values: CellValues, cells: Mapping[Coordinates, Coordinates]) -> float | None:
    there = [values[where] for where in cells.values() if where in values]
    return median(there) if there else None


def _median_cost(costs: Sequence[Cost]) -> Cost | None:
    return Cost(median(one.steps for one in costs), any(one.bound for one in costs)) if costs else None


def _against(line: Line, *, control: bool, scale: float) -> tuple[str, str, str, str]:
    """Difference with interval, pairs won, p, and the costs in which the arm equals the control."""
    if control:
        return "control", "", "", ""
    words = {True: "{}", False: "", None: "{}?"}
    level = [words[one].format(name) for one, name in zip(line.level, ("GMACs", "ms"), strict=True)]
    equal = ", ".join(filter(None, level)) or "neither"
    if not line.gains:
        return "–", "–", "–", equal
    mark = {True: "", False: " ≠", None: " ?"}[line.level[0]]
    inside = ""
    if isinstance(line.interval, Interval) and line.interval.known:
        inside = f" [{scale * line.interval.low:+.1f}, {scale * line.interval.high:+.1f}]"
    ties = len(line.gains) - line.won - line.lost
    won = f"{line.won}/{len(line.gains)}" + (f", {ties} equal" if ties else "")
    p = f"{line.p:.2g}" + ("" if line.claim else ", illustration")
    return f"{scale * fmean(line.gains):+.1f}{inside}{mark}", won, p, equal


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _steps(cost: Cost | None) -> str:
    return "–" if cost is None else f"{'≥ ' if cost.bound else ''}{cost.steps:,.0f}"
