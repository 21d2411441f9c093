"""Milliseconds of the networks that ``studies/pruning_beds`` made, each in turns with the dense one it came from.

One image from input to classes at full size, in onnxruntime on one thread, at the bed's size of training and at a
camera's 360x480. Most channels there are single filters (``round_to: 1``), so that criteria are compared as in their
papers: the table shows what such widths save in time. What is measured goes to ``benchmarks/records/bed_latency.jsonl``
cell by cell, so that a stopped run goes on; without runs the table is printed from there.

    python benchmarks/bed_latency.py --cells 'runs/beds/streets/cells/pruned_*,removed=0.5,*'
"""

import argparse
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from statistics import fmean, stdev

import torch

import hardy
from hardy import records
from hardy.engine.run_folder import origin_of
from hardy.ops import cost
from hardy.records import Record
from hardy.timing.bench import compare
from hardy.timing.hardware import fingerprint

STORE = Path(__file__).parent / "records" / "bed_latency.jsonl"
CAMERA = (360, 480)


def measure(folder: Path, size: tuple[int, int], axes: dict[str, str]) -> list[Record]:
    """The records of one pruned network against the dense one, at one size."""
    made = origin_of(folder).recipe
    assert made is not None
    assert made.network.run is not None
    dense, small = hardy.load(made.network.run), hardy.load(folder)
    one = compare(dense, small, size=size, runtime="onnxruntime", runs=40, threads=1)
    values = {"gmacs_before": cost.gmacs(dense, size), "gmacs_after": cost.gmacs(small, size)}
    values |= {"ms_before": one.before_p50, "ms_after": one.after_p50, "ms_ratio": one.ratio}
    versions = {name: str(value) for name, value in fingerprint().to_json().items()}
    notes = {**axes, "size": f"{size[0]}x{size[1]}", "threads": 1}
    return [Record("", "bench", (), "cost", int(axes["seed"]), k, v, {}, versions, notes) for k, v in values.items()]


def axes_of(folder: Path) -> dict[str, str]:
    """The bed and the axes of a cell's folder, ``BED/cells/stage,axis=value,...``."""
    stage, *words = folder.name.split(",")
    return {"bed": folder.absolute().parents[1].name, "stage": stage, **dict(word.split("=", 1) for word in words)}


def sizes_of(folder: Path) -> list[tuple[int, int]]:
    """The sizes of images for which a cell's network is timed."""
    made = origin_of(folder).recipe
    assert made is not None
    assert made.data.crop is not None, "every bed has a size of training"
    return [made.data.crop, CAMERA]


def text(found: Sequence[Record]) -> str:
    """The table in Markdown: for each method and size the mean and the spread over the seeds."""
    lines = [
        "| bed | network | pruned by | GMACs removed | size | seeds | share of GMACs | share of time | dense ms |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    keys = ("notes.bed", "notes.stage", "notes.method", "notes.removed", "notes.size")
    for (bed, stage, method, removed, size), group in records.group(found, *keys):
        values: dict[str, list[float]] = {}
        for one in group:
            values.setdefault(one.metric, []).append(one.value or 0.0)
        work = [a / b for a, b in zip(values["gmacs_after"], values["gmacs_before"], strict=True)]
        ratio = values["ms_ratio"]
        spread = f" ± {stdev(ratio):.2f}" if len(ratio) > 1 else ""
        lines.append(
            f"| {bed} | {stage.removeprefix('pruned_')} | {method} | {float(removed):.0%} | {size} | {len(ratio)} | "
            f"{fmean(work):.2f} | {fmean(ratio):.2f}{spread} | {fmean(values['ms_before']):.2f} |"
        )
    if found:
        made = found[-1].versions
        lines += ["", f"One thread of {made['cpu']}, onnxruntime {made['onnxruntime']}, torch {made['torch']}."]
    return "\n".join(lines)


def _key(axes: Mapping[str, str], size: str) -> tuple[str, ...]:
    return (*(axes[name] for name in ("bed", "stage", "method", "removed", "seed")), size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", metavar="GLOB", help="folders of pruned cells")
    parser.add_argument("--quick", action="store_true", help="only the table of what is recorded")
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = records.read(STORE) if STORE.exists() else []
    done = {_key(one.notes, one.notes["size"]) for one in known}
    for folder in [] if given.quick or not given.cells else map(Path, sorted(glob(given.cells))):
        axes = axes_of(folder)
        for size in sizes_of(folder) if (folder / "network.json").exists() else ():
            if _key(axes, f"{size[0]}x{size[1]}") not in done:
                new = measure(folder, size, axes)
                records.append(STORE, new)
                print(f"{folder.name} {size[0]}x{size[1]}: {new[-1].value:.2f} of the time", flush=True)
    print(text(records.read(STORE) if STORE.exists() else []))


if __name__ == "__main__":
    main()
