"""What is killed: training, from Python too, pruning, a study of two cells, an export, predicting; what each leaves."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

import hardy
from hardy.cli import main
from hardy.commands import export, predict, prune, study, train  # noqa: F401 - imported once, before the forks
from hardy.recipe import read
from hardy.studies import cluster

torch.set_num_threads(1)

RECIPE: dict[str, Any] = {
    "network": {"name": "tiny", "width": 16, "classes": "cityscapes19"},
    "data": {
        "sources": ["streets/sim"],
        "unseen": ["streets/night"],
        "unseen_splits": ["test"],
        "crop": [32, 32],
        "datasets": {"streets": {"size": [32, 48], "train": 4, "val": 1, "test": 1}},
        "check": False,
    },
    "optim": {"steps": 4, "batch": 2, "ema": 0.5},
    "evaluate": {"every": 2, "latency": False},
    "run": {"folder": "run", "workers": 0, "device": "cpu", "checkpoint_every": 2, "log_every": 1},
}
PRUNE = {"criterion": "l2", "schedule": "one_shot", "ratio": 0.5, "recovery": 2, "reestimate": 1}
STUDY: dict[str, Any] = {
    "study": {"folder": "out"},
    "stages": {
        "dense": {"verb": "train", "recipe": "recipe.yaml"},
        "pruned": {"verb": "prune", "recipe": "prune.yaml", "after": "dense"},
    },
    "grid": {"seed": {"stages": "dense", "key": "run.seed", "values": [0]}},
}
RECORD = ("recipe", "stage", "sources", "target", "seed", "metric", "value", "notes")


@dataclass(frozen=True)
class Story:
    """A command line, or a call of Python's, and what must be there before it."""

    name: str
    words: tuple[str, ...] | Callable[[], object]
    before: Callable[[Path], None]

    def prepare(self, folder: Path) -> None:
        """Make ``folder`` with what the command needs."""
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
        (folder / "prune.yaml").write_text(yaml.safe_dump({**RECIPE, "prune": PRUNE}), encoding="utf-8")
        (folder / "study.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
        self.before(folder)

    def run(self) -> None:
        """Give the command, in the present folder."""
        cluster.cluster, cluster.run = _alone, _one_by_one  # type: ignore[assignment]
        if isinstance(self.words, tuple):
            sys.argv = ["hardy", *self.words]
            main()
        else:
            self.words()

    def left(self, folder: Path) -> dict[str, object]:
        """Relative path -> what must not change, of every file."""
        return {str(p.relative_to(folder)): _content(p) for p in sorted(folder.rglob("*")) if not p.is_dir()}


def _content(file: Path) -> object:
    """The bits of weights and graphs, the numbers of records; of other files (logs, times) that they are there."""
    if file.suffix in (".safetensors", ".onnx"):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    if file.name == "records.jsonl":
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return sorted(json.dumps({name: line[name] for name in RECORD}, sort_keys=True) for line in lines)
    return None


@contextmanager
def _alone(address: str | None, cores: int | None = None) -> Iterator[Any]:
    """In place of Ray: this process."""

    class Here:
        @staticmethod
        def cluster_resources() -> Mapping[str, float]:
            return {"CPU": 1}

    yield Here


def _one_by_one(
    ray: Any, jobs: Mapping[str, Any], order: Any, one: Any, *, starts: Any, ended: Any, **rest: Any
) -> None:
    """In place of `hardy.studies.cluster.run`: every cell in this process, so that its file events are seen too."""
    while ready := list(order.ready()):
        name = ready[0]
        starts(name)
        order.start(name)
        verb, file = jobs[name].words
        {"train": train, "prune": prune}[verb].run(read(file), show=False)
        order.end(name, "done")
        ended(name, "done", 0, "")


def _nothing(folder: Path) -> None:
    """The command needs no more than its file."""


def _trained(folder: Path) -> None:
    """A network to export."""
    torch.manual_seed(0)
    hardy.save(hardy.create("tiny", "cityscapes19", width=16), folder / "run")


def _photos(folder: Path) -> None:
    """A network and images to predict."""
    _trained(folder)
    (folder / "photos").mkdir()
    for number in range(3):
        shade = Image.new("RGB", (32, 32), (number * 80, 90, 200))
        shade.save(folder / "photos" / f"{number}.png")


def _in_memory() -> None:
    """Train a network that was made in Python."""
    torch.manual_seed(0)
    sections = {name: RECIPE[name] for name in ("data", "evaluate", "run")}
    optim = {key: value for key, value in RECIPE["optim"].items() if key != "steps"}
    hardy.train(hardy.create("tiny", "cityscapes19", width=16), **sections, steps=4, optim=optim)


STORIES = {
    story.name: story
    for story in (
        Story("train", ("train", "recipe.yaml"), _nothing),
        Story("python", _in_memory, _nothing),
        Story("prune", ("prune", "prune.yaml"), _nothing),
        Story("study", ("study", "study.yaml"), _nothing),
        Story("export", ("export", "run", "net.onnx", "--size", "32x32"), _trained),
        Story("predict", ("predict", "run", "photos", "masks", "--overlay"), _photos),
    )
}
