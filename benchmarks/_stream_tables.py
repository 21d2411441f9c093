"""The tables of ``streams.py``, from its records alone: points of mIoU less the source network's on the same frames.

The score of a method on a stream is the mean over domains of the mIoU over all frames of the domain, whatever the
round. Its interval draws frames again (`hardy.report.resample`), paired, the orders pooled: a frame that several rounds
or orders show is drawn as one, and of a drive blocks of 20 neighbours are drawn.
"""

import base64
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean
from typing import Any

import numpy as np

from _stream_cells import FACTORS, GUARDS, METHODS, RECIPES, SEARCHED, TRIED, VARIANTS, default, paced
from hardy.records import Record
from hardy.report.pivot import sign_test
from hardy.report.resample import Images, block_sums, bootstrap, score

ALLOWED = 0.5
"""By how many points a round may be below the source network under a guard."""

BLOCKS = {"camvid_day_dusk": 20, "camvid_corrupted": 4}
"""Neighbours that are drawn as one; of the corrupted stream every fifth frame is shown."""

RESAMPLES = 1000
CLEAR = 0.05
MOST_ORDERS = 6
STREETS = ("abrupt", "mixed", "gradual")
HEAD = (
    "orders",
    "mean [95 % over frames]",
    "won, p",
    "worst round",
    "worst window",
    "known at the end",
    "alarms true, false, missed",
)
Key = tuple[Any, ...]
_OWN = ("method", "lr", "guard", "variant", "every")
"""What a row and a record share, beside the stream."""


@dataclass(frozen=True)
class Row:
    """Cells that differ in their order only: what they are called, and what identifies them."""

    labels: tuple[str, ...]
    method: str
    lr: float | None
    guard: str = ""
    variant: str = ""
    every: int = 1


def packed(sums: Sequence[np.ndarray]) -> str:
    """Sums (n, 3, K) of each domain's frames as text, for a record."""
    whole = np.concatenate(sums).astype("<u4")
    planes = whole.reshape(-1).view(np.uint8).reshape(-1, 4).T  # equal bytes side by side are smaller
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()


def unpacked(note: Mapping[str, Any]) -> list[np.ndarray]:
    """What `packed` packed, of the notes of a record."""
    return _unpacked(note["sums"], note["classes"], tuple(note["frames"]))


@lru_cache(maxsize=4096)
def _unpacked(sums: str, classes: int, frames: tuple[int, ...]) -> list[np.ndarray]:
    planes = np.frombuffer(zlib.decompress(base64.b64decode(sums)), np.uint8).reshape(4, -1)
    whole = np.ascontiguousarray(planes.T).reshape(-1).view("<u4").reshape(-1, 3, classes)
    return np.split(whole.astype(np.float64), np.cumsum(frames)[:-1])


def stream_of(note: Mapping[str, Any]) -> Key:
    """What identifies the stream and the network of a record, but for the order."""
    return tuple(note[name] for name in ("kind", "rounds", "images", "source"))


def key(note: Mapping[str, Any]) -> Key:
    """What identifies a cell."""
    return (*stream_of(note), *(note[name] for name in ("order", *_OWN)))


def rates(found: Iterable[Record]) -> dict[str, float]:
    """The learning rates that a search chose, by method; the last search counts."""
    return {one.target: float(one.value or 0) for one in found if one.metric == "lr"}


