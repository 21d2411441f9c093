"""Places where nothing can be written, and devices that are not there; a full disk leaves nothing half-written."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hardy.engine import checkpoint

SMALL = ("--size", "32x32")


def full(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def own(trained, tmp_path) -> Path:
    """A copy of the trained folder, to be written to."""
    return shutil.copytree(trained, tmp_path / "own")


# ------------------------------------------------------------------------------------------------- a full disk


@pytest.mark.costly
def test_a_disk_that_is_full_when_the_checkpoint_is_written(refused, call, recipe, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        line = refused("train", recipe())
    assert line == f"{tmp_path}/run/checkpoint.safetensors: No space left on device"
    assert call("train", recipe()).code == 0, "with space the same command does it"


def test_a_disk_that_is_full_when_the_network_is_written(refused, recipe, tmp_path, monkeypatch):
    real = os.replace

    def replace(source, target):
        if Path(target).name == "network.safetensors":
            full()
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    left = ["checkpoint.safetensors", "curves.jsonl", "records.jsonl", "recipe.yaml", "train.log"]
    line = refused("train", recipe(), leaving=left)
    assert line == "No space left on device" or line.startswith(f"{tmp_path}/run/network")


@pytest.mark.costly
def test_a_disk_that_is_full_when_records_are_written(refused, own, town, monkeypatch):
    monkeypatch.setattr(os, "write", full)
    line = f"{own}/records.jsonl: No space left on device"
    assert refused("evaluate", own, "folder/day", "--root", town, leaving=["records.jsonl"]) == line
    assert refused("bench", own, *SMALL, "--runs", "1", "--runtime", "eager") == line
    assert (own / "records.jsonl").read_bytes() == b""


def test_half_a_record_is_taken_back(refused, call, own, town, monkeypatch):
    words = ("evaluate", own, "folder/day", "--root", town)
    assert call(*words).code == 0
    whole = (own / "records.jsonl").read_bytes()
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: real(handle, data[: len(data) // 2]))
        assert refused(*words) == f"{own}/records.jsonl: No space left on device"
    assert (own / "records.jsonl").read_bytes() == whole


@pytest.mark.costly
def test_a_disk_that_is_full_when_a_recipe_a_schema_a_graph_or_a_mask_is_written(
    refused, recipe, own, town, tmp_path, monkeypatch
):
    file = recipe()
    monkeypatch.setattr(os, "replace", full)
    said = "No space left on device"
    assert refused("train", file) == f"{tmp_path}/run/recipe.yaml: {said}"
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    assert refused("init", "--to", tmp_path / "first") == f"{tmp_path}/first/recipe.schema.json: {said}"
    assert refused("export", own, tmp_path / "x.onnx", *SMALL) == f"{tmp_path}/x.onnx: cannot be written: {said}"
    line = refused("predict", own, town / "images" / "day", tmp_path / "masks")
    assert line == f"{tmp_path}/masks/00.png: cannot be written: {said}"


@pytest.mark.costly
def test_a_file_that_may_grow_no_further_as_the_shell_sees_it(recipe, tmp_path):
    words = ["hardy", "train", str(recipe())]
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        f"sys.argv = {words!r}; from hardy.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"hardy: {tmp_path}/run/checkpoint.safetensors: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_log_that_cannot_be_written_stops_the_run_in_one_line(refused, recipe, tmp_path, monkeypatch):
    from hardy.engine import log

    monkeypatch.setattr(log.LogFile, "flush", lambda self: full() if self.stream else None)
    assert refused("train", recipe(), "run.log_every=1").startswith(f"{tmp_path}/run/train.log: No space left")


# ---------------------------------------------------------------------------------------- places and devices


def test_a_run_folder_that_cannot_be_made(refused, recipe, tmp_path):
    (tmp_path / "file.txt").write_text("mine")
    for folder, why in (("file.txt/run", "Not a directory"), ("file.txt", "File exists")):
        line = refused("train", recipe(), f"run.folder={tmp_path / folder}")
        assert line == f"run.folder: {tmp_path / folder} cannot be written: {why}; give another folder"
    assert refused("train", recipe(), "run.folder=/proc/run").startswith("run.folder: /proc/run cannot be written")
    assert (tmp_path / "file.txt").read_text() == "mine"


def test_a_run_folder_that_may_not_be_written(refused, recipe, tmp_path, monkeypatch):
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "run" and real(path, mode))
    line = f"run.folder: {tmp_path}/run cannot be written; give another folder"
    assert refused("train", recipe()) == line
    assert not (tmp_path / "run").exists()


def test_targets_that_cannot_be_made(refused, own, town, tmp_path):
    (tmp_path / "file.txt").write_text("mine")
    place = tmp_path / "file.txt"
    assert refused("init", "--to", place) == f"{place}: File exists"
    assert refused("export", own, place / "x.onnx", *SMALL) == f"{place}/x.onnx: cannot be written: File exists"
    line = refused("predict", own, town / "images" / "day", place / "masks")
    assert line == f"{place}/masks/00.png: cannot be written: Not a directory"
    assert refused("demo", place / "demo").startswith(f"run.folder: {place}/demo/dense cannot be written")


@pytest.mark.parametrize("device", ["cuda:7", "tpu"])
def test_a_device_that_is_not_there(refused, recipe, own, town, tmp_path, device):
    line = refused("train", recipe(), f"run.device={device}")
    assert line.startswith(f"run.device: there is no device {device!r} here; use one of: auto, cpu")
    assert not (tmp_path / "run").exists()
    for words in (
        ("evaluate", own, "folder/day", "--root", town),
        ("bench", own, *SMALL),
        ("predict", own, town / "images", tmp_path / "masks"),
    ):
        assert f"no device {device!r} here" in refused(*words, "--device", device)
    assert not (tmp_path / "masks").exists()


@pytest.mark.costly
def test_a_precision_that_the_device_does_not_have(refused, recipe):
    assert refused("train", recipe(), "run.precision=fp16").startswith("run.precision: fp16 needs a GPU; use fp32 or")
