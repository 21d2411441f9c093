"""Every light network: what it costs, how long an image takes, and what it reaches on CamVid in equal steps.

    python benchmarks/light_networks.py --jobs 2              # train what is missing, measure, table and plot
    python benchmarks/light_networks.py --seeds 0 --steps 100 # a short look
    python benchmarks/light_networks.py --table               # the table from the records

Training is the study ``studies/light_networks.yaml``, resumed where it stopped. Networks trained on the published split
are measured on its 233 test images, those that never saw dusk on the dusk sequence. Milliseconds are those of one image
of 360x480 from float RGB to uint8 classes, one thread, all networks in turns in one process, in eager PyTorch and in
onnxruntime. All goes to ``benchmarks/records/light_networks.jsonl``; the plot to ``runs/light_networks.html``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import hardy
from hardy import recipe, records
from hardy.networks.base import Network
from hardy.ops import cost
from hardy.records import Record
from hardy.report.pareto import Point, figure, front, write
from hardy.studies.study import read, value_name
from hardy.timing.clock import draw, interleave, prepare, threads_set
from hardy.timing.hardware import fingerprint

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "studies" / "light_networks.yaml"
RECIPE = ROOT / "recipes" / "camvid_light.yaml"
STORE = ROOT / "benchmarks" / "records" / "light_networks.jsonl"
PAGE = ROOT / "runs" / "light_networks.html"
TRAINED = ROOT / "runs" / "studies" / "light_networks"
SIZE = (360, 480)
RUNTIMES = ("eager", "onnxruntime")
SPLITS = {"published split": ("camvid/all", ("test",)), "dusk unseen": ("camvid/0001TP", ())}
"""For each way to train: what is measured, and which splits of it."""
PAIRS = {
    "LinkNet": "smp LinkNet",
    "SegFormer-B0": "smp SegFormer-B0",
    "DeepLabV3+ ResNet-18": "smp DeepLabV3+ ResNet-18",
}
"""Hardy's networks and those of segmentation_models_pytorch of the same kind."""


def networks() -> dict[str, Mapping[str, Any]]:
    """Label -> name and options of every network of the study."""
    study, _ = read(STUDY)
    values = study.grid["network"].values
    assert isinstance(values, dict), "the study names its networks"
    return {
        name: {key.removeprefix("network."): value for key, value in chosen.items()} for name, chosen in values.items()
    }


def built(chosen: Mapping[str, Any]) -> Network:
    """The network in evaluation mode, without what only training needs."""
    options = {key: value for key, value in chosen.items() if key not in {"name", "aux", "detail"}}
    return hardy.create(chosen["name"], classes="camvid11", **options).eval()