class Found:
    """The cells of some records, each beside that of the source network on the same frames."""

    def __init__(self, found: Sequence[Record]) -> None:
        self.rates = {**{name: default(name) for name in METHODS}, **rates(found)}
        self.records = [one for one in found if one.metric != "lr" and one.notes["source"] != "search"]
        notes = [one.notes for one in self.records]
        source = {self._shown(one): one for one in notes if one["method"] == "source"}
        self.pairs: dict[Key, dict[int, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
        for one in notes:
            if one["method"] != "source" and (base := source.get(self._shown(one))):
                at = (*stream_of(one), *(one[name] for name in _OWN))
                self.pairs.setdefault(at, {})[one["order"]] = one, base
        self.streams = list(dict.fromkeys(stream_of(one) for one in notes))

    @staticmethod
    def _shown(note: Mapping[str, Any]) -> Key:
        """What a cell and that of the source network share."""
        return (*stream_of(note), note["order"], note["shown"], note["network"])

    def of(self, stream: Key, row: Row) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """The notes of a row's cells on a stream, order by order, each beside those of the source network."""
        return list(self.pairs.get((*stream, *(getattr(row, name) for name in _OWN)), {}).values())

    def rate(self, name: str, factor: float) -> float | None:
        """A method's rate times ``factor``, as `_stream_cells.rate` has it."""
        usual = self.rates[name]
        return None if usual is None else float(f"{factor * usual:.6g}")


def gain(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> float:
    """By how many points a cell is above the source network."""
    if not pair[0]["sums"]:
        return 100 * float(np.nanmean(np.array(pair[0]["cells"], float) - np.array(pair[1]["cells"], float)))
    taken = score("miou", ())
    mine, theirs = (np.nanmean([taken(one.sum(0)) for one in unpacked(note)]) for note in pair)
    return 100 * float(mine - theirs)


def interval(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], kind: str) -> tuple[float, float, float]:
    """The difference in points with its 95 % interval, the orders pooled; NaN where frames are not kept."""
    if not all(one["sums"] for pair in pairs for one in pair):
        return fmean(map(gain, pairs)), np.nan, np.nan
    sides = [_images([pair[side] for pair in pairs], kind) for side in (0, 1)]
    drawn = bootstrap([(sides[0], sides[1])], score("miou", ()), resamples=RESAMPLES)
    return 100 * drawn.gain, 100 * drawn.low, 100 * drawn.high


def _images(notes: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Images]:
    """The frames of one side by domain; those that several orders show are added up."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for note in notes:
        for domain, sums in enumerate(unpacked(note)):
            own = found.setdefault(str(domain), {})
            for place, block in enumerate(block_sums(sums, BLOCKS.get(kind, 1))):
                name = f"{note['shown']}/{place}"
                own[name] = own.get(name, 0) + block
    return {domain: Images(tuple(own), np.stack(list(own.values()))) for domain, own in found.items()}


def cells_of(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], kind: str) -> list[str]:
    """What stands in a row under `HEAD`; the mean is bold where both tests are clear on six orders."""
    gains = [gain(pair) for pair in pairs]
    mean, low, high = interval(pairs, kind)
    won, lost = sum(one > 0 for one in gains), sum(one < 0 for one in gains)
    p = sign_test(won, lost)
    text = _written((mean, low, high))
    if len(pairs) >= MOST_ORDERS and p <= CLEAR and low * high > 0 and low * mean > 0:
        text = f"**{text}**"
    worst = min(float(rounds(pair).min()) for pair in pairs)
    window = _mean_apart(pairs, "worst_window")
    known = [100 * (one["known"][1] - one["known"][0]) for one, _ in pairs if one["known"]]
    counts = [sum(one["alarms"].get(f"alarms_{what}", 0) for one, _ in pairs) for what in ("true", "false", "missed")]
    alarms = ", ".join(map(str, counts)) if pairs[0][0]["guard"] else "–"
    ends = f"{fmean(known):+.2f}" if len(known) == len(pairs) else "–"
    return [str(len(pairs)), text, f"{won}/{len(pairs)}, {p:.3f}", f"{worst:+.2f}", window, ends, alarms]


def rounds(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> np.ndarray:
    """The points of each round less the source network's, means over domains."""
    apart = np.array(pair[0]["cells"], float) - np.array(pair[1]["cells"], float)
    means: np.ndarray = 100 * np.nanmean(apart, axis=1)
    return means


def _mean_apart(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], name: str) -> str:
    known = [100 * (one[name] - base[name]) for one, base in pairs if one[name] is not None and base[name] is not None]
    return f"{fmean(known):+.2f}" if len(known) == len(pairs) else "–"


def table(
    found: Found,
    heads: Sequence[str],
    rows: Sequence[Row],
    streams: Sequence[Key],
    control: tuple[str, Callable[[Row], Row]] | None = None,
) -> list[str]:
    """A table of those rows and streams of which a cell is there; a line that says so without any.

    With a ``control``, its name and what gives the control of a row, a column has the difference to it, over the orders
    that both have, and in how many of them the row is above it.
    """
    last = [] if control is None else [f"less {control[0]} [95 %], won"]
    lines = [f"| {' | '.join([*heads, 'stream', *HEAD, *last])} |"]
    lines.append("|" + "---|" * (len(heads) + 1) + "---:|" * len([*HEAD, *last]))
    for row in rows:
        for stream in streams:
            if pairs := found.of(stream, row):
                own = [*row.labels, called(stream), *cells_of(pairs, stream[0])]
                if control is not None:
                    base = {note["order"]: note for note, _ in found.of(stream, control[1](row))}
                    both = [
                        (note, base[note["order"]]) for note, _ in pairs if base.get(note["order"], note) is not note
                    ]
                    own.append(_apart(both, stream[0]) if both else "–")
                lines.append(f"| {' | '.join(own)} |")
    return lines if len(lines) > 2 else ["Nothing is measured yet."]


def _apart(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], kind: str) -> str:
    """The difference of the cells of each pair with its interval, and in how many the first is above the second."""
    won = sum(gain(pair) > 0 for pair in pairs)
    return f"{_written(interval(pairs, kind))}, {won}/{len(pairs)}"


