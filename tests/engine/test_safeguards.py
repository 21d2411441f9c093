"""Which images pruning looks at, and when the stop rule says no."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hardy.engine import safeguards
from hardy.engine.memory_batches import MemoryBatches
from hardy.engine.protocol import Settings, Split
from hardy.engine.safeguards import DataView, stop_rule
from hardy.errors import InputError
from hardy.pruning.schedules.base import Work
from hardy.pruning.units import find_units
from hardy.recipe import Prune, RunSection


@pytest.fixture
def view():
    return DataView(Split((), (), ()), Settings(run=RunSection(device="cpu")))


def test_images_are_spread_evenly_over_domains_and_over_each(view):
    parts = safeguards.spread([("a", range(10)), ("b", range(3))], 5)
    assert parts == (("a", (1, 5, 8)), ("b", (0, 2)))
    assert safeguards.spread([("a", range(4)), ("b", range(3))], 100) == (("a", (0, 1, 2, 3)), ("b", (0, 1, 2)))
    assert [len(items) for _, items in safeguards.spread([("a", range(9)), ("b", range(9)), ("c", range(9))], 2)] == [
        1,
        1,
        1,
    ]


def test_the_rule_bears_a_fall_up_to_its_drop_from_the_dense_score(view, monkeypatch):
    """The score is the share of a unit's filters that are not zero: 8 of 8 before, then 7, 6 and 5."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    units = find_units(layers, torch.rand(1, 3, 8, 8))
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    scored = []

    def score(_, network, parts):
        scored.append(float((network[0].weight.flatten(1).abs().sum(1) > 0).double().mean()))
        return scored[-1]

    monkeypatch.setattr(DataView, "score", score)
    work = Work(layers, SimpleNamespace(), units, SimpleNamespace(), SimpleNamespace())
    good = stop_rule(work, Prune(stop={"domains": ["a/b"], "drop": 0.25}), (), view)
    assert [good({"0": list(range(gone))}) for gone in (1, 2, 3, 0)] == [True, True, False, True]
    assert scored == [1.0, 7 / 8, 6 / 8, 5 / 8, 1.0]
    assert all(torch.equal(value, before[name]) for name, value in layers.state_dict().items())


def test_the_rule_tries_a_network_with_the_statistics_that_it_will_have(monkeypatch):
    """What is tried has the means of its own channels over the two batches asked for; the dense one keeps its own."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1))
    batches = [(torch.rand(4, 3, 8, 8), torch.zeros(4, 8, 8)) for _ in range(3)]
    view = DataView(Split((), (), ()), Settings(run=RunSection(device="cpu")), MemoryBatches(batches))
    seen = []
    monkeypatch.setattr(
        DataView, "score", lambda _, network, parts: seen.append(network[1].running_mean.clone()) or 1.0
    )
    work = Work(layers, SimpleNamespace(), find_units(layers, batches[0][0]), SimpleNamespace(), SimpleNamespace())
    good = stop_rule(work, Prune(stop={"domains": ["a/b"], "drop": 0.25}, reestimate=2), (), view)
    assert good({"0": [5]})
    with torch.no_grad():
        wanted = layers[0](torch.cat([images for images, _ in batches[:2]])).mean((0, 2, 3))
    wanted[5] = 0
    assert torch.equal(seen[0], torch.zeros(8))
    torch.testing.assert_close(seen[1], wanted)


def test_images_without_a_labelled_pixel_score_nothing(view, monkeypatch):
    monkeypatch.setattr(safeguards.protocol, "measure", lambda *_: SimpleNamespace(intra_of=lambda _: None))
    with pytest.raises(InputError, match="prune: a/b: the measured images have no labelled pixel; measure more"):
        view.score(None, [(SimpleNamespace(name="a/b"), ())])
