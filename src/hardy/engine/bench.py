"""Latency and memory of networks: warmed up, synchronised, with what is timed and on which machine written down.

The timed region starts with float32 RGB images in [0, 1] on the device and ends when the classes (or logits) at the
size of the images are there: normalisation, network, upsampling to full size and, for classes, argmax to uint8.
Reading and resizing images and copies to and from the device are not in it. Two networks are timed in turns,
A B A B, in one process, so that a busy machine slows both; their ratio is the median over the pairs.
"""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hardy.engine import graph
from hardy.engine.device import pick
from hardy.engine.graph import Output
from hardy.engine.timing import Runtime, draw, interleave, prepare, threads_set
from hardy.errors import InputError
from hardy.networks.base import Network

__all__ = ["Comparison", "Row", "Runtime", "bench", "compare"]


@dataclass(frozen=True)
class Row:
    """One measurement; times in milliseconds per batch.

    Attributes:
        network: ``network``, or ``against`` for the one it is compared with.
        runtime: what ran it.
        device: where.
        batch: images at once.
        size: (height, width).
        threads: threads of one operation.
        p50, p95, least: median, 95th percentile and minimum over the runs.
        ratio: median over the pairs of runs of this network's time to the other's; None without another.
        memory: peak in MiB, None where it cannot be read. See `hardy.engine.footprint` for what is counted.
        memory_of: ``tensors`` (eager) or ``process`` (onnxruntime); the two are not comparable.
        runs, warm_up: how often it ran, timed and before.
        precision: of weights and activations.
        folded: whether every batch norm was folded into a convolution in what ran.
        resize: whether upsampling to the size of the images is timed; an image-level network has none.
        argmax: whether argmax to uint8 classes is timed.
        copies: whether copies to and from the device are timed; they never are.
    """

    network: str
    runtime: Runtime
    device: str
    batch: int
    size: tuple[int, int]
    threads: int
    p50: float
    p95: float
    least: float
    ratio: float | None
    memory: float | None
    memory_of: str
    runs: int
    warm_up: int
    precision: str
    folded: bool
    resize: bool
    argmax: bool
    copies: bool

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    @property
    def timed(self) -> str:
        """What is inside the timed region and what is not, in words."""
        parts = {"normalisation": True, "network": True, "upsampling": self.resize, "argmax": self.argmax}
        inside = ", ".join(name for name, there in parts.items() if there)
        norms = "batch norm folded" if self.folded else "batch norm not folded"
        return f"timed: {inside} ({self.precision}, {norms}); not timed: reading, image resize, copies to the device"


@dataclass(frozen=True)
class Comparison:
    """Two networks timed in turns; times in milliseconds per image.

    Attributes:
        before_p50, before_p95, after_p50, after_p95: of the two.
        ratio: median over the pairs of after / before.
        low, high: the quartiles of these ratios.
        runtime, size, threads, runs: how it was measured.
    """

    before_p50: float
    before_p95: float
    after_p50: float
    after_p95: float
    ratio: float
    low: float
    high: float
    runtime: Runtime
    size: tuple[int, int]
    threads: int
    runs: int

    @property
    def faster(self) -> bool:
        """Whether ``after`` is clearly faster: it won at least three quarters of the pairs."""
        return self.high < 1

    def to_json(self) -> dict[str, Any]:
        """The fields and the verdict as plain values."""
        return {**asdict(self), "faster": self.faster}

    def __str__(self) -> str:
        """One line, with the verdict in plain words."""
        verdict = "faster" if self.faster else "slower" if self.low > 1 else "NOT faster"
        return (
            f"{self.before_p50:.1f} -> {self.after_p50:.1f} ms p50, {self.before_p95:.1f} -> {self.after_p95:.1f} ms "
            f"p95, ratio {self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]: {verdict} ({self.runtime}, "
            f"{self.size[0]}x{self.size[1]}, {self.threads} threads)"
        )


