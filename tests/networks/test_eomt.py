"""EoMT against the class of transformers on equal weights; and what only Hardy does: any size, annealing, tuning."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

import hardy
from hardy.algorithms.erm import ERM
from hardy.engine.optimiser import build
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.decoders._set_loss import set_loss, targets_of
from hardy.recipe import Optim
from hardy.registry import DECODERS, LOSSES, TUNERS

WIDTH, QUERIES, PREFIX, GRID, CLASSES, JOINED = 16, 5, 3, 4, 6, 2


def network(encoder: str = "test_vit", vit: dict[str, Any] | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    chosen = {"query_count": 8, "blocks": 2, "points": 64, **options}
    return create("encoder_decoder", "camvid11", encoder=encoder, decoder="eomt", decoder_options=chosen, vit=vit)


# against transformers ------------------------------------------------------------------------------------------------


class _Given(nn.Module):
    """In the place of the library's embeddings: tokens that do not come from an image."""

    num_prefix_tokens = PREFIX

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, images: Tensor) -> Tensor:
        return self.tokens


def library(tokens: Tensor) -> Any:
    """The library's network, of joined blocks alone, on ``tokens``, with weights that are nowhere 0 or 1."""
    module = pytest.importorskip("transformers.models.eomt.modeling_eomt")
    config = module.EomtConfig(
        hidden_size=WIDTH,
        num_hidden_layers=JOINED,
        num_blocks=JOINED,
        num_attention_heads=2,
        mlp_ratio=4,
        image_size=16 * GRID,
        patch_size=16,
        num_queries=QUERIES,
        num_labels=CLASSES,
        train_num_points=50,
    )
    torch.manual_seed(1)
    made = module.EomtForUniversalSegmentation(config)
    made.embeddings = _Given(tokens)
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.2 * torch.randn_like(value))
    return made


def twin(theirs: Any) -> Any:
    """Hardy's decoder with the library's weights, on blocks of timm."""
    supply = {"channels": [WIDTH] * 4, "strides": [16] * 4, "class_count": CLASSES}
    ours = DECODERS.build("eomt", supply, query_count=QUERIES, blocks=JOINED, mask_steps=10)
    norm: Any = partial(nn.LayerNorm, eps=1e-6)
    blocks = [Block(WIDTH, 2, qkv_bias=True, init_values=1.0, norm_layer=norm) for _ in "ab"]
    ours.take_over(blocks, nn.LayerNorm(WIDTH, eps=1e-6))
    found = {"query": theirs.query.weight}
    for ending in ("weight", "bias"):
        at = theirs.state_dict()
        found |= {f"norm.{ending}": at[f"layernorm.{ending}"]}
        found |= {f"mask_head.{2 * i}.{ending}": at[f"mask_head.fc{i + 1}.{ending}"] for i in range(3)}
        found[f"classifier.{ending}"], found[f"nothing.{ending}"] = at[f"class_predictor.{ending}"].split([CLASSES, 1])
        for i in range(2):
            found[f"upscale.{i}.conv1.{ending}"] = at[f"upscale_block.block.{i}.conv1.{ending}"]
            found[f"upscale.{i}.norm.{ending}"] = at[f"upscale_block.block.{i}.layernorm2d.{ending}"]
            found[f"upscale.{i}.conv2.weight"] = at[f"upscale_block.block.{i}.conv2.weight"]
        for i in range(JOINED):
            inner = f"layers.{i}."
            found[f"blocks.{i}.attn.qkv.{ending}"] = torch.cat(
                [at[f"{inner}attention.{x}_proj.{ending}"] for x in "qkv"]
            )
            found[f"blocks.{i}.attn.proj.{ending}"] = at[f"{inner}attention.out_proj.{ending}"]
            for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                found[f"blocks.{i}.{part}.{ending}"] = at[f"{inner}{part}.{ending}"]
            for number in (1, 2):
                found[f"blocks.{i}.ls{number}.gamma"] = at[f"{inner}layer_scale{number}.lambda1"]
    ours.load_state_dict({**found, "steps_done": ours.steps_done}, strict=True)
    return ours


