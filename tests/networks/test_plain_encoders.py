"""Plain transformers at any size: maps by block, with and without the final norm, tokens, positions and patches."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from torch.export import Dim

import hardy
from hardy.deployment.graph import Session
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.parts.pyramid import Pyramid
from hardy.ops.windows import views

TINY = "test_vit"


def network(encoder: str = TINY, **vit: Any) -> Any:
    torch.manual_seed(0)
    made: Any = create("encoder_decoder", "camvid11", encoder=encoder, decoder="linear", vit=vit).eval()
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.1 * torch.randn_like(value))  # no token, scale or position is zero
    return made


def twin(made: Any, encoder: str = TINY) -> Any:
    """timm's own model with the same weights."""
    model: Any = timm.create_model(encoder, num_classes=0, dynamic_img_size=True).eval()
    model.load_state_dict(made.backbone.model.state_dict(), strict=False)
    return model


@pytest.mark.parametrize(
    ("vit", "places", "norm"),
    [
        ({}, [0, 2, 3, 5], True),
        ({"final_norm": False}, [0, 2, 3, 5], False),
        ({"blocks": [1, 2, 4, 5]}, [1, 2, 4, 5], True),
        ({"blocks": [0, 3], "final_norm": False}, [0, 3], False),
    ],
)
def test_the_maps_are_those_of_the_blocks_named(vit: dict[str, Any], places: list[int], norm: bool) -> None:
    made = network(**vit)
    images = torch.rand(1, 3, 48, 80)
    with torch.no_grad():
        expected = twin(made).forward_intermediates(images, indices=places, norm=norm, intermediates_only=True)
        maps = made.backbone(images)
    assert len(maps) == len(places) == len(made.backbone.channels)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps, expected, strict=True))
    assert len(made.backbone.model.blocks) == places[-1] + 1
    assert any(name.startswith("backbone.model.norm.") for name in made.state_dict()) is norm


@pytest.mark.parametrize(("encoder", "prefix"), [(TINY, 1), ("test_vit2", 1), ("vit_small_patch14_reg4_dinov2", 5)])
def test_class_and_register_tokens_stand_before_the_patches_at_every_size(encoder: str, prefix: int) -> None:
    made = network(encoder, blocks=[0])
    model = made.backbone.model
    side = model.patch_embed.patch_size[0]
    seen: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda block, given: seen.append(given[0]))
    for rows, columns in ((2, 5), (7, 3)):
        images = torch.rand(1, 3, rows * side, columns * side)
        with torch.no_grad():
            made.backbone(images)
            patches = model.patch_embed.proj(images).flatten(2).transpose(1, 2)
        held = 0 if model.no_embed_class else prefix
        table = resample_abs_pos_embed(model.pos_embed, [rows, columns], None, held)
        given = [x for x in (model.cls_token, model.reg_token) if x is not None]
        expected = torch.cat([*given, patches], dim=1)
        expected[:, prefix - held :] += table
        assert seen[-1].shape[1] == prefix + rows * columns
        torch.testing.assert_close(seen[-1], expected.detach(), rtol=1e-6, atol=1e-6)


def test_windows_see_the_network_at_their_own_size() -> None:
    made = network()
    images = torch.rand(1, 3, 48, 80)
    with torch.no_grad():
        found = views(made, window=(48, 48), stride=(48, 32))(images)
        left, right = made(images[..., :48]), made(images[..., 32:])
    middle = (left[..., 32:] + right[..., :16]) / 2
    torch.testing.assert_close(found, torch.cat([left[..., :32], middle, right[..., 16:]], dim=-1))


@pytest.mark.costly
@pytest.mark.parametrize("example", [(64, 96), (50, 90)])
def test_one_exported_graph_takes_images_with_and_without_padding(example: tuple[int, int]) -> None:
    """A slice would fix whether the example was padded."""
    made = network(blocks=[0, 1])
    sides = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    graph = torch.export.export(made, (torch.rand(2, 3, *example),), dynamic_shapes=sides).module()
    with torch.no_grad():
        for shape in ((1, 3, 64, 96), (3, 3, 50, 131), (1, 3, 48, 33)):
            images = torch.rand(shape)
            torch.testing.assert_close(graph(images), made(images), rtol=1e-4, atol=1e-4)


