import pytest
import torch
from tuned_networks import attached, learn, merging_error, small

import hardy
from hardy.engine import changes
from hardy.registry import TUNERS


@pytest.mark.parametrize("kind", ["plain", "convolutions"])
def test_every_weight_is_trained_and_nothing_is_inserted(kind: str) -> None:
    network = small(kind)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    attached(network, "full")
    assert network.state_dict().keys() == before.keys()
    assert network.resting == ()
    assert changes.untrained(network) == frozenset()
    learn(network)
    parameters = dict(network.named_parameters())
    assert all(not torch.equal(value, before[name]) for name, value in parameters.items())
    assert merging_error(network) == 0


def test_it_frees_what_was_frozen_and_takes_a_network_without_an_encoder() -> None:
    network = hardy.create("tiny", "camvid11", width=8).requires_grad_(False)
    attached(network, "full")
    assert all(value.requires_grad for value in network.parameters())


def test_its_rate_is_that_of_the_optimiser() -> None:
    assert TUNERS.describe("full").options == ()
