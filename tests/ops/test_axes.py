"""Which axis of a layer's weight is which: a zeroed slice of it is a silent channel, or one that nothing takes."""

import pytest
import torch
from torch import nn

from hardy.ops.axes import (
    is_depthwise,
    making,
    output_blocks,
    parameter_axes,
    side_width,
    splits_groups,
    weight_axes,
    weight_axis,
    whole_groups,
)

LAYERS = {
    "convolution": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 8, 8)),
    "one dimension": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 8)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3), (2, 4, 8, 8)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 8, 8)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), (2, 4, 8, 8)),
    "transposed depthwise": (lambda: nn.ConvTranspose2d(4, 4, 3, groups=4), (2, 4, 8, 8)),
    "linear": (lambda: nn.Linear(4, 6), (2, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_zeroed_filter_is_a_silent_channel(name):
    build, shape = LAYERS[name]
    layer, x = build(), torch.rand(shape) + 0.1
    before = layer(x)
    with torch.no_grad():
        for kind, axis in parameter_axes(layer, "out"):
            getattr(layer, kind).select(axis, 2).zero_()
    after = layer(x)
    assert not after[:, 2].any()
    others = [channel for channel in range(before.shape[1]) if channel != 2]
    assert torch.equal(after[:, others], before[:, others])
    assert before.shape[1] == side_width(layer, "out")


@pytest.mark.parametrize("name", ["convolution", "one dimension", "transposed", "grouped", "linear"])
def test_a_zeroed_input_is_taken_by_nothing(name):
    build, shape = LAYERS[name]
    layer, x = build(), torch.rand(shape) + 0.1
    each = side_width(layer, "in")
    places = list(range(1, shape[1], each))  # in every group
    with torch.no_grad():
        for kind, axis in parameter_axes(layer, "in"):
            getattr(layer, kind).select(axis, 1).zero_()
    before = layer(x)
    x[:, places] += 5
    torch.testing.assert_close(layer(x), before)
    assert parameter_axes(layer, "in") == [("weight", weight_axis(layer, "in"))]


def test_axes_by_kind_of_layer():
    assert weight_axes(False, 1) == weight_axes(False, 4) == weight_axes(True, 4) == (0, 1)
    assert weight_axes(True, 1) == (1, 0)
    norm = nn.BatchNorm2d(5)
    assert parameter_axes(norm, "out") == [(n, 0) for n in ("weight", "bias", "running_mean", "running_var")]
    assert parameter_axes(norm, "in") == parameter_axes(norm, "heads") == []
    assert parameter_axes(nn.PReLU(5), "out") == [("weight", 0)]
    assert parameter_axes(nn.Embedding(7, 5), "weight:1") == [("weight", 1)]
    sides = {norm: 5, nn.PReLU(6): 6, nn.GroupNorm(2, 8): 8, nn.LayerNorm(9): 9, nn.ReLU(): 0}
    assert {module: side_width(module, "out") for module in sides} == sides
    widths = {"weight:0": 7, "weight:1": 5, "weight:2": 0, "bias:0": 0}
    assert {side: side_width(nn.Embedding(7, 5), side) for side in widths} == widths


def test_groups():
    assert [is_depthwise(nn.Conv2d(4, out, 1, groups=g)) for out, g in ((4, 4), (8, 4), (4, 2))] == [True, False, False]
    assert not is_depthwise(nn.Conv2d(1, 1, 1))
    assert splits_groups(nn.Conv2d(8, 8, 1, groups=2))
    assert not splits_groups(nn.Conv2d(8, 8, 1, groups=8))
    assert not splits_groups(nn.ConvTranspose2d(8, 8, 1, groups=2))
    assert (output_blocks(nn.Conv2d(8, 8, 1, groups=2)), output_blocks(nn.ConvTranspose2d(8, 8, 1, groups=2))) == (1, 2)
    assert whole_groups([0, 1, 4, 5], 6, 3)
    assert not whole_groups([0, 2, 4], 6, 3)
    with pytest.raises(ValueError, match="neither complete groups"):
        whole_groups([0, 3], 6, 3)


def test_torchs_attention_makes_channels_by_its_own_parameters():
    assert making(nn.MultiheadAttention(8, 2)) == ("in_proj_weight:0",)
    assert making(nn.MultiheadAttention(8, 2, kdim=4)) == ("q_proj_weight:0", "k_proj_weight:0", "v_proj_weight:0")
    assert making(nn.Linear(2, 2)) == ()
