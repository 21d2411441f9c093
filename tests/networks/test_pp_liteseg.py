"""PP-LiteSeg: published sizes, where its heads sit, its decoder alone, filters cut out."""

import pytest
import torch

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.cost import gmacs, parameters
from hardy.registry import DECODERS
from surgery import halved


def head(width: int) -> int:
    """Weights of an auxiliary head on a map of ``width`` channels."""
    return 9 * width * 64 + 64 * 19


@pytest.mark.parametrize(
    ("variant", "count", "half", "full", "heads"),
    [("t", 8_027_808, 11.421, 45.676, (64, 128)), ("b", 12_234_240, None, 76.902, (96, 128))],
)
def test_size(variant: str, count: int, half: float | None, full: float, heads: tuple[int, ...]) -> None:
    network = create("pp_liteseg", "cityscapes19", variant=variant, aux=True)
    aux = sum(head(width) + 2 * 64 for width in heads)
    assert parameters(network) == count + aux
    assert sum(parameters(part) for part in (network.backbone, network.decoder)) == count
    assert gmacs(network, (1024, 2048)) == pytest.approx(full, rel=1e-4)
    assert half is None or gmacs(network, (512, 1024)) == pytest.approx(half, rel=1e-4)
    more = sum(head(width) / stride**2 for width, stride in zip(heads, (16, 32), strict=True)) * 1024 * 2048 / 1e9
    assert gmacs(network, (1024, 2048), training=True) == pytest.approx(full + more, rel=1e-4)


def test_features_and_heads() -> None:
    network = create("pp_liteseg", "camvid11", aux=True)
    outputs = network.outputs(torch.rand(1, 3, 128, 192))
    tensors = {**outputs.features, **outputs.extras, "logits": outputs.coarse}
    shapes = {name: tuple(value.shape[1:]) for name, value in tensors.items()}
    assert shapes == {
        "stage1": (64, 32, 48),
        "stage2": (256, 16, 24),
        "stage3": (512, 8, 12),
        "stage4": (1024, 4, 6),
        "projected8": (64, 16, 24),
        "projected16": (128, 8, 12),
        "projected32": (128, 4, 6),
        "fused8": (32, 16, 24),
        "fused16": (64, 8, 12),
        "fused32": (128, 4, 6),
        "logits": (11, 16, 24),
        "aux_fused16": (11, 8, 12),
        "aux_fused32": (11, 4, 6),
    }
    assert network.auxiliary_weight == 1
    assert network.eval()(torch.rand(1, 3, 321, 517)).shape == (1, 11, 321, 517)


def test_the_auxiliary_heads_read_what_the_fusions_made() -> None:
    network = create("pp_liteseg", "camvid11", aux=True)
    seen = {}
    for place, fusion in enumerate(network.decoder.fusions):
        fusion.register_forward_hook(lambda *_, place=place: seen.setdefault(place, _[-1]))
    outputs = network.outputs(torch.rand(2, 3, 64, 96))
    for place, stride in ((1, 16), (2, 32)):
        assert torch.equal(outputs.features[f"fused{stride}"], seen[place])
        assert torch.equal(outputs.extras[f"aux_fused{stride}"], network.aux[f"fused{stride}"](seen[place]))


@pytest.mark.parametrize("encoder", ["resnet18", "vit_tiny_patch16_224"])
def test_the_decoder_goes_with_any_encoder(encoder: str) -> None:
    options = {"encoder": encoder, "decoder": "pp_liteseg", "decoder_options": {"widths": [8, 16], "context": 16}}
    network = create("encoder_decoder", "camvid11", **options).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 97, 131)).shape == (1, 11, 97, 131)


def test_the_decoder_uses_the_coarsest_maps() -> None:
    decoder = DECODERS.build(
        "pp_liteseg", {"channels": [3, 5, 7], "strides": [4, 8, 16], "class_count": 2}, widths=(4, 6), context=8
    ).eval()
    maps = [torch.rand(1, 3, 16, 16), torch.rand(1, 5, 8, 9), torch.rand(1, 7, 4, 5)]
    assert decoder(maps).shape == (1, 2, 8, 9)
    assert [x.shape[1] for x in decoder.project(maps)] == [6, 8]
    assert torch.equal(decoder(maps), decoder([torch.zeros(1), *maps[1:]]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widths": [8, 8, 8, 8]}, "give 1 to 3, the encoder's maps"),
        ({"widths": []}, "give 1 to 3"),
        ({"widths": [0]}, "widths: 0 is out of range"),
        ({"grids": []}, "grids: 0 is out of range"),
        ({"dropout": 2}, "dropout: 2"),
    ],
)
def test_the_decoder_refuses_what_cannot_be_built(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        DECODERS.build("pp_liteseg", {"channels": [3, 5, 7], "strides": [4, 8, 16], "class_count": 2}, **options)


@pytest.mark.exhaustive
def test_half_of_nearly_every_layer_can_go() -> None:
    torch.manual_seed(0)
    assert halved(create("pp_liteseg", "camvid11")) > 0.9  # a mean over channels holds its three maps together
