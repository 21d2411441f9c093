"""``hardy demo``: the complete workflow in a few minutes on two cores; at the end it writes the ``hardy report`` page.

It trains Fast-SCNN, by default on drawn streets (domains ``sim`` and ``day``), which need no data files. It removes
half of the GMACs by three criteria: L2 norm, Taylor and IoR, each with the same recovery. It times all four networks
and measures them on unseen domains. It exports the one pruned by IoR and proves the file. The records give table and
page.
"""

import logging
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardy import records
from hardy.commands import export, prune, report, train
from hardy.commands.input.data_folder import find, whole
from hardy.commands.output.printing import percent, say, show_rows
from hardy.errors import InputError
from hardy.recipe import Recipe, from_values
from hardy.records import Record

__all__ = ["run"]

CRITERIA = ("l2", "taylor", "ior")
UNSEEN = ("dusk", "night", "fog", "rain", "snow", "city_b", "camera_b")

_SCORES = ("seen mIoU %", "unseen mIoU %", "worst unseen %", "which")

_log = logging.getLogger("hardy")


@dataclass(frozen=True)
class _Scene:
    """The data of the demonstration: its name, its classes, a recipe's section ``data``, and the text at the end."""

    name: str
    classes: str
    data: Mapping[str, Any]
    ending: str

    @property
    def unseen(self) -> list[str]:
        return list(self.data["unseen"])


def _streets() -> _Scene:
    data = {
        "sources": ["streets/sim", "streets/day"],
        "unseen": [f"streets/{name}" for name in UNSEEN],
        "unseen_splits": ["test"],
        "datasets": {"streets": {"size": [128, 256], "train": 72, "val": 8, "test": 12}},
        "crop": [128, 256],
        "scale": [0.75, 1.5],
        "cache": True,
    }
    ending = (
        "The streets are drawn and the training takes a minute: this shows that all parts work, not which criterion\n"
        "is better. For real images, see hardy demo --data DIR and docs/benchmarks.md."
    )
    return _Scene("drawn streets", "cityscapes19", data, ending)


def _real(folder: Path) -> _Scene:
    """The images in ``folder``, resized to a small size.

    Raises:
        InputError: if the folder has no data, one class per image, or fewer than two domains.
    """
    found = find(folder)
    if found.image_level:
        raise InputError(f"{folder}: {found.dataset} has one class per image; the demo needs masks, as camvid has")
    if not found.unseen:
        raise InputError(f"{folder}: it has one domain; the demo needs another one as the unseen domain")
    small = list(whole(found.size(), 160))
    data = {**found.section(), "size": small, "crop": small, "scale": [0.75, 1.5], "cache": True}
    ending = (
        f"The images are small ({small[0]}x{small[1]}) and the training takes a minute; hardy init writes a recipe\n"
        f"for more: hardy init {shlex.quote(str(folder))}"
    )
    return _Scene(found.dataset, found.classes, data, ending)


def run(folder: Path, data: Path | None = None) -> None:
    """Run the demonstration in ``folder``, on the images in ``data``; finished runs are not repeated.

    Raises:
        InputError: for ``data`` that the demonstration cannot use.
    """
    scene, began = _real(data) if data else _streets(), time.monotonic()

    def stage(number: int, text: str) -> None:
        say(f"{number}/5 {text} ({time.monotonic() - began:.0f} s so far)" if number > 1 else f"{number}/5 {text}")
        _log.info("%d/5 %s", number, text)

    with _logging_to(folder):
        trained = ", ".join(scene.data["sources"])
        stage(1, f"training Fast-SCNN on {scene.name}, domains {trained}")
        dense = train.run(_recipe(scene, {"name": "fast_scnn", "classes": scene.classes}, folder / "dense"), show=False)
        pruned = {}
        for criterion in CRITERIA:
            stage(2, f"removing half of its GMACs by {criterion}, then recovering")
            pruned[criterion] = prune.run(_pruning(scene, dense, criterion, folder / criterion), show=False)
        stage(3, f"exporting the network pruned by ior and proving the file on {scene.name}")
        file = _export(scene, pruned["ior"])
    stage(4, "the results")
    _show(scene, dense, pruned)
    stage(5, "the page that compares the networks, with pictures of every domain")
    page = report.run([folder], folder / "report.html", title=f"Hardy demo: {scene.name}")
    say(
        f"\nEverything is in {folder}: {page.name}, a folder per network with recipe.yaml (repeats the run),\n"
        "records.jsonl (every number above), network.safetensors and network.json (hardy.load reads them), and\n"
        f"{file}. {scene.ending}"
    )


@contextmanager
def _logging_to(folder: Path) -> Iterator[None]:
    """Inside the block, log progress to ``demo.log`` in ``folder`` and, without a progress bar, to standard output."""
    handlers: list[logging.Handler] = []
    with suppress(OSError):  # the first run reports why nothing can be written there
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(folder / "demo.log", encoding="utf-8"))
        handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    if not sys.stderr.isatty():
        handlers.append(logging.StreamHandler(sys.stdout))
        handlers[-1].setFormatter(logging.Formatter("    %(message)s"))
        handlers[-1].addFilter(lambda one: one.levelno < logging.WARNING and "/5 " not in str(one.msg))
    before = _log.level
    _log.setLevel(logging.INFO)
    for handler in handlers:
        _log.addHandler(handler)
    try:
        yield
    finally:
        _log.setLevel(before)
        for handler in handlers:
            _log.removeHandler(handler)
            handler.close()


