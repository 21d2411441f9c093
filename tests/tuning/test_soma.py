from pathlib import Path

import pytest
import torch
from tuned_networks import attached, learn, logits, merging_error, small

import hardy
from hardy.engine import changes
from hardy.errors import InputError
from hardy.tuning.soma import SoMA


def tuned_layers(network) -> list[str]:
    return [name for name, module in network.named_modules() if type(module).__name__ == "_Minor"]


def test_the_smallest_singular_values_are_trained_and_the_rest_is_frozen() -> None:
    network = small("plain")
    weight = network.body.blocks[2].mlp.fc2.weight.detach().double().clone()
    attached(network, "soma", rank=4)
    wrapped = network.body.blocks[2].mlp.fc2
    assert torch.equal(wrapped.layer.weight.double(), weight)
    minor = (wrapped.up[0].weight @ wrapped.down[0].weight).detach().double()
    values = torch.linalg.svdvals(weight)
    found = torch.linalg.svdvals(minor)
    torch.testing.assert_close(found[:4], values[-4:], rtol=1e-5, atol=1e-6)
    assert found[4:].max() < 1e-6 * values[0]
    rest = torch.linalg.svdvals(weight - minor)
    torch.testing.assert_close(rest[:20], values[:20], rtol=1e-5, atol=1e-6)
    assert rest[20:].max() < 1e-5 * values[0], "what is frozen has only the principal part"
    a, b = wrapped.down[0].weight.double(), wrapped.up[0].weight.double()
    torch.testing.assert_close((a @ a.T).diagonal(), values[-4:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close((b.T @ b).diagonal(), values[-4:], rtol=1e-4, atol=1e-6)


def test_query_key_and_value_are_decomposed_separately() -> None:
    network = small("plain")
    weight = network.body.blocks[2].attn.qkv.weight.detach().double().clone()
    attached(network, "soma", rank=4)
    wrapped = network.body.blocks[2].attn.qkv
    assert len(wrapped.up) == 3
    for part, up, down in zip(weight.chunk(3), wrapped.up, wrapped.down, strict=True):
        found = torch.linalg.svdvals((up.weight @ down.weight).double())[:4]
        torch.testing.assert_close(found, torch.linalg.svdvals(part)[-4:], rtol=1e-5, atol=1e-6)
    assert {len(network.body.blocks[2].get_submodule(name).up) for name in ("attn.proj", "mlp.fc1", "mlp.fc2")} == {1}


def test_the_first_third_of_the_layers_is_frozen() -> None:
    network = attached(small("plain"), "soma", rank=4)
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert tuned_layers(network) == [f"body.blocks.{block}.{layer}" for block in (1, 2) for layer in layers]
    assert len(tuned_layers(attached(small("plain"), "soma", rank=4, frozen_share=0.0))) == 12
    assert len(tuned_layers(attached(small("plain"), "soma", rank=4, frozen_share=0.99))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "registers", "split", "biased", "convolutions"])
def test_it_starts_at_the_network_moves_it_and_merges_exactly(kind: str) -> None:
    network = small(kind)
    start, names = logits(network), set(network.state_dict())
    attached(network, "soma", rank=4)
    torch.testing.assert_close(logits(network), start, rtol=0, atol=1e-6)
    frozen = {name: value.clone() for name, value in network.state_dict().items() if "start_" in name}
    for part in (network.middle, network.head):
        part.requires_grad_(False)
    learn(network, steps=3)
    assert (logits(network) - start).abs().max() > 1e-3 * start.abs().max()
    assert frozen
    assert all(torch.equal(network.state_dict()[name], value) for name, value in frozen.items())
    assert merging_error(network) <= 1e-5
    assert set(network.state_dict()) == names


@pytest.mark.parametrize(("kind", "of_qkv"), [("plain", 72), ("biased", 48)])
def test_factors_and_the_biases_of_their_layers_are_trained_and_counted(kind: str, of_qkv: int) -> None:
    """Of SoMA's table: rank * (inputs + outputs) for q, k, v, proj, fc1 and fc2, and their biases, in two blocks.

    In ``biased`` attention stores the biases of query and value, and the key has none."""
    network = attached(small(kind), "soma", rank=4)
    trained = {name: value for name, value in network.body.named_parameters() if value.requires_grad}
    assert sum(value.numel() for value in trained.values()) == 2 * (4 * (4 * 48 + 2 * 120) + of_qkv + 24 + 96 + 24)
    assert {f"body.{name}" for name in trained} <= SoMA().trained(network)


def test_biases_stored_apart_are_trained_only_with_their_layer() -> None:
    network = attached(small("biased"), "soma", rank=4, frozen_share=0.75)
    assert tuned_layers(network) == [f"body.blocks.2.{layer}" for layer in ("attn.proj", "mlp.fc1", "mlp.fc2")]
    assert not any(value.requires_grad for name, value in network.named_parameters() if name.endswith("q_bias"))


def test_what_is_stored_has_the_factors_of_the_start_but_not_the_weights() -> None:
    network = attached(small("plain"), "soma", rank=4)
    held = SoMA().trained(network)
    assert "body.blocks.1.mlp.fc1.start_up.0.weight" in held
    assert "body.blocks.1.mlp.fc1.up.0.weight" in held
    assert "body.blocks.1.mlp.fc1.layer.weight" not in held
    assert "body.blocks.1.mlp.fc1.layer.weight" in changes.untrained(network)


def test_loading_decomposes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = attached(small("plain"), "soma", rank=4)
    hardy.save(network, tmp_path / "run")
    monkeypatch.delattr(torch.linalg, "svd")
    loaded = hardy.load(tmp_path / "run", trust=["small_transformer"]).state_dict()
    assert loaded.keys() == network.state_dict().keys()
    assert all(torch.equal(loaded[name], value) for name, value in network.state_dict().items())


@pytest.mark.costly
@pytest.mark.slow
def test_pointwise_convolutions_of_a_real_encoder_merge_exactly() -> None:
    network = small("lite")
    start = logits(network)
    attached(network, "soma", rank=16, pointwise=True)
    torch.testing.assert_close(logits(network), start, rtol=0, atol=1e-5 * float(start.abs().max()))
    assert len(tuned_layers(network)) == 31 - 10
    learn(network)
    assert merging_error(network) <= 1e-5


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("plain", {"rank": 25}, "tuner.rank is 25, but body.blocks.1.attn.qkv is 24 channels wide; choose 1 to 24"),
        ("plain", {"frozen_share": 1.0}, "tuner.frozen_share: 1.0 is out of range; it must be at least 0 and below 1"),
        (
            "lite",
            {},
            "tuner: the encoder of EncoderDecoder has no linear layer in its blocks; pointwise: true also uses 1x1 "
            "convolutions",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(kind: str, options: dict[str, float], said: str) -> None:
    network = small(kind)
    with pytest.raises(InputError) as error:
        attached(network, "soma", **options)
    assert str(error.value) == said
    assert network.resting == ()
    assert all(value.requires_grad for value in network.parameters())
