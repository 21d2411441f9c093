"""Hardy's own encoders: published sizes and weights, timm's and torchvision's maps, any size, cuts, one graph."""

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import efficientformer as timm_first
from timm.models import efficientformer_v2 as timm_second
from torch import nn
from torch.export import Dim
from torchvision import models

from hardy.errors import InputError
from hardy.networks import encoders
from hardy.networks.building.create import create
from hardy.networks.encoders import base, shufflenet_v1
from hardy.networks.encoders.base import Encoder, encoder_names, family_of, load
from hardy.networks.parts.any_size_attention import AnySizeAttention, AnySizeAttention2d, AnySizeDownsample
from hardy.ops.cost import gmacs, parameters
from hardy.pruning.units import survey
from surgery import halved

ATTENTION = (AnySizeAttention, AnySizeAttention2d, AnySizeDownsample)


def grown(module: Any) -> Any:
    """The module with no bias, norm, scale or table as a fresh one has it, in place."""
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point() and value.numel() > 1 and float(value.std()) < 1e-3:
                value.copy_(torch.rand_like(value) + 0.5)
    return module


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """EfficientFormers of a few narrow blocks, under the names of L1 and S0; ShuffleNet V1 of few units."""
    widths = (8, 16, 24, 32)
    monkeypatch.setitem(timm_first.EfficientFormer_width, "l1", widths)
    monkeypatch.setitem(timm_first.EfficientFormer_depth, "l1", (1, 1, 1, 2))
    monkeypatch.setitem(timm_second.EfficientFormer_width, "S0", widths)
    monkeypatch.setitem(timm_second.EfficientFormer_depth, "S0", (1, 1, 2, 2))
    monkeypatch.setitem(timm_second.EfficientFormer_expansion_ratios, "S0", (2, 2, (2, 2), (2, 2)))
    monkeypatch.setattr(shufflenet_v1, "DEPTHS", (2, 2, 1))


# sizes ----------------------------------------------------------------------------------------------------------------

PUBLISHED = [  # with 1000 classes and so many heads; see benchmarks/encoders.py for the others
    ("shufflenet_v1_x1_0_g3", 1, 1_865_728, 0.137),
    ("shufflenet_v1_x0_5_g3", 1, 718_324, 0.0376),
    ("shufflenet_v1_x2_0_g3", 1, 5_450_776, 0.5240),
    ("shufflenet_v2_x0_5", 1, 1_366_792, 0.040),
    ("efficientformer_l1", 2, 12_289_928, 1.291),
    ("efficientformerv2_s0", 2, 3_600_256, 0.396),
]


@pytest.mark.costly
@pytest.mark.parametrize(("name", "heads", "count", "cost"), PUBLISHED)
def test_size_as_a_classifier(name: str, heads: int, count: int, cost: float) -> None:
    with torch.device("meta"):
        network = create("classifier", "pacs7", encoder=name)
    more = 1000 * heads - 7
    assert parameters(network) + more * (network.head.in_features + 1) == count
    whole = gmacs(network, (224, 224)) + more * network.head.in_features / 1e9
    assert whole == pytest.approx(cost, abs=5.1e-4), "published to three places"


@pytest.mark.parametrize(
    ("name", "stem"), [("x0_5_g3", 12), ("x0_5_g8", 16), ("x1_0_g8", 24), ("x1_5_g3", 24), ("x2_0_g8", 48)]
)
def test_the_stem_of_shufflenet_scales(name: str, stem: int) -> None:
    encoder = load(f"shufflenet_v1_{name}", None)
    first = encoder.stages[0][0].reduce[0]
    assert (encoder.channels[0], encoder.stem[0][0].out_channels) == (stem, stem)
    assert (first.in_channels, first.groups) == (stem, 1)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("shufflenet_v1_x1_0_g3", [24, 240, 480, 960]),
        ("shufflenet_v2_x1_0", [24, 116, 232, 464]),
        ("efficientformerv2_s0", [32, 48, 96, 176]),
    ],
)
def test_maps_of_any_size_and_a_gradient_for_every_parameter(name: str, channels: list[int]) -> None:
    encoder = load(name, None)
    assert encoder.channels == channels
    for height, width in ((32, 32), (97, 131)):
        maps = encoder(torch.rand(2, 3, height, width))
        cells = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]
        assert [tuple(x.shape[1:]) for x in maps] == [(c, *side) for c, side in zip(channels, cells, strict=True)]
    sum(x.square().mean() for x in maps).backward()
    assert [key for key, value in encoder.named_parameters() if value.grad is None] == []


def test_only_the_very_first_shufflenet_convolution_sees_all_channels() -> None:
    encoder = load("shufflenet_v1_x1_0_g3", None)
    groups = [unit.reduce[0].groups for stage in encoder.stages for unit in stage]
    assert groups == [1, *[3] * 15]
    assert [len(stage) for stage in encoder.stages] == [4, 8, 4]


