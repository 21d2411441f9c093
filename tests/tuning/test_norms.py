import pytest
from torch import nn
from tuned_networks import attached, learn, logits, merging_error, small

from hardy.errors import InputError


def trained(network):
    return {name for name, value in network.body.named_parameters() if value.requires_grad}


def test_the_scales_and_shifts_of_all_norms_are_trained_and_nothing_else_of_the_encoder() -> None:
    network = attached(small("convolutions"), "norms")
    assert trained(network) == {
        f"{norm}.{kind}" for norm in ("1", "4", "6.0.norm", "6.1.norm") for kind in ("weight", "bias")
    }
    assert all(value.requires_grad for part in (network.middle, network.head) for value in part.parameters())


@pytest.mark.parametrize(("kind", "count"), [("plain", 7), ("registers", 7), ("split", 7)])
def test_a_transformer_trains_two_numbers_per_channel_and_norm(kind: str, count: int) -> None:
    network = attached(small(kind), "norms")
    assert sum(v.numel() for v in network.body.parameters() if v.requires_grad) == count * 2 * 24


def test_the_running_statistics_stay() -> None:
    network = attached(small("convolutions"), "norms")
    before = network.body[1].running_mean.clone(), network.middle[1].running_mean.clone()
    learn(network)
    assert network.body[1].running_mean.equal(before[0])
    assert not network.middle[1].running_mean.equal(before[1])


def test_merging_changes_nothing_and_frees_all_weights() -> None:
    network = attached(small("convolutions"), "norms")
    learn(network)
    assert merging_error(network) == 0
    assert all(value.requires_grad for value in network.parameters())


def test_an_encoder_without_norms_is_refused_and_stays_as_it_is() -> None:
    network = small("convolutions")
    network.body[1], network.body[4] = nn.Identity(), nn.Identity()
    for block in network.body[6]:
        block.norm = nn.Identity()
    before = logits(network)
    with pytest.raises(
        InputError, match=r"^tuner: the encoder of TwoPart has no norm layer with a scale or shift to t"
    ):
        attached(network, "norms")
    assert network.resting == ()
    assert all(value.requires_grad for value in network.parameters())
    assert logits(network).equal(before)