@pytest.mark.costly
@pytest.mark.parametrize("size", [(64, 96), (50, 90)])
def test_an_exported_file_of_open_size_is_proven(size: tuple[int, int], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    file = tmp_path / "net.onnx"
    proof = hardy.export(network(blocks=[0]), file, size=size, dynamic=True, output="logits")
    assert proof.dynamic
    made, session = network(blocks=[0]), Session(file)
    for shape in ((1, 3, 64, 96), (2, 3, 50, 131)):
        images = torch.rand(shape)
        with torch.no_grad():
            torch.testing.assert_close(torch.as_tensor(session(images)), made(images), rtol=1e-3, atol=1e-3)


# patches of another size ----------------------------------------------------------------------------------------------


def cubic(old: int, new: int) -> Tensor:
    """The (new, old) matrix of bicubic resizing along one side, of the kernel with a = -0.75; borders are repeated."""
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for row in range(new):
        at = (row + 0.5) * old / new - 0.5
        for tap in range(int(at // 1) - 1, int(at // 1) + 3):
            far = abs(at - tap)
            near = 1.25 * far**3 - 2.25 * far**2 + 1
            weight = near if far <= 1 else -0.75 * (far**3 - 5 * far**2 + 8 * far - 4)
            matrix[row, min(max(tap, 0), old - 1)] += weight
    return matrix


@pytest.mark.parametrize("encoder", [TINY, "eva02_tiny_patch14_224"])
def test_embedding_and_positions_are_resized_to_the_new_patches(encoder: str) -> None:
    torch.manual_seed(1)
    before = Pyramid(encoder, None, None)
    torch.manual_seed(1)
    made: Any = create("encoder_decoder", "camvid11", encoder=encoder, decoder="linear", vit={"patch": 20}).eval()
    old, new = before.model, made.backbone.model
    assert set(made.backbone.strides) == {20}
    side = old.patch_embed.patch_size[0]
    resize = cubic(side, 20)
    kernel = resize @ old.patch_embed.proj.weight.double() @ resize.T
    torch.testing.assert_close(new.patch_embed.proj.weight.double(), kernel, rtol=1e-5, atol=1e-6)
    assert torch.equal(new.patch_embed.proj.bias, old.patch_embed.proj.bias)
    cells = old.patch_embed.img_size[0] // 20
    table = resample_abs_pos_embed(old.pos_embed, [cells, cells], list(old.patch_embed.grid_size), 1, antialias=False)
    torch.testing.assert_close(new.pos_embed, table)
    assert torch.equal(new.pos_embed[:, :1], old.pos_embed[:, :1]), "the class token's position"
    with torch.no_grad():
        outputs = made.outputs(torch.rand(1, 3, 50, 70))
    assert outputs.logits.shape == (1, 11, 50, 70)
    assert outputs.features["stage4"].shape[-2:] == (3, 4)


@pytest.mark.costly
def test_the_published_conversion_of_dinov2() -> None:
    options = {"blocks": [7, 11, 15, 23], "final_norm": False, "patch": 16}
    for encoder, tokens in (("vit_large_patch14_dinov2", 1 + 32**2), ("vit_large_patch14_reg4_dinov2", 32**2)):
        with torch.device("meta"):
            made: Any = create("encoder_decoder", "cityscapes19", encoder=encoder, decoder="linear", vit=options)
        assert made.backbone.indices == [7, 11, 15, 23]
        assert made.backbone.strides == [16] * 4
        assert made.backbone.model.pos_embed.shape == (1, tokens, 1024)
        assert made.backbone.model.patch_embed.proj.weight.shape == (1024, 3, 16, 16)


def test_a_saved_network_has_its_options(tmp_path: Path) -> None:
    made = network(blocks=[1, 3], final_norm=False, patch=8)
    hardy.save(made, tmp_path / "run")
    again: Any = hardy.load(tmp_path / "run").eval()
    images = torch.rand(1, 3, 41, 35)
    with torch.no_grad():
        assert torch.equal(again(images), made(images))
    assert (again.backbone.indices, again.backbone.strides) == ([1, 3], [8, 8])


@pytest.mark.parametrize(
    ("encoder", "vit", "words"),
    [
        (TINY, {"blocks": [3, 6]}, "vit.blocks .*: give places from 0 to 5, ascending: 'test_vit' has 6"),
        (TINY, {"blocks": [3, 1]}, "ascending"),
        (TINY, {"blocks": []}, "give places from 0 to 5"),
        (TINY, {"blocks": [1, 2.5]}, "vit.blocks.1: "),
        (TINY, {"bloks": [1]}, "vit has no option 'bloks'; did you mean 'blocks'"),
        (TINY, {"patch": 0}, "vit.patch: 0 is out of range"),
        (TINY, {"patch": 200}, "vit.patch 200: encoder 'test_vit' is made for images of 160x160; take a smaller patch"),
        ("samvit_base_patch16", {"patch": 8}, "the patches of encoder .samvit_base_patch16. cannot be resized"),
        ("resnet18", {"blocks": [1]}, "vit.blocks: encoder 'resnet18' is not a plain transformer; leave vit out"),
        ("mit_b0", {"final_norm": False}, "vit.final_norm: encoder 'mit_b0' is not a plain transformer"),
    ],
)
def test_options_that_cannot_be(encoder: str, vit: dict[str, Any], words: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=words) as caught:
        create("encoder_decoder", "camvid11", encoder=encoder, decoder="linear", vit=vit)
    assert "\n" not in str(caught.value)
