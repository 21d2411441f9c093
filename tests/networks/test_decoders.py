"""Decoders on maps of any encoder: those of published networks against these networks, and what every one must do."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.decoders.base import Decoder
from hardy.registry import DECODERS

CHANNELS, STRIDES = (8, 12, 20, 32), (4, 8, 16, 32)


def maps_of(height: int, width: int, batch: int = 2) -> list[Tensor]:
    sides = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    return [torch.randn(batch, c, *side) for c, side in zip(CHANNELS, sides, strict=True)]


def trained(name: str, **options: Any) -> Network:
    """A network whose biases and norms are not those of a fresh one."""
    torch.manual_seed(0)
    network = create(name, "pacs7", **options).eval()
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.ndim == 1:
                value.copy_(torch.rand_like(value) + 0.5)
    return network


def filled(decoder: Decoder, network: Network, names: dict[str, str]) -> nn.Module:
    """The decoder with the network's weights, where ``names`` gives each part's name in the network."""
    weights = network.state_dict()
    own = {
        key: weights[names.get(key.split(".")[0], key.split(".")[0]) + key[key.find(".") :]]
        for key in decoder.state_dict()
    }
    decoder.load_state_dict(own, strict=True)
    return decoder.eval()


WIDE = {"mask2former", "upernet"}
"""Decoders that take seconds, for `make test-costly`."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.costly] * (name in WIDE))
        for name in DECODERS.names()
        if not DECODERS.get(name).joins
    ],
)
def test_every_decoder_takes_maps_of_every_size_and_learns(name: str) -> None:
    if name == "mask2former":
        pytest.importorskip("transformers")
    decoder = DECODERS.build(name, {"channels": CHANNELS, "strides": STRIDES, "class_count": 5})
    for height, width in ((64, 96), (97, 131)):
        maps = maps_of(height, width)
        logits = decoder(maps)
        assert logits.shape[:2] == (2, 5)
        assert logits.shape[2:] in {x.shape[2:] for x in maps} | {torch.Size(4 * side for side in maps[0].shape[2:])}
    logits.square().mean().backward()
    assert [key for key, value in decoder.named_parameters() if value.grad is None] == []
    alone = decoder.eval()([x[:1] for x in maps])
    torch.testing.assert_close(alone, decoder(maps)[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in DECODERS.names() if name not in ("deeplabv3plus", "eomt")])
def test_one_small_image_is_enough_to_learn_from(name: str) -> None:
    if name == "mask2former":
        pytest.importorskip("transformers")
    maps = maps_of(64, 64, batch=1)
    assert DECODERS.build(name, {"channels": CHANNELS, "strides": STRIDES, "class_count": 5})(maps).isfinite().all()


def test_fanets_top_down_path_is_that_of_the_network() -> None:
    network = trained("fanet")
    built = DECODERS.build(
        "fanet", {"channels": (64, 128, 256, 512), "strides": (8, 16, 32, 64), "class_count": 7}, maps=4
    )
    decoder = filled(built, network, {"classifier": "head"})
    with torch.no_grad():
        outputs = network.outputs(torch.rand(1, 3, 128, 192))
        decoded = decoder([outputs.features[f"stage{number}"] for number in range(1, 5)])
    torch.testing.assert_close(decoded, outputs.coarse, rtol=1e-5, atol=1e-5 * float(decoded.abs().max()))


def test_what_fast_scnn_does_behind_its_branches_is_that_of_the_network() -> None:
    network = trained("fast_scnn", ffm_dilation=4)
    decoder = DECODERS.build(
        "fast_scnn", {"channels": (64, 128), "strides": (8, 32), "class_count": 7}, maps=2, dilation=4
    )
    pooling = network.context[-1]
    decoder.context.load_state_dict(pooling.state_dict())
    decoder.fusion.load_state_dict(network.fusion.state_dict())
    decoder.filter.load_state_dict(network.head[:2].state_dict())
    decoder.classifier.load_state_dict(network.head[3].state_dict())
    seen: list[Tensor] = []
    pooling.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        outputs = network.outputs(torch.rand(1, 3, 96, 128))
        decoded = decoder.eval()([outputs.features["detail"], seen[0]])
    assert torch.equal(decoded, outputs.coarse)


