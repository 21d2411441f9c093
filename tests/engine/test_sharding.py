"""Two processes that share out every weight train a tuned transformer as one process does, and resume."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import hardy
from hardy.commands import train
from hardy.engine import sharding
from hardy.engine.fit import Fit
from hardy.engine.gradient_checkpointing import blocks_of
from hardy.errors import InputError
from hardy.recipe import RunSection, from_values, read
from hardy.registry import ALGORITHMS

TWO = '''"""One run to its end; the same stopped after step 4 and resumed."""

import json
import os
import sys

from torch.distributed.tensor import DTensor

from hardy.__main__ import main
from hardy.engine.fit import Fit

recipe, whole, parts = sys.argv[1:]
step, terms, shares, seen = Fit._step, Fit._terms, set(), []


def watched(self, batch):
    if stop and self.progress.step == 4:
        raise KeyboardInterrupt
    step(self, batch)
    held = [value.to_local() for value in self.algorithm.parameters() if isinstance(value, DTensor)]
    assert len(held) == len(list(self.algorithm.parameters()))
    kept = [value for slots in self.optimiser.optimizer.state.values() for value in slots.values() if value.ndim]
    assert all(isinstance(value, DTensor) for value in [*kept, *self.average.values()])
    shares.add(sum(value.numel() for value in held) / sum(value.numel() for value in self.algorithm.parameters()))


def heard(self, part):
    found = terms(self, part)
    seen.append(found["segmentation"].item())
    return found


Fit._step, Fit._terms = watched, heard
for folder, stop in ((whole, False), (parts, True), (parts, False)):
    sys.argv = ["hardy", "train", recipe, f"run.folder={folder}", "run.sharding=full"]
    try:
        main()
    except KeyboardInterrupt:
        assert stop
    except SystemExit as left:
        assert bool(left.code) == stop, left.code
    with open(folder + os.environ["RANK"] + ".json", "w") as file:
        json.dump(seen, file)
    seen.clear()
assert max(shares) < 0.6, shares
'''


@pytest.fixture
def recipe(labelled, tmp_path) -> Path:
    """Rein on a transformer that an earlier run trained."""
    network = {"name": "encoder_decoder", "encoder": "test_vit", "decoder": "linear", "classes": str(labelled)}
    values = {
        "data": {
            "sources": ["folder"],
            "datasets": {"folder": {"root": str(labelled)}},
            "crop": [32, 32],
            "scale": [1, 1.2],
        },
        "optim": {"name": "rmsprop", "steps": 1, "batch": 4, "lr": 0.01},
        "run": {"device": "cpu", "threads": 1, "workers": 0, "checkpoint_every": 3},
    }
    start = train.run(
        from_values({**values, "network": network, "run": {**values["run"], "folder": str(tmp_path / "start")}})
    )
    values["network"] = {"run": str(start)}
    values["tuner"] = {"name": "rein", "tokens": 4, "rank": 2}
    values["optim"] |= {"steps": 6, "ema": 0.5, "clip": 1.0}
    values["evaluate"] = {"every": 2}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


@pytest.mark.costly
def test_a_sharded_run_is_an_unsharded_one(recipe, tmp_path, monkeypatch):
    (tmp_path / "two.py").write_text(TWO, encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*launcher, str(tmp_path / "two.py"), str(recipe), str(tmp_path / "whole"), str(tmp_path / "parts")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    losses, terms = [], Fit._terms
    monkeypatch.setattr(Fit, "_terms", lambda loop, part: heard(losses, terms(loop, part)))
    single = train.run(read(recipe, [f"run.folder={tmp_path / 'one'}"]))

    halves = [json.loads((tmp_path / f"whole{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert [(one + other) / 2 for one, other in zip(*halves, strict=True)] == pytest.approx(losses, rel=1e-4)
    assert len(set(losses)) == len(losses) == 6
    one, whole = (load_file(folder / "network.safetensors") for folder in (single, tmp_path / "whole"))
    assert one.keys() == whole.keys()
    assert all((value - whole[name]).abs().max() < 1e-4 for name, value in one.items())
    assert not any(".block." in name for name in whole), "only what was trained"
    bits = [(tmp_path / name / "network.safetensors").read_bytes() for name in ("whole", "parts")]
    assert bits[0] == bits[1], "a resumed run repeats the bits"
    start, tuned = (hardy.load(tmp_path / name).state_dict() for name in ("start", "whole"))
    frozen = [name for name in tuned if ".block." in name]
    assert frozen
    assert all(torch.equal(tuned[name], start[name.replace(".block.", ".")]) for name in frozen)


def heard(losses, terms):
    losses.append(terms["segmentation"].item())
    return terms


CANNOT = {
    "in one process": ({}, 1, r"^run.sharding: full has no effect in one process; start several \(torchrun "),
    "in fp16": ({"precision": "fp16"}, 2, "^run.precision: fp16 cannot be combined with run.sharding: full"),
    "with another layout": ({"channels_last": True}, 2, "^run.channels_last: true cannot be combined with run"),
}


@pytest.mark.parametrize(("place", "processes", "message"), CANNOT.values(), ids=CANNOT)
def test_what_cannot_be_sharded_is_one_line(shallow, place, processes, message):
    with pytest.raises(InputError, match=message):
        sharding.check(shallow(), RunSection(sharding="full", **place), processes)


def test_an_algorithm_that_reads_weights_is_refused(shallow):
    algorithm = shallow()
    sharding.check(algorithm, RunSection(sharding="full"), 2)
    algorithm.reads_weights = True
    with pytest.raises(InputError, match="cannot be combined with the algorithm ERM, which reads complete weights"):
        sharding.check(algorithm, RunSection(sharding="full"), 2)
    readers = {name for name in ALGORITHMS.names() if ALGORITHMS.get(name).reads_weights}
    assert readers == {"distillation", "self_distillation", "style_vae", "two_stage"}


def test_a_network_without_blocks_is_refused(shallow):
    with pytest.raises(InputError, match=r"^run.sharding: full has no effect: \w+ has no encoder with blocks"):
        blocks_of([shallow().network], "run.sharding: full")


def test_sharding_does_not_change_the_digest():
    values = {"network": {"name": "fast_scnn"}, "data": {"sources": ["streets/day"]}}
    first, second = (from_values({**values, "run": {"sharding": how}}) for how in ("none", "full"))
    assert first.digest() == second.digest()
