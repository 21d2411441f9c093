"""``hardy bench``: milliseconds and memory of networks on this machine; ``hardy bench blocks``: the costs of blocks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hardy.commands.output.printing import keep_records, say, say_lineage, show_rows
from hardy.deployment.forms import AS_IT_IS
from hardy.device import pick
from hardy.engine import artefact
from hardy.engine.provenance import provenance
from hardy.engine.run_folder import origin_of
from hardy.errors import InputError
from hardy.ops import cost
from hardy.records import Record
from hardy.timing.bench import bench
from hardy.timing.block_costs import BlockCost, block_costs
from hardy.timing.clock import threads_set
from hardy.timing.hardware import fingerprint
from hardy.timing.rows import Row

__all__ = ["bench", "blocks", "check", "run"]

_COLUMNS = [
    "network",
    "form",
    "runtime",
    "batch",
    "threads",
    "p50 ms",
    "p95 ms",
    "least ms",
    "memory MiB",
    "of",
    "ratio",
    "to",
]


def run(
    folder: Path, *, against: Path | None, size: tuple[int, int], runtimes: Sequence[Any], **options: Any
) -> list[Row]:
    """Measure the network in ``folder``, in turns with the one in ``against``; print a table and record it.

    With ``options`` for another form, such as folded, both networks are also measured in that form.
    """
    network = artefact.load(folder)
    other = artefact.load(against) if against else None
    rows = bench(network, size=size, runtime=runtimes, against=other, **options)
    names = {"network": str(folder), "against": str(against)}
    columns, lines = _COLUMNS, [_line(row, names) for row in rows]
    if all(row.form == AS_IT_IS for row in rows):
        columns, *lines = ([line[0], *line[2:-1]] for line in (columns, *lines))
    shape = f"{size[0]}x{size[1]}"
    title = f"{shape}, times per batch, {rows[0].runs} runs after {rows[0].warm_up}; ratio: median over pairs of runs"
    show_rows(title, columns, lines)
    _show_forms(rows, names)
    for name, each in ((folder, network), (against, other)):
        if each is not None:
            say(f"{name}: {cost.parameters(each):,} parameters, {cost.gmacs(each, size):.3f} GMACs at {shape}")
            say_lineage(str(name), each)
    say(str(fingerprint()))
    versions, origin = provenance(), origin_of(folder)
    kept = [row for row in rows if row.network == "network"]
    new = [
        Record(origin.digest, "bench", origin.sources, _target(row), origin.seed, name, value, {}, versions, notes)
        for row in kept
        for notes in [_notes(row, against if row.against == "against" else None)]
        for name, value in _values(row, rows).items()
    ]
    keep_records(folder, new)
    return rows


def _values(row: Row, rows: Sequence[Row]) -> dict[str, float]:
    """Metric -> value of the records of ``row``, one of ``rows``."""
    found = {f"milliseconds_{name}": getattr(row, name) for name in ("p50", "p95", "least")}
    other = next((one for one in rows if (one.network, one.form) == ("against", AS_IT_IS) and _same(one, row)), None)
    if row.against == "against" and row.ratio is not None and other:
        found |= {"ratio": row.ratio, "milliseconds_p50_against": other.p50}
    return found


def _same(one: Row, other: Row) -> bool:
    return (one.runtime, one.batch) == (other.runtime, other.batch)


def _line(row: Row, names: Mapping[str, str]) -> list[str]:
    """The cells of a row of the table, under `_COLUMNS`."""
    return [
        names[row.network],
        row.form,
        row.runtime,
        str(row.batch),
        str(row.threads),
        f"{row.p50:.2f}",
        f"{row.p95:.2f}",
        f"{row.least:.2f}",
        "–" if row.memory is None else f"{row.memory:.0f}",
        row.memory_of,
        "–" if row.ratio is None else f"{row.ratio:.3f}",
        names.get(row.against or "–", row.against or "–"),
    ]


def _show_forms(rows: Sequence[Row], names: Mapping[str, str]) -> None:
    """Print the effects of folding and precision, and the timed region of each runtime and form."""
    for name, line in dict.fromkeys((names[row.network], line) for row in rows for line in row.notes):
        say(f"{name}: {line}")
    for what, timed in dict.fromkeys((f"{row.runtime}, {row.form}", row.timed) for row in rows):
        say(f"{what}: {timed}")


def _target(row: Row) -> str:
    return row.runtime if row.form == AS_IT_IS else f"{row.runtime}, {row.form}"


def check(*, blocks: bool, channels: int | None, others: bool) -> None:
    """Refuse options without effect: ``channels`` is only for blocks, and the ``others`` are only for networks."""
    if blocks and others:
        raise InputError("bench blocks takes only the options --size, --channels, --threads, --runs and --device")
    if channels is not None and not blocks:
        raise InputError(f"bench: --channels {channels} is only for hardy bench blocks; leave it out")


def blocks(*, size: tuple[int, int], channels: int, threads: int | None, runs: int, device: str) -> list[BlockCost]:
    """Print and return the cost of every block on a map with ``channels`` channels, at an eighth of ``size``."""
    cells = (max(1, size[0] // 8), max(1, size[1] // 8))
    with threads_set(threads):
        rows = block_costs(channels, cells, runs=runs, device=pick(device))
    plain = next(row for row in rows if row.name == "3x3 convolution")
    lines = [
        [
            row.name,
            f"{row.formula.weights:,}",
            f"{row.counted.weights:,}",
            f"{row.formula.macs / 1e6:,.1f}",
            f"{row.counted.macs / 1e6:,.1f}",
            f"{row.formula.macs / plain.formula.macs:.3f}",
            f"{row.moved / 1e6:.2f}",
            f"{row.milliseconds:.2f}",
            f"{row.milliseconds / plain.milliseconds:.3f}",
        ]
        for row in rows
    ]
    columns = [
        "block",
        "weights",
        "counted",
        "million MACs",
        "counted",
        "of 3x3",
        "million values moved",
        "ms",
        "of 3x3",
    ]
    show_rows(f"{channels} channels in and out, a map of {cells[0]}x{cells[1]}", columns, lines)
    say("weights and MACs by formula, then as counted; ms: median in PyTorch, measured in turns")
    say(str(fingerprint()))
    return rows


def _notes(row: Row, against: Path | None) -> dict[str, Any]:
    notes = {"size": list(row.size), "batch": row.batch, "threads": row.threads, "runs": row.runs, "device": row.device}
    notes |= {"against": str(against)} if against else {}
    return notes if row.form == AS_IT_IS else {**notes, "form": row.form, "folding": row.folding}
