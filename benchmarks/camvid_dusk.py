"""The main job on real streets: prune CamVid networks by each criterion, measure a sequence they never saw.

Every cell is one run of ``hardy train`` or ``hardy prune`` on a recipe of ``recipes/camvid_dusk_*.yaml``: networks x
unseen sequences x seeds x (dense, dense without photometric augmentation, criterion x share removed). A finished cell
is kept and not run again; a stopped one goes on where it stopped. What the cells measured is gathered in
``benchmarks/records/camvid_dusk.jsonl``, from which the tables are made.

    python benchmarks/camvid_dusk.py --jobs 2                        # all of Fast-SCNN, dusk unseen
    python benchmarks/camvid_dusk.py --network swiftnet --unseen 0006R0 --seeds 0
    python benchmarks/camvid_dusk.py --table                         # only the tables, from the records
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

from hardy import records
from hardy.records import Record

ROOT = Path(__file__).parents[1]
STORE = ROOT / "benchmarks" / "records" / "camvid_dusk.jsonl"
SEQUENCES = ("0001TP", "0006R0", "0016E5", "Seq05VD")
CRITERIA = ("magnitude", "random", "taylor", "ior")
RENAMED = {"magnitude": "l2"}
"""Criteria by the name they have in the records, which is older than the one that they go by now."""


@dataclass(frozen=True)
class Cell:
    """One run: ``method`` is ``dense``, ``plain`` (dense without photometric augmentation) or a criterion."""

    network: str
    unseen: str
    seed: int
    method: str
    removed: float = 0.0

    def folder(self, out: Path) -> Path:
        """Where its run lies below ``out``."""
        share = f"-{self.removed:.0%}".rstrip("%") if self.removed else ""
        return out / self.network / self.unseen / f"{self.method}{share}-s{self.seed}"

    def command(self, out: Path) -> list[str]:
        """The command line that runs this cell."""
        sources = ",".join(f"camvid/{name}" for name in SEQUENCES if name != self.unseen)
        common = [
            f"data.sources=[{sources}]",
            f"data.unseen=[camvid/{self.unseen}]",
            f"run.seed={self.seed}",
            f"run.folder={self.folder(out)}",
        ]
        hardy = [sys.executable, "-m", "hardy"]
        if self.removed:
            dense = Cell(self.network, self.unseen, self.seed, "dense").folder(out)
            recipe = f"recipes/camvid_dusk_{RENAMED.get(self.method, self.method)}.yaml"
            return [*hardy, "prune", recipe, f"network.run={dense}", f"prune.ratio={self.removed}", *common]
        plain = ["data.photometric=0"] if self.method == "plain" else []
        named = [f"network.name={self.network}"]
        return [*hardy, "train", "recipes/camvid_dusk_dense.yaml", *named, *plain, *common]


def cells(
    network: str, unseen: list[str], seeds: list[int], removed: list[float], methods: list[str]
) -> Iterator[Cell]:
    """The cells in the order they are run: the dense networks first, then what is pruned from them."""
    yield from (Cell(network, away, seed, "dense") for away, seed in product(unseen, seeds))
    for away, share, seed, method in product(unseen, removed, seeds, methods):
        yield Cell(network, away, seed, method, share)
    yield from (Cell(network, away, seed, "plain") for away, seed in product(unseen, seeds))


def run(cell: Cell, out: Path, before: "Future[bool] | None" = None) -> bool:
    """Run ``cell`` after ``before`` unless it is finished; True when it is finished now."""
    if before is not None and not before.result():
        return False
    if (cell.folder(out) / "network.json").exists():
        return True
    cell.folder(out).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with (cell.folder(out) / "output.txt").open("w") as log:
        code = subprocess.run(
            cell.command(out), cwd=ROOT, env=environment, stdout=log, stderr=log, check=False
        ).returncode
    print(f"{cell}: {'done' if code == 0 else f'FAILED, see {cell.folder(out)}/output.txt'}", flush=True)
    return code == 0


def gather(everything: list[Cell], out: Path) -> None:
    """Rewrite the store with the numbers of all finished cells, old ones of other cells kept."""
    mine = {
        json.dumps(asdict(cell), sort_keys=True) for cell in everything if (cell.folder(out) / "network.json").exists()
    }
    known = records.read(STORE) if STORE.exists() else []
    kept = [record for record in known if json.dumps(record.notes["cell"], sort_keys=True) not in mine]
    for text in sorted(mine):
        cell = Cell(**json.loads(text))
        measured = records.read(cell.folder(out) / "records.jsonl")
        kept += [
            replace(record, notes={**record.notes, "cell": asdict(cell)})
            for record in measured
            if record.stage in ("train", "prune") and not record.metric.startswith("iou/")
        ]
    temporary = STORE.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    records.append(temporary, kept)
    if kept:
        temporary.replace(STORE)


def table(found: list[Record], network: str, unseen: str) -> list[str]:
    """The table of one network and one unseen sequence, in Markdown."""
    rows: dict[tuple[str, float], dict[str, list[float]]] = {}
    for record in found:
        cell = Cell(**record.notes["cell"])
        if (cell.network, cell.unseen) == (network, unseen) and record.value is not None:
            name = f"{record.target}" if record.metric == "miou" else record.metric
            rows.setdefault((cell.method, cell.removed), {}).setdefault(name, []).append(record.value)
    names = ("filters left", "mIoU source-val %", "mIoU unseen %", "seeds", "parameters", "GMACs", "time, onnxruntime")
    lines = [f"| network | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for (method, removed), values in sorted(rows.items(), key=lambda row: (row[0][1], _order(row[0][0]))):
        name = {"plain": "dense, no photometric augmentation"}.get(method, method)
        scores = [_spread(values["intra"]), _spread(values["unseen"]), str(len(values["unseen"]))]
        cost = _cost(values) if removed else _dense_cost(rows)
        lines.append("| " + " | ".join([name, f"{1 - removed:.0%}", *scores, *cost]) + " |")
    return lines


def duels(found: list[Record], network: str, unseen: str) -> list[str]:
    """In how many seeds IoR ends above each other criterion on the unseen sequence, from the same dense network."""
    scores: dict[tuple[float, str], dict[int, float]] = {}
    for record in found:
        cell = Cell(**record.notes["cell"])
        if (cell.network, cell.unseen, record.target) == (network, unseen, "unseen") and record.value is not None:
            scores.setdefault((cell.removed, cell.method), {})[cell.seed] = record.value
    lines = []
    for removed in sorted({share for share, method in scores if method == "ior"}):
        mine = scores[removed, "ior"]
        for method in [name for name in CRITERIA if name != "ior" and (removed, name) in scores]:
            other = scores[removed, method]
            gains = [100 * (mine[seed] - other[seed]) for seed in sorted(mine.keys() & other.keys())]
            won = f"above {method} in {sum(gain > 0 for gain in gains)} of {len(gains)} seeds"
            lines.append(f"- {1 - removed:.0%} left: ior {won}, by {fmean(gains):+.1f} points on average")
    return lines


def _cost(values: dict[str, list[float]]) -> list[str]:
    """Parameters and GMACs, means over the seeds, and the median time as a share of the dense network's."""
    pairs = zip(
        values["milliseconds_p50_onnxruntime_after"], values["milliseconds_p50_onnxruntime_before"], strict=True
    )
    share = fmean(after / before for after, before in pairs)
    return [f"{fmean(values['parameters_after']):,.0f}", f"{fmean(values['gmacs_after']):.3f}", f"{share:.2f}"]