def _written(found: tuple[float, float, float]) -> str:
    """A difference with its interval, where it has one."""
    mean, low, high = found
    return f"{mean:+.2f}" if np.isnan(low) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def called(stream: Key) -> str:
    """The name of a stream, with its rounds and the source network where they are not the usual ones."""
    kind, many, images, source = stream
    size = "" if kind in RECIPES or (many, images) == (3, 6) else f", {many} rounds of {images}"
    return f"{kind}{size}" + (f", {source}" if source else "")


def _usual(found: Found, factors: Sequence[float] = (1.0,)) -> list[Row]:
    """Each method at these factors of its rate, without a guard and with one."""
    plan = [(name, factor) for factor in factors for name in METHODS if factor == 1 or found.rates[name]]
    return [
        Row((name, f"x{factor:g}", guard or "–"), name, found.rate(name, factor), guard)
        for name, factor in plan
        for guard in ("", "all")
    ]


def blocks(recorded: Sequence[Record]) -> dict[str, str]:
    """The tables in Markdown, by the name of their place in ``docs/benchmarks/streams.md``."""
    found = Found(recorded)
    drawn = [one for one in found.streams if one[0] in STREETS and not one[3]]
    real = [one for one in found.streams if one[0] in RECIPES and not one[3]]
    further = [one for one in found.streams if one[3]]
    heads = ("method", "rate", "guard")
    parts = [
        Row((name, f"x{factor:g}", guard or "–"), name, found.rate(name, factor), guard)
        for name in ("tent", "dose")
        for factor in (1.0, 10.0)
        for guard in ("", *GUARDS)
    ]
    dose = [Row((variant or "as it is",), "dose", found.rate("dose", 1.0), "", variant) for variant in ("", *VARIANTS)]
    pace = {name: every for name, every in paced().items() if every > 1}
    slow = [Row((name, str(n)), name, found.rate(name, 1.0), every=n) for name, own in pace.items() for n in (1, own)]
    return {
        "streams": "\n".join([*table(found, heads, _usual(found, (1.0, 10.0, 0.1)), drawn), "", *_ends(found, drawn)]),
        "streams_guard": "\n".join(table(found, heads, parts, drawn, ("all", lambda row: replace(row, guard="all")))),
        "streams_dose": "\n".join(table(found, ("DoSe",), dose, drawn, ("as it is", lambda _: dose[0]))),
        "streams_frame_rate": "\n".join(table(found, ("method", "adapts on every"), slow, drawn)),
        "streams_rates": "\n".join([*_sensitivity(found, drawn), "", *_search(recorded)]),
        "streams_camvid": "\n".join(table(found, heads, _usual(found), real)),
        "streams_further": "\n".join(table(found, heads, _usual(found), further)),
    }


