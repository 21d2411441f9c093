"""The precision of a teacher with ``precision: auto``: measured once, before the first step of a run, and kept.

Half precision is faster on some machines and slower on others. The result depends on the machine, not on the recipe,
and the precision changes the bits of a run. So the choice is kept in the run's folder, where a resumed run finds it,
and in the run's records; the default is fp32. A run that must be repeated on other machines with the same bits names a
precision.
"""

import json
import logging
import os
from pathlib import Path

import torch

from hardy.errors import InputError
from hardy.files import write_text
from hardy.networks.building.teacher import Precision, Teacher
from hardy.stored import read_json
from hardy.timing.clock import interleave

__all__ = ["FILE", "faster", "settled"]

_log = logging.getLogger("hardy")

FILE = "teacher.json"
"""The file in a run's folder that holds the choices."""

_RUNS, _GAIN = 5, 0.95
"""Timed passes of each precision, and the ratio of times from which bf16 counts as faster."""


def settled(teacher: Teacher, sha256: str, folder: Path, shape: tuple[int, ...], device: torch.device) -> Precision:
    """The precision that an earlier call kept in ``folder`` for the teacher ``sha256``, or the faster one, kept now.

    Args:
        teacher: with a network that has both precisions.
        sha256: the checksum of its weights.
        folder: of the run.
        shape: (B, 3, H, W) of the images to measure with.
        device: where the run trains.

    Raises:
        InputError: in a parallel run, whose processes could choose differently, and for a damaged file.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("teacher.precision: auto is measured in one process; give fp32 or bf16 in a parallel run")
    file = folder / FILE
    known = read_json(file) if file.is_file() else {}
    if not isinstance(known, dict) or not all(value in ("fp32", "bf16") for value in known.values()):
        raise InputError(f"{file}: is damaged; remove it, and the precision is measured again")
    if sha256 not in known:
        known[sha256] = faster(teacher, shape, device)
        write_text(file, json.dumps(known, indent=1) + "\n")
    choice: Precision = known[sha256]
    return choice


def faster(teacher: Teacher, shape: tuple[int, ...], device: torch.device) -> Precision:
    """The precision with the smaller least time; bf16 must gain 5 %."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    teacher.to(device)

    def run(precision: Precision) -> None:
        teacher.precision = precision
        teacher.outputs(images)

    try:
        full, half = interleave([lambda: run("fp32"), lambda: run("bf16")], _RUNS, 1, device)
    finally:
        teacher.to("cpu")
    choice: Precision = "bf16" if half.min() < _GAIN * full.min() else "fp32"
    _log.info("teacher.precision: %s (fp32 %.1f ms, bf16 %.1f ms a batch)", choice, full.min(), half.min())
    return choice