def _recipe(scene: _Scene, network: Mapping[str, Any], folder: Path, **sections: Any) -> Recipe:
    where = {"folder": str(folder), "workers": 0, "channels_last": True, "device": "cpu"}
    common = {
        "data": dict(scene.data),
        "optim": {"steps": 240, "batch": 8, "lr": 0.06, "weight_decay": 4e-5, "warm_up": 10},
        "evaluate": {"select": "last", "keep_counts": True, "keep_worst": 2},
    }
    return from_values({"network": network, **common, **sections, "run": where}, origin="hardy demo")


def _pruning(scene: _Scene, dense: Path, criterion: str, folder: Path) -> Recipe:
    choice = {
        "criterion": {"name": criterion},
        "target_gmacs": _gmacs(dense) / 2,
        "schedule": {"name": "iterative", "every": 4, "per_round": 300},
        "lr": 0.01,
        "recovery": 60,
        "recovery_lr": 0.03,
    }
    return _recipe(scene, {"run": str(dense)}, folder, prune=choice)


def _gmacs(dense: Path) -> float:
    """What the dense network costs; the criteria are compared at equal work."""
    found = [
        one.value for one in records.read(dense / "records.jsonl") if (one.target, one.metric) == ("cost", "gmacs")
    ]
    assert found, "train.run records what a network costs"
    assert found[-1] is not None, "a cost is a number"
    return found[-1]


def _export(scene: _Scene, run_folder: Path) -> Path:
    file = run_folder / "network.onnx"
    proven = ["streets/day", "streets/night"] if scene.name == "drawn streets" else scene.unseen
    size = scene.data["crop"]
    export.run(
        run_folder,
        file,
        proven,
        size=(size[0], size[1]),
        dynamic=False,
        logits=False,
        images=4,
        root=scene.data.get("root"),
        datasets=scene.data.get("datasets"),
    )
    return file


def _show(scene: _Scene, dense: Path, pruned: Mapping[str, Path]) -> None:
    found = {name: records.read(path / "records.jsonl") for name, path in pruned.items()}
    before = next(iter(found.values()))
    rows = [_row(scene, "dense", records.read(dense / "records.jsonl"), before, "before")]
    rows += [_row(scene, f"pruned by {name}", lines, lines, "after") for name, lines in found.items()]
    columns = ("network", "parameters", "GMACs", "ms, dense → this", "time", *_SCORES)
    height, width = scene.data["crop"]
    title = f"Fast-SCNN, {height}x{width}, {scene.name}; unseen: {', '.join(_short(name) for name in scene.unseen)}"
    note = (
        f"ms: medians of one image in {_runtime(before)}, the dense network and this one in turns; time: the median "
        "ratio of a pair and its quartiles, which are far apart if other work disturbed the timing; seen: held-out "
        "images of the domains trained on"
    )
    show_rows(title, columns, rows, note)


def _row(scene: _Scene, name: str, scored: list[Record], costed: list[Record], when: str) -> list[str]:
    scores = {record.target: record.value for record in scored if record.metric == "miou"}
    costs = {record.metric: record.value for record in costed if record.target == "cost"}
    milliseconds = {w: costs[f"milliseconds_p50_{_runtime(costed)}_{w}"] or 0.0 for w in ("before", "after")}
    away = {domain: value for domain in scene.unseen if (value := scores.get(domain)) is not None}
    times = f"{milliseconds['before']:.2f}" + (f" → {milliseconds['after']:.2f}" if when == "after" else "")
    return [
        name,
        f"{costs[f'parameters_{when}']:,.0f}",
        f"{costs[f'gmacs_{when}']:.3f}",
        times,
        _share(costs, _runtime(costed)) if when == "after" else "1.00",
        percent(scores["intra"]),
        percent(scores["unseen"]),
        percent(scores["worst"]),
        _short(min(away, key=lambda domain: away[domain])),
    ]


def _share(costs: Mapping[str, float | None], runtime: str) -> str:
    """The time as a share of the dense network's, and its quartiles."""
    ratio, low, high = (costs.get(f"{name}_{runtime}") for name in ("ratio", "ratio_low", "ratio_high"))
    if ratio is None or low is None or high is None:  # of a run of an earlier version
        before, after = (costs[f"milliseconds_p50_{runtime}_{when}"] or 0.0 for when in ("before", "after"))
        return f"{after / before:.2f}"
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"


def _short(domain: str) -> str:
    return domain.split("/", 1)[1]


def _runtime(costed: list[Record]) -> str:
    """``onnxruntime`` if it was measured, else ``eager``."""
    measured = {record.metric for record in costed}
    return "onnxruntime" if "milliseconds_p50_onnxruntime_after" in measured else "eager"
