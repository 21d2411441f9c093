"""Masked, removed and replayed networks are one and the same."""

import copy
import json

import pytest
import torch
from repeats import without_repeats
from torch import nn

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.pruning.mask import mask, prepare_mask
from hardy.pruning.remove import remove, replay
from hardy.pruning.select import Limits, select, target
from hardy.pruning.units import Member, Unit, find_units

NETWORKS = {
    "tiny": ("tiny", {"aux": True}),
    "fast_scnn": ("fast_scnn", {"aux": True, "width": 0.5}),
    "swiftnet": ("swiftnet", {}),
    "linear": ("encoder_decoder", {"decoder": "linear", "decoder_options": {"maps": "all"}}),
    "deeplabv3plus": ("encoder_decoder", {"decoder": "deeplabv3plus", "decoder_options": {"width": 32}}),
    "mobilenetv2": ("encoder_decoder", {"encoder": "mobilenetv2_035", "decoder": "linear"}),
    "unet": (
        "encoder_decoder",
        {"encoder": "mobilenetv2_035", "finest_stride": 2, "decoder": "unet", "decoder_options": {"width": 16}},
    ),
    "classifier": ("classifier", {}),
    "squeeze": ("classifier", {"encoder": "mobilenetv3_small_050"}),
}

ALIKE = ("swiftnet", "linear", "deeplabv3plus", "mobilenetv2")
"""The same ResNet with other decoders, and the encoder of the U-Net with another."""


def build(name):
    kind, options = NETWORKS[name]
    return without_repeats(create(kind, "camvid11", **options))


def choose(units, seed, ratio=0.4, limits=None):
    limits = limits or Limits()
    generator = torch.Generator().manual_seed(seed)
    scores = {unit.name: torch.rand(unit.size, dtype=torch.float64, generator=generator) for unit in units}
    return select(scores, units, target(units, ratio, limits), None, limits)


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.exhaustive] * (n in ALIKE)) for n in NETWORKS])
def test_masked_is_removed_is_replayed(name, randomised):
    torch.manual_seed(0)
    dense = build(name).eval()
    randomised(dense)
    units = find_units(dense)
    removed = choose(units, 1)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    masked, smaller, again = copy.deepcopy(dense), copy.deepcopy(dense), build(name).eval()
    mask(masked, units, removed)
    plan = remove(smaller, units, removed)
    replay(again, json.loads(json.dumps(plan)))
    again.load_state_dict(smaller.state_dict(), strict=True)
    with torch.no_grad():
        expected = masked(images)
        assert float((expected - dense(images)).abs().max()) > 1e-3  # something was removed that mattered
        torch.testing.assert_close(smaller(images), expected, rtol=0, atol=1e-5)
        assert torch.equal(again(images), smaller(images))
    assert smaller.plan == again.plan == plan
    total = sum(unit.size for unit in units)
    assert sum(unit.size for unit in find_units(smaller)) == total - sum(map(len, removed.values()))
    smaller.train()
    outputs = smaller.outputs(images)
    sum(tensor.mean() for tensor in (outputs.logits, *outputs.extras.values())).backward()
    assert all(parameter.grad is not None for parameter in smaller.parameters())


@pytest.mark.slow
def test_pruning_again_composes_the_plan(toy, batch):
    toy.eval()
    images, dense = batch.images, copy.deepcopy(toy)
    limits = Limits(min_width=2)
    for seed in range(3):
        units = find_units(toy)
        removed = choose(units, seed, 0.2, limits)
        masked = copy.deepcopy(toy)
        mask(masked, units, removed)
        plan = remove(toy, units, removed)
        torch.testing.assert_close(toy(images), masked(images), rtol=0, atol=1e-12)
    assert plan == toy.plan
    replay(dense, plan)
    assert {n: v.shape for n, v in dense.state_dict().items()} == {n: v.shape for n, v in toy.state_dict().items()}
    # the plan speaks of the dense network: the rows it keeps are the rows that survived
    torch.testing.assert_close(dense.stem.weight, toy.stem.weight)
    torch.testing.assert_close(dense.mix.weight, toy.mix.weight)
    torch.testing.assert_close(dense.block.filter.weight, toy.block.filter.weight)


