"""STDC: published sizes, where its heads sit, detail guidance, checkpoints, filters cut out."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.encoders.stdc import STDCNet
from hardy.ops.cost import gmacs, parameters
from hardy.registry import LOSSES
from hardy.types import IGNORE
from surgery import halved

AUX = 2 * (9 * 128 * 64 + 2 * 64 + 64 * 19 + 19)
DETAIL = 9 * 256 * 64 + 2 * 64 + 64 + 1


@pytest.mark.parametrize(
    ("variant", "count", "half", "full"), [("stdc1", 8_275_123, 16.863, 67.452), ("stdc2", 12_305_587, None, 93.826)]
)
def test_size(variant: str, count: int, half: float | None, full: float) -> None:
    network = create("stdc", "cityscapes19", variant=variant)
    assert parameters(network) == count
    assert gmacs(network, (1024, 2048)) == pytest.approx(full, rel=1e-4)
    assert half is None or gmacs(network, (512, 1024)) == pytest.approx(half, rel=1e-4)


@pytest.mark.costly
def test_size_with_the_heads_of_training() -> None:
    network = create("stdc", "cityscapes19", aux=True, detail=True)
    assert parameters(network) == 8_275_123 + AUX + DETAIL
    heads = (9 * 128 * 64 + 64 * 19) * (1 / 16**2 + 1 / 8**2) + (9 * 256 * 64 + 64) / 8**2
    assert gmacs(network, (1024, 2048)) == pytest.approx(67.452, rel=1e-4)
    assert gmacs(network, (1024, 2048), training=True) == pytest.approx(67.452 + heads * 1024 * 2048 / 1e9, rel=1e-4)
    # the authors' module: no bias in classifiers, an ImageNet classifier, and heads at strides 2, 4, 8 and 16
    imagenet = 1024 * 1024 + 2 * 1024 + 1024 * 1024 + 2 * 1024 + 1024 * 1000
    others = sum(9 * width * 64 + 2 * 64 + 64 for width in (32, 64, 512))
    assert parameters(network) - 3 * 19 - 1 + imagenet + others == 12_048_928


def test_features_and_heads() -> None:
    network = create("stdc", "camvid11", aux=True, detail=True)
    outputs = network.outputs(torch.rand(1, 3, 128, 192))
    tensors = {**outputs.features, **outputs.extras, "logits": outputs.coarse}
    shapes = {name: tuple(value.shape[1:]) for name, value in tensors.items()}
    assert shapes == {
        "stage1": (64, 32, 48),
        "stage2": (256, 16, 24),
        "stage3": (512, 8, 12),
        "stage4": (1024, 4, 6),
        "context16": (128, 8, 12),
        "context8": (128, 16, 24),
        "fused": (256, 16, 24),
        "logits": (11, 16, 24),
        "aux_context16": (11, 8, 12),
        "aux_context8": (11, 16, 24),
        "detail": (1, 16, 24),
    }
    assert network.eval().outputs(torch.rand(1, 3, 64, 96)).extras == {}
    assert network(torch.rand(1, 3, 321, 517)).shape == (1, 11, 321, 517)


def test_detail_guidance_teaches_the_encoder() -> None:
    network = create("stdc", "camvid11", detail=True)
    labels = torch.randint(0, 11, (1, 65, 78), generator=torch.Generator().manual_seed(0))
    pixel_loss = LOSSES.build("cross_entropy", {"class_count": 11})
    terms = network.losses(network.outputs(torch.rand(1, 3, 65, 78)), labels, pixel_loss)
    assert list(terms) == ["segmentation", "detail_bce", "detail_dice"]
    (terms["detail_bce"] + terms["detail_dice"]).backward()
    taught = {name.partition(".")[0] for name, value in network.named_parameters() if value.grad is not None}
    assert taught == {"backbone", "detail"}
    assert network.backbone.features[0].conv.weight.grad.abs().max() > 0
    nothing = network.losses(network.outputs(torch.rand(2, 3, 64, 64)), torch.full((2, 64, 64), IGNORE), pixel_loss)
    assert all(value == 0 for value in nothing.values())


def test_heads_weigh_as_much_as_the_last() -> None:
    network = create("stdc", "camvid11", aux=True)
    outputs = network.outputs(torch.rand(2, 3, 64, 64))
    terms = network.losses(outputs, torch.zeros(2, 64, 64, dtype=torch.int64), lambda logits, labels: torch.tensor(3.0))
    assert {name: value.item() for name, value in terms.items()} == dict.fromkeys(terms, 3.0)
    assert len(terms) == 3


@pytest.mark.costly
def test_the_authors_checkpoints_fit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = dict(STDCNet("stdc1").state_dict())
    weights |= {"conv_last.conv.weight": torch.rand(2, 2), "fc.weight": torch.rand(2), "bn.bias": torch.rand(2)}
    weights |= {"linear.weight": torch.rand(2), "x2.0.0.conv.weight": torch.rand(2)}
    save_file(weights, tmp_path / "stdc1.safetensors")
    network = create("stdc", "camvid11", weights=None, encoder_weights=str(tmp_path / "stdc1.safetensors"))
    assert network.pretrained
    assert [part is network.backbone for part in network.encoder()] == [True]
    assert torch.equal(network.backbone.features[2].avd_layer[0].weight, weights["features.2.avd_layer.0.weight"])
    with pytest.raises(InputError, match="not the weights of this STDCNet"):
        create("stdc", "camvid11", variant="stdc2", encoder_weights=str(tmp_path / "stdc1.safetensors"))
    with pytest.raises(InputError, match="timm has none of stdc1"):
        create("stdc", "camvid11", weights="timm")


def test_the_encoder_goes_with_any_decoder() -> None:
    options = {"encoder": "stdc1", "decoder": "linear", "decoder_options": {"maps": "all"}}
    network = create("encoder_decoder", "camvid11", **options).eval()
    with torch.no_grad():
        outputs = network.outputs(torch.rand(1, 3, 97, 131))
    shapes = [tuple(x.shape[1:]) for name, x in outputs.features.items() if name.startswith("stage")]
    assert shapes == [(64, 24, 32), (256, 12, 16), (512, 6, 8), (1024, 3, 4)]
    with pytest.raises(InputError, match="takes no output_stride"):
        create("encoder_decoder", "camvid11", encoder="stdc2", output_stride=16)


@pytest.mark.exhaustive
def test_half_of_every_layer_can_go() -> None:
    torch.manual_seed(0)
    assert halved(create("stdc", "camvid11")) == 1
