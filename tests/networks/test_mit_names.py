"""Published weights of mix transformers under either of their names, and files that are not theirs."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hardy.errors import InputError
from hardy.networks.building.create import create, rebuild
from hardy.networks.encoders.mit import MixTransformer


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn_like(value) for name, value in MixTransformer("mit_b0").state_dict().items()}


def in_the_words_of_transformers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights as that library saves them, counted from 0, keys and values apart."""
    renamed: dict[str, Tensor] = {}
    words = {"attn.q": "attention.self.query", "attn.sr": "attention.self.sr", "attn.norm": "attention.self.layer_norm"}
    words |= {"attn.proj": "attention.output.dense", "mlp.fc1": "mlp.dense1", "mlp.fc2": "mlp.dense2"}
    words |= {"norm1": "layer_norm_1", "norm2": "layer_norm_2", "mlp.dwconv.dwconv": "mlp.dwconv.dwconv"}
    for name, value in weights.items():
        first, *middle, leaf = name.split(".")
        part, stage = first[:-1], int(first[-1]) - 1
        if part == "norm":
            renamed[f"segformer.encoder.layer_norm.{stage}.{leaf}"] = value
        elif part == "patch_embed":
            layer = {"proj": "proj", "norm": "layer_norm"}[middle[0]]
            renamed[f"segformer.encoder.patch_embeddings.{stage}.{layer}.{leaf}"] = value
        else:
            place, layer = f"segformer.encoder.block.{stage}.{middle[0]}", ".".join(middle[1:])
            if layer == "attn.kv":
                renamed[f"{place}.attention.self.key.{leaf}"], renamed[f"{place}.attention.self.value.{leaf}"] = (
                    half.clone() for half in value.chunk(2)
                )
            else:
                renamed[f"{place}.{words[layer]}.{leaf}"] = value
    return renamed


def test_weights_come_under_either_of_their_published_names(weights: dict[str, Tensor], tmp_path: Path) -> None:
    assert {"patch_embed1.proj.weight", "block1.0.norm1.weight", "block1.0.attn.q.weight", "norm4.bias"} < set(weights)
    assert {"block3.1.attn.kv.bias", "block3.1.attn.sr.weight", "block3.1.attn.norm.weight"} < set(weights)
    assert {"block4.1.mlp.fc1.weight", "block4.1.mlp.dwconv.dwconv.weight", "block4.1.attn.proj.bias"} < set(weights)
    save_file(weights | {"head.weight": torch.zeros(1000, 256)}, tmp_path / "authors.safetensors")
    theirs = in_the_words_of_transformers(weights) | {"decode_head.classifier.bias": torch.zeros(19)}
    assert len(theirs) == len(weights) + 2 * 8 + 1
    save_file(theirs, tmp_path / "theirs.safetensors")
    for name in ("authors", "theirs"):
        network = create("segformer", "camvid11", encoder_weights=str(tmp_path / f"{name}.safetensors"))
        assert all(torch.equal(value, weights[key]) for key, value in network.backbone.state_dict().items())
        assert network.pretrained
        assert network.encoder() == (network.backbone,)
    again = rebuild(network.architecture, network.label_space)
    assert again.pretrained
    assert again.architecture == network.architecture


def test_weights_of_another_size_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "b0.safetensors")
    with pytest.raises(InputError, match=r"not the weights of this MixTransformer: .* of another shape"):
        create("segformer", "camvid11", variant="b1", encoder_weights=str(tmp_path / "b0.safetensors"))


def test_keys_without_values_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    theirs = in_the_words_of_transformers(weights)
    del theirs["segformer.encoder.block.2.1.attention.self.value.weight"]
    save_file(theirs, tmp_path / "torn.safetensors")
    with pytest.raises(InputError, match=r"block3\.1\.attn\.kv\.weight \(160, 160\) for \(320, 160\)"):
        create("segformer", "camvid11", encoder_weights=str(tmp_path / "torn.safetensors"))
