"""Latency and memory of networks, with warm-up and synchronisation; rows say what was timed and on which machine.

The timed region starts with float32 RGB images in [0, 1] on the device and ends with the classes (or logits) at the
size of the images: normalisation, network, upsampling to full size and, for classes, argmax to uint8. Reading and
resizing images and copies to and from the device are not timed; for channels last the images are converted before. Two
networks, or two forms of one, are timed in turns (A B A B) in one process, so that load on the machine slows down both.
Their ratio is the median over the pairs.
"""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from hardy.deployment import graph
from hardy.deployment.forms import AS_IT_IS, Form, Formed, Precision
from hardy.deployment.graph import Output
from hardy.deployment.openvino_session import check_installed
from hardy.device import pick
from hardy.errors import InputError, check_size, within
from hardy.networks.base import Network, refuse_plain
from hardy.ranges import MOST_IMAGES, MOST_PIXELS, MOST_THREADS
from hardy.timing.clock import Runtime, draw, interleave, prepare, threads_set
from hardy.timing.rows import Comparison, Row

__all__ = ["Comparison", "Row", "Runtime", "bench", "compare"]


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
    fold: bool = False,
    channels_last: bool = False,
    dtype: Precision = "float32",
) -> list[Row]:
    """Measure ``network``: a row per batch size and runtime, and the same rows for ``against`` and for another form.

    With ``fold``, ``channels_last`` or ``dtype`` each network is timed both as it is and in that form, in turns. The
    networks do not change: copies in evaluation mode run. Torch's number of threads is restored.

    Args:
        network: any network.
        size: (height, width) of the images.
        batches: batch sizes.
        threads: of one operation; torch's current number when None.
        runtime: see `hardy.timing.clock.Runtime`; one or several.
        runs, warm_up: the number of timed runs, and of runs before them, of each network.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``.
        against: a second network, timed in turns with the first.
        output: end with classes (argmax timed) or with logits.
        fold: fold batch norms and re-parameterise timm's modules; the result is checked on random images.
        channels_last: images and weights in channels-last memory format; eager only.
        dtype: precision of weights and activations; other than float32 eager only.

    Raises:
        InputError: for a number or size out of range, a device, runtime or form that is not available.
    """
    where = _check(network, size, batches, threads, runs, warm_up, device, runtime)
    form = Form(fold, channels_last, dtype).checked(runtime)
    named = {"network": network} | ({"against": against} if against is not None else {})
    rows: list[Row] = []
    with threads_set(threads):
        forms = dict.fromkeys((Form(), form))
        ready = [(name, one, one.of(each, size, where)) for one in forms for name, each in named.items()]
        with torch.inference_mode():
            for kind, batch in product(runtime, batches):
                rows += _measure(ready, kind, batch, size, runs, warm_up, where, output)
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
    """Compare the times of ``before`` and ``after`` on one image, in turns; arguments and errors as for `bench`."""
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
    formed: Sequence[tuple[str, Form, Formed]],
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
        ready = [
            prepare(one.network, runtime, form.images(images), output, Path(folder, str(index)))
            for index, (_, form, one) in enumerate(formed)
        ]
        times = interleave([one.run for one in ready], runs, warm_up, device)
        same: dict[str, Any] = {
            "runtime": runtime,
            "device": str(device),
            "batch": batch,
            "size": _pair(size),
            "threads": torch.get_num_threads(),
            "runs": runs,
            "warm_up": warm_up,
            "argmax": output == "classes",
            "copies": False,
            "ratio": None,
            "memory_of": "tensors" if runtime == "eager" else "process",
        }
        rows = [
            Row(
                network=name,
                p50=float(np.percentile(spent, 50)),
                p95=float(np.percentile(spent, 95)),
                least=float(spent.min()),
                memory=made.memory(),
                precision=form.dtype,
                folded=made.folded,
                resize=not one.network.image_level,
                form=one.words,
                folding=one.folding,
                notes=one.notes,
                layout="channels last" if form.channels_last else "channels first",
                **same,
            )
            for (name, form, one), made, spent in zip(formed, ready, times, strict=True)
        ]
    return _with_ratios(rows, times)


def _with_ratios(rows: Sequence[Row], times: Sequence[np.ndarray]) -> list[Row]:
    """The rows with their median ratio to the row they are compared with: the same network as it is, the other network,
    or the other form."""
    compared = []
    for row, spent in zip(rows, times, strict=True):
        others = [index for index, other in enumerate(rows) if other is not row]
        if row.form != AS_IT_IS:
            others = [index for index in others if rows[index].network == row.network]
        if not others:
            return list(rows)
        other = rows[others[0]]
        against = other.network if other.network != row.network else other.form
        compared.append(replace(row, ratio=float(np.median(spent / times[others[0]])), against=against))
    return compared


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
    refuse_plain(network)
    check_size("size", size, network.least_size)
    counts = {"runs": runs, "threads": 1 if threads is None else threads, "batch": min(batches, default=0)}
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} {value}: must be at least 1")
    within("threads", counts["threads"], 1, MOST_THREADS)
    within("batch", max(batches), 1, MOST_IMAGES)
    within("pixels of a size", size[0] * size[1], 1, MOST_PIXELS)
    if warm_up < 0:
        raise InputError(f"warm_up {warm_up}: must not be negative")
    for kind in runtime:
        if kind not in get_args(Runtime):
            raise InputError(f"there is no runtime {kind!r}; there are: {', '.join(get_args(Runtime))}")
    where = pick(device)
    exported = [kind for kind in runtime if kind != "eager"]
    if exported:
        graph.package("onnxruntime")
        if where.type != "cpu":
            raise InputError(f"device {device!r}: {exported[0]} runs on the CPU here; leave it out or choose cpu")
    if "openvino" in runtime:
        check_installed()
    return where
