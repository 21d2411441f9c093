"""``hardy demo``: the complete workflow on synthetic streets, in a few minutes on two cores and without any data files.

Fast-SCNN is trained on the domains ``sim`` and ``day``. Half of its filters are removed by their norm, by Taylor and by
IoR, each with the same recovery. All four networks are timed and measured on seven unseen domains, and the one pruned
by IoR is exported and proven. The numbers in the table are read from the runs' records.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hardy import records
from hardy.commands import export, prune, train
from hardy.commands.output.printing import percent, say, show_rows
from hardy.recipe import Recipe, from_values
from hardy.records import Record

__all__ = ["run"]

CRITERIA = ("l2", "taylor", "ior")
UNSEEN = ("dusk", "night", "fog", "rain", "snow", "city_b", "camera_b")

_SCORES = ("seen mIoU %", "unseen mIoU %", "worst unseen %", "which")

_COMMON: dict[str, Any] = {
    "data": {
        "sources": ["streets/sim", "streets/day"],
        "unseen": [f"streets/{name}" for name in UNSEEN],
        "unseen_splits": ["test"],
        "datasets": {"streets": {"size": [128, 256], "train": 72, "val": 8, "test": 12}},
        "crop": [128, 256],
        "scale": [0.75, 1.5],
        "cache": True,
    },
    "optim": {"steps": 240, "batch": 8, "lr": 0.06, "weight_decay": 4e-5, "warm_up": 10},
    "evaluate": {"select": "last", "keep_counts": True, "keep_worst": 2},
}


def run(folder: Path) -> None:
    """Run the demonstration in ``folder``; runs that are finished are not run again."""
    say("1/4 training Fast-SCNN on drawn streets, domains sim and day")
    dense = train.run(_recipe({"name": "fast_scnn", "classes": "cityscapes19"}, folder / "dense"), show=False)
    pruned = {}
    for criterion in CRITERIA:
        say(f"2/4 removing half of its filters by {criterion}, then recovering")
        recipe = _recipe(
            {"run": str(dense)},
            folder / criterion,
            prune={
                "criterion": {"name": criterion},
                "ratio": 0.5,
                "schedule": {"name": "iterative", "every": 4, "per_round": 300},
                "lr": 0.01,
                "recovery": 60,
                "recovery_lr": 0.03,
            },
        )
        pruned[criterion] = prune.run(recipe, show=False)
    say("3/4 exporting the network pruned by ior and proving the file on streets")
    file = pruned["ior"] / "network.onnx"
    export.run(
        pruned["ior"],
        file,
        ["streets/day", "streets/night"],
        size=(128, 256),
        dynamic=False,
        logits=False,
        images=4,
        root=None,
        datasets=_COMMON["data"]["datasets"],
    )
    say("4/4 the results\n")
    _show(dense, pruned)
    say(
        f"\nEverything is in {folder}: a folder per network with recipe.yaml (repeats the run), records.jsonl (every "
        f"number above),\nnetwork.safetensors and network.json (hardy.load reads them), and {file}.\n"
        "The streets are drawn and the training takes a minute: this shows that the parts work, not which criterion\n"
        "is better. For real images see docs/benchmarks.md."
    )


def _recipe(network: Mapping[str, Any], folder: Path, **sections: Any) -> Recipe:
    where = {"folder": str(folder), "workers": 0, "channels_last": True, "device": "cpu"}
    return from_values({"network": network, **_COMMON, **sections, "run": where}, origin="hardy demo")


def _show(dense: Path, pruned: Mapping[str, Path]) -> None:
    found = {name: records.read(path / "records.jsonl") for name, path in pruned.items()}
    before = next(iter(found.values()))
    rows = [_row("dense", records.read(dense / "records.jsonl"), before, "before")]
    rows += [_row(f"half removed by {name}", lines, lines, "after") for name, lines in found.items()]
    columns = ("network", "parameters", "GMACs", "ms, dense → this", "time", *_SCORES)
    title = "Fast-SCNN, 19 classes, 128x256, drawn streets; trained on sim and day, unseen: " + ", ".join(UNSEEN)
    note = (
        f"ms: medians of one image in {_runtime(before)}, the dense network and this one in turns; time: their ratio; "
        "seen: held-out images of sim and day"
    )
    show_rows(title, columns, rows, note)


def _row(name: str, scored: list[Record], costed: list[Record], when: str) -> list[str]:
    scores = {record.target: record.value for record in scored if record.metric == "miou"}
    costs = {record.metric: record.value for record in costed if record.target == "cost"}
    milliseconds = {w: costs[f"milliseconds_p50_{_runtime(costed)}_{w}"] or 0.0 for w in ("before", "after")}
    away = {d: v for d, v in scores.items() if d.startswith("streets/") and d.split("/")[1] in UNSEEN and v is not None}
    times = f"{milliseconds['before']:.2f}" + (f" → {milliseconds['after']:.2f}" if when == "after" else "")
    return [
        name,
        f"{costs[f'parameters_{when}']:,.0f}",
        f"{costs[f'gmacs_{when}']:.3f}",
        times,
        f"{milliseconds[when] / milliseconds['before']:.2f}",
        percent(scores["intra"]),
        percent(scores["unseen"]),
        percent(scores["worst"]),
        min(away, key=lambda domain: away[domain]).split("/")[1],
    ]


def _runtime(costed: list[Record]) -> str:
    """onnxruntime if it was measured, else eager."""
    measured = {record.metric for record in costed}
    return "onnxruntime" if "milliseconds_p50_onnxruntime_after" in measured else "eager"
