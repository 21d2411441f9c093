"""The Mask2Former head against transformers' own modules, and what only it does: its losses and foreign queries."""

import copy
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from hardy.algorithms.erm import ERM
from hardy.data.label_spaces import LabelSpace
from hardy.engine.classes import for_classes
from hardy.engine.optimiser import build
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.decoders._set_loss import match, set_loss, targets_of
from hardy.networks.decoders.base import Decoder
from hardy.recipe import Optim
from hardy.registry import DECODERS, LOSSES
from hardy.types import IGNORE

CHANNELS, STRIDES, CLASSES = (8, 12, 20, 32), (4, 8, 16, 32), 5
TINY = {"query_count": 12, "width": 64, "heads": 4, "pixel_layers": 1, "layers": 3, "hidden": 48, "pixel_hidden": 40}


@pytest.fixture(scope="module", autouse=True)
def library() -> Any:
    """The library's module, imported by the first test; without it the tests are skipped."""
    return pytest.importorskip("transformers.models.mask2former.modeling_mask2former")


def head(**options: Any) -> Decoder:
    torch.manual_seed(0)
    supply = {"channels": CHANNELS, "strides": STRIDES, "class_count": CLASSES}
    return DECODERS.build("mask2former", supply, **{**TINY, "points": 64, **options})


def network(encoder: str = "mobilenetv2_035", **options: Any) -> Network:
    torch.manual_seed(0)
    return create(
        "encoder_decoder",
        "pacs7",
        encoder=encoder,
        decoder="mask2former",
        decoder_options={**TINY, "points": 64, **options},
    )


def maps_of(height: int, width: int, batch: int = 2) -> list[Tensor]:
    sides = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    return [torch.randn(batch, c, *side) for c, side in zip(CHANNELS, sides, strict=True)]


def configuration(library: Any) -> Any:
    """The library's, of the head as `head` builds it."""
    return library.Mask2FormerConfig(
        feature_size=64,
        mask_feature_size=64,
        hidden_dim=64,
        num_attention_heads=4,
        encoder_layers=1,
        encoder_feedforward_dim=40,
        dim_feedforward=48,
        decoder_layers=4,
        num_queries=12,
        num_labels=CLASSES,
        train_num_points=64,
    )


