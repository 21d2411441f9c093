"""Timing networks: preparing them for a runtime and running them in turns, with synchronisation."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from hardy.deployment import epilogue, graph
from hardy.deployment.epilogue import Upsample
from hardy.deployment.graph import Output
from hardy.deployment.openvino_session import OpenVINO
from hardy.errors import within
from hardy.networks.base import Network
from hardy.ranges import MOST_THREADS
from hardy.seed import key
from hardy.timing import memory

__all__ = ["Prepared", "Runtime", "draw", "interleave", "prepare", "threads_set"]

Runtime = Literal["eager", "onnxruntime", "openvino"]
"""What runs the network: PyTorch as it is, or onnxruntime or OpenVINO on the exported graph (CPU only)."""


@dataclass(frozen=True)
class Prepared:
    """A network prepared to be timed on one batch.

    Attributes:
        run: one forward pass.
        folded: whether no batch norm is left in the network or graph that runs.
        memory: peak in MiB of one pass, or None; see `hardy.timing.memory`.
    """

    run: Callable[[], object]
    folded: bool
    memory: Callable[[], float | None]


def prepare(
    network: Network, runtime: Runtime, images: Tensor, output: Output, folder: Path, upsample: Upsample = "full"
) -> Prepared:
    """``network`` (in evaluation mode, on the device of ``images``) ready to run on them.

    Args:
        network: what is timed.
        runtime: see `Runtime`.
        images: (B, 3, H, W).
        output: whether a pass ends with uint8 classes or with logits.
        folder: for the graph that another runtime runs; must not exist yet.
        upsample: the size at which the argmax is taken; see `hardy.deployment.epilogue`.

    Raises:
        InputError: when the network cannot be exported or a package is missing.
    """
    if runtime == "eager":
        return _eager(network, images, output, upsample)
    file = _file(network, images, output, folder, upsample)
    return _openvino(file, images) if runtime == "openvino" else _onnx(file, images)


def _eager(network: Network, images: Tensor, output: Output, upsample: Upsample) -> Prepared:
    precision = network.mean.dtype

    def run() -> Tensor:
        logits = epilogue.logits(network, images.to(precision), upsample)
        if output == "logits":
            return logits
        return epilogue.classes(logits, images.shape[-2:], upsample).to(torch.uint8)

    folded = not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    return Prepared(run, folded, lambda: memory.tensors(run, network, images))


def _file(network: Network, images: Tensor, output: Output, folder: Path, upsample: Upsample) -> Path:
    """The exported graph in ``folder`` that ends with ``output``."""
    folder.mkdir()
    files = {"logits": folder / "logits.onnx", "classes": folder / "classes.onnx"}
    graph.write(network, files["logits"], size=images.shape[-2:], batch=len(images), upsample=upsample)
    if output == "classes":
        graph.with_classes(files["logits"], files["classes"], upsample=upsample)
    return files[output]


def _onnx(file: Path, images: Tensor) -> Prepared:
    optimised = file.with_name("optimised.onnx")
    session = graph.Session(file, optimised=optimised)
    folded = graph.count(optimised, "BatchNormalization") == 0
    threads = torch.get_num_threads()
    return Prepared(lambda: session(images), folded, lambda: memory.process(file, images.shape, threads))


def _openvino(file: Path, images: Tensor) -> Prepared:
    session = OpenVINO(file)
    return Prepared(lambda: session(images), True, lambda: None)


def interleave(
    runners: Sequence[Callable[[], object]], runs: int, warm_up: int, device: torch.device
) -> list[np.ndarray]:
    """Milliseconds (runs,) of each runner; they run in turns, after ``warm_up`` turns that are not timed."""
    for _ in range(warm_up):
        for run in runners:
            run()
    spent = np.zeros((len(runners), runs))
    with _no_collection():
        for turn in range(runs):
            for index, run in enumerate(runners):
                _wait(device)
                start = time.perf_counter()
                run()
                _wait(device)
                spent[index, turn] = 1e3 * (time.perf_counter() - start)
    return list(spent)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """Inside the block torch uses ``count`` threads for one operation (None: unchanged); restored afterwards."""
    if count is not None:
        within("threads", count, 1, MOST_THREADS)
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Inside the block the garbage collector is off, so that it is not timed with a run."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def draw(batch: int, size: Sequence[int], device: torch.device) -> Tensor:
    """Random images (B, 3, H, W) in [0, 1], the same at each call."""
    generator = torch.Generator().manual_seed(key(0, "bench"))
    return torch.rand(batch, 3, *size, generator=generator).to(device)
