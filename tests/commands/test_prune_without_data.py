"""Pruning by what the weights say needs no data: in Python, on the command line, in one shot."""

import pytest
import torch
import yaml

import hardy
from hardy.commands import prune as command
from hardy.errors import InputError
from hardy.ops.cost import parameters
from hardy.recipe import from_values
from hardy.registry import CRITERIA

FREE = [name for name in CRITERIA if not CRITERIA.get(name).needs_data]


@pytest.mark.costly
@pytest.mark.parametrize("criterion", FREE)
def test_a_criterion_that_reads_the_weights_needs_no_data(criterion, capsys):
    torch.manual_seed(0)
    network = hardy.create("tiny", "camvid11", width=32)
    small = hardy.prune(network, criterion=criterion, ratio=0.5, prune={"min_width": 1, "round_to": 1}, show=False)
    assert parameters(small) < 0.7 * parameters(network)
    assert small(torch.rand(1, 3, 32, 48)).shape == (1, 11, 32, 48)


def test_it_is_what_one_shot_prunes():
    network = hardy.create("tiny", "camvid11", width=16)
    plans = [
        hardy.prune(network, criterion="l2", ratio=0.4, prune=prune, show=False).plan
        for prune in ({}, {"schedule": "one_shot"})
    ]
    assert plans[0] == plans[1] != {}


@pytest.mark.parametrize("data", [{}, {"data": {}}, {"data": {"crop": [32, 48]}}], ids=["absent", "empty", "a crop"])
def test_the_command_prunes_a_run_without_sources(tmp_path, data, capsys):
    run = hardy.save(hardy.create("tiny", "camvid11", width=16), tmp_path / "dense")
    values = {
        "network": {"run": str(run)},
        "prune": {"criterion": "l1", "ratio": 0.5, "min_width": 1, "round_to": 1},
        "evaluate": {"latency": False},
        "run": {"folder": str(tmp_path / "small"), "device": "cpu"},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**values, **data}))
    recipe = hardy.recipe.read(file)
    assert recipe.prune is not None
    assert recipe.prune.schedule.name == "one_shot"
    assert parameters(hardy.load(command.run(recipe))) < parameters(hardy.load(run))
    assert hardy.recipe.read(tmp_path / "small" / "recipe.yaml") == recipe


def test_with_sources_the_usual_schedule_stays():
    network, data = {"run": "runs/x"}, {"sources": ["streets/sim"]}
    recipe = from_values({"network": network, "data": data, "prune": {"criterion": "l2"}})
    assert recipe.prune is not None
    assert recipe.prune.schedule.name == "iterative"


def test_a_criterion_that_looks_at_images_says_which_do_not():
    network = hardy.create("tiny", "camvid11", width=16)
    with pytest.raises(InputError, match=r"taylor with the one_shot schedule .* needs data; .* by one of: .*l2"):
        hardy.prune(network, criterion="taylor", ratio=0.5, show=False)
