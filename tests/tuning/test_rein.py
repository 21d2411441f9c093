"""Rein: the formula at every block of every kind of encoder, the queries of the link, and what is refused.

Layer scales are set to 1: at the 1e-5 of random DINOv2 weights nothing that is done to a block would be seen.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import hardy
from hardy.algorithms.erm import ERM
from hardy.deployment.export import export
from hardy.engine import changes
from hardy.engine.optimiser import build
from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.base import Network
from hardy.pruning.mask import mask
from hardy.pruning.remove import remove
from hardy.pruning.units import find_units
from hardy.recipe import Optim
from hardy.sections import Method
from hardy.seed import seeded
from hardy.tuning._rein_tokens import Refined, ReinTokens

IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SMALL = {"embed_dim": 64, "depth": 3, "num_heads": 2}
VITS = {
    "vit_tiny_patch16_224": 1,
    "vit_base_patch16_224.mae": 1,
    "deit_tiny_distilled_patch16_224": 2,
    "vit_small_patch14_dinov2": 1,
    "vit_small_patch14_reg4_dinov2": 5,
    "vit_small_patch16_dinov3": 5,
    "vit_small_patch16_dinov3_qkvb": 5,
    "vit_base_patch16_clip_224": 1,
    "eva02_tiny_patch14_224": 1,
    "samvit_base_patch16": 0,
    "vit_base_patch16_siglip_224": 0,
}
"""Name -> prefix tokens. All are built with the sizes of ``SMALL``."""
STAGED = {
    "convnext_atto": [f"stages.{stage}.blocks" for stage in range(4)],
    "resnet18": [f"layer{stage}" for stage in range(1, 5)],
    "tf_efficientnet_lite0": [f"blocks.{stage}" for stage in range(7)],
    "mobilenetv2_100": [f"blocks.{stage}" for stage in range(7)],
    "mobilenetv3_large_100": [f"blocks.{stage}" for stage in range(6)],  # the seventh is one convolution
    "mit_b0": [f"block{stage}" for stage in range(1, 5)],
    "regnety_002": [f"s{stage}" for stage in range(1, 5)],
}
"""Name -> the containers of the blocks of each stage."""
FAST = {"vit_small_patch14_reg4_dinov2", "samvit_base_patch16", "tf_efficientnet_lite0", "mit_b0"}
EXPORTED = {"vit_small_patch14_reg4_dinov2", "tf_efficientnet_lite0"}
EACH = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow, id=name) for name in (*VITS, *STAGED)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's transformers with few channels and blocks."""
    create = timm.create_model

    def smaller(name: str, *args, **kwargs):
        return create(name, *args, **({**SMALL, **kwargs} if name in VITS else kwargs))

    monkeypatch.setattr(timm, "create_model", smaller)


def dense(encoder: str, network: str = "encoder_decoder", **options) -> Network:
    """A network in float64, evaluation mode, with layer scales of 1."""
    if network != "classifier":
        options = {"decoder": "linear", **options}
    with seeded(0, "network"):
        made = hardy.create(network, "camvid11", encoder=encoder, **options).double().eval()
    for name, value in made.named_parameters():
        if "gamma" in name:
            nn.init.ones_(value)
    return made


def attach(network: Network, **options) -> Network:
    with seeded(0, "tuner"):
        changes.attach(network, Method(name="rein", **{"rank": 4, "tokens": 7, **options}))
    return network


@torch.no_grad()
def excite(network: Network) -> Network:
    """Give what was inserted random values of a size that is seen and does not grow from block to block, in place."""
    draw = torch.Generator().manual_seed(1)
    for name, value in network.rein.named_parameters():
        size = 0.1 if value.ndim == 1 else 0.4 / math.sqrt(value.shape[-1])
        value.copy_(torch.randn(value.shape, generator=draw, dtype=value.dtype) * size)
        if name.endswith("scale"):
            value.fill_(0.5)
    return network


def containers(network: Network, encoder: str) -> list[str]:
    root = "backbone.model" if hasattr(network.backbone, "model") else "backbone"
    return [f"{root}.{name}" for name in STAGED.get(encoder, ["blocks"])]


