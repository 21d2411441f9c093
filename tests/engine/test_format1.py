"""Artefacts of format 1 load for ever: some of November 2026, and what their networks answered then."""

import json
from pathlib import Path

import pytest
import torch

import hardy

FOLDER = Path(__file__).parents[1] / "fixtures" / "format1"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", EXPECTED)
def test_an_old_artefact_still_says_what_it_said(name: str) -> None:
    network = hardy.load(FOLDER / name)
    images = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(images).double()
    expected = EXPECTED[name]
    assert list(logits.shape) == expected["shape"]
    found = logits.flatten()[:: max(1, logits.numel() // 16)][:16]
    wanted = torch.tensor(expected["logits"], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_every_old_artefact_is_tried() -> None:
    assert sorted(EXPECTED) == sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