@pytest.mark.parametrize("training", [True, False])
def test_it_computes_what_the_librarys_class_does(training: bool) -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, PREFIX + GRID**2, WIDTH)
    theirs = library(tokens).train(training)
    theirs.attn_mask_probs.fill_(float(training))
    ours = twin(theirs).train(training)
    spatial = tokens[:, PREFIX:].transpose(1, 2).unflatten(2, (GRID, GRID))
    decoded = ours.decode([spatial, tokens[:, :PREFIX]])
    expected = theirs(torch.zeros(2, 3, 16 * GRID, 16 * GRID))
    torch.testing.assert_close(decoded.extras["query_masks"], expected.masks_queries_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decoded.extras["query_classes"], expected.class_queries_logits, rtol=1e-4, atol=1e-4)
    if training:
        assert ours.share(0) == 1.0, "the masks count"
        shown = decoded.extras["query_masks_1"]
        inside = F.interpolate(shown, size=(GRID, GRID), mode="bilinear") > 0
        assert 0 < inside.double().mean() < 1
        assert sorted(decoded.extras) == sorted(f"query_{x}{e}" for x in ("masks", "classes") for e in ("", "_0", "_1"))


def test_the_loss_is_the_librarys() -> None:
    module = pytest.importorskip("transformers.models.eomt.modeling_eomt")
    torch.manual_seed(3)
    classes, masks = torch.randn(3, 12, CLASSES + 1), torch.randn(3, 12, 9, 11)
    targets = targets_of(torch.randint(CLASSES, (3, 36, 44)))
    config = module.EomtConfig(num_labels=CLASSES, train_num_points=50)
    torch.manual_seed(7)
    library_loss = module.EomtLoss(config, {})(masks, classes, targets.masks, targets.classes)
    expected = 2 * library_loss["loss_cross_entropy"] + 5 * library_loss["loss_mask"] + 5 * library_loss["loss_dice"]
    torch.manual_seed(7)
    torch.testing.assert_close(set_loss(classes, masks, targets, 50), expected, rtol=1e-5, atol=1e-6)


# on encoders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["test_vit", "test_vit2"])
def test_it_takes_every_size_and_all_of_it_learns(encoder: str) -> None:
    made = network(encoder, mask_steps=100).train()
    outputs = made.outputs(torch.rand(2, 3, 50, 70))
    assert outputs.logits.shape == (2, 11, 50, 70)
    assert outputs.coarse.shape[-2:] == (12, 16)
    assert list(outputs.features) == [f"stage{i}" for i in (1, 2, 3, 4)]
    terms = made.losses(outputs, torch.randint(11, (2, 50, 70)), F.cross_entropy)
    assert set(terms) == {"segmentation", "aux_layers"}
    sum(terms.values()).backward()
    assert [name for name, value in made.named_parameters() if value.grad is None] == []
    assert made.decoder.steps_done == 1
    assert [(one.name, one.stride) for one in made.feature_stages()] == [(f"stage{i}", 16) for i in (1, 2, 3, 4)]
    alone = made.eval()(torch.rand(1, 3, 97, 33))
    assert alone.shape == (1, 11, 97, 33)


def test_masked_attention_is_annealed_block_after_block() -> None:
    decoder = network(mask_steps=40, blocks=2).decoder
    values = []
    for step in (0, 10, 15, 20, 25, 30, 40):
        decoder.steps_done.fill_(step)
        values.append([decoder.share(0), decoder.share(1)])
    half = 0.5**0.9
    assert values == [[1, 1], [1, 1], [half, 1], [0, 1], [0, half], [0, 0], [0, 0]]
    assert network(mask_steps=0).decoder.share(0) == 0


def test_a_query_sees_the_patches_inside_its_mask_alone() -> None:
    decoder = network().decoder
    masks = torch.full((1, 8, 4, 4), -1.0)
    masks[0, 0, :2, :2] = 1.0
    seen = decoder._seen(masks, 8 + 1 + 4, 9, (2, 2), 1.0)[0, 0]
    assert seen[0].tolist() == [0.0] * 9 + [0.0, -1e9, -1e9, -1e9]
    assert seen[1].tolist() == [0.0] * 9 + [-1e9] * 4
    assert not seen[8:].any(), "other tokens see everything"