# against timm and torchvision -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["efficientformer_l1", "efficientformerv2_s0"])
def test_at_the_trained_size_the_maps_are_timms(name: str, small: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = grown(timm.create_model(name)).eval()
    save_file(reference.state_dict(), tmp_path / "trained.safetensors")
    network = create("classifier", "pacs7", encoder=name, encoder_weights=str(tmp_path / "trained.safetensors")).eval()
    assert network.pretrained
    images = torch.rand(1, 3, 224, 224)
    for no_grad in (False, True, True):  # computed, computed and kept, and kept
        with torch.set_grad_enabled(not no_grad):
            expected = reference.forward_intermediates(images, norm=True, intermediates_only=True)
            for ours, theirs in zip(network.backbone(images), expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.detach().abs().max()))
    embedding = network.outputs(network.mean + images * network.std).embedding
    map_of_timm = reference.forward_head(reference.forward_features(images), pre_logits=True)
    torch.testing.assert_close(embedding, map_of_timm, rtol=1e-4, atol=1e-4 * float(map_of_timm.detach().abs().max()))


def test_torchvisions_weights_give_torchvisions_outputs(tmp_path: Path) -> None:
    reference = grown(models.shufflenet_v2_x0_5(weights=None)).eval()
    file = str(tmp_path / "shufflenet.pth")
    torch.save(reference.state_dict(), file)
    network = create("classifier", "pacs7", encoder="shufflenet_v2_x0_5", encoder_weights=file).eval()
    images = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        seen = network.outputs(network.mean + images * network.std).embedding
        torch.testing.assert_close(reference.fc(seen), reference(images), rtol=1e-4, atol=1e-4)
    encoder = load("shufflenet_v2_x0_5", file)
    assert not list(encoder.conv5.parameters()), "what only a classifier runs is left out"
    with pytest.raises(InputError, match="these are not the weights of this ShuffleNetV2"):
        load("shufflenet_v2_x1_0", file)


# any size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["efficientformer_l1", "efficientformerv2_s0"])
def test_kept_biases_go_with_the_size_and_with_what_they_were_made_of(name: str, small: None) -> None:
    encoder = grown(load(name, None)).eval()
    sizes = [torch.rand(1, 3, 64, 96), torch.rand(1, 3, 96, 64), torch.rand(1, 3, 128, 160)]
    asking = [module for module in encoder.modules() if isinstance(module, ATTENTION)]
    assert asking
    for _ in range(2):
        for images in sizes:
            with torch.no_grad():
                kept = encoder(images)[-1]
                assert all(len(module.attention_bias_cache) == 1 for module in asking)
            torch.testing.assert_close(
                encoder(images)[-1].detach(), kept, rtol=0, atol=0
            )  # with gradients: computed again
        with torch.no_grad():
            for module in asking:
                module.attention_biases.mul_(-3)
    changed = encoder(sizes[-1])[-1]
    assert not torch.allclose(changed, kept)
    changed.sum().backward()
    assert all(module.attention_biases.grad.abs().max() > 0 for module in asking)
    encoder.train()
    assert not any(module.attention_bias_cache for module in asking)


class _Asking(nn.Module):
    """Both kinds of attention of a small EfficientFormerV2, the strided one first."""

    def __init__(self) -> None:
        super().__init__()
        strided = timm_second.Attention2d(8, key_dim=4, num_heads=2, resolution=6, stride=2)
        down = timm_second.Attention2dDownsample(8, key_dim=4, num_heads=2, resolution=6, out_dim=12)
        self.strided, self.down = AnySizeAttention2d(strided), AnySizeDownsample(down)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(x + self.strided(x))
        return y


@pytest.mark.costly
def test_one_exported_graph_takes_every_size() -> None:
    torch.manual_seed(0)
    network = grown(_Asking()).eval()
    sides = ({2: Dim.AUTO, 3: Dim.AUTO},)
    graph = torch.export.export(network, (torch.rand(1, 8, 6, 10),), dynamic_shapes=sides).module()
    for side in [(6, 6), (9, 7), (5, 12)]:
        x = torch.rand(1, 8, *side)
        torch.testing.assert_close(graph(x), network(x), rtol=1e-5, atol=1e-5)


# names ----------------------------------------------------------------------------------------------------------------


def test_every_size_is_found_by_its_name() -> None:
    names = encoder_names()
    assert len(names) == len(set(names))
    assert {"mit_b5", "stdc2", "shufflenet_v1_x0_5_g8", "shufflenet_v2_x1_5", "efficientformerv2_l"} < set(names)
    assert all(issubclass(family_of(name), Encoder) for name in names)  # type: ignore[arg-type]
    assert family_of("efficientformer_l1.snap_dist_in1k") is family_of("efficientformer_l1")
    assert family_of("resnet18") is family_of("resnet18.a1_in1k") is None