@pytest.mark.parametrize(("name", "maps"), [("fast_scnn", 3), ("fanet", 3), ("stdc", None), ("regseg", None)])
def test_logits_come_at_the_stride_of_the_finest_map_used(name: str, maps: int | None) -> None:
    found = DECODERS.build(name, {"channels": CHANNELS, "strides": STRIDES, "class_count": 5}).eval()(maps_of(96, 160))
    assert found.shape[-2:] == ((24, 40) if name == "regseg" else (12, 20))
    if maps is not None:
        assert DECODERS.build(name, {"channels": CHANNELS, "strides": STRIDES, "class_count": 5}, maps=4).eval()(
            maps_of(96, 160)
        ).shape[-2:] == (24, 40)


@pytest.mark.parametrize(("stride", "sides"), [(None, (24, 40)), (2, (48, 80)), (8, (12, 20)), (32, (3, 5))])
def test_unet_ends_at_the_given_stage_and_uses_every_map_from_there_on(
    stride: int | None, sides: tuple[int, int]
) -> None:
    supply = {"channels": CHANNELS, "strides": STRIDES, "class_count": 5}
    decoder = DECODERS.build("unet", supply, stride=stride).eval()
    maps = maps_of(96, 160)
    before = decoder(maps)
    assert before.shape == (2, 5, *sides)
    for place, other in enumerate(STRIDES):
        changed = [torch.zeros_like(x) if place == here else x for here, x in enumerate(maps)]
        assert torch.equal(decoder(changed), before) == (other < (stride or 4))


def test_unet_sees_a_line_that_a_map_of_stride_4_does_not_show() -> None:
    """Of stripes 2 pixels wide a map that averages over 4 has one value, one that averages over 2 has two."""
    stripes = (torch.arange(64) // 2 % 2).float().expand(1, 1, 64, 64)
    maps = [torch.nn.functional.avg_pool2d(stripes, stride) for stride in (2, 4, 8)]
    assert maps[1].unique().tolist() == [0.5]
    torch.manual_seed(0)
    decoder = DECODERS.build("unet", {"channels": (1, 1, 1), "strides": (2, 4, 8), "class_count": 2}, width=4)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=0.05)
    labels = stripes[:, 0].long()[:, ::2, ::2]
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(decoder(maps), labels).backward()
        optimiser.step()
    assert float((decoder(maps).argmax(1) == labels).float().mean()) > 0.99


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("unet", {"width": 0}, "width"),
        ("unet", {"stride": 1}, "it can end at 2, 4, 8, 16, 32"),
        ("fanet", {"maps": 5}, "give 2 to 4"),
        ("fanet", {"queries": 0}, "queries"),
        ("fast_scnn", {"maps": 1}, "give 2 to 4"),
        ("fast_scnn", {"dropout": 2.0}, "dropout"),
        ("swiftnet", {"width": 2}, "width"),
        ("stdc", {"width": 130}, "multiple of 4"),
        ("regseg", {"fine": 0}, "fine"),
    ],
)
def test_numbers_out_of_range_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        DECODERS.build(name, {"channels": CHANNELS, "strides": STRIDES, "class_count": 5}, **options)


@pytest.mark.parametrize("name", ["stdc", "regseg"])
def test_two_maps_are_too_few_for_some(name: str) -> None:
    with pytest.raises(InputError, match="needs three maps; this encoder has 2"):
        DECODERS.build(name, {"channels": CHANNELS[:2], "strides": STRIDES[:2], "class_count": 5})


# each family of encoders once, each decoder once: all pairs are in benchmarks/encoders.py


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        ("shufflenet_v1_x0_5_g3", "swiftnet"),
        ("shufflenet_v2_x0_5", "fanet"),
        ("efficientformerv2_s0", "regseg"),
        ("mobilenetv1_100", "linear"),
        ("mobilenetv3_small_100", "linknet"),
        ("efficientnet_lite0", "efficientvit"),
        ("poolformer_s12", "fast_scnn"),
        ("repvit_m0_9", "pp_liteseg"),
        ("stdc1", "stdc"),
        ("mobilenetv2_035", "unet"),
    ],
)
def test_encoders_and_decoders_go_together(encoder: str, decoder: str) -> None:
    network = create("encoder_decoder", "pacs7", encoder=encoder, decoder=decoder)
    logits = network(torch.rand(2, 3, 64, 96))
    assert logits.shape == (2, 7, 64, 96)
    logits.square().mean().backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 3, 97, 131)).shape == (1, 7, 97, 131)
