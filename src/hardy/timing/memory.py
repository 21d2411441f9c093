"""How much memory one forward pass takes.

Each runtime has its own measure: PyTorch's allocations are counted exactly (`tensors`); onnxruntime has
an allocator of its own, so a fresh process runs the file and the growth of its resident memory is read (`process`).
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

__all__ = ["MIB", "process", "tensors"]

MIB = 2**20

_READ_GROWTH = """
import sys
import numpy, onnxruntime
def kibibytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))
path, threads, *shape = sys.argv[1:]
images = numpy.zeros([int(side) for side in shape], dtype=numpy.float32)
before = kibibytes("VmRSS:")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = int(threads), 4
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
for _ in range(2):
    session.run(None, {"images": images})
sys.stdout.write(str(max(kibibytes("VmHWM:") - before, 0)))
"""


def tensors(run: Callable[[], object], network: nn.Module, images: Tensor) -> float:
    """Peak MiB of all tensors in memory during ``run``: weights, images, and all other allocations.

    On the CPU the allocations are counted by the profiler, with temporary tensors inside operations; on a GPU the peak
    of PyTorch's allocator is read. Memory that libraries (oneDNN, cuDNN) allocate themselves is not counted.
    """
    inputs = [*network.parameters(), *network.buffers(), images]
    fixed = sum(tensor.numel() * tensor.element_size() for tensor in inputs)
    grown = _cuda_growth(run, images.device) if images.is_cuda else _cpu_growth(run)
    return (fixed + grown) / MIB


def process(path: Path, shape: Sequence[int], threads: int) -> float | None:
    """Memory growth in MiB of a new process that opens the ONNX file ``path`` and runs it on images of ``shape``.

    It is the peak resident memory minus the memory after importing onnxruntime and making the images: weights,
    activations and onnxruntime's arena. None when the system has no ``/proc``.
    """
    if not Path("/proc/self/status").is_file():
        return None
    command = [sys.executable, "-c", _READ_GROWTH, str(path), str(threads), *map(str, shape)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own command
    return int(process.stdout) * 1024 / MIB


def _cuda_growth(run: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _cpu_growth(run: Callable[[], object]) -> int:
    """The peak of the bytes allocated minus the bytes freed, in the profiler's order."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        with _quiet_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            run()
        with _quiet_stderr():
            seen.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    allocated, peak = 0, 0
    for _, change in changes:
        allocated += change
        peak = max(peak, allocated)
    return peak


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Inside the block standard error is discarded: the profiler's C++ code writes to it at any log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
