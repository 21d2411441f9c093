"""Two processes train as one does: they share each batch, write one artefact and repeat their bits."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from safetensors.torch import load_file

from hardy.commands import train
from hardy.recipe import read
from hardy.records import read as records_of

PLAIN = '''"""A network without batch norm: its loss is a sum over images, so how they are shared changes nothing.

It says after each forward pass what its process holds.
"""

import hashlib
import os

from torch import nn

from hardy.networks.base import Network
from hardy.types import Outputs


class Plain(Network):
    """Two convolutions."""

    def __init__(self, label_space, *, width: int = 8):
        super().__init__(label_space)
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, len(label_space), 1))

    def outputs(self, images):
        if self.training:
            held = b"".join(value.numpy().tobytes() for value in self.state_dict().values())
            with open(os.environ["HELD"] + os.environ.get("RANK", "0"), "a") as file:
                file.write(f"{len(images)} {hashlib.sha256(held).hexdigest()}\\n")
        return Outputs(self.layers(self.normalise(images)))
'''


@pytest.fixture
def recipe(labelled, tmp_path, monkeypatch):
    (tmp_path / "plain_for_parallel.py").write_text(PLAIN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HELD", str(tmp_path / "held."))
    values = {
        "network": {"name": "plain_for_parallel:Plain", "classes": str(labelled)},
        "data": {
            "sources": ["folder"],
            "datasets": {"folder": {"root": str(labelled)}},
            "crop": [32, 32],
            "scale": [1, 1.2],
        },
        "optim": {"steps": 12, "batch": 4, "lr": 0.1, "ema": 0.5, "clip": 1.0},
        "run": {"device": "cpu", "threads": 1, "workers": 0, "checkpoint_every": 5},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


TWICE = """
import sys
from hardy.__main__ import main
recipe, *folders = sys.argv[1:]
for folder in folders:
    sys.argv = ["hardy", "train", recipe, f"run.folder={folder}", "--trust", "plain_for_parallel"]
    try:
        main()
    except SystemExit as left:
        assert not left.code, left.code
"""


def two(recipe, *folders):
    """Two processes train into the folders, one after the other."""
    (recipe.parent / "twice.py").write_text(TWICE, encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*launcher, str(recipe.parent / "twice.py"), str(recipe), *map(str, folders)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(recipe.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.costly
def test_two_processes_train_as_one(recipe, tmp_path):
    said = two(recipe, tmp_path / "two", tmp_path / "again").stdout

    held = [(tmp_path / f"held.{rank}").read_text(encoding="utf-8").splitlines() for rank in (0, 1)]
    assert held[0] == held[1], "both hold the same weights at every step"
    assert held[0][:12] == held[0][12:], "and again in the second run"
    assert {line.split()[0] for line in held[0]} == {"2"}, "each takes its half of every batch"
    assert len(set(held[0])) == 12

    single = train.run(read(recipe, [f"run.folder={tmp_path / 'one'}"], trust=["plain_for_parallel"]))
    one = load_file(single / "network.safetensors")
    for name, value in load_file(tmp_path / "two" / "network.safetensors").items():
        assert (value - one[name]).abs().max() < 1e-5, name
    both = [(tmp_path / name / "network.safetensors").read_bytes() for name in ("two", "again")]
    assert both[0] == both[1]

    kept = {"curves.jsonl", "network.json", "network.safetensors", "recipe.yaml", "records.jsonl", "train.log"}
    assert {path.name for path in (tmp_path / "two").iterdir()} == kept
    written = records_of(tmp_path / "two" / "records.jsonl")
    assert len(written) == len({(record.target, record.metric) for record in written}), "one process writes"
    assert said.count("mean over source-val") == 2, "each run says it once"
    assert len(re.findall("step 12/12|validation", (tmp_path / "two" / "train.log").read_text(encoding="utf-8"))) == 1