def test_the_parts_compute_what_the_librarys_modules_do(library: Any) -> None:
    decoder = head().double().eval()
    config = configuration(library)
    pixels = library.Mask2FormerPixelDecoder(config, list(CHANNELS)).double().eval()
    pixels.load_state_dict(decoder.pixel_decoder.state_dict(), strict=True)
    queries = library.Mask2FormerTransformerModule(in_features=64, config=config).double().eval()
    weights = {f"decoder.{key}": value for key, value in decoder.query_decoder.state_dict().items()}
    weights |= {"level_embed.weight": decoder.level_embed, "queries_embedder.weight": decoder.query_embed}
    queries.load_state_dict({**weights, "queries_features.weight": decoder.query_feat}, strict=True)
    maps = [x.double() for x in maps_of(97, 131)]
    with torch.no_grad():
        coarse = pixels(maps)
        found = queries(coarse.multi_scale_features, coarse.mask_features)
        decoded = decoder.decode(maps)
    torch.testing.assert_close(decoded.embedding, coarse.mask_features, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(decoded.extras["query_masks"], found.masks_queries_logits[-1], rtol=1e-5, atol=1e-5)
    inner = found.intermediate_hidden_states[-1].transpose(0, 1)
    torch.testing.assert_close(
        decoded.extras["query_classes"][..., :-1], decoder.classifier(inner), rtol=1e-5, atol=1e-5
    )


def test_the_softmax_of_the_logits_is_the_share_of_the_papers_scores() -> None:
    decoded = head().eval().decode(maps_of(64, 96))
    classes, masks = decoded.extras["query_classes"].softmax(-1), decoded.extras["query_masks"].sigmoid()
    scores = (classes[..., :-1, None, None] * masks[:, :, None]).sum(1)
    assert torch.equal(decoded.logits.argmax(1), scores.argmax(1))
    torch.testing.assert_close(decoded.logits.softmax(1), scores / scores.sum(1, keepdim=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("points", [64, 50])
def test_the_loss_is_the_librarys_where_nothing_is_ignored(library: Any, points: int) -> None:
    torch.manual_seed(3)
    classes, masks = torch.randn(3, 12, CLASSES + 1, requires_grad=True), torch.randn(3, 12, 9, 11, requires_grad=True)
    labels = torch.randint(CLASSES, (3, 36, 44))
    labels[1] = 2
    targets = targets_of(labels)
    assert [len(one) for one in targets.classes] == [5, 1, 5]
    config = configuration(library)
    config.train_num_points = points
    theirs = library.Mask2FormerLoss(config, {})
    torch.manual_seed(7)
    library_loss = theirs(masks, classes, targets.masks, targets.classes)
    expected = 2 * library_loss["loss_cross_entropy"] + 5 * library_loss["loss_mask"] + 5 * library_loss["loss_dice"]
    torch.manual_seed(7)
    found = set_loss(classes, masks, targets, points)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for one in (classes, masks):
        back, other = (torch.autograd.grad(value, one, retain_graph=True)[0] for value in (found, expected))
        torch.testing.assert_close(back, other, rtol=1e-4, atol=1e-6)
    torch.manual_seed(7)
    pairs = theirs.matcher(masks, classes, targets.masks, targets.classes)
    torch.manual_seed(7)
    assert all(
        torch.equal(torch.stack(a), torch.stack(b))
        for a, b in zip(match(classes, masks, targets, points), pairs, strict=True)
    )


def test_ignored_pixels_count_nowhere() -> None:
    """What the masks say at ignored pixels changes neither the loss nor its gradient elsewhere."""
    torch.manual_seed(3)
    classes, masks = torch.randn(2, 12, CLASSES + 1), torch.randn(2, 12, 16, 16)
    labels = torch.randint(CLASSES, (2, 16, 16))
    labels[:, :, 9:] = IGNORE
    targets = targets_of(labels)
    values = []
    for far in (0.0, 50.0):
        one = masks.clone()
        one[..., 10:] = far
        one.requires_grad_()
        # without the choice of uncertain points, which are others where the masks are
        places = torch.Generator().manual_seed(1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hardy.networks.decoders._set_loss._UNCERTAIN", 0.0)
            patch.setattr(torch, "rand", partial(torch.rand, generator=places))
            loss = set_loss(classes, one, targets, 64)
        loss.backward()
        assert one.grad[..., 10:].abs().max() == 0
        assert one.grad[..., :8].abs().max() > 0
        values.append((loss.detach(), one.grad))
    torch.testing.assert_close(*values)


def test_points_are_taken_from_labelled_pixels_first() -> None:
    torch.manual_seed(0)
    labels = torch.full((1, 16, 16), IGNORE)
    labels[:, :, :12] = torch.randint(CLASSES, (1, 16, 12))
    masks = 5 + torch.rand(1, 12, 16, 16)
    masks[..., 12:] = 0  # the least certain place of all
    masks.requires_grad_()
    set_loss(torch.randn(1, 12, CLASSES + 1), masks, targets_of(labels), 64).backward()
    assert masks.grad[..., 13:].abs().max() == 0
    assert masks.grad.abs().sum() > 0


def test_an_image_without_labels_is_as_if_it_were_not_there() -> None:
    decoder = head()
    decoded = decoder.decode(maps_of(64, 64, batch=3))
    labels = torch.randint(CLASSES, (3, 64, 64))
    labels[1] = IGNORE
    kept = {name: value[[0, 2]] for name, value in decoded.extras.items()}
    torch.manual_seed(1)
    some = decoder.losses(decoded.extras, labels)
    torch.manual_seed(1)
    assert some == decoder.losses(kept, labels[[0, 2]])
    none = decoder.losses(decoded.extras, torch.full_like(labels, IGNORE))
    assert none == {"segmentation": 0, "aux_layers": 0}
    sum(none.values()).backward()
    assert all(value.grad is None or not value.grad.any() for value in decoder.parameters())


def test_fewer_queries_than_classes_are_matched_to_the_best_of_them() -> None:
    decoder = head(query_count=2)
    decoded = decoder.decode(maps_of(64, 64))
    terms = decoder.losses(decoded.extras, torch.randint(CLASSES, (2, 64, 64)))
    assert all(value.isfinite() for value in terms.values())


@pytest.mark.costly
@pytest.mark.parametrize("encoder", ["mobilenetv2_035", "vit_tiny_patch16_224"])
def test_a_network_with_it_keeps_the_contract_of_networks(encoder: str) -> None:
    made = network(encoder)
    for size in ((32, 32), (45, 33)):
        assert made(torch.rand(2, 3, *size)).shape == (2, 7, *size)
    images, labels = torch.rand(2, 3, 50, 70), torch.randint(7, (2, 50, 70))
    outputs = made.outputs(images)
    terms = made.losses(outputs, labels, LOSSES.build("cross_entropy", {"class_count": 7}))
    assert list(terms) == ["segmentation", "aux_layers"]
    assert sum(name.startswith("query_masks") for name in outputs.extras) == 4
    sum(terms.values()).backward()
    assert [key for key, value in made.named_parameters() if value.grad is None] == []
    assert sum(name.startswith("query_masks") for name in made.eval().outputs(images).extras) == 1
    stages = made.feature_stages()
    made.train().outputs(images).logits.sum().backward()  # nothing of the trace is left in a cache
    assert [stage.name for stage in stages] == ["stage1", "stage2", "stage3", "stage4"]


@pytest.mark.parametrize("linked", [False, True])
def test_its_embeddings_are_not_decayed(linked: bool) -> None:
    made = network()
    if linked:
        made.decoder.queries = Tokens().queries
    optimiser = build(ERM(made, LOSSES.build("cross_entropy", {"class_count": 7})), Optim(weight_decay=0.05))
    decayed = {id(value) for group in optimiser.param_groups for value in group["params"] if group["weight_decay"]}
    embeddings = {name: id(value) for name, value in made.named_parameters() if name.endswith("_embed")}
    own = set() if linked else {"decoder.query_embed"}
    assert set(embeddings) == {"decoder.level_embed", "decoder.pixel_decoder.level_embed", *own}
    assert decayed.isdisjoint(embeddings.values())
    assert id(made.decoder.classifier.weight) in decayed


def test_other_classes_keep_the_head_and_the_rows_of_the_same_names() -> None:
    made = network().eval()
    names = (made.label_space.classes[4], "unheard_of", made.label_space.classes[0])
    other = for_classes(made, LabelSpace("other", names, ((0, 0, 0),) * 3))
    assert torch.equal(other.decoder.classifier.weight[[0, 2]], made.decoder.classifier.weight[[4, 0]])
    assert torch.equal(other.decoder.nothing.weight, made.decoder.nothing.weight)
    assert torch.equal(other.decoder.query_embed, made.decoder.query_embed)


class Tokens(nn.Module):
    """Stands for what computes queries outside of the head."""

    def __init__(self, count: int = 12, width: int = 64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, width))

    def queries(self) -> Tensor:
        return 2 * self.weight


def test_queries_from_outside_take_the_place_of_its_own() -> None:
    decoder, tokens, maps = head(), Tokens(), maps_of(64, 96)
    own = sum(value.numel() for value in decoder.parameters())
    assert decoder.queries is None
    decoder.queries = tokens.queries
    left = sum(value.numel() for value in decoder.parameters())
    assert own - left == 2 * 12 * 64 - (64 * 64 + 64)
    assert not [name for name in decoder.state_dict() if "token" in name]
    decoder(maps).square().mean().backward()
    assert tokens.weight.grad.abs().sum() > 0
    assert [key for key, value in decoder.named_parameters() if value.grad is None] == []
    same = head()
    same.load_state_dict(decoder.state_dict(), strict=False)
    same.query_embed = nn.Parameter(tokens.queries().detach())
    same.query_feat = nn.Parameter(decoder.query_feat(tokens.queries()).detach())
    with torch.no_grad():
        torch.testing.assert_close(same.eval()(maps), decoder.eval()(maps))


def test_a_copy_asks_its_own_source_for_queries() -> None:
    pair = nn.ModuleDict({"tokens": Tokens(), "head": head().eval()})
    pair["head"].queries = pair["tokens"].queries
    twin, maps = copy.deepcopy(pair), maps_of(64, 64)
    with torch.no_grad():
        assert torch.equal(twin["head"](maps), pair["head"](maps))
        twin["tokens"].weight.neg_()
        assert not torch.equal(twin["head"](maps), pair["head"](maps))


@pytest.mark.costly
def test_it_overfits_four_images() -> None:
    torch.manual_seed(0)
    labels = torch.zeros(4, 64, 64, dtype=torch.int64)
    for number in range(4):
        labels[number, 8 * number : 8 * number + 24, 16:56] = number + 1
        labels[number, 44:, : 20 + 8 * number] = 5 + number % 2
    paint = torch.rand(7, 3)
    images = (paint[labels].permute(0, 3, 1, 2) + 0.05 * torch.randn(4, 3, 64, 64)).clamp(0, 1)
    made = network("resnet10t", layers=2)
    pixel_loss = LOSSES.build("cross_entropy", {"class_count": 7})
    optimiser = torch.optim.AdamW(made.parameters(), lr=2e-3)
    for _ in range(40):
        optimiser.zero_grad()
        sum(made.losses(made.outputs(images), labels, pixel_loss).values()).backward()
        optimiser.step()
    with torch.no_grad():
        right = (made(images).argmax(1) == labels).float().mean()
    assert right > 0.95


@pytest.mark.costly
def test_one_exported_graph_takes_every_size() -> None:
    made = network("resnet10t", layers=1).eval()
    sizes = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    with torch.no_grad():
        graph = torch.export.export(made, (torch.rand(2, 3, 64, 128),), dynamic_shapes=sizes).module()
        images = torch.rand(3, 3, 97, 160)
        torch.testing.assert_close(graph(images), made(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (partial(head, width=32), "width=32: give a multiple of 32 and of heads=4, 64 or more"),
        (partial(head, query_count=0), "query_count: 0 is out of range"),
        (partial(head, points=1), "points: 1 is out of range"),
        (partial(network, "stdc1", width=16), "give a multiple of 32"),
    ],
)
def test_numbers_out_of_range_are_refused(change: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        change()


def test_three_maps_are_too_few() -> None:
    with pytest.raises(InputError, match="needs four maps; this encoder has 3"):
        DECODERS.build("mask2former", {"channels": CHANNELS[1:], "strides": STRIDES[1:], "class_count": 5})


def test_queries_of_another_shape_are_refused_in_one_line() -> None:
    decoder = head()
    decoder.queries = Tokens(9).queries
    with pytest.raises(InputError, match=r"shape \(9, 64\), and the head takes \(12, 64\); set its query_count"):
        decoder(maps_of(64, 64))


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    decoder = head()
    decoded = decoder.decode(maps_of(64, 64))
    with pytest.raises(InputError, match=r"scipy, which .* is not installed; pip install 'hardy\[heads\]'"):
        decoder.losses(decoded.extras, torch.zeros(2, 64, 64, dtype=torch.int64))
    monkeypatch.delitem(sys.modules, "hardy.networks.decoders._mask2former_parts")
    monkeypatch.delattr("hardy.networks.decoders._mask2former_parts")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"transformers is not installed; pip install 'hardy\[heads\]'"):
        head()
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))  # without what is imported from it
    with pytest.raises(
        InputError, match=r"transformers cannot be used \(ImportError: .*; pip install 'hardy\[heads\]'"
    ):
        head()