def _dense_cost(rows: dict[tuple[str, float], dict[str, list[float]]]) -> list[str]:
    """The cost of the dense network, which every pruned cell measured before it pruned."""
    known = [values for values in rows.values() if "gmacs_before" in values]
    return (
        [f"{known[0]['parameters_before'][0]:,.0f}", f"{known[0]['gmacs_before'][0]:.3f}", "1"] if known else [""] * 3
    )


def _order(method: str) -> int:
    return ("dense", "plain", *CRITERIA).index(method)


def _spread(values: list[float]) -> str:
    return f"{100 * fmean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def text(found: list[Record]) -> str:
    """Every table and its duels in Markdown; ``docs/benchmarks/camvid_dusk.md`` holds exactly this."""
    parts = []
    for network, unseen in dict.fromkeys((r.notes["cell"]["network"], r.notes["cell"]["unseen"]) for r in found):
        away = "dusk, 0001TP" if unseen == "0001TP" else unseen
        rows = [
            f"**{network}, unseen: {away}**",
            "",
            *table(found, network, unseen),
            "",
            *duels(found, network, unseen),
        ]
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="fast_scnn")
    parser.add_argument("--unseen", nargs="+", default=["0001TP"], choices=SEQUENCES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--removed", nargs="+", type=float, default=[0.5, 0.7])
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA), choices=CRITERIA)
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "camvid_dusk")
    parser.add_argument("--table", action="store_true", help="only print the tables of what is recorded")
    parser.add_argument("--quick", action="store_true", help="the same as --table: the cells take an hour")
    given = parser.parse_args()
    wanted = list(cells(given.network, given.unseen, given.seeds, given.removed, given.criteria))
    if not (given.table or given.quick):
        with ThreadPoolExecutor(given.jobs) as pool:
            started: dict[Cell, Future[bool]] = {}
            for cell in wanted:
                # Cells start in their order, so the dense one that a pruned one waits for has started before it.
                before = started.get(replace(cell, method="dense", removed=0.0)) if cell.removed else None
                started[cell] = pool.submit(run, cell, given.out, before)
            for future in as_completed(started.values()):
                future.result()
                gather(wanted, given.out)
    found = records.read(STORE) if STORE.exists() else []
    print(text(found))


if __name__ == "__main__":
    main()
