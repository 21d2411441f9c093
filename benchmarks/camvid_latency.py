"""Milliseconds of the networks that ``camvid_dusk.py`` made, at the camera's own 360x480, one thread.

Each pruned network is timed in turns with the dense one it came from, in one process; run it on a quiet machine. What
is measured goes to ``benchmarks/records/camvid_latency.jsonl``; without the runs the table is printed from there.

    python benchmarks/camvid_latency.py [--seed 0] [--network fast_scnn] [--table]
"""

import argparse
from pathlib import Path

import hardy
from camvid_dusk import CRITERIA, ROOT, Cell
from hardy import records
from hardy.ops import cost
from hardy.records import Record
from hardy.timing.bench import compare
from hardy.timing.hardware import fingerprint

STORE = ROOT / "benchmarks" / "records" / "camvid_latency.jsonl"
SIZE = (360, 480)


def measure(network: str, seed: int, out: Path) -> list[Record]:
    """Records of every finished pruned cell of ``seed`` against its dense one."""
    dense = hardy.load(Cell(network, "0001TP", seed, "dense").folder(out))
    whole = cost.gmacs(dense, SIZE)
    found = []
    for removed in (0.5, 0.7):
        for method in CRITERIA:
            folder = Cell(network, "0001TP", seed, method, removed).folder(out)
            if not (folder / "network.json").exists():
                continue
            small = hardy.load(folder)
            values = {"gmacs_before": whole, "gmacs_after": cost.gmacs(small, SIZE)}
            for runtime in ("onnxruntime", "eager"):
                one = compare(dense, small, size=SIZE, runtime=runtime, runs=40, threads=1)
                values |= {f"{runtime}_before": one.before_p50, f"{runtime}_after": one.after_p50}
                values |= {f"{runtime}_p95_after": one.after_p95, f"{runtime}_ratio": one.ratio}
            notes = {"network": network, "method": method, "removed": removed, "size": list(SIZE), "threads": 1}
            versions = {name: str(value) for name, value in fingerprint().to_json().items()}
            found += [Record("", "bench", (), "cost", seed, k, v, {}, versions, notes) for k, v in values.items()]
    return found


def text(found: list[Record]) -> str:
    """The table in Markdown; ``docs/benchmarks/camvid_latency.md`` holds exactly this."""
    names = ("filters left", "GMACs", "share of GMACs", "onnxruntime ms", "share of time", "eager ms", "share of time")
    lines = [f"| pruned by | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for (method, removed), group in records.group(found, "notes.method", "notes.removed"):
        v = {record.metric: record.value or 0.0 for record in group}
        row = [
            method,
            f"{1 - removed:.0%}",
            f"{v['gmacs_after']:.3f}",
            f"{v['gmacs_after'] / v['gmacs_before']:.2f}",
            f"{v['onnxruntime_after']:.2f}",
            f"{v['onnxruntime_ratio']:.2f}",
            f"{v['eager_after']:.1f}",
            f"{v['eager_ratio']:.2f}",
        ]
        lines.append("| " + " | ".join(row) + " |")
    if found:
        v = {record.metric: record.value or 0.0 for record in found}
        made = found[0].versions
        lines += [
            "",
            f"Dense: {v['gmacs_before']:.3f} GMACs, onnxruntime {v['onnxruntime_before']:.2f} ms, eager "
            f"{v['eager_before']:.1f} ms. One thread of {made['cpu']}, onnxruntime {made['onnxruntime']}, torch "
            f"{made['torch']}.",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="fast_scnn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "camvid_dusk")
    parser.add_argument("--table", action="store_true", help="only print the table of what is recorded")
    parser.add_argument("--quick", action="store_true", help="the same as --table: it needs the runs")
    given = parser.parse_args()
    if not (given.table or given.quick):
        found = measure(given.network, given.seed, given.out)
        STORE.unlink(missing_ok=True)
        records.append(STORE, found)
    print(text(records.read(STORE) if STORE.exists() else []))


if __name__ == "__main__":
    main()
