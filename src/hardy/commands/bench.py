"""``hardy bench``: milliseconds and memory on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hardy import records
from hardy.commands._frame import provenance
from hardy.commands._print import say, show_rows
from hardy.engine import artefact
from hardy.engine.bench import Row, bench
from hardy.engine.hardware import fingerprint
from hardy.ops import cost
from hardy.records import Record

__all__ = ["bench", "run"]


def run(
    folder: Path, *, against: Path | None, size: tuple[int, int], runtimes: Sequence[Any], **options: Any
) -> list[Row]:
    """Measure the network in ``folder``, beside the one in ``against`` in turns, print a table and record it."""
    network = artefact.load(folder)
    other = artefact.load(against) if against else None
    rows = bench(network, size=size, runtime=runtimes, against=other, **options)
    names = {"network": str(folder), "against": str(against)}
    columns = ["network", "runtime", "batch", "threads", "p50 ms", "p95 ms", "least ms", "memory MiB", "of", "ratio"]
    lines = [
        [names[row.network], row.runtime, str(row.batch), str(row.threads), f"{row.p50:.2f}", f"{row.p95:.2f}",
         f"{row.least:.2f}", "–" if row.memory is None else f"{row.memory:.0f}", row.memory_of,
         "–" if row.ratio is None else f"{row.ratio:.3f}"]
        for row in rows
    ]  # fmt: skip
    shape = f"{size[0]}x{size[1]}"
    show_rows(f"{shape}, times per batch; ratio: median over pairs of runs to the other's", columns, lines)
    for name, each in ((folder, network), (against, other)):
        if each is not None:
            say(f"{name}: {cost.parameters(each):,} parameters, {cost.gmacs(each, size):.3f} GMACs at {shape}")
    say(str(fingerprint()))
    versions = provenance()
    kept = [row for row in rows if row.network == "network"]
    triples = [(row, f"milliseconds_{name}", getattr(row, name)) for row in kept for name in ("p50", "p95", "least")]
    records.append(
        folder / "records.jsonl",
        [
            Record("", "bench", (), row.runtime, 0, metric, value, {}, versions, _notes(row))
            for row, metric, value in triples
        ],
    )
    return rows


def _notes(row: Row) -> dict[str, Any]:
    return {"size": list(row.size), "batch": row.batch, "threads": row.threads, "runs": row.runs, "device": row.device}