def test_every_kind_of_layer_is_cut_where_it_should():
    network = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 4, 3),
            "depthwise": nn.Conv2d(4, 4, 3, groups=4, bias=False),
            "norm": nn.BatchNorm2d(4),
            "instance": nn.InstanceNorm2d(4),
            "prelu": nn.PReLU(4),
            "up": nn.ConvTranspose2d(4, 5, 2),
            "linear": nn.Linear(8, 6),
        }
    )
    network.norm.weight.requires_grad_(False)
    before = copy.deepcopy(network)
    single = tuple((c,) for c in range(4))
    follow = [Member(name, "out", single) for name in ("conv", "depthwise", "norm", "instance", "prelu")]
    pairs = Member("linear", "in", tuple((2 * c, 2 * c + 1) for c in range(4)))
    unit = Unit("conv", 4, (*follow, Member("up", "in", single), pairs))
    other = Unit(
        "up",
        5,
        (Member("up", "out", tuple((c,) for c in range(5))), Member("linear", "out", ((0, 5), (1,), (2,), (3,), (4,)))),
    )
    plan = remove(network, [unit, other], {"conv": [1], "up": [0, 2]})
    kept = [0, 2, 3]
    assert plan["linear"] == {"in": [0, 1, 4, 5, 6, 7], "out": [1, 3, 4]}
    assert plan["up"] == {"in": kept, "out": [1, 3, 4]}
    assert torch.equal(network.conv.weight, before.conv.weight[kept])
    assert torch.equal(network.conv.bias, before.conv.bias[kept])
    assert torch.equal(network.depthwise.weight, before.depthwise.weight[kept])
    assert (network.depthwise.in_channels, network.depthwise.out_channels, network.depthwise.groups) == (3, 3, 3)
    assert torch.equal(network.up.weight, before.up.weight[kept][:, [1, 3, 4]])
    assert torch.equal(network.up.bias, before.up.bias[[1, 3, 4]])
    assert torch.equal(network.linear.weight, before.linear.weight[[1, 3, 4]][:, [0, 1, 4, 5, 6, 7]])
    assert (network.conv.out_channels, network.norm.num_features, network.prelu.num_parameters) == (3, 3, 3)
    assert (network.linear.in_features, network.linear.out_features) == (6, 3)
    assert (network.up.in_channels, network.up.out_channels, network.instance.num_features) == (3, 3, 3)
    assert len(network.norm.running_var) == len(network.prelu.weight) == 3
    assert not network.norm.weight.requires_grad
    assert network.norm.bias.requires_grad
    x = network.depthwise(network.conv(torch.rand(1, 3, 8, 8)))
    assert network.up(network.prelu(network.instance(network.norm(x)))).shape == (1, 3, 5, 5)


def test_every_kind_of_layer_is_masked_where_it_should():
    """Weight and bias of what makes a channel, and the weights that take it; all else stays."""
    network = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 4, 3),
            "norm": nn.BatchNorm2d(4),
            "up": nn.ConvTranspose2d(4, 5, 2),
            "linear": nn.Linear(5, 6),
        }
    )
    with torch.no_grad():
        for value in network.parameters():
            value.add_(1.5)  # none is zero by chance
    before = copy.deepcopy(network)
    unit = Unit(
        "conv",
        4,
        tuple(
            Member(name, side, tuple((c,) for c in range(4)))
            for name, side in (("conv", "out"), ("norm", "out"), ("up", "in"))
        ),
    )
    other = Unit(
        "up",
        5,
        tuple(Member(name, side, tuple((c,) for c in range(5))) for name, side in (("up", "out"), ("linear", "in"))),
    )
    mask(network, [unit, other], {"conv": [1], "up": [0, 3]})
    wanted = {name: value.clone() for name, value in before.state_dict().items()}
    for name in ("conv.weight", "conv.bias", "norm.weight", "norm.bias", "up.weight"):
        wanted[name][1] = 0
    wanted["up.weight"][:, [0, 3]] = 0
    wanted["up.bias"][[0, 3]] = 0
    wanted["linear.weight"][:, [0, 3]] = 0
    for name, value in network.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_masked_channels_come_back_with_a_step_and_go_with_the_next_mask(toy, batch, pixel_loss):
    toy.train()
    units = find_units(toy)
    removed = {unit.name: [0, 1] for unit in units}
    zero = prepare_mask(toy, units, removed)
    optimiser = torch.optim.SGD(toy.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for step in range(4):
        optimiser.zero_grad()
        pixel_loss(toy(batch.images), batch.labels).backward()
        optimiser.step()  # from the second on, momentum moves what was masked
        assert step == 0 or toy.stem_norm.bias[:2].detach().abs().max() > 0
        zero()
        assert toy.stem_norm.bias[:2].detach().abs().max() == 0
    toy.eval()
    smaller = copy.deepcopy(toy)
    remove(smaller, units, removed)
    torch.testing.assert_close(smaller(batch.images), toy(batch.images), rtol=0, atol=1e-12)


def test_a_plan_of_another_network_is_refused(toy):
    with pytest.raises(InputError, match=r"keeps channel 40 of 'stem' \(out\), which has 12: it was made for another"):
        replay(toy, {"stem": {"out": [0, 40]}})
    with pytest.raises(InputError, match="'trunk'"):
        replay(toy, {"trunk": {"out": [0]}})