def by_hand(x: Tensor, tokens: Tensor, part: ReinTokens, prefix: int, channels_first: bool) -> Tensor:
    """The formula as the paper has it, token by token."""
    shape = x.shape
    cells = x.flatten(2).transpose(1, 2) if channels_first else x.flatten(1, -2)
    head, cells = cells[:, :prefix], cells[:, prefix:]
    powers = torch.exp(torch.einsum("bnc,mc->bnm", cells, tokens) / math.sqrt(cells.shape[-1]))
    shares = powers / powers.sum(-1, keepdim=True)
    weight, bias = part.mlp_token2feat.weight, part.mlp_token2feat.bias
    change = sum(shares[..., m, None] * (weight @ tokens[m] + bias) for m in range(1, len(tokens)))
    change = (change + cells) @ part.mlp_delta_f.weight.T + part.mlp_delta_f.bias
    cells = torch.cat([head, cells + (1 if part.scale is None else part.scale) * change], 1)
    return cells.transpose(1, 2).reshape(shape) if channels_first else cells.reshape(shape)


def by_hooks(plain: Network, tuned: Network, encoder: str) -> Network:
    """``plain`` with the formula hooked on its blocks, with the numbers of ``tuned``."""
    names = containers(plain, encoder)
    assert len(names) == len(tuned.rein)
    first = encoder in STAGED and encoder != "mit_b0"
    for name, part in zip(names, tuned.rein, strict=True):
        blocks = list(plain.get_submodule(name).children())
        tokens = part.learnable_tokens_a @ part.learnable_tokens_b
        assert len(blocks) == len(tokens)
        for block, own in zip(blocks, tokens, strict=True):

            def hook(_, __, x, own=own, part=part):
                return by_hand(x, own, part, VITS.get(encoder, 0), first)

            block.register_forward_hook(hook)
    return plain


# ----------------------------------------------------------------------------------------- every kind of encoder


