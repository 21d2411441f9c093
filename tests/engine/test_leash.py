"""A run that a Ray worker started ends when that worker is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKER = """
import sys
from hardy.studies.cluster import _run
_run(("train", sys.argv[1]), sys.argv[2], ".", sys.argv[3], {})
"""


@pytest.mark.costly
def test_the_run_of_a_killed_worker_stops_and_frees_its_folder(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "network: {name: tiny, width: 16, classes: cityscapes19}\n"
        "data: {sources: [streets/sim], crop: [32, 32], check: false,"
        " datasets: {streets: {size: [32, 48], train: 4, val: 1, test: 1}}}\n"
        "optim: {steps: 100000, batch: 2}\n"
        "run: {workers: 0, device: cpu, threads: 1, log_every: 1, folder: run}\n"
    )
    going, said = tmp_path / "going", tmp_path / "said.txt"
    going.touch()
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(recipe), str(said), str(going)], cwd=tmp_path)
    log, lock = tmp_path / "run" / "train.log", tmp_path / "run" / ".lock"
    while not (log.exists() and "step 2/" in log.read_text()):
        assert worker.poll() is None, said.read_text()
        time.sleep(0.02)
    process = int(lock.read_text())
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    while alive(process):
        time.sleep(0.02)
    assert "hardy: stopped after step" in said.read_text()
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert not lock.exists()


def alive(process: int) -> bool:
    """Whether it runs; a process whose parent is gone may stay as a zombie."""
    try:
        os.kill(process, 0)
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
