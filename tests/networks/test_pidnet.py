"""PIDNet's sizes, where its branches meet, what its boundary head learns, and empty cases."""

from pathlib import Path
from typing import Any

import pytest
import torch
from repeats import without_repeats
from safetensors.torch import save_file
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.boundary import balanced_loss, boundaries
from hardy.ops.cost import gmacs, parameters
from hardy.registry import LOSSES
from hardy.types import IGNORE
from surgery import halved

HEADS = (9 * 64 * 128 + 128 * 19 + 9 * 64 * 32 + 32) * 128 * 256 / 1e9
"""GMACs of the small network's two training heads by their weights, at stride 8."""

TABLE = [
    ({}, False, 7_625_715, 47.194),
    ({"aux": True}, False, 7_720_935, 47.194),
    ({"aux": True}, True, 7_720_935, 47.194 + HEADS),
    ({"variant": "m"}, False, 28_538_515, 177.329),
    ({"variant": "l"}, False, 36_939_571, 274.933),
]


@pytest.mark.parametrize(("options", "training", "count", "cost"), TABLE)
def test_size(options: dict[str, Any], training: bool, count: int, cost: float) -> None:
    network = create("pidnet", "cityscapes19", **options)
    assert parameters(network) == count
    assert gmacs(network, (1024, 2048), training=training) == pytest.approx(cost, rel=1e-3)


def test_features_and_their_strides() -> None:
    outputs = create("pidnet", "cityscapes19", aux=True).outputs(torch.rand(2, 3, 128, 256))
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    assert shapes == {
        "stage1": (32, 32, 64),
        "stage2": (64, 16, 32),
        "stage3": (128, 8, 16),
        "stage4": (256, 4, 8),
        "stage5": (512, 2, 4),
        "detail": (128, 16, 32),
        "context": (128, 2, 4),
        "boundary": (128, 16, 32),
        "fused": (128, 16, 32),
        "logits": (19, 16, 32),
    }
    trained = {name: tuple(value.shape) for name, value in outputs.extras.items()}
    assert trained == {"aux_detail": (2, 19, 16, 32), "boundary": (2, 1, 16, 32)}


def test_the_four_terms_by_their_definition() -> None:
    torch.manual_seed(0)
    network = create("pidnet", "camvid11", aux=True)
    outputs = network.outputs(torch.rand(2, 3, 64, 96))
    labels = torch.zeros(2, 64, 96, dtype=torch.int64)
    labels[:, :, 50:] = 3
    labels[:, :8] = IGNORE
    terms = network.losses(outputs, labels, LOSSES.build("cross_entropy", {"class_count": 11}))

    def up(name: str) -> torch.Tensor:
        return F.interpolate(outputs.extras[name], (64, 96), mode="bilinear", align_corners=False)

    found = up("boundary")[:, 0]
    near = (found.sigmoid() > 0.8) & (labels != IGNORE)
    assert 0 < near.sum() < near.numel()
    expected = {
        "segmentation": F.cross_entropy(outputs.logits, labels, ignore_index=IGNORE),
        "aux_detail": 0.4 * F.cross_entropy(up("aux_detail"), labels, ignore_index=IGNORE),
        "boundary": 20 * balanced_loss(found, boundaries(labels), labels != IGNORE),
        "segmentation_at_boundaries": F.cross_entropy(outputs.logits.permute(0, 2, 3, 1)[near], labels[near]),
    }
    assert set(terms) == set(expected)
    assert terms["boundary"] > 0
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_training_heads_read_maps_after_their_relu() -> None:
    network = create("pidnet", "camvid11", aux=True)
    read: dict[str, torch.Tensor] = {}
    for name in ("aux", "boundary_head"):
        head = getattr(network, name)
        head.register_forward_pre_hook(lambda _, inputs, name=name: read.setdefault(name, inputs[0]))
    network.outputs(torch.rand(2, 3, 64, 96))
    assert all(bool((x >= 0).all()) and bool((x == 0).any()) for x in read.values())
    assert set(read) == {"aux", "boundary_head"}


