"""Heads, hidden widths and residual streams: masked, removed, replayed and exported networks are one and the same."""

import copy
import json
from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
from repeats import without_repeats
from timm.layers import GroupNorm1
from timm.models.metaformer import Attention, LayerNorm2dNoBias, LayerNormNoBias, MetaFormer, Pooling
from torch import Tensor, nn

from hardy.deployment import graph
from hardy.engine import changes
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.pruning.gates import gate_gradients, gate_parameters, gate_sites
from hardy.pruning.heads import heads_of
from hardy.pruning.mask import mask, prepare_mask
from hardy.pruning.masked import masked_copy
from hardy.pruning.remove import remove, replay
from hardy.pruning.samples import SampleGradients
from hardy.pruning.units import Unit, survey
from hardy.sections import Method

pytestmark = pytest.mark.slow

NORMS = [LayerNorm2dNoBias, LayerNormNoBias]


def vit(**options) -> nn.Module:
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 8, "num_classes": 5}
    return timm.create_model("vit_small_patch14_reg4_dinov2", **{**sizes, **options})


def swin() -> nn.Module:
    sizes = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "img_size": 32, "window_size": 4}
    return timm.create_model("swin_tiny_patch4_window7_224", **sizes, num_classes=5)


def efficientformer() -> nn.Module:
    sizes = {"depths": (1, 1, 2, 2), "embed_dims": (16, 16, 24, 32), "mlp_ratios": (2, 2, (2, 2), (2, 2))}
    return timm.create_model("efficientformerv2_s0", **sizes, num_vit=1, img_size=64, num_classes=5)


def poolformer() -> nn.Module:
    return MetaFormer(
        depths=(1, 1, 1, 1),
        dims=(16, 16, 24, 32),
        token_mixers=Pooling,
        mlp_act=nn.GELU,
        mlp_bias=True,
        norm_layers=GroupNorm1,
        layer_scale_init_values=1e-5,
        res_scale_init_values=None,
        use_mlp_head=False,
        num_classes=5,
    )


def mit() -> nn.Module:
    return without_repeats(create("segformer", "camvid11", variant="b0"))


def topformer() -> nn.Module:
    return create("topformer", "camvid11", variant="t")


def seaformer() -> nn.Module:
    return without_repeats(create("seaformer", "camvid11", variant="t"))


NETWORKS = {
    "vit": (vit, {"heads": 2, "hidden": 2, "embedding": 1}, 32),
    "swin": (swin, {"heads": 4, "hidden": 4, "embedding": 2}, 32),
    "efficientformer": (efficientformer, {"filters": 1, "heads": 3, "hidden": 6, "embedding": 4}, 64),
    "poolformer": (poolformer, {"hidden": 4, "embedding": 3}, 64),
    "mit": (mit, {"heads": 4, "hidden": 7, "embedding": 4}, 64),
    "topformer": (topformer, {"filters": 10, "heads": 4, "hidden": 4, "embedding": 4}, 64),
    "seaformer": (seaformer, {"filters": 18, "hidden": 2, "embedding": 2}, 64),
}

EXPORTED = ("vit", "swin", "mit")
"""One with heads alone, one with tables that go with its heads, one of ours; the others are traced in the same way."""


def grown(build) -> nn.Module:
    """A network whose scales, shifts, tokens and tables are not those of a fresh one."""
    torch.manual_seed(0)
    network = build().eval()
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point() and value.numel() > 1 and float(value.std()) < 1e-3:
                value.copy_(torch.rand_like(value) + 0.5)
    return network


def odd(units: list[Unit]) -> dict[str, list[int]]:
    """Every third channel; of heads the first, unless it is the only one."""
    return {unit.name: list(range(0, unit.size - 1, 3)) for unit in units if unit.size > 1}


