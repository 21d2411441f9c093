"""A folder that is being filled is predicted as it fills; a stop leaves whole masks, and the next call goes on."""

import functools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import hardy
from hardy.engine import watch as module
from hardy.engine.arrivals import Arrivals, Clock
from hardy.engine.predict import predict, predict_all
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import wrap


class Brightest(nn.Module):
    """Class 0, 1 or 2 where red, green or blue is strongest."""

    def forward(self, x):
        return torch.cat([x, x.new_full((len(x), 8, *x.shape[-2:]), -9.0)], 1)


@pytest.fixture
def network():
    return wrap(Brightest(), "camvid11", mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture
def during(monkeypatch):
    """``during(second, action)``: what happens while the folder is watched, on a clock that never waits."""
    state = {"time": 0.0, "plan": []}

    def wait(seconds):
        state["time"] += seconds
        for due in [one for one in state["plan"] if one[0] <= state["time"]]:
            state["plan"].remove(due)
            due[1]()

    monkeypatch.setattr(module, "Arrivals", functools.partial(Arrivals, clock=Clock(lambda: state["time"], wait)))
    return lambda second, action: state["plan"].append((state["time"] + second, action))


def photo(seed, height=16, width=16):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, seed=0, size=(16, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(seed, *size)).save(path)
    os.utime(path, ns=(seed, seed))
    return path


def ids(path):
    with Image.open(path) as mask:
        return np.array(mask)


def test_what_arrives_is_predicted_and_what_is_bad_is_reported(network, during, tmp_path):
    save(tmp_path / "in" / "a.png", 1)
    torn = save(tmp_path / "in" / "b.png", 2)
    whole = torn.read_bytes()
    torn.write_bytes(whole[:100])
    during(3, lambda: save(tmp_path / "in" / "sub" / "c.png", 3))
    during(6, lambda: torn.write_bytes(whole))
    messages = []
    found = predict_all(network, tmp_path / "in", tmp_path / "out", watch=True, idle=9, batch=2, say=messages.append)
    assert found.masks == [tmp_path / "out" / f"{name}.png" for name in ("a", "sub/c", "b")]
    assert (found.written, found.kept, found.skipped, found.waiting) == (3, 0, {}, 0)
    assert messages[0] == f"watching {tmp_path / 'in'}; Ctrl-C or 9 s without a new image stop"
    assert len(messages) == 2
    assert messages[1].startswith(f"skipped: {torn}: damaged or not an image")
    assert np.array_equal(ids(found.masks[2]), photo(2).argmax(2))


def test_a_signal_ends_after_the_images_in_hand_and_the_next_call_goes_on(network, during, tmp_path):
    for seed in range(1, 6):
        save(tmp_path / "in" / f"{seed}.png", seed)
    hook = network.module.register_forward_hook(lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    found = predict_all(network, tmp_path / "in", tmp_path / "out", watch=True)
    assert ([path.name for path in found.masks], found.waiting) == (["1.png"], 4)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.png"]
    hook.remove()
    found = predict_all(network, tmp_path / "in", tmp_path / "out", watch=True, idle=2)
    assert ([path.name for path in found.masks], found.kept, found.written) == ([f"{n}.png" for n in range(1, 6)], 1, 4)


def test_only_the_last_masks_and_reasons_are_held(network, during, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LAST", 2)
    for seed in range(1, 5):
        save(tmp_path / "in" / f"{seed}.png", seed)
        (tmp_path / "in" / f"bad{seed}.png").write_bytes(b"")
    found = predict_all(network, tmp_path / "in", tmp_path / "out", watch=True, idle=2)
    assert [path.name for path in found.masks] == ["3.png", "4.png"]
    assert (found.written, len(found.skipped)) == (4, 2)


@pytest.fixture
def streams(during, tmp_path):
    """``streams(count, name, **options)``: the masks after so many images of one folder were there."""
    torch.manual_seed(0)
    network = create("tiny", "camvid11")

    def run(count, name, **options):
        for seed in range(1, count + 1):
            save(tmp_path / "in" / f"{seed}.png", seed, (32, 32))
        adapt = {"name": "tent", "lr": 0.5} if "adapt" not in options else options.pop("adapt")
        found = predict_all(
            network, tmp_path / "in", tmp_path / name, watch=True, idle=2, adapt=adapt, draw=["confidence"], **options
        )
        return found, {
            path.name: (ids(path).tobytes(), ids(path.parent / "confidence" / path.name).tobytes())
            for path in sorted((tmp_path / name).glob("*.png"))
        }

    return run


def test_what_was_learned_goes_on_in_the_next_call(streams, tmp_path):
    streams(3, "parts")
    found, parts = streams(6, "parts")
    assert (found.kept, found.written) == (3, 3)
    _, whole = streams(6, "whole")
    assert parts == whole
    for file in (tmp_path / "parts").glob("adaptation*"):
        file.unlink()
    (tmp_path / "parts" / "6.png").unlink()
    _, forgotten = streams(6, "parts")
    assert forgotten["6.png"] != whole["6.png"]


def test_a_state_of_other_settings_is_left_and_a_damaged_one_refused(streams, tmp_path):
    streams(2, "out")
    found, _ = streams(2, "out", seed=1)
    assert (found.kept, found.written) == (0, 2)
    file = tmp_path / "out" / "adaptation.json"
    content = json.loads(file.read_text())
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == [
        f"adaptation-{content['number']}.safetensors"
    ]
    file.write_text("{}")
    with pytest.raises(InputError, match=r"adaptation\.json: damaged, or not the state of a watched folder .*remove"):
        streams(2, "out", seed=1)


def test_what_cannot_be_watched_is_refused(network, tmp_path):
    save(tmp_path / "in" / "a.png")
    for source, target, options, message in (
        (tmp_path / "in" / "a.png", "out", {}, r"a\.png is no folder"),
        (photo(0), "out", {}, "an array is no folder"),
        (tmp_path / "in", "in", {}, "would be among the images"),
        (tmp_path / "in", ".", {}, "would be among the images"),
        (tmp_path / "in", "out", {"idle": 0}, "idle 0: must be above 0"),
        (tmp_path / "in", "out", {"frames": 3}, "frames 3: .* leave one out"),
    ):
        with pytest.raises(InputError, match=message):
            predict(network, source, tmp_path / target, watch=True, **options)
    with pytest.raises(InputError, match="idle 3: is for watch"):
        predict(network, tmp_path / "in", tmp_path / "out", idle=3)
    assert not (tmp_path / "out").exists()


@pytest.mark.costly
def test_a_process_that_is_stopped_prints_its_summary(tmp_path):
    hardy.save(create("tiny", "camvid11"), tmp_path / "run")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    words = ["predict", "run", "in", "out", "--watch", "--device", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-m", "hardy", *words], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        for name in ("a", "b"):
            save(tmp_path / "in" / f"{name}.png", 1, (32, 32))
            for _ in range(1000):
                if (tmp_path / "out" / f"{name}.png").exists():
                    break
                time.sleep(0.1)
        process.terminate()
        out, errors = process.communicate()
    assert process.returncode == 1
    assert out == "wrote 2 masks to out; skipped 1\n"
    assert errors.splitlines()[0] == "hardy: watching in; Ctrl-C stops"
    assert "hardy: skipped: in/bad.png: damaged or not an image (the file is empty); fetch it again" in errors
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
