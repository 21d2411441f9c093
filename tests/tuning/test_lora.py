import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from tuned_networks import attached, learn, logits, merging_error, small

import hardy
from hardy.errors import InputError
from hardy.pruning.units import find_units


def body_count(network) -> int:
    return sum(value.numel() for value in network.body.parameters() if value.requires_grad)


def test_a_layer_adds_alpha_over_rank_times_b_a_x() -> None:
    network = attached(small("convolutions"), "lora", rank=2, alpha=6.0)
    wrapped = network.body[6][0].mix.wide
    torch.nn.init.normal_(wrapped.up.weight)
    x = torch.randn(5, 24)
    a, b = wrapped.down.weight, wrapped.up.weight
    assert a.shape == (2, 24)
    assert b.shape == (36, 2)
    expected = F.linear(x, wrapped.layer.weight + 3 * b @ a, wrapped.layer.bias)
    torch.testing.assert_close(wrapped(x), expected)
    torch.testing.assert_close(F.linear(x, wrapped.weight, wrapped.bias), expected)


@pytest.mark.parametrize("kind", ["plain", "registers", "split", "biased"])
def test_it_starts_at_the_network_moves_it_and_merges_exactly(kind: str) -> None:
    network = small(kind)
    start = logits(network)
    attached(network, "lora", rank=4)
    assert torch.equal(logits(network), start)
    before = {name: value.clone() for name, value in network.body.state_dict().items()}
    network.middle.requires_grad_(False)
    network.head.requires_grad_(False)
    learn(network, steps=3)
    assert (logits(network) - start).abs().max() > 1e-3 * start.abs().max()
    factors = [value for name, value in network.body.named_parameters() if ".down." in name or ".up." in name]
    assert all(value.requires_grad and value.grad.any() for value in factors)
    frozen = [name for name in before if ".down." not in name and ".up." not in name]
    assert all(torch.equal(network.body.state_dict()[name], before[name]) for name in frozen)
    assert merging_error(network) <= 1e-5


def test_the_layers_of_attention_and_mlp_are_found_and_counted() -> None:
    """rank * (inputs + outputs) of qkv, proj, fc1 and fc2 in each of three blocks; not the patch embedding."""
    network = attached(small("plain"), "lora", rank=4)
    assert body_count(network) == 3 * 4 * ((24 + 72) + (24 + 24) + (24 + 96) + (96 + 24))
    assert isinstance(network.body.patch_embed.proj, torch.nn.Conv2d)
    separate = attached(small("split"), "lora", rank=4)
    assert all(
        hasattr(separate.body.blocks[0].attn.get_submodule(name), "up") for name in ("q_proj", "k_proj", "v_proj")
    )


@pytest.mark.parametrize(
    ("kind", "targets", "layers"),
    [
        ("plain", "attention", {"qkv", "proj"}),
        ("plain", "qkv", {"qkv"}),
        ("split", "attention", {"q_proj", "k_proj", "v_proj", "proj"}),
        ("split", "qkv", {"q_proj", "k_proj", "v_proj"}),
    ],
)
def test_targets_leave_the_mlps_or_the_outputs_out(kind: str, targets: str, layers: set[str]) -> None:
    found = wrapped(attached(small(kind), "lora", rank=4, targets=targets))
    assert found == {f"body.blocks.{block}.attn.{layer}" for block in range(3) for layer in layers}


@pytest.mark.parametrize(("targets", "layers"), [("attention", {"q", "kv", "proj"}), ("qkv", {"q", "kv"})])
def test_the_attention_of_a_mix_transformer_is_found_too(targets: str, layers: set[str]) -> None:
    with torch.device("meta"):
        network = hardy.create("encoder_decoder", "camvid11", encoder="mit_b0", decoder="linear")
        found = wrapped(attached(network, "lora", rank=4, targets=targets))
    places = {f"backbone.block{stage}.{block}.attn" for stage in range(1, 5) for block in range(2)}
    assert found == {f"{place}.{layer}" for place in places for layer in layers}


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "count"), [("vit_large_patch14_dinov2", 786_432), ("eva02_large_patch14_224", 1_179_648)]
)
def test_the_published_settings_have_the_published_counts(encoder: str, count: int) -> None:
    """0.79M at rank 8 beside the query, key and value of DINOv2-L; 1.18M for EVA02-L, which stores them apart."""
    with torch.device("meta"):
        network = hardy.create("encoder_decoder", "camvid11", encoder=encoder, decoder="linear")
        attached(network, "lora", rank=8, targets="qkv")
    inside = network.backbone.parameters()
    assert sum(value.numel() for value in inside if value.requires_grad) == count


