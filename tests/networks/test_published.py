"""Published names onto ours: every tensor has its place, shapes fit, counts are the published ones, values land."""

from collections.abc import Callable

import pytest
import torch
from published_more_names import bisenetv2, ddrnet, pidnet, segformer, segformer_mmseg, segformer_transformers
from published_names import Shapes, espnet, fast_scnn, swiftnet, values
from torch import Tensor

from hardy.data.label_spaces import LabelSpace
from hardy.networks.building.create import create
from hardy.networks.published.base import Publication, in_rgb
from hardy.registry import PUBLICATIONS

FILES: dict[str, tuple[str, Callable[[], Shapes], int | None, int]] = {
    "espnet": ("espnet", lambda: espnet(20, 2, 8, skip=19), 365_109, 0),
    "espnet as released": ("espnet", lambda: espnet(20, 2, 8), 365_109 - 3 * 9 * 20, 0),
    "espnet-c": ("espnet", lambda: espnet(20, 2, 8, decoder=False), 349_449, 0),
    "fast-scnn": ("fast_scnn", fast_scnn, 1_138_051, 0),
    "fast-scnn with its head": ("fast_scnn", lambda: fast_scnn(aux=True), 1_157_174, 0),
    "swiftnet": ("swiftnet", swiftnet, 11_797_071, 2),
    "swiftnet, three sizes": ("swiftnet_pyramid", lambda: swiftnet(levels=3), 12_056_275, 2),
    "ddrnet-23-slim": ("ddrnet", ddrnet, 5_695_987, 0),
    "ddrnet-23-slim with its head": ("ddrnet", lambda: ddrnet(aux=True), 5_734_342, 0),
    "ddrnet-23": ("ddrnet", lambda: ddrnet(64, 128), 20_148_947, 0),
    "pidnet-s": ("pidnet", pidnet, 7_625_715, 0),
    "pidnet-s with its heads": ("pidnet", lambda: pidnet(aux=True), 7_720_935, 0),
    "pidnet-m": ("pidnet", lambda: pidnet("m"), 28_538_515, 0),
    "pidnet-l with its heads": ("pidnet", lambda: pidnet("l", aux=True), None, 0),
    "pidnet-l": ("pidnet", lambda: pidnet("l"), 36_939_571, 0),
    "bisenetv2": ("bisenetv2", bisenetv2, 3_358_627, 0),
    "bisenetv2 with its heads": ("bisenetv2", lambda: bisenetv2(aux=True), 5_231_487, 0),
    "segformer-b0": ("segformer", segformer, None, 2),
    "segformer-b0 of transformers": ("segformer_transformers", segformer_transformers, None, 0),
    "segformer-b0 of mmseg": ("segformer_mmseg", segformer_mmseg, 3_720_051, 0),
}
"""What the file is -> its publication, its names, the published count of parameters, how many tensors are dropped."""

BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "img_mean", "img_std")


def space(count: int) -> LabelSpace:
    return LabelSpace("some", tuple(f"c{i}" for i in range(count)), tuple((i, 0, 0) for i in range(count)))


def ours(name: str, weights: dict[str, Tensor], class_count: int) -> dict[str, Tensor]:
    """``weights`` under our names and with our layers' values."""
    publication: Publication = PUBLICATIONS.build(name)
    return publication.converted(publication.renamed(publication.published(weights)).weights, class_count)


@pytest.mark.parametrize("file", FILES)
def test_every_tensor_has_its_place(file: str) -> None:
    name, shapes, count, dropped = FILES[file]
    names = shapes()
    if count is not None:
        counts = (torch.Size(shape).numel() for key, shape in names.items() if not key.endswith(BUFFERS))
        assert sum(counts) == count, "the test's own list is not the published network"
    weights = {key: torch.empty(shape, device="meta") for key, shape in names.items()}
    publication: Publication = PUBLICATIONS.build(name)
    classes = publication.class_count(weights := publication.published(weights))
    assert len(publication.renamed(weights).dropped) == dropped
    with torch.device("meta"):
        network = create(publication.network, space(classes), **publication.options(weights))
    found = {key: value.shape for key, value in ours(name, weights, classes).items()}
    own = {key: value.shape for key, value in network.state_dict().items()}
    counters = {key for key in own if key.endswith("num_batches_tracked")} - found.keys()
    assert found == {key: shape for key, shape in own.items() if key not in counters}
    assert not counters or name == "espnet", "only the oldest files have no counters"


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_of_one_publication(file: str) -> None:
    name, shapes, _, _ = FILES[file]
    names = shapes()
    assert [other for other in PUBLICATIONS if PUBLICATIONS.build(other).recognises(names)] == [name]


