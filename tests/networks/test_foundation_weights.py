"""Weights under the names of the releases of foundation models mean the same in timm; what does not fit is refused.

The tiny models are timm's classes; their weights get the official names here, from the published names of layers.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import QuickGELU
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn
from torch.nn import functional as F

import hardy
from hardy.engine import changes
from hardy.errors import InputError
from hardy.networks.building.weights import fill
from hardy.networks.parts import hub
from hardy.networks.parts.foundation_names import in_names_of_timm, release_of
from hardy.sections import Method
from hardy.seed import seeded

SIZE = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 0}
SCALED = {"init_values": 1.0, "global_pool": ""}
FORMS: dict[str, Callable[[], nn.Module]] = {
    "dinov2": lambda: VisionTransformer(**SIZE, **SCALED),
    "dinov2_registers": lambda: VisionTransformer(**SIZE, **SCALED, reg_tokens=4, no_embed_class=True),
    "dinov3": lambda: Eva(
        **SIZE,
        **SCALED,
        qkv_bias=False,
        num_reg_tokens=4,
        use_abs_pos_emb=False,
        use_rot_pos_emb=True,
        rope_type="dinov3",
    ),
    "clip": lambda: VisionTransformer(**SIZE, pre_norm=True, act_layer=QuickGELU, norm_layer=nn.LayerNorm),
    "eva02": lambda: Eva(
        **SIZE, qkv_fused=False, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True, use_rot_pos_emb=True
    ),
    "sam": lambda: VisionTransformerSAM(**SIZE, window_size=2, global_attn_indexes=(1,), use_rel_pos=True),
    "mae": lambda: VisionTransformer(**SIZE, global_pool="token"),
}
RELEASES = {
    "dinov2": "DINOv2",
    "dinov2_registers": "DINOv2",
    "dinov3": "DINOv3",
    "clip": "CLIP",
    "eva02": "EVA-02",
    "sam": "SAM",
    "mae": "MAE",
}
NAMES: dict[str, list[tuple[str, str]]] = {
    "dinov2": [],
    "dinov2_registers": [(r"reg_token", "register_tokens")],
    "dinov3": [(r"reg_token", "storage_tokens"), (r"gamma_(\d)", r"ls\1.gamma")],
    "clip": [
        (r"patch_embed\.proj", "conv1"),
        (r"pos_embed", "positional_embedding"),
        (r"cls_token", "class_embedding"),
        (r"norm_pre", "ln_pre"),
        (r"^norm\.", "ln_post."),
        (r"norm(\d)", r"ln_\1"),
        (r"blocks", "transformer.resblocks"),
        (r"attn\.qkv\.", "attn.in_proj_"),
        (r"attn\.proj", "attn.out_proj"),
        (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
        (r"^", "visual."),
    ],
    "eva02": [
        (r"mlp\.fc1_g", "mlp.w1"),
        (r"mlp\.fc1_x", "mlp.w2"),
        (r"mlp\.fc2", "mlp.w3"),
        (r"mlp\.norm", "mlp.ffn_ln"),
        (r"attn\.norm", "attn.inner_attn_ln"),
        (r"q_proj\.bias", "q_bias"),
        (r"v_proj\.bias", "v_bias"),
        (r"^fc_norm", "norm"),
    ],
    "sam": [(r"mlp\.fc(\d)", r"mlp.lin\1"), (r"^", "image_encoder.")],
    "mae": [],
}
BESIDE = {
    "dinov2": {"mask_token": (1, 24)},
    "dinov2_registers": {"mask_token": (1, 24)},
    "dinov3": {"mask_token": (1, 24), "rope_embed.periods": (3,)},
    "clip": {"positional_embedding": (7, 16), "visual.proj": (24, 16), "input_resolution": (), "logit_scale": ()},
    "eva02": {"mask_token": (1, 1, 24), "lm_head.weight": (9, 24), "lm_head.bias": (9,), "rope.freqs_cos": (16, 12)},
    "sam": {"prompt_encoder.not_a_point_embed.weight": (1, 8), "mask_decoder.iou_token.weight": (1, 8)},
    "mae": {"mask_token": (1, 1, 16), "decoder_pos_embed": (1, 17, 16), "decoder_embed.weight": (16, 24)},
}


def made(kind: str, seed: int) -> nn.Module:
    with seeded(seed, kind):
        model = FORMS[kind]()
        for value in model.parameters():
            nn.init.normal_(value, std=0.2)
    return model.eval()


def official(kind: str, model: nn.Module) -> dict[str, Tensor]:
    """The weights of ``model`` as the release has them."""
    found = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if kind == "dinov2_registers":  # positions of the class token too
        first = torch.full((1, 1, 24), 0.3)
        found["cls_token"] = found["cls_token"] - first
        found["pos_embed"] = torch.cat([first, found["pos_embed"]], dim=1)
    if kind == "clip":
        found["pos_embed"], found["cls_token"] = found["pos_embed"][0], found["cls_token"][0, 0]
    if kind == "eva02":
        found = {name: value for name, value in found.items() if not name.endswith("k_proj.bias")}
    renamed = {}
    for name, value in found.items():
        for old, new in NAMES[kind]:
            name = re.sub(old, new, name)
        renamed[name] = value
    if kind == "dinov3":
        for block in range(2):  # the release's biases of the smaller models are all zero
            renamed[f"blocks.{block}.attn.qkv.bias"] = torch.zeros(72)
            renamed[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(72)
    return renamed | {name: torch.full(shape, 0.1) for name, shape in BESIDE[kind].items()}


@pytest.mark.parametrize("kind", FORMS)
def test_the_official_names_of_a_release_mean_the_same_in_timm(kind: str, capsys: pytest.CaptureFixture) -> None:
    model, other = made(kind, 0), made(kind, 1)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    weights = official(kind, model)
    before = dict(weights)
    release = release_of(weights)
    assert release is not None
    assert release.name == RELEASES[kind]
    assert timm.get_pretrained_cfg(release.like).license
    with torch.no_grad():
        expected = model.forward_features(images)
        assert (other.forward_features(images) - expected).abs().max() > 0.1
        found = in_names_of_timm(weights, other, kind, "file.pth")
        fill(other, found, "file.pth", may_be_left=lambda names: [name for name in names if name.startswith("head.")])
        torch.testing.assert_close(other.forward_features(images), expected, rtol=1e-6, atol=1e-6)
    assert weights.keys() == before.keys(), "what was read is not changed"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["dinov2", "clip", "mae"])
def test_positions_of_another_size_are_interpolated(kind: str) -> None:
    model = made(kind, 0)
    weights = official(kind, model)
    key = "visual.positional_embedding" if kind == "clip" else "pos_embed"
    drawn = torch.randn(1 + 36, 24, generator=torch.Generator().manual_seed(3))
    weights[key] = drawn if kind == "clip" else drawn[None]
    grid = drawn[1:].T.reshape(1, 24, 6, 6)
    small = F.interpolate(grid, (4, 4), mode="bicubic", antialias=True, align_corners=False).flatten(2)[0].T
    found = in_names_of_timm(weights, model, kind, "file.pth")["pos_embed"]
    torch.testing.assert_close(found[0], torch.cat([drawn[:1], small]), rtol=1e-5, atol=1e-6)


def filled(model: nn.Module, weights: dict[str, Tensor]) -> None:
    fill(model, in_names_of_timm(weights, model, "some_vit", "file.pth"), "file.pth")


def refusal(kind: str, weights: dict[str, Tensor], model: nn.Module | None = None) -> str:
    with pytest.raises(InputError) as error:
        filled(model or made(kind, 0), weights)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_values_that_would_size_something_else_are_refused_in_one_line() -> None:
    weights = official("dinov2", made("dinov2", 0))
    wide = {**weights, "pos_embed": torch.zeros(1, 17, 32)}
    assert (
        refusal("dinov2", wide) == "file.pth: pos_embed (1, 17, 32) is not 24 channels wide, as encoder 'some_vit' is"
    )
    odd = refusal("dinov2", {**weights, "pos_embed": torch.zeros(1, 24, 24)})
    assert odd == "file.pth: pos_embed (1, 24, 24) are 24 positions, which do not form a square of patches"
    flat = refusal("dinov2", {**weights, "pos_embed": torch.zeros(24)})
    assert flat.startswith("file.pth: does not fit encoder 'some_vit' (")
    for shape in ((24, 3, 8, 100), (24, 1, 8, 8), (24, 192), (24, 3, 8, 0)):
        said = refusal("dinov2", {**weights, "patch_embed.proj.weight": torch.zeros(shape)})
        assert (
            said
            == f"file.pth: patch_embed.proj.weight {shape} does not fit encoder 'some_vit', which has (24, 3, 8, 8)"
        )
    lacking = {name: value for name, value in weights.items() if name != "blocks.1.norm2.weight"}
    assert "1 missing (blocks.1.norm2.weight)" in refusal("dinov2", lacking)


def test_another_architecture_is_refused_in_one_line() -> None:
    three = official("dinov3", made("dinov3", 0))
    assert "has the names of DINOv3, and encoder 'some_vit' is not such a model; take one" in refusal("dinov2", three)
    convolutional = timm.create_model("test_resnet")
    assert refusal("sam", official("sam", made("sam", 0)), convolutional) == (
        "file.pth: has the names of SAM, and encoder 'some_vit' is not such a model; "
        "take one such as samvit_base_patch16"
    )
    three["blocks.1.attn.qkv.bias"] = torch.ones(72)
    assert (
        "blocks.1.attn.qkv.bias is not zero, and encoder 'some_vit' has no such bias; take its _qkvb variant"
        in refusal("dinov3", three)
    )
    three["blocks.1.attn.qkv.bias"] = torch.cat([torch.zeros(24), torch.ones(24), torch.zeros(24)])
    in_names_of_timm(three, made("dinov3", 0), "some_vit", "file.pth")  # the bias of keys changes nothing
    plain = VisionTransformer(**SIZE, pre_norm=True)
    assert "OpenAI's CLIP computes QuickGELU and encoder 'some_vit' another" in refusal(
        "clip", official("clip", made("clip", 0)), plain
    )


# ----------------------------------------------------------------------------------------------- whole networks

OPTIONS = {"encoder": "test_vit", "decoder": "linear"}


def mae_file(file: Path) -> Path:
    model = timm.create_model("test_vit")
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
    weights |= {"mask_token": torch.zeros(1, 1, 32), "decoder_pos_embed": torch.zeros(1, 101, 32)}
    if file.suffix == ".safetensors":
        save_file(weights, file)
    else:
        torch.save({"model": weights, "epoch": 3}, file)
    return file


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_read_and_its_origin_is_shown_and_kept(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = mae_file(tmp_path / f"mae{suffix}")
    with caplog.at_level(logging.WARNING):
        network = hardy.create("encoder_decoder", "camvid11", **OPTIONS, encoder_weights=str(file))
    origin = network.architecture["pretrained"]
    assert origin["name"] == file.name
    assert len(origin["sha256"]) == 64
    assert origin["licence"] == "cc-by-nc-4.0"
    assert origin["origin"].startswith("names of MAE")
    assert f"encoder_weights {file.name}: sha256 {origin['sha256']}; licence cc-by-nc-4.0" in caplog.text
    assert hardy.load(hardy.save(network, tmp_path / "run")).architecture["pretrained"] == origin


def test_a_torchscript_archive_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "clip.pt")
    with pytest.raises(
        InputError, match=r"clip.pt: cannot be read as weights \(a TorchScript archive, which is a prog"
    ):
        hardy.create("encoder_decoder", "camvid11", **OPTIONS, encoder_weights=str(tmp_path / "clip.pt"))


@pytest.mark.costly
def test_a_tuned_network_holds_what_was_trained_and_refuses_another_foundation(tmp_path: Path) -> None:
    file = mae_file(tmp_path / "mae.pth")
    network = hardy.create("encoder_decoder", "camvid11", **OPTIONS, encoder_weights=str(file))
    network.origin = {"encoder_weights": str(file)}
    changes.attach(network, Method(name="lora", rank=2, targets="qkv"))
    folder = hardy.save(network, tmp_path / "run")
    assert (folder / "network.safetensors").stat().st_size < 0.2 * file.stat().st_size
    loaded = hardy.load(folder)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())
    mae_file(file)  # other weights under the same name
    with pytest.raises(InputError, match=r"run: holds only the tuned weights, and encoder_weights .* other weights"):
        hardy.load(folder)
    file.unlink()
    with pytest.raises(InputError, match=r"the rest cannot be loaded: .*mae.pth: no such weights file; restore what"):
        hardy.load(folder)


def test_clip_brings_its_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("clip", 0)
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **_: made("clip", 1) if name == "test_vit" else make(name))
    torch.save(official("clip", model), tmp_path / "clip.pt")
    network = hardy.create("encoder_decoder", "camvid11", **OPTIONS, encoder_weights=str(tmp_path / "clip.pt"))
    expected = (0.48145466, 0.4578275, 0.40821073)
    torch.testing.assert_close(network.mean.flatten(), torch.tensor(expected))
    assert network.architecture["mean"] == list(expected)
    assert torch.equal(network.backbone.model.cls_token[0, 0], model.cls_token[0, 0])


def test_the_hub_is_asked_for_its_name_alone_and_being_offline_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = mae_file(tmp_path / "model.safetensors")
    asked = []

    def found(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(file)

    def offline(*_: object) -> str:
        raise OSError("no connection\nat all")

    monkeypatch.setattr(hub, "hf_hub_download", found)
    hardy.create("encoder_decoder", "camvid11", **OPTIONS, encoder_weights=str(file))
    assert asked == []
    weights = "hf-hub:someone/mae"
    network = hardy.create("encoder_decoder", "camvid11", **OPTIONS, encoder_weights=weights)
    assert asked == [("someone/mae", "model.safetensors")]
    assert network.architecture["pretrained"]["name"] == weights
    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(
        InputError, match=r"^hf-hub:someone/mae: model.safetensors could not be downloaded; give"
    ) as error:
        hardy.create("encoder_decoder", "camvid11", **OPTIONS, encoder_weights=weights)
    assert "\n" not in str(error.value)
