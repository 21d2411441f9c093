"""Run folders that are held, half-finished, not ours to write, or another recipe's; stops outside the loop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hardy import records
from hardy.engine.run_files import BEST
from hardy.lock import Lock


def test_a_second_process_on_a_run_folder_gets_one_line(refused, call, recipe, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from hardy.lock import Lock;"
        "Lock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    try:
        line = refused("train", recipe())
    finally:
        holder.kill()
        holder.communicate()
    assert line == (
        f"{tmp_path}/run: another hardy run works in this folder (process {holder.pid}); wait for it, or give "
        "another run.folder"
    )
    assert call("train", recipe()).code == 0, "a killed process holds nothing"
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_rerun_with_other_values_names_each_key(call, refused, recipe):
    assert call("train", recipe()).code == 0
    line = refused("train", recipe(), "optim.steps=3")
    assert line.endswith("another recipe or seed (optim.steps was 2, now 3); give another run.folder")
    line = refused("train", recipe(), "algorithm.name=mixup", "optim.lr=0.5", "optim.batch=2", "run.seed=9")
    assert "algorithm.name was 'erm', now 'mixup'; " in line
    assert "optim.batch was 4, now 2" in line
    assert " more); give another" in line


@pytest.mark.costly
def test_a_run_is_finished_only_when_its_weights_are_whole(call, recipe, tmp_path):
    assert call("train", recipe()).code == 0
    weights = tmp_path / "run" / "network.safetensors"
    whole = weights.read_bytes()
    assert "is finished" in call("train", recipe()).out
    for torn in (whole[:-1], b""):
        weights.write_bytes(torn)
        said = call("train", recipe())
        assert said.code == 0
        assert "is finished" not in said.out
        assert weights.read_bytes() == whole
    weights.unlink()
    assert call("train", recipe()).code == 0
    assert weights.read_bytes() == whole


def test_what_a_killed_process_left_goes_when_the_run_goes_on_or_is_finished(call, recipe, tmp_path):
    run = tmp_path / "run"
    folder = run / ".checkpoint.safetensors.tmp"
    mine = run / ".mine.tmp"
    for left in ((folder / ".tmpAb12Cd"), run / ".network.json.tmp", mine):
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"0" * 99)
    assert call("train", recipe()).code == 0
    wanted = {".mine.tmp", "network.json", "network.safetensors", "recipe.yaml", "records.jsonl", "train.log"}
    assert {path.name for path in run.iterdir()} == wanted
    for name in (BEST, ".network.safetensors.tmp", ".lock"):
        (run / name).write_bytes(b"0")
    assert "is finished" in call("train", recipe()).out
    assert {path.name for path in run.iterdir()} == wanted


@pytest.mark.costly
@pytest.mark.parametrize("number", [13, 30, 1], ids=["EACCES", "EROFS", "EPERM"])
def test_numbers_are_shown_where_one_may_not_keep_them(call, trained, town, tmp_path, monkeypatch, number):
    def refuse(*given, **options):
        raise OSError(number, os.strerror(number), str(trained / "records.jsonl"))

    monkeypatch.setattr(records, "append", refuse)
    words = [
        ("evaluate", trained, "folder/day", "--root", town),
        ("bench", trained, "--size", "32x32", "--runs", "1", "--runtime", "eager"),
    ]
    if number == 13:
        words.append(("export", trained, tmp_path / "x.onnx", "--size", "32x32"))
    for call_words in words:
        said = call(*call_words)
        assert said.code == 0, said
        assert said.err == f"{trained}: no permission to write; the numbers above are not in its records\n"
        assert any(text in said.out for text in ("folder/day", "p50", "proven"))


@pytest.mark.costly
def test_an_export_under_way_keeps_another_one_out(refused, call, trained, tmp_path):
    target = tmp_path / "x.onnx"
    with Lock(tmp_path / ".x.onnx.tmp"):
        line = refused("export", trained, target, "--size", "32x32", leaving=[".lock"])
    assert "another hardy export works in this folder" in line
    (tmp_path / ".x.onnx.tmp" / "classes.onnx").write_bytes(b"left by a killed process")
    assert call("export", trained, target, "--size", "32x32").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.README.md", "x.onnx"]


@pytest.mark.costly
@pytest.mark.parametrize("library", ["multiarray", "libtorch_python"])
def test_interrupted_while_starting(recipe, library):
    words = [sys.executable, "-m", "hardy", "train", str(recipe())]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    signal.signal(signal.SIGINT, before)
    while library not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (130, "hardy: interrupted\n")


@pytest.mark.costly
def test_sigterm_leaves_nothing_half_written_and_kills_a_fork(tmp_path):
    """In a process of its own, whose command writes a file and is stopped before it has its name."""
    program = """
import os, signal, sys
from pathlib import Path
import hardy.__main__, hardy.cli
from hardy.files import replacing

def command():
    with replacing(Path(sys.argv[1])) as half:
        half.write_text("half")
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGTERM)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), half.exists(), flush=True)
        signal.raise_signal(signal.SIGTERM)

hardy.cli.main = command
hardy.__main__.main()
"""
    words = [sys.executable, "-c", program, str(tmp_path / "file.txt")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "-15 True\n", "hardy: terminated\n")
    assert not [*tmp_path.iterdir()]


def test_interrupted_outside_the_loop(call, recipe, monkeypatch):
    from hardy.engine import protocol

    def interrupt(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(protocol, "checked", interrupt)
    said = call("train", recipe())
    assert (said.code, said.err.strip()) == (130, "hardy: interrupted")

    def wrapped(*given, **options):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("half imported") from error

    monkeypatch.setattr(protocol, "checked", wrapped)
    said = call("train", recipe())
    assert (said.code, said.err.strip()) == (130, "hardy: interrupted")


@pytest.mark.costly
def test_a_tilde_is_the_home_folder_wherever_a_path_comes_in(call, recipe, town, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, to in (("data", town), ("net", trained)):
        (tmp_path / name).symlink_to(to)
    network = {"name": "tiny", "width": 16, "classes": "~/data"}
    file = recipe(network=network, data={"root": "~/data"}, run={"folder": "~/out"})
    assert call("train", file).code == 0
    assert (tmp_path / "out" / "network.json").exists()
    datasets = {"folder": {"root": "~/data"}}
    file = recipe(network={"run": "~/out"}, data={"root": None, "datasets": datasets}, run={"folder": "~/two"})
    assert call("train", file).code == 0
    weights = "network.weights=~/out/network.safetensors"
    assert call("train", recipe(network=network), weights, "run.folder=~/three").code == 0
    assert call("evaluate", tmp_path / "out", "folder/day", "--root=~/data").code == 0
    assert call("predict", "~/out", "~/data/images/day", "~/masks").code == 0
    assert call("export", "~/out", "~/x.onnx", "--size", "32x32").code == 0
    assert {"masks", "three", "two", "x.onnx"} <= {path.name for path in tmp_path.iterdir()}
    assert not Path("~").exists()
    said = call("train", recipe(data={"root": "~nobody-here/x"}))
    assert said.code == 2
    assert said.err == "hardy: ~nobody-here/x: there is no such home folder; give the full path\n"