LANDINGS = {
    "fast-scnn with its head": {
        "learning_to_downsample.dsconv2.conv.3.weight": "detail.2.1.0.weight",
        "global_feature_extractor.bottleneck2.1.block.1.conv.1.running_var": "context.4.depthwise.1.running_var",
        "global_feature_extractor.bottleneck3.0.block.2.weight": "context.6.project.0.weight",
        "global_feature_extractor.ppm.conv4.conv.0.weight": "context.9.branches.3.0.weight",
        "feature_fusion.conv_lower_res.0.bias": "fusion.context.0.bias",
        "feature_fusion.conv_higher_res.1.weight": "fusion.detail.1.weight",
        "classifier.dsconv2.conv.1.running_mean": "head.1.0.1.running_mean",
        "auxlayer.4.bias": "aux.2.bias",
    },
    "swiftnet": {
        "backbone.layer2.0.downsample.1.weight": "backbone.layer2.0.downsample.1.weight",
        "backbone.spp.spp.spp1.conv.weight": "decoder.pyramid.levels.1.2.weight",
        "backbone.upsample.0.bottleneck.norm.weight": "decoder.ladder.0.skip.0.weight",
        "backbone.upsample.2.blend_conv.conv.weight": "decoder.ladder.2.mix.2.weight",
        "logits.conv.bias": "decoder.head.2.bias",
    },
    "swiftnet, three sizes": {
        "backbone.layer3.1.bn2.2.running_var": "backbone.layer3.1.bn2.2.running_var",
        "backbone.upsample_bottlenecks.0.weight": "narrow.3.weight",
        "backbone.upsample_blends.4.blend_conv.norm.bias": "ladder.4.0.bias",
    },
    "ddrnet-23-slim with its head": {
        "layer5_.0.conv3.weight": "backbone.layer5_.0.conv3.weight",
        "spp.scale3.1.weight": "pyramid.scales.2.0.weight",
        "spp.scale0.2.weight": "pyramid.narrow.2.weight",
        "spp.process4.2.weight": "pyramid.refine.3.2.weight",
        "final_layer.conv2.bias": "head.1.2.bias",
        "seghead_extra.bn2.running_mean": "aux.1.0.running_mean",
    },
    "pidnet-s with its heads": {
        "layer5.1.bn3.weight": "backbone.layer5.1.bn3.weight",
        "layer4_d.0.downsample.0.weight": "boundary.middle.downsample.0.weight",
        "diff4.0.weight": "boundary.from_fourth.0.weight",
        "spp.scale_process.2.weight": "pyramid.refine.2.weight",
        "dfm.conv_p.0.weight": "fusion.detail.0.weight",
        "dfm.conv_i.1.bias": "fusion.context.1.bias",
        "seghead_p.conv2.bias": "aux.1.2.bias",
        "seghead_d.conv1.weight": "boundary_head.0.2.weight",
    },
    "pidnet-l": {
        "layer4_d.conv2.weight": "boundary.middle.conv2.weight",
        "spp.process2.0.bias": "pyramid.refine.1.0.bias",
        "dfm.conv.2.weight": "fusion.mix.2.weight",
    },
    "bisenetv2 with its heads": {
        "detail.S3.2.bn.weight": "detail.7.1.weight",
        "segment.S1S2.left.1.conv.weight": "semantic.0.filter.1.0.weight",
        "segment.S5_4.0.dwconv2.1.weight": "semantic.3.0.expand.1.1.weight",
        "segment.S4.1.dwconv.0.weight": "semantic.2.1.expand.0.0.weight",
        "segment.S3.0.shortcut.3.bias": "semantic.1.0.shortcut.1.1.bias",
        "segment.S5_5.conv_gap.bn.running_var": "context.context.2.running_var",
        "bga.left1.2.weight": "fusion.detail_fine.1.weight",
        "bga.right1.0.weight": "fusion.semantic_fine.0.weight",
        "bga.right2.0.weight": "fusion.semantic_coarse.0.0.weight",
        "aux5_4.conv_out.1.bias": "boosters.3.classifier.bias",
    },
}
"""Published name -> ours, for the places where two layers have the same shape or another order would fit as well."""


@pytest.mark.parametrize("file", LANDINGS)
def test_values_land_where_they_should(file: str) -> None:
    name, shapes, _, _ = FILES[file]
    weights = {key: torch.tensor(float(place)).expand(shape) for place, (key, shape) in enumerate(shapes().items())}
    found = ours(name, weights, 19)
    for published, name in LANDINGS[file].items():
        assert torch.equal(found[name], weights[published]), (published, name)