def test_late_products_keep_nothing_of_the_blocks_before_them() -> None:
    """Four layers in each of three blocks, of which a third is left as it is."""
    network = attached(small("plain"), "lora", rank=4, frozen_share=0.3333).train()
    blocks = network.body.blocks
    assert [sum(value.requires_grad for value in block.parameters()) for block in blocks] == [0, 8, 8]
    kept: list[torch.Size] = []
    with saved_tensors_hooks(lambda value: (kept.append(value.shape), value)[1], lambda value: value):
        seen = blocks[0](network.body.patch_embed(torch.rand(2, 3, 32, 32)).flatten(1, 2))
        assert not kept
        assert not seen.requires_grad
        blocks[1](seen)
        assert kept
    with pytest.raises(InputError, match=r"^tuner.frozen_share: 1.0 is out of range"):
        attached(small("plain"), "lora", frozen_share=1.0)


@pytest.mark.slow
def test_pointwise_convolutions_of_a_real_encoder_merge_exactly_and_their_strides_hold() -> None:
    network = small("lite")
    start = logits(network)
    attached(network, "lora", rank=4, pointwise=True)
    assert torch.equal(logits(network), start)
    learn(network)
    wrapped = [module for module in network.modules() if type(module).__name__ == "_LowRank"]
    assert len(wrapped) == 31
    assert all(module.layer.kernel_size == (1, 1) for module in wrapped)
    assert merging_error(network) <= 1e-5


@pytest.mark.slow
def test_layers_are_found_where_blocks_are_no_sequence_and_not_where_position_biases_are_made() -> None:
    network = hardy.create("encoder_decoder", "camvid11", encoder="regnety_002", decoder="linear")
    found = wrapped(attached(network, "lora", rank=2, pointwise=True))
    assert {"backbone.model.s1.b1.conv1.conv", "backbone.model.s4.b7.conv3.conv"} <= found
    network = hardy.create("encoder_decoder", "camvid11", encoder="swinv2_cr_tiny_ns_224", decoder="linear")
    found = wrapped(attached(network, "lora", rank=4))
    assert "backbone.model.stages.0.blocks.0.attn.qkv" in found
    assert not any("meta_mlp" in name for name in found)


def wrapped(network) -> set[str]:
    return {name for name, module in network.named_modules() if type(module).__name__ == "_LowRank"}


@pytest.mark.slow
def test_a_tuned_transformer_can_lose_heads_and_ranks() -> None:
    units = {unit.name: unit.kind for unit in find_units(attached(small("plain"), "lora", rank=4))}
    assert units["body.blocks.0.attn.qkv.layer"] == "heads"
    assert units["body.blocks.0.attn.qkv.down"] == "hidden"


def refusal(kind: str, **options: object) -> str:
    network = small(kind)
    with pytest.raises(InputError) as error:
        attached(network, "lora", **options)
    assert network.resting == ()
    assert all(value.requires_grad for value in network.parameters())
    return str(error.value)


@pytest.mark.slow
def test_what_cannot_be_is_refused_in_one_line() -> None:
    narrowest = "body.blocks.0.attn.qkv is 24 channels wide; choose 1 to 24"
    assert refusal("plain", rank=25) == f"tuner.rank is 25, but {narrowest}"
    assert refusal("plain", rank=0) == f"tuner.rank is 0, but {narrowest}"
    assert refusal("plain", alpha=-1.0) == "tuner.alpha: -1.0 is out of range; it must be 0 or more"
    none = "tuner: the encoder of EncoderDecoder has no linear layer in its blocks; pointwise: true also uses 1x1"
    assert refusal("lite").startswith(none)
    assert refusal("lite", pointwise=True, targets="qkv").startswith(
        "tuner.pointwise: it has no effect with tuner.targets: qkv"
    )
    none = "tuner.targets: the encoder of TwoPart has no attention of linear layers; use all"
    assert refusal("convolutions", targets="attention") == none