def bench(
    network: Network,
    *,
    size: Sequence[int],
    batches: Sequence[int] = (1,),
    threads: int | None = None,
    runtime: Sequence[Runtime] = ("eager",),
    runs: int = 30,
    warm_up: int = 5,
    device: str = "cpu",
    against: Network | None = None,
    output: Output = "classes",
) -> list[Row]:
    """Measure ``network``: a row per runtime and batch size, and with ``against`` two.

    Neither network is changed: copies in evaluation mode run. Torch's number of threads is restored.

    Args:
        network: any network.
        size: (height, width) of the images.
        batches: how many images at once.
        threads: threads of one operation; torch's present number when None.
        runtime: what runs the network.
        runs: timed runs, each.
        warm_up: runs before these, each.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``.
        against: a second network, timed in turns with the first.
        output: end with classes (argmax timed) or with logits.

    Raises:
        InputError: for a number or size out of range, a device that is not there, onnxruntime off the CPU or not
            installed.
    """
    where = _check(network, size, batches, threads, runs, warm_up, device, runtime)
    named = {"network": network} | ({"against": against} if against is not None else {})
    rows: list[Row] = []
    with threads_set(threads), torch.inference_mode():
        copies = {name: copy.deepcopy(each).to(where).eval() for name, each in named.items()}
        for kind in runtime:
            for batch in batches:
                rows += _measure(copies, kind, batch, size, runs, warm_up, where, output)
    return rows


def compare(
    before: Network,
    after: Network,
    *,
    size: Sequence[int],
    runtime: Runtime = "eager",
    runs: int = 30,
    warm_up: int = 5,
    threads: int | None = None,
    device: str = "cpu",
) -> Comparison:
    """Is ``after`` faster than ``before`` on one image? Timed in turns; arguments and errors as for `bench`."""
    where = _check(before, size, (1,), threads, runs, warm_up, device, (runtime,))
    with threads_set(threads), torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        images = draw(1, size, where)
        copies = [copy.deepcopy(each).to(where).eval() for each in (before, after)]
        prepared = [prepare(each, runtime, images, "classes", Path(folder, str(i))) for i, each in enumerate(copies)]
        first, second = interleave([one.run for one in prepared], runs, warm_up, where)
        used = torch.get_num_threads()
    low, ratio, high = (float(share) for share in np.percentile(second / first, (25, 50, 75)))
    return Comparison(
        before_p50=float(np.percentile(first, 50)),
        before_p95=float(np.percentile(first, 95)),
        after_p50=float(np.percentile(second, 50)),
        after_p95=float(np.percentile(second, 95)),
        ratio=ratio,
        low=low,
        high=high,
        runtime=runtime,
        size=_pair(size),
        threads=used,
        runs=runs,
    )


def _measure(
    networks: dict[str, Network],
    runtime: Runtime,
    batch: int,
    size: Sequence[int],
    runs: int,
    warm_up: int,
    device: torch.device,
    output: Output,
) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        images = draw(batch, size, device)
        ready = {name: prepare(each, runtime, images, output, Path(folder, name)) for name, each in networks.items()}
        times = interleave([one.run for one in ready.values()], runs, warm_up, device)
        rows = [
            Row(
                network=name,
                runtime=runtime,
                device=str(device),
                batch=batch,
                size=_pair(size),
                threads=torch.get_num_threads(),
                p50=float(np.percentile(spent, 50)),
                p95=float(np.percentile(spent, 95)),
                least=float(spent.min()),
                ratio=None,
                memory=one.memory(),
                memory_of="tensors" if runtime == "eager" else "process",
                runs=runs,
                warm_up=warm_up,
                precision="float32",
                folded=one.folded,
                resize=not networks[name].image_level,
                argmax=output == "classes",
                copies=False,
            )
            for (name, one), spent in zip(ready.items(), times, strict=True)
        ]
    if len(rows) == 1:
        return rows
    ratio = times[0] / times[1]
    return [replace(rows[0], ratio=float(np.median(ratio))), replace(rows[1], ratio=float(np.median(1 / ratio)))]


def _pair(size: Sequence[int]) -> tuple[int, int]:
    return int(size[0]), int(size[1])


def _check(
    network: Network,
    size: Sequence[int],
    batches: Sequence[int],
    threads: int | None,
    runs: int,
    warm_up: int,
    device: str,
    runtime: Sequence[Runtime],
) -> torch.device:
    if len(size) != 2 or min(size) < network.least_size:
        raise InputError(f"size {tuple(size)}: give (height, width), each at least {network.least_size}")
    counts = {"runs": runs, "threads": 1 if threads is None else threads, "batch": min(batches, default=0)}
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} {value}: must be at least 1")
    if warm_up < 0:
        raise InputError(f"warm_up {warm_up}: must not be negative")
    for kind in runtime:
        if kind not in ("eager", "onnxruntime"):
            raise InputError(f"there is no runtime {kind!r}; there are: eager, onnxruntime")
    where = pick(device)
    if "onnxruntime" in runtime:
        graph.package("onnxruntime")
        if where.type != "cpu":
            raise InputError(f"device {device!r}: onnxruntime runs on the CPU here; leave it out or choose cpu")
    return where