def _ends(found: Found, drawn: Sequence[Key]) -> list[str]:
    """The scores of the source networks, and whether the goal of the guard is met."""
    own = [one for one in found.records if one.notes["method"] == "source" and stream_of(one.notes) in drawn]
    source = list({key(one.notes): 100 * (one.value or 0) for one in own}.values())
    lines = [f"The source networks: {min(source):.1f} to {max(source):.1f} on {len(source)} streams."] if source else []
    kept = [pair for at, each in found.pairs.items() if at[4 + _OWN.index("guard")] == "all" for pair in each.values()]
    worst = min((float(rounds(pair).min()) for pair in kept), default=0.0)
    return [*lines, "", f"figure guarded_worst_round_points {worst:.2f} goal >={-ALLOWED}"]


def _sensitivity(found: Found, drawn: Sequence[Key]) -> list[str]:
    """The mean without a guard at each factor of the rate, with the number of orders, over all drawn streams."""
    lines = ["| method, no guard | rate | " + " | ".join(f"x{one:g}" for one in FACTORS) + " |"]
    lines.append("|---|---:|" + "---:|" * len(FACTORS))
    for name, usual in found.rates.items():
        if usual is None:
            continue
        cells = []
        for factor in FACTORS:
            row = Row((), name, found.rate(name, factor))
            gains = [gain(pair) for stream in drawn for pair in found.of(stream, row)]
            cells.append(f"{fmean(gains):+.2f} ({len(gains)})" if gains else "–")
        lines.append(f"| {name} | {usual:g} | {' | '.join(cells)} |")
    return lines


def searches(recorded: Sequence[Record]) -> dict[str, dict[float, list[float]]]:
    """Method -> factor of its default rate -> the scores of the orders searched."""
    scores: dict[str, dict[float, list[float]]] = {}
    for one in recorded:
        if one.metric != "lr" and one.notes["source"] == "search" and (usual := default(one.notes["method"])):
            factor = float(f"{one.notes['lr'] / usual:.3g}")
            scores.setdefault(one.notes["method"], {}).setdefault(factor, []).append(one.value or 0.0)
    return scores


def best(scores: Mapping[float, Sequence[float]]) -> float | None:
    """The factor with the highest mean, of equal ones the nearest to 1; None while one lacks an order."""
    means = {factor: fmean(own) for factor, own in scores.items() if len(own) == len(SEARCHED)}
    if set(means) != set(TRIED):
        return None
    return max(means, key=lambda factor: (means[factor], -abs(np.log(factor))))


def _search(recorded: Sequence[Record]) -> list[str]:
    """What the search of the rates found; a line that says so when there was none."""
    scores, frozen = searches(recorded), rates(recorded)
    if not frozen:
        return ["No search of rates is recorded: the rates are the methods' defaults."]
    lines = ["| method | default | " + " | ".join(f"x{one:g}" for one in TRIED) + " | chosen |"]
    lines.append("|---|---:|" + "---:|" * len(TRIED) + "---:|")
    for name, lr in frozen.items():
        own = [f"{100 * fmean(scores[name][one]):.2f}" if one in scores.get(name, {}) else "–" for one in TRIED]
        usual = default(name) or 1.0
        best = "the default" if np.isclose(lr, usual) else f"{lr:g}"
        edge = ", at the end of the grid" if not TRIED[0] * usual * 1.01 < lr < TRIED[-1] * usual * 0.99 else ""
        lines.append(f"| {name} | {usual:g} | {' | '.join(own)} | {best}{edge} |")
    return lines