def test_only_the_final_head_mines_hard_pixels_and_all_are_enlarged_alike() -> None:
    torch.manual_seed(0)
    network = create("pidnet", "camvid11", aux=True, align_corners=True)
    outputs = network.outputs(torch.rand(2, 3, 64, 96))
    labels = torch.randint(0, 11, (2, 64, 96))
    weights = [1.0 + place for place in range(11)]
    ohem = LOSSES.build("ohem", {"class_count": 11}, threshold=0.05, min_kept=0.02, class_weights=weights)
    terms = network.losses(outputs, labels, ohem)

    def up(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, (64, 96), mode="bilinear", align_corners=True)

    weight = torch.tensor(weights)
    assert torch.equal(outputs.logits, up(outputs.coarse))
    plain = 0.4 * F.cross_entropy(up(outputs.extras["aux_detail"]), labels, weight)
    torch.testing.assert_close(terms["aux_detail"], plain)
    assert torch.equal(terms["segmentation"], ohem(outputs.logits, labels))
    assert terms["segmentation"] > 1.05 * F.cross_entropy(outputs.logits, labels, weight)
    found = up(outputs.extras["boundary"])[:, 0]
    boundary = 20 * balanced_loss(found, boundaries(labels), labels != IGNORE)
    torch.testing.assert_close(terms["boundary"], boundary)
    assert not create("pidnet", "camvid11").align_corners


@pytest.mark.parametrize("label", [IGNORE, 2])
def test_without_labels_or_boundaries_gradients_are_finite(label: int) -> None:
    network = create("pidnet", "camvid11", aux=True)
    labels = torch.full((2, 64, 64), label)
    terms = network.losses(network.outputs(torch.rand(2, 3, 64, 64)), labels, LOSSES.build("ohem", {"class_count": 11}))
    sum(terms.values()).backward()
    assert terms["boundary"] == 0
    assert all(value.grad.isfinite().all() for value in network.parameters())
    if label == IGNORE:
        assert not any(value.grad.any() for value in network.parameters())


def test_without_its_training_heads_it_has_one_term() -> None:
    network = create("pidnet", "camvid11")
    outputs = network.outputs(torch.rand(2, 3, 64, 64))
    labels = torch.zeros(2, 64, 64, dtype=torch.int64)
    assert set(network.losses(outputs, labels, LOSSES.build("cross_entropy", {"class_count": 11}))) == {"segmentation"}


@pytest.mark.parametrize(("variant", "size"), [("s", (32, 32)), ("s", (193, 259)), ("l", (40, 48))])
def test_one_image_of_any_size_can_be_trained_on(variant: str, size: tuple[int, int]) -> None:
    network = create("pidnet", "camvid11", variant=variant, aux=True)
    outputs = network.outputs(torch.rand(1, 3, *size))
    assert outputs.logits.shape == (1, 11, *size)
    height, width = network.fitted(size)
    assert outputs.extras["boundary"].shape == (1, 1, height // 8, width // 8)


@pytest.mark.costly
def test_weights_of_a_classifier_fill_two_branches(tmp_path: Path) -> None:
    trained = create("pidnet", "camvid11").backbone.state_dict()
    file = tmp_path / "trained.safetensors"
    less = {name: value for name, value in trained.items() if not name.startswith("pag")}
    save_file({**less, "linear.bias": torch.ones(9)}, file)
    network = create("pidnet", "camvid11", encoder_weights=str(file))
    filled = network.backbone.state_dict()
    assert all(torch.equal(filled[name], value) for name, value in less.items())
    assert not torch.equal(filled["pag3.f_x.0.weight"], trained["pag3.f_x.0.weight"])
    assert list(network.encoder()) == [network.backbone]
    save_file({**less, "pag3.f_x.0.weight": trained["pag3.f_x.0.weight"]}, file)
    with pytest.raises(InputError, match="pag3"):
        create("pidnet", "camvid11", encoder_weights=str(file))


@pytest.mark.exhaustive
@pytest.mark.parametrize("variant", ["s", "l"])
def test_every_layer_can_be_pruned(variant: str) -> None:
    network = without_repeats(create("pidnet", "camvid11", variant=variant))
    before = parameters(network)
    assert halved(network) == 1
    assert parameters(network) < 0.35 * before
