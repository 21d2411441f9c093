import pytest
import torch
from timm.layers import BatchNormAct2d, GroupNormAct, LayerNorm2d
from torch import nn
from torch.nn import functional as F
from tuned_networks import attached, learn, logits, merging_error, small

import hardy
from hardy.deployment.folding import fold
from hardy.errors import InputError
from hardy.pruning.units import find_units


def test_every_layer_and_norm_is_scaled_and_shifted_where_it_has_a_bias() -> None:
    network = attached(small("convolutions"), "ssf")
    trained = {name for name, value in network.body.named_parameters() if value.requires_grad}
    shifted = ("1", "4", *(f"6.{block}.{layer}" for block in (0, 1) for layer in ("norm", "mix.wide", "mix.narrow")))
    assert trained == {f"{name}.gamma" for name in ("0", "3", *shifted)} | {f"{name}.beta" for name in shifted}


def test_a_linear_layer_and_a_convolution_by_hand() -> None:
    network = attached(small("convolutions"), "ssf")
    linear, convolution = network.body[6][0].mix.wide, network.body[3]
    for wrapped in (linear, convolution):
        nn.init.normal_(wrapped.gamma)
    x, image = torch.randn(2, 5, 24), torch.randn(2, 12, 6, 6)
    by_hand = linear.gamma * F.linear(x, linear.layer.weight, linear.layer.bias) + linear.beta
    torch.testing.assert_close(linear(x), by_hand)
    torch.testing.assert_close(F.linear(x, linear.weight, linear.bias), by_hand)
    by_hand = convolution.gamma[:, None, None] * convolution.layer(image)
    torch.testing.assert_close(convolution(image), by_hand)


def test_it_starts_near_the_network() -> None:
    """gamma ~ N(1, 0.02^2), beta ~ N(0, 0.02^2)."""
    network = attached(small("plain"), "ssf")
    gammas = torch.cat([v.detach() for name, v in network.named_parameters() if name.endswith(".gamma")])
    betas = torch.cat([v.detach() for name, v in network.named_parameters() if name.endswith(".beta")])
    for values, mean in ((gammas, 1.0), (betas, 0.0)):
        assert abs(float(values.mean()) - mean) < 5 * 0.02 / len(values) ** 0.5
        assert 0.018 < float(values.std()) < 0.022


@pytest.mark.parametrize("kind", ["plain", "registers", "split", "biased", "convolutions"])
def test_it_merges_exactly(kind: str) -> None:
    network = small(kind)
    names = set(network.state_dict())
    learn(attached(network, "ssf"), steps=3)
    assert merging_error(network) <= 1e-5
    assert set(network.state_dict()) == names


@pytest.mark.parametrize("norm", [BatchNormAct2d(6), GroupNormAct(6, group_size=3), LayerNorm2d(6), nn.GroupNorm(2, 6)])
def test_norms_over_maps_with_and_without_activation(norm: nn.Module) -> None:
    network = small("convolutions")
    network.body[2] = nn.Sequential(nn.Conv2d(12, 6, 1), norm, nn.Conv2d(6, 12, 1))
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    names = set(network.state_dict())
    start = logits(network)
    attached(network, "ssf")
    assert not torch.equal(logits(network), start)
    learn(network)
    assert {name for name in network.state_dict() if name.startswith("body.2.1.") and name.endswith(("gamma", "beta"))}
    assert merging_error(network) <= 1e-5
    assert set(network.state_dict()) == names


@pytest.mark.costly
def test_a_real_encoder_merged_is_folded_and_pruned_like_any_other() -> None:
    network = small("lite")
    learn(attached(network, "ssf"))
    assert merging_error(network) <= 1e-5
    assert find_units(network)
    assert not fold(network, size=(32, 48)).left


@pytest.mark.slow
@pytest.mark.costly
def test_a_tuned_real_encoder_is_folded_with_its_scales() -> None:
    """They stay behind the norms' place."""
    network = attached(small("lite"), "ssf")
    learn(network)
    assert fold(network, size=(32, 48)).difference < 1e-6


def test_an_encoder_without_layers_is_refused() -> None:
    network = small("convolutions")
    network.encoder = lambda: (network.body[2],)
    with pytest.raises(InputError, match=r"^tuner: the encoder of TwoPart has no layer to scale"):
        attached(network, "ssf")


def test_a_layer_that_standardises_its_weight_is_left_alone() -> None:
    network = hardy.create("encoder_decoder", "camvid11", encoder="resnetv2_18", decoder="linear").eval()
    attached(network, "ssf")
    wrapped = {type(module.layer).__name__ for module in network.modules() if type(module).__name__ == "_ScaledShifted"}
    assert "StdConv2d" not in wrapped
