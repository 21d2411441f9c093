"""Weights with timm's names have the normalisation that timm states for their tag."""

import logging
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

import hardy
from hardy.networks.parts import hub

TAGGED = "test_vit.r160_in1k"


@pytest.mark.parametrize(
    ("encoder", "weights", "mean"),
    [
        (TAGGED, "file", 0.5),
        ("test_vit", f"hf-hub:timm/{TAGGED}", 0.5),
        (TAGGED, "hf-hub:someone/trained_on", 0.5),
        ("test_vit", "file", 0.485),
        ("test_vit", "hf-hub:timm/test_vit.no_such_tag", 0.485),
    ],
)
def test_a_file_of_timm_has_the_normalisation_of_its_tag(
    encoder: str,
    weights: str,
    mean: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "model.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_: str(file))
    chosen = {"encoder": encoder, "encoder_weights": str(file) if weights == "file" else weights}
    with caplog.at_level(logging.WARNING):
        network = hardy.create("encoder_decoder", "camvid11", decoder="linear", **chosen)
    assert float(network.mean.flatten()[0]) == pytest.approx(mean)
    said = [line.getMessage() for line in caplog.records if "normalised" in line.getMessage()]
    if weights == "file" and mean == 0.485:
        assert len(said) == 1
        assert "mean [0.485, 0.456, 0.406] of ImageNet, but timm's weights of test_vit need [0.5, 0.5, 0.5]" in said[0]
        assert said[0].endswith(f"give the encoder with its tag, such as {TAGGED}")
    else:
        assert said == []
