"""No process that reads images outlives the command that started it; the garbage collector would wait for it."""

import gc
import signal
from multiprocessing import active_children, get_context

import pytest

from hardy.commands import prune, train
from hardy.data import loader
from hardy.errors import InputError
from hardy.recipe import from_values


@pytest.fixture
def read_by_two(sections):
    """A recipe whose images two processes read; nothing is collected meanwhile."""
    gc.collect()
    gc.disable()
    yield lambda **more: from_values(sections(run={"workers": 2}, **more))
    gc.enable()


@pytest.mark.costly
def test_training_ends_them(read_by_two):
    train.run(read_by_two())
    assert active_children() == []


@pytest.mark.costly
@pytest.mark.parametrize("schedule", [pytest.param("one_shot", marks=pytest.mark.exhaustive), "iterative"])
def test_pruning_ends_them(read_by_two, schedule):
    chosen = {"criterion": "taylor", "schedule": schedule, "min_width": 2, "round_to": 1, "ratio": 0.3, "recovery": 1}
    prune.run(read_by_two(prune=chosen, evaluate={"latency": False}))
    assert active_children() == []


@pytest.mark.costly
def test_a_command_that_is_refused_ends_them(read_by_two):
    with pytest.raises(InputError, match="segmentation = "):
        train.run(read_by_two(optim={"lr": 1e30}))
    assert active_children() == []


def test_one_that_nobody_else_stops_ends_by_itself(monkeypatch):
    monkeypatch.setattr(loader, "_GRACE", 1)
    child = get_context("fork").Process(target=_asked_once)
    child.start()
    child.join(timeout=60)
    assert child.exitcode == -signal.SIGALRM


def _asked_once():
    loader._outlive_signals(0)
    signal.raise_signal(signal.SIGTERM)
    while True:
        signal.pause()
