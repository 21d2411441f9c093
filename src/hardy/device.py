"""Device, precision and processes of a run, through Accelerate."""

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from hardy.errors import InputError

__all__ = ["accelerator", "limit_threads", "pick"]


def pick(device: str) -> torch.device:
    """The device of this name; ``auto`` is a GPU if there is one, else the CPU.

    With several GPUs, a process of a parallel run uses the one of its local rank (``LOCAL_RANK``), any other process
    the first.

    Raises:
        InputError: for a device that this machine does not have; the message names the available devices.
    """
    gpus = torch.cuda.device_count()
    there = ["cpu", *(f"cuda:{index}" for index in range(gpus))]
    own = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % max(gpus, 1)}"
    wanted = {"auto": own if gpus else "cpu", "cuda": own}.get(device, device)
    if wanted not in there:
        raise InputError(f"run.device: there is no device {device!r} here; use one of: auto, {', '.join(there)}")
    return torch.device(wanted)


def accelerator(device: str, precision: str) -> Accelerator:
    """An `Accelerator` on ``device`` with ``precision`` (``fp32``, ``bf16``, ``fp16``).

    Accelerate stores one configuration per process; it is cleared first, so that two runs in one process can differ.

    Raises:
        InputError: for an unknown device, or fp16 on the CPU.
    """
    chosen = pick(device)
    if precision == "fp16" and chosen.type == "cpu":
        raise InputError("run.precision: fp16 needs a GPU; use fp32 or bf16 on the CPU")
    AcceleratorState._reset_state(reset_partial_state=False)
    if chosen.type == "cuda" and torch.cuda.current_device() != chosen.index:
        torch.cuda.set_device(chosen)
    mixed = {"fp32": "no"}.get(precision, precision)
    return Accelerator(cpu=chosen.type == "cpu", mixed_precision=mixed)


def limit_threads(threads: int | None) -> None:
    """Use this many CPU threads from now on; None keeps torch's default."""
    if threads:
        torch.set_num_threads(threads)
