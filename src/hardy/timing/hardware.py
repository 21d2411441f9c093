"""The fingerprint of the machine on which a number was measured; a latency is meaningless without it."""

import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["Hardware", "fingerprint"]


@dataclass(frozen=True)
class Hardware:
    """The machine of a measurement.

    Attributes:
        cpu: the processor's name.
        cores: how many cores this process may use.
        threads: threads of one PyTorch operation.
        load: load average over the last minute, None where the system does not report it.
        gpu: name of the first GPU, None without a GPU.
        system: operating system and architecture.
        python, torch, onnxruntime: versions; None for a package that is not installed.
    """

    cpu: str
    cores: int
    threads: int
    load: float | None
    gpu: str | None
    system: str
    python: str
    torch: str
    onnxruntime: str | None

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        """One line, to print below a table."""
        load = "unknown" if self.load is None else f"{self.load:.2f}"
        parts = [f"{self.cpu}, {self.cores} cores, {self.threads} threads, load {load}"]
        parts += [self.gpu] if self.gpu else []
        parts += [f"torch {self.torch}", f"onnxruntime {self.onnxruntime or 'not installed'}", self.system]
        return "; ".join(parts)


def fingerprint() -> Hardware:
    """The fingerprint of this machine at this moment."""
    return Hardware(
        cpu=_cpu(),
        cores=_cores(),
        threads=torch.get_num_threads(),
        load=_load(),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        onnxruntime=_version("onnxruntime"),
    )


def _cpu() -> str:
    """The processor's name; on Linux it is read from the kernel, since `platform` does not have it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        if named:
            return named[0]
    return platform.processor() or platform.machine()


def _load() -> float | None:
    if sys.platform == "win32":
        return None
    return round(os.getloadavg()[0], 2)


def _cores() -> int:
    """The cores this process may run on, fewer than the machine's in a container or under ``taskset``."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