NEW = '''"""Four averages of the image.

Source: written by a test.
"""
from torch import nn
from torch.nn import functional as F
from hardy.networks.encoders.base import Encoder

class Averages(Encoder):
    variants = ("averages_3", "averages_6")

    def __init__(self, name, *, slope: float = 1.0):
        super().__init__(name, [int(name[-1])] * 4)
        self.first = nn.Conv2d(3, self.width, 1)

    def forward(self, images):
        return [self.first(F.avg_pool2d(images, stride, ceil_mode=True)) for stride in self.strides]
'''


def test_a_new_encoder_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "averages.py").write_text(NEW, encoding="utf-8")
    monkeypatch.setattr(encoders, "__path__", [*encoders.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, "hardy.networks.encoders.averages", None)  # and forgotten after the test
    monkeypatch.delitem(sys.modules, "hardy.networks.encoders.averages")
    network = create("encoder_decoder", "pacs7", encoder="averages_6", decoder="segformer").eval()
    assert network.backbone.channels == [6, 6, 6, 6]
    assert network(torch.rand(1, 3, 45, 33)).shape == (1, 7, 45, 33)
    assert create("classifier", "pacs7", encoder="averages_3").head.in_features == 3
    with pytest.raises(InputError, match="did you mean 'averages_6'"):
        create("encoder_decoder", "pacs7", encoder="averages_66")


@pytest.mark.costly
@pytest.mark.parametrize("name", ["efficientformer_l1", "efficientformerv2_s0"])
@pytest.mark.parametrize(("tag", "asked"), [("", "timm"), (".snap_dist_in1k", "snap_dist_in1k")])
def test_timms_own_weights_are_asked_for_by_their_tag(
    name: str, tag: str, asked: str, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = grown(timm.create_model(name))
    trained.reset_classifier(0)
    messages: list[tuple[str, str]] = []

    def fetched(size: str, weights: str, trim: Any, **options: Any) -> nn.Module:
        messages.append((size, weights))
        assert options == {"img_size": 224}, "the size its biases were trained at"
        return trained

    monkeypatch.setattr(base, "load_encoder", fetched)
    encoder = load(name + tag, "timm")
    assert messages == [(name, asked)]
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "shufflenet_v1_x1_0_g5"}, "there is no encoder .*; did you mean 'shufflenet_v1_x1_0_g"),
        ({"encoder": "mit_b0.a1_in1k"}, "there is no encoder 'mit_b0.a1_in1k'.*; did you mean 'mit_b0'"),
        ({"encoder": "shufflenet_v2_x0_5", "encoder_weights": "timm"}, "timm has none of shufflenet_v2_x0_5"),
        ({"encoder": "efficientformer_l1", "encoder_weights": "snap"}, "timm has no such weights.*snap_dist_in1k"),
        (
            {"encoder": "tf_efficientnet_lite2", "encoder_weights": "efficientnet_lit2"},
            "did you mean 'efficientnet_lite2'.; it has: in1k, or a file; short names: efficientnet_lite2$",
        ),
        ({"encoder": "shufflenet_v2_x0_5", "output_stride": 16}, "takes no output_stride"),
    ],
)
def test_what_is_not_there_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        create("encoder_decoder", "pacs7", decoder="linear", **options)
    assert "\n" not in str(caught.value)


# cuts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.costly
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("shufflenet_v1_x1_0_g1", 1.0),
        ("shufflenet_v2_x0_5", 0.9),
        ("efficientformer_l1", 1.0),
        pytest.param("efficientformerv2_s0", 1.0, marks=pytest.mark.exhaustive),
    ],
)
def test_half_of_it_can_go(name: str, share: float, small: None) -> None:
    torch.manual_seed(0)
    options = {"encoder": name, "decoder": "linear", "decoder_options": {"maps": "all"}}
    assert halved(create("encoder_decoder", "pacs7", **options)) >= share


@pytest.mark.costly
def test_what_shuffled_groups_forbid_is_reported(small: None) -> None:
    network = create("encoder_decoder", "pacs7", encoder="shufflenet_v1_x0_5_g3", decoder="fast_scnn")
    found = survey(network.eval())
    inside = [unit.name for unit in found.units if not unit.name.startswith("decoder.")]
    assert set(inside) == {"backbone.stem.0.0", "backbone.stages.2.0.widen.0"}
    assert found.blocked["backbone.stages.1.0.reduce.0"].startswith("all channels are coupled to each other")
    assert len(found.units) > 1
