"""A run that is stopped anywhere and goes on ends with the bits of one that never stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from hardy.commands import train
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.recipe import Optim, RunSection, read

STEPS = 80


# ------------------------------------------------------------------------------------------ in one process, each step


@pytest.mark.parametrize(
    "options",
    [
        {"name": "sgd"},
        {"name": "sgd", "accumulate": 2, "ema": 0.5, "clip": 0.1, "warm_up": 2},
        {"name": "adam", "schedule": "cosine"},
        {"name": "adamw", "accumulate": 2, "ema": 0.9, "momentum": 0.0},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
@pytest.mark.parametrize("layout", [False, True], ids=["rows", "channels-last"])
def test_every_step_is_a_place_to_stop(shallow, colours, tmp_path, options, layout):
    optim = Optim(**{"steps": 6, "lr": 0.05} | options)
    place = RunSection(device="cpu", channels_last=layout)

    def fit(folder, seed):
        algorithm = shallow(norm=True, seed=seed)
        algorithm.network.module.insert(3, torch.nn.Dropout(0.3))
        return Fit(algorithm, colours(), optim, place, folder=folder)

    whole = fit(None, 0)
    whole.run()
    wanted, averaged = whole.algorithm.state_dict(), whole.averaged()
    for stop in range(1, 7):
        folder = tmp_path / str(stop)
        first = fit(folder, 0)
        assert not first.resume()
        first.run(stop)
        first.save()
        second = fit(folder, 99)
        assert second.resume()
        assert second.run().step == 6
        for name, value in second.algorithm.state_dict().items():
            assert torch.equal(value, wanted[name]), (stop, name)
        for name, value in second.averaged().items():
            assert torch.equal(value, averaged[name]), (stop, name)


def test_the_best_score_is_remembered(shallow, colours, tmp_path):
    place, optim = RunSection(device="cpu", checkpoint_every=2), Optim(steps=4)
    Fit(shallow(), colours(), optim, place, folder=tmp_path).run(2, validate=lambda step: 0.9, every=2)
    again = Fit(shallow(), colours(), optim, place, folder=tmp_path)
    again.resume()
    assert again.progress.best == (0.9, 2)
    assert again.run(validate=lambda step: 0.1, every=2).best == (0.9, 2)


def test_the_checkpoint_of_another_network_or_optimiser_is_refused(shallow, colours, tmp_path):
    place = RunSection(device="cpu")
    Fit(shallow(), colours(), Optim(steps=2), place, folder=tmp_path).run()
    for algorithm in (shallow(norm=True), shallow()):
        if len(list(algorithm.buffers())) == len(list(shallow().buffers())):
            algorithm.network.module[0].bias.requires_grad_(False)
        with pytest.raises(InputError, match="is of another network or optimiser") as caught:
            Fit(algorithm, colours(), Optim(steps=2), place, folder=tmp_path).resume()
        assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------- the command, with real signals


@pytest.fixture
def recipe(town, tmp_path):
    """A recipe that uses everything that has a state."""
    values = {
        "network": {"name": "tiny", "width": 8, "aux": True, "classes": str(town)},
        "data": {
            "sources": ["folder/day"],
            "unseen": ["folder/night"],
            "datasets": {"folder": {"root": str(town)}},
            "crop": [32, 48],
            "scale": [0.8, 1.2],
        },
        "optim": {"name": "adamw", "steps": STEPS, "batch": 4, "lr": 0.01, "accumulate": 2, "ema": 0.9, "clip": 1.0},
        "evaluate": {"every": 30},
        "run": {"device": "cpu", "threads": 1, "log_every": 1, "checkpoint_every": 7, "seed": 3},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


def start(recipe, folder):
    command = [sys.executable, "-m", "hardy", "train", str(recipe), f"run.folder={folder}", "run.workers=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)


def logged(folder):
    """The steps in the log, in order."""
    file = folder / "train.log"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [int(step) for step in re.findall(r"train step (\d+)/", text)]


def interrupted(recipe, folder, number, at):
    """The command, ended by signal ``number`` to all its processes once step ``at`` is in the log; its steps."""
    before = len(logged(folder))
    process = start(recipe, folder)
    while max(logged(folder)[before:], default=0) < at:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    os.killpg(process.pid, number)
    said = process.communicate(timeout=60)[1]
    return process.returncode, said, logged(folder)[before:]


@pytest.mark.exhaustive  # tests/kill kills at file events, test_fit_stops sends the signals
def test_interrupt_terminate_and_kill_change_no_bit(recipe, tmp_path):
    folder, never = tmp_path / "stopped", tmp_path / "never"
    code, said, steps = interrupted(recipe, folder, signal.SIGINT, 9)
    assert code == 130, said
    assert said == f"hardy: stopped after step {steps[-1]}; the same command resumes from there\n"
    assert 9 <= steps[-1] < STEPS
    begun = steps[-1]

    code, said, steps = interrupted(recipe, folder, signal.SIGTERM, begun + 9)
    assert code == 143, said
    assert said == f"hardy: stopped after step {steps[-1]}; the same command resumes from there\n"
    assert steps[0] == begun + 1
    begun = steps[-1]

    code, _, steps = interrupted(recipe, folder, signal.SIGKILL, begun + 9)
    assert code == -signal.SIGKILL
    assert steps[0] == begun + 1
    assert not (folder / "network.json").exists()
    # A step may be in the log before its checkpoint is on the disk, never after.
    begun = {max(begun, (last // 7) * 7) for last in (steps[-1], steps[-1] - 1)}

    process = start(recipe, folder)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    again = logged(folder)
    assert again[-1] == STEPS
    assert again[len(again) - (STEPS - min(begun)) :][0] - 1 in begun

    train.run(read(recipe, [f"run.folder={never}", "run.workers=0"]))
    assert logged(never) == list(range(1, STEPS + 1))
    assert (folder / "network.safetensors").read_bytes() == (never / "network.safetensors").read_bytes()
    measured = [
        [(r["target"], r["metric"], r["value"], r["notes"]) for r in map(json.loads, path.open(encoding="utf-8"))]
        for path in (folder / "records.jsonl", never / "records.jsonl")
    ]
    assert measured[0] == measured[1]
    kept = {"curves.jsonl", "network.json", "network.safetensors", "recipe.yaml", "records.jsonl", "train.log"}
    assert {path.name for path in folder.iterdir()} == kept