@pytest.mark.parametrize("tuner", ["lora", "soma", "ssf"])
def test_attention_with_layers_that_a_tuner_wraps_has_the_same_units(tuner: str) -> None:
    network = mit()
    images = torch.rand(1, 3, 64, 64)
    plain = Counter((unit.kind, unit.size) for unit in survey(network, images).units)
    changes.attach(network, Method(name=tuner))
    units = survey(network, images).units
    assert not plain - Counter((unit.kind, unit.size) for unit in units), "a tuner may add hidden ones of its own"
    removed = {unit.name: [0] for unit in units if unit.kind in ("hidden", "embedding")}
    wanted = masked_copy(network, units, removed).eval()(images)
    remove(network, units, removed)
    torch.testing.assert_close(network.eval()(images), wanted, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    build, kinds, side = NETWORKS[request.param]
    network = grown(build)
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    found = survey(network, images)
    return build, network, images, found, kinds


@pytest.mark.costly
def test_masked_is_removed_is_replayed(case):
    build, network, images, found, kinds = case
    counted = Counter(unit.kind for unit in found.units)
    assert {kind: counted[kind] for kind in kinds} == kinds, found.blocked
    assert set(found.blocked.values()) <= {"reaches the network's output"}
    removed = odd(found.units)
    masked, smaller, again = copy.deepcopy(network), copy.deepcopy(network), build().eval()
    mask(masked, found.units, removed)
    plan = remove(smaller, found.units, removed)
    replay(again, json.loads(json.dumps(plan)))
    again.load_state_dict(smaller.state_dict(), strict=True)
    with torch.no_grad():
        expected = masked(images)
        assert float((expected - network(images)).abs().max()) > 1e-2
        size = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(smaller(images), expected, rtol=0, atol=1e-5 * size)
        assert torch.equal(again(images), smaller(images))
    assert sum(p.numel() for p in smaller.parameters()) < 0.7 * sum(p.numel() for p in network.parameters())
    smaller.train()
    smaller(images).square().mean().backward()
    used = [value.grad for value in smaller.parameters() if value.requires_grad]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in used)


@pytest.mark.costly
@pytest.mark.parametrize(
    "case", [pytest.param(n, marks=[pytest.mark.exhaustive] * (n not in EXPORTED)) for n in NETWORKS], indirect=True
)
def test_what_is_left_is_exported(case, tmp_path):
    _, network, images, found, _ = case
    smaller = copy.deepcopy(network)
    remove(smaller, found.units, odd(found.units))
    with torch.no_grad():
        expected = smaller(images)
    size = max(1.0, float(expected.abs().max()))
    file = tmp_path / "net.onnx"
    torch.testing.assert_close(exported(smaller, images, file), expected, rtol=0, atol=1e-5 * size)


