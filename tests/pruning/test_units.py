"""Units found in networks small enough to know them by hand."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.pruning.units import Member, Unit, find_units, survey

IMAGE = torch.rand(2, 3, 8, 8)


class Function(nn.Module):
    """Layers by name and a function of them."""

    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def sides(unit: Unit) -> set[tuple[str, str]]:
    return {(member.module, member.side) for member in unit.members}


def by_name(network: nn.Module, example: Tensor = IMAGE) -> dict[str, Unit]:
    return {unit.name: unit for unit in find_units(network, example)}


def conv(inputs: int, outputs: int, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def test_chain_ends_before_the_output():
    found = survey(nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 5), nn.ReLU(), conv(5, 2)), IMAGE)
    assert [(unit.name, unit.size, unit.gates) for unit in found.units] == [("0", 4, ("1",)), ("3", 5, ("3",))]
    assert sides(found.units[0]) == {("0", "out"), ("1", "out"), ("3", "in")}
    assert found.blocked == {"5": "reaches the network's output"}
    assert all(m.channels == tuple((c,) for c in range(4)) for m in found.units[0].members)


def test_output_of_a_bare_convolution_is_seen():
    assert survey(nn.Sequential(conv(3, 4)), IMAGE).blocked == {"0": "reaches the network's output"}


def test_residual_sum_ties_its_makers():
    network = Function(
        lambda s, x: s.head(s.a(x) + s.norm(s.b(x))),
        a=conv(3, 4),
        b=conv(3, 4),
        norm=nn.BatchNorm2d(4),
        head=conv(4, 2),
    )
    (unit,) = find_units(network, IMAGE)
    assert (unit.name, unit.size, unit.gates) == ("a", 4, ("a", "norm"))
    assert sides(unit) == {("a", "out"), ("b", "out"), ("norm", "out"), ("head", "in")}


def test_depthwise_convolution_belongs_to_its_unit_and_carries_the_gate():
    layers = {
        "a": conv(3, 6),
        "n": nn.BatchNorm2d(6),
        "d": conv(6, 6, groups=6),
        "m": nn.BatchNorm2d(6),
        "h": conv(6, 2),
    }
    (unit,) = find_units(Function(lambda s, x: s.h(s.m(s.d(F.relu(s.n(s.a(x)))))), **layers), IMAGE)
    assert sides(unit) == {("a", "out"), ("n", "out"), ("d", "out"), ("m", "out"), ("h", "in")}
    assert unit.gates == ("m",)


def test_depthwise_without_norm_leaves_the_gate_at_the_norm_before():
    layers = {"a": conv(3, 6), "n": nn.BatchNorm2d(6), "d": conv(6, 6, groups=6), "h": conv(6, 2)}
    (unit,) = find_units(Function(lambda s, x: s.h(s.d(F.relu(s.n(s.a(x))))), **layers), IMAGE)
    assert unit.gates == ("n",)


def test_pre_activation_norm_carries_the_gate():
    layers = {"a": conv(3, 6), "b": conv(3, 6), "n": nn.BatchNorm2d(6), "h": conv(6, 2)}
    (unit,) = find_units(Function(lambda s, x: s.h(F.relu(s.n(s.a(x) + s.b(x)))), **layers), IMAGE)
    assert unit.gates == ("n",)


def test_concatenation_shifts_the_second_part():
    layers = {"a": conv(3, 2), "b": conv(3, 3), "n": nn.BatchNorm2d(5), "h": conv(5, 2)}
    units = by_name(Function(lambda s, x: s.h(s.n(torch.cat([s.a(x), s.b(x)], 1))), **layers))
    assert {name: unit.size for name, unit in units.items()} == {"a": 2, "b": 3}
    assert Member("h", "in", ((0,), (1,))) in units["a"].members
    assert Member("h", "in", ((2,), (3,), (4,))) in units["b"].members
    assert Member("n", "out", ((2,), (3,), (4,))) in units["b"].members


def test_layer_added_to_a_concatenation_splits_between_the_parts():
    layers = {"whole": conv(3, 5), "a": conv(3, 2), "b": conv(3, 3), "h": conv(5, 2)}
    units = by_name(Function(lambda s, x: s.h(torch.cat([s.a(x), s.b(x)], 1) + s.whole(x)), **layers))
    assert {name: unit.size for name, unit in units.items()} == {"whole": 2, "whole:2": 3}
    assert Member("whole", "out", ((2,), (3,), (4,))) in units["whole:2"].members
    assert Member("b", "out", ((0,), (1,), (2,))) in units["whole:2"].members


def test_same_maps_twice_in_a_concatenation():
    (unit,) = find_units(Function(lambda s, x: s.h(torch.cat([s.a(x), s.a(x)], 1)), a=conv(3, 2), h=conv(4, 2)), IMAGE)
    assert Member("h", "in", ((0, 2), (1, 3))) in unit.members


def test_flatten_gives_each_channel_its_cells():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    (unit,) = find_units(network, IMAGE)
    assert Member("3", "in", ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15))) in unit.members


def test_squeeze_and_excitation_weighs_and_does_not_make():
    layers = {
        "a": conv(3, 6),
        "n": nn.BatchNorm2d(6),
        "s": nn.Conv2d(6, 3, 1),
        "e": nn.Conv2d(3, 6, 1),
        "h": conv(6, 2),
    }

    def forward(s, x):
        y = F.relu(s.n(s.a(x)))
        return s.h(y * s.e(F.relu(s.s(y.mean((2, 3), keepdim=True)))).sigmoid())

    units = by_name(Function(forward, **layers))
    assert units["a"].gates == ("n",)
    assert ("e", "out") in sides(units["a"])
    assert sides(units["s"]) == {("s", "out"), ("e", "in")}


@pytest.mark.parametrize(
    ("forward", "layers", "reason"),
    [
        (
            lambda s, x: s.h(s.g(s.a(x))),
            {"a": conv(3, 4), "g": nn.BatchNorm2d(4, affine=False), "h": conv(4, 2)},
            "norm",
        ),
        (lambda s, x: s.h(s.a(x).split([1, 3], 1)[1]), {"a": conv(3, 4), "h": conv(3, 2)}, "split"),
        (lambda s, x: s.h(s.a(x)[:, :2]), {"a": conv(3, 4), "h": conv(2, 2)}, "slice"),
        (lambda s, x: s.h(s.a(x)[:, [1, 0, 3, 2]]), {"a": conv(3, 4), "h": conv(4, 2)}, "index along"),
        (lambda s, x: s.h(s.a(x).roll(1, 1)), {"a": conv(3, 4), "h": conv(4, 2)}, "roll along"),
        (lambda s, x: s.h(s.a(x).mean(1, keepdim=True)), {"a": conv(3, 4), "h": conv(1, 2)}, "mean over channels"),
        (lambda s, x: s.h(s.a(x).softmax(1)), {"a": conv(3, 4), "h": conv(4, 2)}, "Softmax"),
        (lambda s, x: s.h(s.a(x).cumsum(1)), {"a": conv(3, 4), "h": conv(4, 2)}, "cumsum may mix channels"),
        (lambda s, x: s.h(s.a(x) + torch.ones(1, 4, 8, 8)), {"a": conv(3, 4), "h": conv(4, 2)}, "of fixed width"),
        (lambda s, x: s.h(s.a(x) + torch.cat([x, x[:, :1]], 1)), {"a": conv(3, 4), "h": conv(4, 2)}, "of fixed width"),
        (
            lambda s, x: s.h(s.a(x).view(2, 4, 8, 8)),
            {"a": conv(3, 4), "h": conv(4, 2)},
            "after its removal Function fails: shape",
        ),
        (lambda s, x: s.h(s.a(x) * (s.a.out_channels / 4)), {"a": conv(3, 4), "h": conv(4, 2)}, "changes the outputs"),
    ],
)
def test_what_cannot_be_followed_is_left_out_by_name(forward, layers, reason):
    found = survey(Function(forward, **layers), IMAGE)
    assert [unit.name for unit in found.units if "a" in unit.name] == []
    assert reason in found.blocked["a"]


def test_groups_go_whole():
    layers = {"a": conv(3, 4), "g": conv(4, 6, groups=2), "n": nn.GroupNorm(3, 6), "h": conv(6, 2)}
    found = survey(Function(lambda s, x: s.h(s.g(s.a(x))), **{k: layers[k] for k in "agh"}), IMAGE)
    (unit,) = found.units
    assert (unit.name, unit.size, unit.gates) == ("a", 2, ("g",))
    assert unit.members == (
        Member("a", "out", ((0, 1), (2, 3))),
        Member("g", "out", ((0, 1, 2), (3, 4, 5))),
        Member("h", "in", ((0, 1, 2), (3, 4, 5))),
    )
    (normed,) = find_units(Function(lambda s, x: s.h(s.n(s.b(x))), b=conv(3, 6), n=layers["n"], h=conv(6, 2)), IMAGE)
    assert Member("n", "out", ((0, 1), (2, 3), (4, 5))) in normed.members


def test_halves_of_a_chunk_go_together():
    network = Function(lambda s, x: s.h(torch.mul(*s.a(x).chunk(2, 1))), a=conv(3, 6), h=conv(3, 2))
    (unit,) = find_units(network, IMAGE)
    assert Member("a", "out", ((0, 3), (1, 4), (2, 5))) in unit.members


def test_shuffled_channels_are_followed():
    def shuffled(s, x):
        y = s.a(x)
        return s.h(y.view(2, 2, y.shape[1] // 2, 8, 8).transpose(1, 2).flatten(1, 2))

    (unit,) = find_units(Function(shuffled, a=conv(3, 6), h=conv(6, 2)), IMAGE)
    assert Member("a", "out", ((0, 3), (1, 4), (2, 5))) in unit.members
    assert Member("h", "in", ((0, 1), (2, 3), (4, 5))) in unit.members


def test_pixel_shuffle_takes_four_maps_for_one():
    network = Function(lambda s, x: s.h(F.pixel_shuffle(s.a(x), 2)), a=conv(3, 8), h=conv(2, 2))
    (unit,) = find_units(network, IMAGE)
    assert Member("a", "out", ((0, 1, 2, 3), (4, 5, 6, 7))) in unit.members
    assert Member("h", "in", ((0,), (1,))) in unit.members


def test_channels_beside_the_image():
    (unit,) = find_units(Function(lambda s, x: s.h(torch.cat([x, s.a(x)], 1)), a=conv(3, 2), h=conv(5, 2)), IMAGE)
    assert Member("h", "in", ((3,), (4,))) in unit.members


def test_parameters_outside_layers_follow():
    network = Function(lambda s, x: s.h(s.p(s.a(x)) * s.scale), a=conv(3, 4), p=nn.PReLU(4), h=conv(4, 2))
    network.scale = nn.Parameter(torch.rand(4, 1, 1))
    (unit,) = find_units(network, IMAGE)
    single = tuple((c,) for c in range(4))
    assert {Member("", "scale:0", single), Member("p", "out", single)} <= set(unit.members)


def test_a_shared_parameter_blocks():
    network = Function(lambda s, x: s.h(s.b(s.a(x))), a=conv(3, 4), b=conv(4, 4), h=conv(4, 2))
    network.h = nn.Sequential(network.h, conv(2, 4), conv(4, 2))
    network.h[2].weight = network.h[0].weight
    found = survey(network, IMAGE)
    assert [unit.name for unit in found.units] == ["a"]
    assert found.blocked["b"] == "h.2.weight is shared with another module"


def test_a_network_that_does_not_run_is_refused_in_one_line():
    network = nn.Sequential(conv(3, 4), nn.Sequential(conv(5, 2)))
    with pytest.raises(InputError, match=r"Sequential does not run on .* in 1\.0: RuntimeError: Given") as error:
        survey(network, IMAGE)
    assert "\n" not in str(error.value)


def test_crop_and_spatial_mean_are_fine():
    network = Function(
        lambda s, x: s.h(s.a(x)[:, :, 1:7, 2:6].mean((2, 3), keepdim=True)), a=conv(3, 4), h=nn.Conv2d(4, 2, 1)
    )
    assert [unit.name for unit in find_units(network, IMAGE)] == ["a"]


def test_auxiliary_heads_take_part_but_are_no_units(toy: Network):
    found = survey(toy)
    units = {unit.name: unit for unit in found.units}
    assert list(units) == ["stem", "block.expand", "side", "mix", "up"]
    assert ("aux_hidden", "in") in sides(units["stem"])
    assert found.blocked["aux_hidden"] == "runs only in training"
    assert units["stem"].gates == ("stem_norm", "block.norm3", "early")
    assert units["side"].gates == ("early",)
    assert units["block.expand"].gates == ("block.norm2",)
    assert units["up"].gates == ("up",)


def test_network_is_left_as_it_is(toy: Network):
    toy.train()
    toy.block.eval()
    toy.stem.weight.requires_grad_(False)
    before, state = copy.deepcopy(toy.state_dict()), torch.get_rng_state()
    first = survey(toy)
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert toy.training
    assert not toy.block.training
    assert not toy.stem.weight.requires_grad
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in toy.modules())
    assert survey(toy) == first


def test_plain_module_needs_an_example():
    with pytest.raises(InputError, match="Sequential is not a Network: give an example"):
        find_units(nn.Sequential(conv(3, 4), conv(4, 2)))


def test_a_shuffle_that_ties_all_channels_is_reported():
    layers = {"a": conv(3, 6), "g": conv(6, 6, groups=2), "h": conv(6, 6, groups=2), "o": conv(6, 2)}
    found = survey(Function(lambda s, x: s.o(s.h(F.channel_shuffle(s.g(s.a(x)), 2))), **layers), IMAGE)
    assert "all channels are coupled to each other" in found.blocked["g"]
