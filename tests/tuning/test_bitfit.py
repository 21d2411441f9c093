import pytest
from torch import nn
from tuned_networks import attached, learn, merging_error, small

from hardy.errors import InputError


def trained(network):
    return {name for name, value in network.body.named_parameters() if value.requires_grad}


def test_every_bias_of_the_encoder_is_trained_and_no_weight() -> None:
    network = attached(small("convolutions"), "bitfit")
    layers = [f"6.{block}.{layer}" for block in (0, 1) for layer in ("norm", "mix.wide", "mix.narrow")]
    assert trained(network) == {f"{layer}.bias" for layer in ("1", "4", *layers)}
    assert all(value.requires_grad for value in network.head.parameters())


def test_the_biases_that_attention_stores_apart_are_trained_too() -> None:
    network = attached(small("biased"), "bitfit")
    assert {f"blocks.0.attn.{name}" for name in ("q_bias", "v_bias", "proj.bias")} <= trained(network)
    assert {name.rpartition(".")[2] for name in trained(network)} == {"bias", "q_bias", "v_bias"}


def test_a_plain_transformer_trains_the_count_of_the_formula() -> None:
    """A block of width c has 3c + c + 4c + c biases of layers and 2c of norms; c for the patches and the last norm."""
    network = attached(small("plain"), "bitfit")
    assert sum(v.numel() for v in network.body.parameters() if v.requires_grad) == 24 * (3 * 11 + 2)


def test_merging_changes_nothing_and_frees_all_weights() -> None:
    network = attached(small("plain"), "bitfit")
    learn(network)
    assert merging_error(network) == 0
    assert all(value.requires_grad for value in network.parameters())


def test_an_encoder_without_a_bias_is_refused_and_stays_as_it_is() -> None:
    network = small("convolutions")
    for module in network.body.modules():
        if isinstance(module, nn.Linear | nn.BatchNorm2d | nn.LayerNorm):
            module.bias = None
    with pytest.raises(InputError, match=r"^tuner: the encoder of TwoPart has no bias to train"):
        attached(network, "bitfit")
    assert all(value.requires_grad for value in network.parameters())