def exported(network: nn.Module, images: Tensor, file: Path) -> Tensor:
    """What onnxruntime says; networks of ours are written as ``hardy export`` writes them."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    if isinstance(network, Network):
        graph.write(network, file, size=images.shape[-2:], batch=len(images))
    else:
        torch.onnx.export(network, (images,), file, dynamo=True, verbose=False, input_names=["images"])
    return graph.Session(file)(images)


@pytest.mark.costly
def test_the_smaller_network_is_surveyed_again(case):
    _, network, images, found, _ = case
    smaller = copy.deepcopy(network)
    removed = odd(found.units)
    remove(smaller, found.units, removed)
    widths = {unit.name: unit.size - len(removed.get(unit.name, ())) for unit in found.units}
    assert {unit.name: unit.size for unit in survey(smaller, images).units} == widths


def test_attributes_follow():
    network = vit()
    found = survey(network, torch.rand(1, 3, 32, 32))
    remove(network, found.units, odd(found.units))
    attention = network.blocks[0].attn
    assert (attention.num_heads, attention.head_dim, attention.attn_dim) == (2, 8, 16)
    assert (attention.qkv.out_features, attention.proj.in_features) == (48, 16)
    assert network.embed_dim == network.num_features == network.patch_embed.proj.out_channels == 16
    assert network.cls_token.shape[-1] == network.reg_token.shape[-1] == network.pos_embed.shape[-1] == 16
    assert network.norm.normalized_shape == (16,)


def test_a_head_is_its_rows_and_columns():
    network = vit()
    unit = next(unit for unit in survey(network, torch.rand(1, 3, 32, 32)).units if unit.kind == "heads")
    assert (unit.name, unit.size, unit.gates) == ("blocks.0.attn.qkv", 3, ("blocks.0.attn.proj",))
    members = {(member.module, member.side): member.channels for member in unit.members}
    assert members["blocks.0.attn", "heads"] == ((0,), (1,), (2,))
    assert members["blocks.0.attn.proj", "in"][1] == tuple(range(8, 16))
    assert members["blocks.0.attn.qkv", "out"][1] == (*range(8, 16), *range(32, 40), *range(56, 64))


def test_tables_of_position_go_with_their_head():
    network = grown(swin)
    found = survey(network, torch.rand(1, 3, 32, 32))
    unit = next(unit for unit in found.units if unit.kind == "heads" and unit.size == 4)
    table = network.get_submodule(unit.name.removesuffix(".qkv")).relative_position_bias_table.detach().clone()
    remove(network, found.units, {unit.name: [1, 2]})
    block = network.get_submodule(unit.name.removesuffix(".qkv"))
    assert block.num_heads == 2
    assert torch.equal(block.relative_position_bias_table, table[:, [0, 3]])


def test_masked_norms_come_back_and_last_through_training():
    network = grown(vit)
    images = torch.rand(2, 3, 32, 32)
    found = survey(network, images)
    removed = odd(found.units)
    zero = prepare_mask(network, found.units, removed)
    names = list(network.state_dict())
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimiser.zero_grad()
        network(images).square().mean().backward()
        optimiser.step()
        zero()
    assert list(network.state_dict()) == names
    smaller = copy.deepcopy(network)
    remove(smaller, found.units, removed)
    torch.testing.assert_close(smaller(images), network(images), rtol=1e-4, atol=1e-5)
    assert type(smaller.norm) is type(vit().norm)
    assert type(network.norm) is not type(smaller.norm)


@pytest.mark.costly
def test_gates_at_inputs_equal_inserted_gates():
    torch.manual_seed(0)
    for build, side in ((vit, 32), (swin, 32), (poolformer, 64)):
        network = grown(build).double()
        images = torch.rand(2, 3, side, side, dtype=torch.float64)
        units = [unit for unit in survey(network, images).units if unit.kind in ("heads", "hidden")]
        gates, hooks = {}, []
        for unit in units:
            assert {member.side for member in unit.gated} == {"in"}
            (member,) = unit.gated
            gates[unit.name] = torch.ones(unit.size, dtype=torch.float64, requires_grad=True)
            hooks.append(inserted(network.get_submodule(member.module), member, gates[unit.name]))
        expected = torch.autograd.grad(loss_of(network(images)).sum(), list(gates.values()))
        for hook in hooks:
            hook.remove()
        sites, count = gate_sites(network, units), sum(unit.size for unit in units)
        parameters = gate_parameters(sites)
        with SampleGradients(sites, count, 2) as samples:
            loss = loss_of(network(images)).sum()
        loss.backward()
        ours = gate_gradients(sites, {p: p.grad for p in parameters}, count)
        torch.testing.assert_close(ours, torch.cat(list(expected)), rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(samples.rows.sum(0), ours, rtol=1e-9, atol=1e-13)
        network.zero_grad()
        loss_of(network(images[:1])).sum().backward()
        alone = gate_gradients(sites, {p: p.grad for p in parameters}, count)
        torch.testing.assert_close(samples.rows[0], alone, rtol=1e-9, atol=1e-13)


def inserted(module: nn.Module, member, gate: Tensor):
    """A hook that multiplies what ``module`` takes by ``gate``."""
    factor = torch.zeros(len([c for channels in member.channels for c in channels]), dtype=torch.long)
    for number, channels in enumerate(member.channels):
        factor[list(channels)] = number
    shape = (-1,) if isinstance(module, nn.Linear) else (1, -1, 1, 1)
    return module.register_forward_pre_hook(lambda _, args: (args[0] * gate[factor].view(shape),))


def loss_of(logits: Tensor) -> Tensor:
    """(B,) losses that do not interact."""
    return logits.sin().sum(1)


def test_one_head_stays():
    network = vit(num_heads=1)
    units = survey(network, torch.rand(1, 3, 32, 32)).units
    assert [(unit.kind, unit.size) for unit in units if unit.kind == "heads"] == [("heads", 1), ("heads", 1)]


def test_attention_that_is_not_known_is_left_whole():
    network = MetaFormer(depths=(1, 1), dims=(16, 32), token_mixers=[Pooling, Attention], norm_layers=NORMS)
    found = survey(network, torch.rand(2, 3, 32, 32))
    assert heads_of(network.stages[1].blocks[0].token_mixer) is None
    assert not any("token_mixer" in unit.name for unit in found.units)
    assert {"hidden"} <= {unit.kind for unit in found.units}
    assert any("token_mixer" in reason for reason in found.blocked.values())