def test_the_heads_of_transformers_take_maps_in_another_order() -> None:
    """In both releases the coarsest map comes first; in ours, and in mmseg's, the finest."""
    for name, shapes, key in (
        ("segformer", segformer(depth=2), "decode_head.linear_fuse.conv.weight"),
        ("segformer_transformers", segformer_transformers(), "decode_head.linear_fuse.weight"),
    ):
        weights = values(shapes)
        found = ours(name, weights, 19)
        for place in range(4):
            theirs = weights[key][:, 256 * (3 - place) : 256 * (4 - place)]
            assert torch.equal(found["head.fuse.0.weight"][:, 256 * place : 256 * (place + 1)], theirs)
        linear = next(value for old, value in weights.items() if old.endswith(("c2.proj.weight", "c.1.proj.weight")))
        assert torch.equal(found["head.projections.1.weight"][:, :, 0, 0], linear)
    weights = values(segformer_mmseg())
    found = ours("segformer_mmseg", weights, 19)
    assert torch.equal(found["head.fuse.0.weight"], weights["decode_head.fusion_conv.conv.weight"])
    assert torch.equal(found["head.projections.1.0.weight"], weights["decode_head.convs.1.conv.weight"])


def test_queries_keys_and_values_are_distinguished() -> None:
    weights = values(segformer_mmseg())
    found = ours("segformer_mmseg", weights, 19)
    theirs = torch.nn.MultiheadAttention(160, 5, batch_first=True)
    theirs.load_state_dict(
        {
            key: weights[f"backbone.layers.2.1.0.attn.attn.{key}"]
            for key in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        }
    )
    x, coarse = torch.randn(1, 6, 160), torch.randn(1, 4, 160)
    place = {part: found[f"backbone.block3.0.attn.{part}.weight"] for part in ("q", "kv", "proj")}
    bias = {part: found[f"backbone.block3.0.attn.{part}.bias"] for part in ("q", "kv", "proj")}
    q = (x @ place["q"].T + bias["q"]).view(1, 6, 5, 32).transpose(1, 2)
    k, v = (coarse @ place["kv"].T + bias["kv"]).chunk(2, dim=-1)
    k, v = (each.view(1, 4, 5, 32).transpose(1, 2) for each in (k, v))
    mixed = ((q @ k.transpose(-1, -2)) / 32**0.5).softmax(-1) @ v
    mine = mixed.transpose(1, 2).reshape(1, 6, 160) @ place["proj"].T + bias["proj"]
    torch.testing.assert_close(mine, theirs(x, coarse, coarse, need_weights=False)[0], rtol=1e-5, atol=1e-5)
    hidden = weights["backbone.layers.0.1.1.ffn.layers.4.weight"]
    assert torch.equal(found["backbone.block1.1.mlp.fc2.weight"], hidden[:, :, 0, 0])
    own = values(segformer_transformers())
    kv = ours("segformer_transformers", own, 19)["backbone.block2.1.attn.kv.weight"]
    start = "segformer.encoder.block.1.1.attention.self"
    assert torch.equal(kv, torch.cat([own[f"{start}.key.weight"], own[f"{start}.value.weight"]]))


def test_normalisations() -> None:
    file = {"backbone.img_mean": torch.tensor([51.0, 102.0, 153.0]), "backbone.img_std": torch.full((3,), 25.5)}
    colours = PUBLICATIONS.build("swiftnet").colours(file)
    assert colours.mean == pytest.approx((0.2, 0.4, 0.6))
    assert colours.std == pytest.approx((0.1, 0.1, 0.1))
    scaled = {name: value / 255 for name, value in file.items()} | {"backbone.img_scale": torch.tensor(255.0)}
    assert PUBLICATIONS.build("swiftnet_pyramid").colours(scaled).mean == pytest.approx((0.2, 0.4, 0.6))
    assert PUBLICATIONS.build("swiftnet").colours({}).mean == (0.485, 0.456, 0.406)
    classifier = {"head.conv_out.1.weight": torch.zeros(19, 1024, 1, 1)}
    assert PUBLICATIONS.build("bisenetv2").colours(classifier).mean == (0.3257, 0.3690, 0.3223)
    classifier = {"head.conv_out.1.weight": torch.zeros(171, 1024, 1, 1)}
    assert PUBLICATIONS.build("bisenetv2").colours(classifier).std == (0.27469736, 0.27012361, 0.28515933)


def test_bgr_becomes_rgb() -> None:
    weights = torch.arange(5.0).expand(2, 5)
    assert in_rgb(weights, 1).tolist() == [[0, 3, 2, 1, 4]] * 2
    assert in_rgb(torch.arange(4), axis=0).tolist() == [2, 1, 0, 3]