@pytest.mark.costly
@pytest.mark.parametrize("encoder", EACH)
def test_every_block_is_refined_by_the_formula(encoder: str) -> None:
    plain = dense(encoder)
    tuned = excite(attach(copy.deepcopy(plain)))
    with torch.no_grad():
        before = plain.outputs(IMAGES)
        expected = by_hooks(copy.deepcopy(plain), tuned, encoder).outputs(IMAGES)
        found = tuned.outputs(IMAGES)
    assert list(found.features) == list(expected.features)
    for name, value in found.features.items():
        torch.testing.assert_close(value, expected.features[name], rtol=1e-9, atol=1e-9)
        assert (value - before.features[name]).abs().max() > 1e-2 * value.abs().max()
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-9, atol=1e-9)


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["vit_small_patch14_reg4_dinov2", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_so_it_is_in_a_classifier(encoder: str) -> None:
    plain = dense(encoder, "classifier")
    tuned = excite(attach(copy.deepcopy(plain)))
    with torch.no_grad():
        expected = by_hooks(copy.deepcopy(plain), tuned, encoder)(IMAGES)
        torch.testing.assert_close(tuned(IMAGES), expected, rtol=1e-9, atol=1e-9)
        assert (expected - plain(IMAGES)).abs().max() > 1e-2 * expected.abs().max()


@pytest.mark.costly
@pytest.mark.parametrize(
    "encoder",
    [pytest.param(name, marks=[pytest.mark.exhaustive] * (name not in EXPORTED), id=name) for name in (*VITS, *STAGED)],
)
def test_a_copy_an_exported_graph_and_a_file_say_the_same(encoder: str, tmp_path: Path) -> None:
    tuned = excite(attach(dense(encoder).float()))
    images = IMAGES.float()
    copied = copy.deepcopy(tuned)
    held = {id(part) for part in copied.rein}
    wrapped = [module for module in copied.modules() if isinstance(module, Refined)]
    assert wrapped
    assert {id(module._tokens[0]) for module in wrapped} == held
    assert held.isdisjoint({id(part) for part in tuned.rein})
    with torch.no_grad():
        expected = tuned(images)
        assert torch.equal(copied(images), expected)
        graph = torch.export.export(tuned, (images,)).module()
        torch.testing.assert_close(graph(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    proof = export(tuned, tmp_path / "tuned.onnx", size=(64, 96), output="logits")
    assert proof.agreement == 1.0 or proof.difference < 1e-4 * float(expected.abs().max())


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["vit_small_patch14_reg4_dinov2", "mit_b0"])
def test_the_parts_of_a_network_and_what_starts_at_zero(encoder: str) -> None:
    tuned = attach(dense(encoder))
    several = encoder in STAGED
    assert [part.scale is None for part in tuned.rein] == [several] * (4 if several else 1)
    assert {name.partition(".")[0] for name, value in tuned.named_parameters() if value.requires_grad} == {
        "rein",
        "decoder",
    }
    assert len({value.data_ptr() for value in tuned.state_dict().values()}) == len(tuned.state_dict())
    other = attach(dense(encoder), zero_start=not several)
    assert [part.scale is None for part in other.rein] == [not several] * len(tuned.rein)


def test_each_block_has_layers_of_its_own_without_sharing() -> None:
    tuned = excite(attach(dense("vit_small_patch14_reg4_dinov2"), share=False, rank=None))
    (part,) = tuned.rein
    assert part.learnable_tokens.shape == (3, 7, 64)
    assert len(part.mlp_token2feat) == len(part.mlp_delta_f) == 3
    x = torch.rand(1, 9, 64, dtype=torch.float64)
    for block in range(3):
        alone = ReinTokens(1, 64, prefix=5, tokens=7, rank=None).double()
        values = {"learnable_tokens": part.learnable_tokens[block, None], "scale": part.scale}
        for name in ("mlp_token2feat", "mlp_delta_f"):
            layer = getattr(part, name)[block]
            values |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
        alone.load_state_dict(values)
        torch.testing.assert_close(part(x, block), alone(x, 0))


@pytest.mark.parametrize("encoder", ["vit_small_patch14_reg4_dinov2", "vit_tiny_patch16_224"])
def test_a_transformer_whose_last_blocks_queries_join_is_one_stage(encoder: str) -> None:
    plain = dense(encoder, decoder="eomt", decoder_options={"query_count": 4, "blocks": 2})
    tuned = excite(attach(copy.deepcopy(plain)))
    (part,) = tuned.rein
    assert part.scale is not None
    assert part.prefixes == (VITS[encoder], *(2 * [4 + VITS[encoder]]))
    tokens = part.learnable_tokens_a @ part.learnable_tokens_b
    blocks = [*plain.backbone.model.blocks, *plain.decoder.blocks]
    for block, own, prefix in zip(blocks, tokens, part.prefixes, strict=True):
        block.register_forward_hook(
            lambda _, __, x, own=own, prefix=prefix: by_hand(x, own, part, prefix, channels_first=False)
        )
    with torch.no_grad():
        torch.testing.assert_close(tuned(IMAGES), plain(IMAGES), rtol=1e-9, atol=1e-9)


@pytest.mark.costly
@pytest.mark.slow
def test_a_tuned_transformer_is_pruned() -> None:
    tuned = excite(attach(dense("vit_small_patch14_reg4_dinov2")))
    units = find_units(tuned)
    removed = {unit.name: list(range(unit.size // 4)) for unit in units if unit.size >= 4}
    cut = {member.module for unit in units if unit.name in removed for member in unit.members}
    assert {"rein.0", "rein.0.mlp_delta_f", "rein.0.mlp_token2feat"} <= cut
    masked = copy.deepcopy(tuned)
    mask(masked, units, removed)
    remove(tuned, units, removed)
    assert tuned.rein[0].learnable_tokens_b.shape[-1] < 64
    with torch.no_grad():
        torch.testing.assert_close(tuned(IMAGES), masked(IMAGES), rtol=1e-9, atol=1e-9)


def test_tokens_and_scale_are_not_decayed() -> None:
    network = attach(dense("vit_small_patch14_reg4_dinov2"))
    algorithm = ERM(network, CrossEntropy(11))
    names = {id(value): name for name, value in network.named_parameters()}
    decayed = {
        names[id(value)]
        for group in build(algorithm, Optim(name="adamw", weight_decay=0.05)).param_groups
        for value in group["params"]
        if group["weight_decay"]
    }
    assert {name for name in decayed if name.startswith("rein")} == {
        "rein.0.mlp_token2feat.weight",
        "rein.0.mlp_delta_f.weight",
    }


# --------------------------------------------------------------------------------------------------------- the link


ASKING = "asking_network:Asking"


@pytest.mark.costly
@pytest.mark.parametrize("encoder", ["vit_small_patch14_reg4_dinov2", "mit_b0"])
def test_the_link_gives_queries(encoder: str, tmp_path: Path) -> None:
    plain = dense(encoder, ASKING)
    assert plain.queries is None
    tuned = excite(attach(copy.deepcopy(plain).float(), link=True, tokens=12))
    queries = tuned.queries
    assert queries.shape == (12, 256)
    expected: Tensor | int = 0
    for part in tuned.rein:
        tokens = part.learnable_tokens_a @ part.learnable_tokens_b
        each = tokens @ part.transform.weight.T + part.transform.bias
        three = (each.max(0).values, each.mean(0), each[-1])
        weight = part.merge.weight
        expected = expected + part.merge.bias + sum(one @ weight[:, place::3].T for place, one in enumerate(three))
    torch.testing.assert_close(queries, expected)
    tuned(IMAGES.float()).square().mean().backward()
    assert all(value.grad is not None and value.grad.any() for value in tuned.rein.parameters())
    with torch.no_grad():
        loaded = hardy.load(hardy.save(tuned, tmp_path / "run"), trust=["asking_network"])
        assert torch.equal(loaded.queries, queries)
        assert torch.equal(loaded(IMAGES.float()), tuned(IMAGES.float()))
        exported = torch.export.export(tuned, (IMAGES.float(),)).module()
        torch.testing.assert_close(exported(IMAGES.float()), tuned(IMAGES.float()), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_without_core_only_the_queries_are_trained() -> None:
    plain = dense("vit_small_patch14_reg4_dinov2", ASKING)
    tuned = attach(copy.deepcopy(plain), core=False, link=True, tokens=12)
    with torch.no_grad():
        before, after = plain.outputs(IMAGES), tuned.outputs(IMAGES)
    assert all(torch.equal(value, after.features[name]) for name, value in before.features.items())
    assert not torch.equal(before.logits, after.logits)
    assert not any(isinstance(module, Refined) for module in tuned.modules())
    assert set(dict(tuned.rein[0].named_children())) == {"transform", "merge"}


# ------------------------------------------------------------------------------------------------ what is refused


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "rank": (
        lambda: attach(dense("tf_efficientnet_lite0"), rank=20),
        r"^tuner: rein: rank 20 is larger than the 16 channels of backbone\.model\.blocks\.0\.0; use a rank up to 16$",
    ),
    "link": (
        lambda: attach(dense("vit_small_patch14_reg4_dinov2"), link=True),
        r"^tuner: rein: link has no effect, because nothing in EncoderDecoder reads the queries",
    ),
    "blocks": (
        lambda: attach(hardy.create("encoder_decoder", "camvid11", encoder="stdc1", decoder="linear")),
        r"^tuner: the encoder of EncoderDecoder has no blocks .*; use encoder_decoder with a transformer",
    ),
    "encoder": (lambda: attach(hardy.create("tiny", "camvid11")), r"^tuner: Tiny names no encoder"),
    "tokens": (lambda: attach(dense("mit_b0"), tokens=1), r"^Rein\.tokens: 1 is out of range; it must be 2 or more$"),
    "low": (lambda: attach(dense("mit_b0"), rank=0), r"^Rein\.rank: 0 is out of range; it must be 1 or more$"),
    "nothing": (
        lambda: attach(dense("mit_b0"), core=False),
        r"^Rein: with core: false and link: false only the decoder is trained; use frozen",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("call", "line"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_in_one_line(call: Callable[[], object], line: str) -> None:
    with pytest.raises(InputError, match=line) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_refusal_changes_nothing() -> None:
    network = dense("vit_small_patch14_reg4_dinov2")
    names, before = list(network.state_dict()), torch.get_rng_state()
    with pytest.raises(InputError):
        changes.attach(network, Method(name="rein", link=True))
    assert list(network.state_dict()) == names
    assert network.linked == network.resting == ()
    assert network.changes == []
    assert all(value.requires_grad for value in network.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_it_cannot_be_merged() -> None:
    network = attach(dense("vit_small_patch14_reg4_dinov2"))
    with pytest.raises(InputError, match=r"^tuner: the modules of Rein cannot be merged"):
        hardy.merge(network)
