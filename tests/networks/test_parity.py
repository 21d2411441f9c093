"""Imported weights compute what their publication's own code computes: numbers of that code, made once and kept.

The fixtures hold the names and shapes of a state dict and 64 values of each output at two sizes; `release_logits` made
them by the rules of `parity`. Both sides compute in float64, so that the bound measures the function alone.
"""

import json
from pathlib import Path

import pytest
import torch
from parity import image, sample, state
from safetensors.torch import save_file
from torch import nn

import hardy
from hardy.registry import PUBLICATIONS

FOLDER = Path(__file__).parent / "parity"


def relative(values: torch.Tensor, expected: torch.Tensor) -> float:
    return float((values - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def agree(network: nn.Module, outputs: dict[str, dict[str, list[float]]]) -> None:
    """``network``, with its training heads but its running statistics, has ``outputs`` (size -> output -> values)."""
    network.double().train()
    for module in network.children():
        module.eval()
    for size, expected in outputs.items():
        rgb = image(*map(int, size.split("x")))
        found = network.outputs(rgb / 255)
        assert expected.keys() == {"logits", *found.extras}
        for name, numbers in expected.items():
            value = found.logits if name == "logits" else network.enlarged(found.extras[name], rgb.shape[-2:])
            assert relative(sample(value), torch.tensor(numbers).double()) <= 1e-5, (size, name)


@pytest.mark.parametrize("publication", list(PUBLICATIONS))
def test_an_imported_file_computes_what_its_release_computes(publication: str, tmp_path: Path) -> None:
    told = json.loads((FOLDER / f"{publication}.json").read_text())
    assert told["repository"] == PUBLICATIONS.build(publication).repository
    save_file(state(told["shapes"]), tmp_path / "some.safetensors")
    network = hardy.import_weights(tmp_path / "some.safetensors", "cityscapes19", source=publication)
    agree(network, told["outputs"])
