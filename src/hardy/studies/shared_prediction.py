"""Prediction on all machines of a Ray cluster with Ray Data: each worker loads the network and predicts files.

A worker uses the same code as a single machine, with one thread of torch, and returns a line for each image. All
machines must have the same files under the same paths, including those of the network and the masks. Results come in
the order of the images. Existing masks are kept, so a stopped call can continue.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from hardy.engine import videos
from hardy.engine.pictures import Picture, decoded
from hardy.engine.predict_source import files_of
from hardy.engine.predictor import Predicted, Predictor, kinds_of, network_of
from hardy.errors import InputError
from hardy.files import expanded
from hardy.studies.cluster import cluster, environment
from hardy.trust import from_file

__all__ = ["Settings", "predict_on"]

_TOGETHER = 32
_MOST_BLOCKS = 4096

Over = Callable[[Iterable[Picture | None], int | None], Iterable[Picture | None]]


@dataclass(frozen=True)
class Settings:
    """The settings of a worker.

    Attributes:
        run: a run's folder, or an exported ``.onnx`` file.
        target: the folder of the masks.
        draw: further pictures to draw for each image.
        size: (height, width) that images are resized to, or None.
        window: (height, width) of a sliding window, or None.
        batch: the number of images of equal size at a time.
        device: ``auto``, ``cpu`` or ``cuda``; with ``auto``, GPUs if the cluster has some.
        trust: modules whose code may run if the run names it.
    """

    run: Path
    target: Path
    draw: tuple[str, ...]
    size: Sequence[int] | None
    window: Sequence[int] | None
    batch: int
    device: str
    trust: tuple[str, ...]

    def predictor(self, device: str) -> Predictor:
        """A predictor on ``device``.

        Raises:
            InputError: for a run or settings that cannot be used.
        """
        with from_file(self.trust):
            network = network_of(self.run)
        kinds = kinds_of(network, overlay=False, draw=self.draw)
        return Predictor(
            network,
            self.target,
            kinds,
            size=self.size,
            window=self.window,
            batch=self.batch,
            device=device,
            adapt=None,
            seed=0,
            resumes=True,
        )


def predict_on(address: str, source: str, settings: Settings, *, over: Over = lambda found, _: found) -> Predicted:
    """Predict the image files that ``source`` names on the machines of the Ray cluster at ``address``.

    ``over(results, count)`` iterates over the results, for example with a progress bar.

    Raises:
        InputError: for an invalid source, settings or address, or a target that a worker cannot write to.
    """
    if settings.device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {settings.device!r}: with an address give auto, cpu or cuda; Ray chooses the GPU")
    if videos.source_of(source):
        raise InputError(f"--address: only image files can be predicted on a cluster; predict {source} without it")
    settings.predictor("cpu")  # checks the settings before anything starts
    named = files_of(expanded(source), expanded(settings.target), settings.draw)
    result = Predicted()
    with cluster(address) as ray:
        for picture in over(_shared(ray, named, settings), len(named)):
            assert picture is not None, "each is one image"
            if picture.reason:
                result.skip(picture.source, picture.reason)
            else:
                result.note(settings.target / f"{picture.name}.png", picture.source, new=not picture.content)
    return result


def _shared(ray: Any, named: Mapping[str, Path], settings: Settings) -> Iterator[Picture]:
    """A `Picture` without pixels for each image, in order: with a reason if skipped, with a content if kept."""
    data = _data()
    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    there = ray.cluster_resources()
    gpus = 1 if settings.device != "cpu" and there.get("GPU", 0) else 0
    if settings.device == "cuda" and not gpus:
        raise InputError("device 'cuda': the cluster has no GPU; give auto or cpu")
    most = max(1, int(there["GPU"] if gpus else there.get("CPU", 1)))
    together = settings.batch * ceil(max(_TOGETHER, len(named) / _MOST_BLOCKS) / settings.batch)
    blocks = ceil(len(named) / together)
    files = data.from_items(
        [{"name": name, "file": str(file)} for name, file in named.items()], override_num_blocks=blocks
    )
    answers = files.map_batches(
        _Worker,
        batch_size=None,
        compute=data.ActorPoolStrategy(min_size=1, max_size=min(most, blocks)),
        fn_constructor_args=(settings, os.getcwd(), "cuda" if gpus else "cpu"),
        num_cpus=1,
        num_gpus=gpus,
        runtime_env={"env_vars": environment(1)},
    )
    for row in answers.iter_rows():
        if row["broken"]:
            raise InputError(row["broken"])
        name = row["name"]
        yield Picture(name, str(named[name]), "kept" if row["kept"] else "", reason=row["reason"])


class _Worker:
    """Predicts files of a Ray Data block, in the process of a Ray actor."""

    def __init__(self, settings: Settings, folder: str, device: str) -> None:
        import torch

        if settings.trust:
            sys.path.append(folder)
        os.chdir(folder)  # paths in settings and messages are relative to the folder of the caller
        torch.set_num_threads(1)
        self._predictor = settings.predictor(device)

    def __call__(self, block: Mapping[str, Any]) -> dict[str, list[Any]]:
        asked = [(str(name), Path(str(file))) for name, file in zip(block["name"], block["file"], strict=True)]
        kept: set[str] = set()
        result, broken = Predicted(), ""

        def done(name: str, content: str) -> bool:
            if self._predictor.is_done(name, content):
                kept.add(name)
            return name in kept

        try:
            self._predictor.run(decoded(asked, done, self._predictor.bound), result)
        except InputError as error:
            broken = str(error)
        return {
            "name": [name for name, _ in asked],
            "kept": [name in kept for name, _ in asked],
            "reason": [result.skipped.get(str(file), "") for _, file in asked],
            "broken": [broken] * len(asked),
        }


def _data() -> Any:
    """Ray Data, imported on first use.

    Raises:
        InputError: if Ray Data is not installed; the message names the extra.
    """
    try:
        import ray.data
    except ImportError as error:
        raise InputError(f"this needs Ray Data ({error}); pip install 'hardy[bulk]'") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it reports every step on standard error
    return ray.data
