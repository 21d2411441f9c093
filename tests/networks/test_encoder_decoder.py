from typing import Any

import pytest
import torch

from hardy.blocks.sizes import resize
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.registry import DECODERS

VIT = "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    "options",
    [
        {"encoder": "mobilenetv2_035", "output_stride": 16},
        {"encoder": "mobilenetv2_035", "output_stride": 8, "decoder_options": {"atrous_rates": [12, 24, 36]}},
        {"encoder": "convnext_atto", "decoder_options": {"width": 64, "separable": False}},
        {"encoder": "resnet18", "decoder": "linear", "aux": True},
        {"encoder": "resnet18", "decoder": "linear", "decoder_options": {"maps": "all"}},
        {"encoder": VIT, "decoder": "linear", "decoder_options": {"maps": "all"}},
    ],
)
def test_any_encoder_with_any_decoder_at_any_size(options: dict[str, Any]) -> None:
    network = create("encoder_decoder", "camvid11", **options).eval()
    with torch.no_grad():
        for size in [(64, 96), (97, 131)]:
            outputs = network.outputs(torch.rand(1, 3, *size))
            assert outputs.logits.shape == (1, 11, *size)
            assert list(outputs.features) == ["stage1", "stage2", "stage3", "stage4"]
        outputs = network.outputs(torch.rand(1, 3, 128, 256))
    shapes = [tuple(value.shape[1:]) for name, value in outputs.features.items()]
    declared = zip(network.backbone.channels, network.backbone.strides, strict=True)
    assert shapes == [(channels, 128 // stride, 256 // stride) for channels, stride in declared]
    terms = network.train().outputs(torch.rand(2, 3, 65, 97))
    assert all(value.shape == (2, 11, *value.shape[2:]) for value in terms.extras.values())
    assert list(terms.extras) == (["aux_stage"] if options.get("aux") else [])


def test_output_stride_keeps_the_last_map_fine() -> None:
    strides = [
        create("encoder_decoder", "camvid11", encoder="resnet18", output_stride=stride).backbone.strides
        for stride in (8, 16, 32)
    ]
    assert strides == [[4, 8, 8, 8], [4, 8, 16, 16], [4, 8, 16, 32]]


def test_the_finest_stride_gives_the_decoder_one_map_more() -> None:
    options = {"encoder": "tf_efficientnet_lite0", "decoder": "unet", "decoder_options": {"width": 16}}
    network = create("encoder_decoder", "retina2", finest_stride=2, **options).eval()
    assert network.backbone.strides == [2, 4, 8, 16, 32]
    with torch.no_grad():
        for size in [(64, 96), (97, 131)]:
            outputs = network.outputs(torch.rand(1, 3, *size))
            assert outputs.logits.shape == (1, 2, *size)
            assert outputs.coarse.shape[-2:] == tuple(side // 2 for side in network.fitted(size))
            assert list(outputs.features) == [f"stage{number}" for number in range(1, 6)]
    plain = create("encoder_decoder", "retina2", **options)
    assert plain.backbone.strides == [4, 8, 16, 32]
    shared = {key: value.shape for key, value in plain.state_dict().items() if key.startswith("backbone.")}
    assert shared == {k: v.shape for k, v in network.state_dict().items() if k.startswith("backbone.")}


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (VIT, "finest_stride 2: encoder 'vit_tiny_patch16_224' has no map of that stride, its finest one has 16"),
        ("convnext_atto", "its finest one has 4; leave finest_stride out"),
        ("stdc1", "takes no finest_stride: its strides are 4, 8, 16, 32"),
    ],
)
def test_encoders_without_a_map_of_stride_2_say_so(encoder: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        create("encoder_decoder", "retina2", encoder=encoder, finest_stride=2, decoder="linear")


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"encoder": VIT}, (48, 64)),
        ({"encoder": VIT, "vit": {"patch": 14}}, (56, 70)),
        ({"encoder": "tf_efficientnet_lite0"}, (64, 64)),
        ({"encoder": "mobilenetv2_035", "output_stride": 8}, (48, 72)),
        ({"encoder": "stdc1"}, (64, 64)),
    ],
)
def test_the_layers_see_the_nearest_multiples_of_the_coarsest_stride(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    assert create("encoder_decoder", "camvid11", decoder="linear", **options).fitted((50, 70)) == size


@pytest.mark.parametrize("decoder", ["eomt", "linear", "mask2former", "upernet"])
def test_patches_that_are_no_power_of_two_give_logits_of_the_image(decoder: str) -> None:
    """Four cells for a patch of 14 pixels are 3.5 pixels wide."""
    network = create("encoder_decoder", "camvid11", encoder=VIT, decoder=decoder, vit={"patch": 14}).eval()
    image = torch.rand(1, 3, 50, 70)
    with torch.no_grad():
        outputs, resized = network.outputs(image), network.outputs(resize(image, (56, 70)))
    torch.testing.assert_close(outputs.coarse, resized.coarse)
    torch.testing.assert_close(outputs.logits, network.enlarged(resized.coarse, (50, 70)))


def test_linear_on_all_maps_is_one_convolution_of_all_maps_side_by_side() -> None:
    decoder = DECODERS.build("linear", {"channels": [3, 5], "strides": [4, 8], "class_count": 2}, maps="all").eval()
    fine, coarse = torch.rand(1, 3, 8, 8), torch.rand(1, 5, 4, 4)
    stretched = torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear", align_corners=False)
    weight = torch.cat([layer.weight for layer in decoder.classifiers], dim=1)
    bias = sum(layer.bias for layer in decoder.classifiers)
    expected = torch.nn.functional.conv2d(torch.cat([fine, stretched], dim=1), weight, bias)
    torch.testing.assert_close(decoder([fine, coarse]), expected)


def test_linear_on_the_last_map_ignores_the_others() -> None:
    decoder = DECODERS.build("linear", {"channels": [3, 5], "strides": [4, 8], "class_count": 2})
    assert sum(p.numel() for p in decoder.parameters()) == 5 * 2 + 2
    coarse = torch.rand(1, 5, 4, 4)
    assert torch.equal(decoder([torch.rand(1, 3, 8, 8), coarse]), decoder([torch.rand(1, 3, 8, 8), coarse]))


def test_deeplab_context_comes_at_the_size_of_the_finest_map() -> None:
    decoder = DECODERS.build(
        "deeplabv3plus", {"channels": [8, 16, 32], "strides": [4, 8, 16], "class_count": 3}, width=16
    ).eval()
    maps = [torch.rand(1, 8, 17, 23), torch.rand(1, 16, 9, 12), torch.rand(1, 32, 5, 6)]
    assert decoder(maps).shape == (1, 3, 17, 23)
    assert torch.equal(decoder(maps), decoder([maps[0], torch.zeros(1), maps[2]]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "resnet_18"}, "did you mean 'resnet18'"),
        ({"decoder": "linar"}, "did you mean 'linear'"),
        ({"decoder_options": {"rates": 3}}, "no option 'rates'"),
        ({"decoder_options": {"atrous_rates": [6, 12]}}, "give three"),
        ({"output_stride": 4}, "output_stride"),
        ({"encoder": VIT}, "several strides"),
        ({"encoder": VIT, "decoder": "linear", "output_stride": 16}, "output_stride"),
        ({"encoder": "mobilenetv2_035", "encoder_weights": "timm"}, "no such weights"),
        ({"encoder_weights": "a1_ink"}, "did you mean 'a1_in1k'"),
        ({"encoder_weights": "none.pth"}, "no such weights file"),
    ],
)
def test_refuses_what_cannot_be_built(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        create("encoder_decoder", "camvid11", **options)
    assert "\n" not in str(caught.value)