@pytest.mark.parametrize("name", ["frozen", "lora"])
def test_the_joined_blocks_and_their_norm_belong_to_the_encoder(name: str) -> None:
    made = network().eval()
    TUNERS.build(name, {}).attach(made)
    trained = {key for key, value in made.named_parameters() if value.requires_grad}
    layers = [f"blocks.{n}.{layer}" for n in (0, 1) for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    inserted = {f"decoder.{layer}.{part}.weight" for layer in layers for part in ("down", "up")}
    assert {key for key in trained if key.startswith("decoder.blocks.")} == (inserted if name == "lora" else set())
    assert not any(key.startswith("decoder.norm.") for key in trained)
    assert {"decoder.query", "decoder.classifier.weight"} <= trained


def test_its_queries_are_not_decayed_and_its_norm_has_the_rate_of_the_encoder() -> None:
    made = network()
    made.pretrained = True
    loss = LOSSES.build("cross_entropy", {"class_count": 11})
    groups = build(ERM(made, loss), Optim(lr=1.0, weight_decay=0.05, encoder_rate=0.1)).param_groups
    places = {id(value): group for group in groups for value in group["params"]}
    assert places[id(made.decoder.query)]["weight_decay"] == 0
    assert places[id(made.decoder.classifier.weight)]["weight_decay"] == 0.05
    inside = {places[id(value)]["base_lr"] for root in made.encoder() for value in root.parameters()}
    assert inside == {0.1}
    assert places[id(made.decoder.query)]["base_lr"] == 1.0


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    made = network(mask_steps=7).eval()
    made.decoder.steps_done.fill_(3)
    hardy.save(made, tmp_path / "run")
    again: Any = hardy.load(tmp_path / "run").eval()
    images = torch.rand(1, 3, 48, 80)
    with torch.no_grad():
        assert torch.equal(again(images), made(images))
    assert again.decoder.steps_done == 3


@pytest.mark.costly
def test_one_exported_graph_takes_every_size() -> None:
    made = network().eval()
    sides = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    graph = torch.export.export(made, (torch.rand(2, 3, 64, 96),), dynamic_shapes=sides).module()
    for shape in ((1, 3, 64, 96), (3, 3, 50, 131)):
        images = torch.rand(shape)
        torch.testing.assert_close(graph(images), made(images), rtol=1e-4, atol=1e-4)


@pytest.mark.costly
def test_it_overfits_two_images() -> None:
    made = network(vit={"patch": 8}, mask_steps=60, blocks=3).train()
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[0, 16:], labels[1, :, 16:] = 3, 7
    images = torch.randn(11, 3)[labels].permute(0, 3, 1, 2).sigmoid()
    optimiser = torch.optim.AdamW(made.parameters(), lr=2e-3)
    for _ in range(60):
        optimiser.zero_grad()
        sum(made.losses(made.outputs(images), labels, F.cross_entropy).values()).backward()
        optimiser.step()
    with torch.no_grad():
        assert (made.eval()(images).argmax(1) == labels).double().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "resnet18"}, "eomt needs a plain vision transformer of timm, whose maps have one stride"),
        ({"encoder": "mit_b0"}, "eomt needs a plain vision transformer"),
        ({"encoder": "eva02_tiny_patch14_224"}, "'eva02_tiny_patch14_224' is not a plain vision transformer of timm"),
        ({"vit": {"blocks": [1, 2, 3, 5]}}, "the decoder joins the last blocks and the norm; leave them out"),
        ({"blocks": 6}, "blocks: 6 is out of range; it must be from 1 to 5"),
        ({"mask_steps": -1}, "EoMT.mask_steps: -1 is out of range"),
    ],
)
def test_what_cannot_be_joined_is_refused(options: dict[str, Any], words: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=words) as caught:
        network(**options)
    assert "\n" not in str(caught.value)
