"""The memory of ``hardy predict`` on large images, which are read and predicted in windows.

An untrained Fast-SCNN with 19 classes predicts drawn streets, tiled to each size, in windows of 512x512 with its
confidence. Each image has a process of its own; its memory is the largest resident set, which includes Python, torch
and the part of the mask's file that the system holds in memory. The first image is small, so it shows what is needed in
any case.

    python benchmarks/large_image.py [--quick]
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

import hardy
from hardy.data.sources import data_root, domains
from hardy.seed import seeded
from hardy.timing.hardware import fingerprint

SIZES = ((360, 480), (6000, 20000), (20000, 20000))
QUICK = ((360, 480), (600, 2000))
WINDOW = "512x512"


def tiled(size: tuple[int, int], file: Path) -> None:
    """Write a PNG of ``size`` (height, width) that repeats a drawn street."""
    (domain,) = domains(["streets/day"], root=data_root())
    image = np.asarray(domain.dataset.read(domain.items()[0])[0])
    high, wide = (-(-side // own) for side, own in zip(size, image.shape[:2], strict=True))
    Image.fromarray(np.tile(image, (high, wide, 1))[: size[0], : size[1]]).save(file, compress_level=1)


PREDICT = """
import re, sys, time
from hardy.cli import main
try:
    main()
finally:
    status = open("/proc/self/status").read()
    print(time.process_time(), re.search(r"VmHWM:\\s+(\\d+)", status)[1], file=sys.stderr)
"""
"""A process that predicts, and then writes its processor seconds and its peak in KiB to standard error."""


def predicted(run: Path, file: Path, out: Path) -> tuple[float, float]:
    """Processor seconds and the largest resident set, in GB, of a process that predicts ``file``; on Linux."""
    words = [sys.executable, "-c", PREDICT, "predict", run, file, out, "--window", WINDOW, "--confidence"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{file.name}: hardy predict ended with {done.returncode}: {done.stderr.strip()}")
    seconds, peak = done.stderr.split()[-2:]
    return float(seconds), int(peak) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small images")
    quick = parser.parse_args().quick
    Image.MAX_IMAGE_PIXELS = None
    print(f"windows of {WINDOW}, Fast-SCNN, 19 classes\n\n     height x width  CPU s  minutes  peak GB")
    with TemporaryDirectory() as folder:
        place = Path(folder)
        with seeded(0, "network"):
            run = hardy.save(hardy.create("fast_scnn", "cityscapes19"), place / "run")
        for height, width in QUICK if quick else SIZES:
            file = place / f"{height}x{width}.png"
            tiled((height, width), file)
            began = time.monotonic()
            seconds, peak = predicted(run, file, place / "masks")
            took = (time.monotonic() - began) / 60
            print(f"{height:>11} x {width:<6}{seconds:>6.0f}{took:>9.1f}{peak:>9.2f}", flush=True)
    print(f"\n{fingerprint()}")


if __name__ == "__main__":
    main()