def train(given: argparse.Namespace) -> None:
    """The cells of the study that are missing."""
    chosen = [f"--only=seed={','.join(map(str, given.seeds))}"]
    chosen += [f"--only=network={','.join(given.networks)}"] if given.networks else []
    chosen += [f"--only=data={','.join(given.data)}"] if given.data else []
    overrides = [f"optim.steps={given.steps}"] if given.steps else []
    command = [sys.executable, "-m", "hardy", "study", str(STUDY), *overrides, "--jobs", str(given.jobs), *chosen]
    own = os.pathsep.join([str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": own})


def scores(known: Sequence[Record]) -> list[Record]:
    """The mean IoU of every trained network that is not measured yet."""
    done = {(one.notes["network"], one.notes["data"], one.seed) for one in known if one.stage == "evaluate"}
    named = {value_name(one): one for one in (*networks(), *SPLITS)}
    size = recipe.read(RECIPE).data.size
    found = []
    store = TRAINED / "records.jsonl"
    cells = {one.notes["cell"]: one for one in (records.read(store) if store.exists() else [])}
    for cell, made in cells.items():
        network, data = (named[made.notes["axes"][axis]] for axis in ("network", "data"))
        if (network, data, made.seed) in done:
            continue
        domain, splits = SPLITS[data]
        table = hardy.evaluate(
            hardy.load(TRAINED / "cells" / cell),
            [domain],
            splits=splits,
            size=size,
            device="cpu",
            datasets={"camvid": {"domains": "all"}} if domain.endswith("/all") else None,
        )
        notes = {"network": network, "data": data, "steps": made.cost["train_steps"]}
        cost_of = {"train_seconds": made.cost["train_seconds"]}
        value = table.summary()["unseen"]
        one = Record(
            made.recipe, "evaluate", made.sources, domain, made.seed, "miou", value, cost_of, made.versions, notes
        )
        records.append(STORE, [one])
        found.append(one)
    return found


def milliseconds(chosen: Mapping[str, Mapping[str, Any]], runs: int) -> list[Record]:
    """Parameters, GMACs and milliseconds of every network, in turns."""
    found, spent = [], {}
    images = draw(1, SIZE, torch.device("cpu"))
    made = {name: built(each) for name, each in chosen.items()}
    with tempfile.TemporaryDirectory() as folder, threads_set(1), torch.inference_mode():
        for runtime in RUNTIMES:
            ready = [
                prepare(network, runtime, images, "classes", Path(folder, f"{runtime}{place}")).run
                for place, network in enumerate(made.values())
            ]
            spent[runtime] = interleave(ready, runs, 2, torch.device("cpu"))
    versions = {name: str(value) for name, value in fingerprint().to_json().items()}
    for place, (called, network) in enumerate(made.items()):
        values = {"parameters": float(cost.parameters(network)), "gmacs": cost.gmacs(network, SIZE)}
        for runtime in RUNTIMES:
            p50, p95 = np.percentile(spent[runtime][place], [50, 95])
            values |= {f"{runtime}_p50": float(p50), f"{runtime}_p95": float(p95)}
        for ours, theirs in PAIRS.items():
            if called == ours and theirs in made:
                other = list(made).index(theirs)
                for runtime in RUNTIMES:
                    values[f"{runtime}_ratio"] = float(np.median(spent[runtime][place] / spent[runtime][other]))
        notes = {"network": called, "size": list(SIZE), "threads": 1, "runs": runs}
        found += [
            Record("", "bench", (), "cost", 0, name, value, {}, versions, notes) for name, value in values.items()
        ]
    return found


def rows(found: Sequence[Record]) -> list[dict[str, Any]]:
    """One mapping a network: its costs, and for each way to train the scores of its seeds."""
    made: dict[str, dict[str, Any]] = {}
    for one in found:
        row = made.setdefault(one.notes["network"], {"name": one.notes["network"]})
        if one.stage == "bench":
            row[one.metric] = one.value
        else:
            row.setdefault(one.notes["data"], {})[one.seed] = 100 * (one.value or 0.0)
    return sorted((row for row in made.values() if "gmacs" in row), key=lambda row: row["onnxruntime_p50"])


def points(table: Sequence[Mapping[str, Any]], data: str, runtime: str = "onnxruntime") -> list[Point]:
    """The networks that have a score, for the plot."""
    return [
        Point(
            row["name"],
            row[f"{runtime}_p50"],
            fmean(row[data].values()),
            "segmentation_models_pytorch" if row["name"].startswith("smp ") else "Hardy",
        )
        for row in table
        if data in row
    ]


def spread(values: Mapping[int, float] | None) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "–"
    several = list(values.values())
    return f"{fmean(several):.1f}" + (f" ± {stdev(several):.1f}" if len(several) > 1 else "")


def trained(found: Sequence[Record]) -> str:
    """How long the networks were trained, and on what."""
    scored = [one for one in found if one.stage == "evaluate"]
    if not scored:
        return ""
    steps, seeds = {one.notes["steps"] for one in scored}, {one.seed for one in scored}
    machines = {one.versions["cpu"] for one in scored if "cpu" in one.versions}
    return (
        f"Trained for {' or '.join(map(str, sorted(steps)))} steps, seeds {', '.join(map(str, sorted(seeds)))}"
        + (f", on {' and '.join(sorted(machines))}" if machines else "")
        + "."
    )


def text(found: Sequence[Record]) -> str:
    """The table in Markdown; ``docs/benchmarks/light_networks.md`` holds exactly this."""
    table = rows(found)
    best = {data: {one.name for one in front(points(table, data))} for data in SPLITS}
    names = (
        "parameters",
        "GMACs",
        "onnxruntime ms p50 / p95",
        "eager ms p50 / p95",
        "mIoU test %",
        "mIoU dusk unseen %",
    )
    lines = [f"| network | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for row in table:
        marks = {data: "**" if row["name"] in best[data] else "" for data in SPLITS}
        cells = [
            row["name"],
            f"{row['parameters']:,.0f}",
            f"{row['gmacs']:.2f}",
            f"{row['onnxruntime_p50']:.1f} / {row['onnxruntime_p95']:.1f}",
            f"{row['eager_p50']:.0f} / {row['eager_p95']:.0f}",
            *(f"{marks[data]}{spread(row.get(data))}{marks[data]}" for data in SPLITS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Bold: on the Pareto front of score against milliseconds in onnxruntime. {trained(found)}".rstrip()]
    known = {row["name"]: row for row in table}
    for ours, theirs in PAIRS.items():
        if ours in known and theirs in known:
            one, other = known[ours], known[theirs]
            told = ", ".join(f"{data} {spread(one.get(data))} against {spread(other.get(data))}" for data in SPLITS)
            ratios = ", ".join(f"{runtime} {one[f'{runtime}_ratio']:.2f}" for runtime in RUNTIMES)
            lines.append(f"- {ours} against {theirs}: time {ratios}; mIoU {told}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="cells of the study at once")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", nargs="+", help="only these of the study")
    parser.add_argument("--data", nargs="+", choices=list(SPLITS), help="only one way to train")
    parser.add_argument("--steps", type=int, help="in place of the recipe's")
    parser.add_argument("--runs", type=int, default=20, help="timed images of each network")
    parser.add_argument("--no-train", action="store_true", help="measure what is trained")
    parser.add_argument("--no-time", action="store_true", help="leave the milliseconds as they are recorded")
    parser.add_argument("--table", action="store_true", help="only the table and the plot from the records")
    parser.add_argument("--quick", action="store_true", help="the same as --table")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT / "benchmarks"))
    known = records.read(STORE) if STORE.exists() else []
    if not (given.table or given.quick):
        if not given.no_train:
            train(given)
        known += scores(known)
        if not given.no_time:
            known = [one for one in known if one.stage != "bench"] + milliseconds(networks(), given.runs)
            STORE.unlink(missing_ok=True)
            records.append(STORE, known)
    print(text(known))
    table = rows(known)
    shown = [
        figure(points(table, data), title=f"CamVid, {data}", score="mIoU %", milliseconds="onnxruntime ms, 360x480")
        for data in SPLITS
        if points(table, data)
    ]
    if shown:
        write(PAGE, shown, title="Light networks on CamVid")
        print(f"\nplot: {PAGE}")


if __name__ == "__main__":
    main()
