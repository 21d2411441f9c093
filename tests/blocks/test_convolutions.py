"""Blocks of convolutions: sizes for every kernel, dilation and stride; what mixes with what."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy.blocks.asymmetric import Asymmetric
from hardy.blocks.bottleneck import Bottleneck
from hardy.blocks.channel_shuffle import ChannelShuffle
from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.depthwise_separable import DepthwiseSeparable
from hardy.blocks.downsample import Downsample
from hardy.blocks.ghost import Ghost
from hardy.blocks.grouped_shuffle import GroupedShuffle
from hardy.blocks.non_bottleneck_1d import NonBottleneck1D
from hardy.blocks.pooled_norm import PooledNorm
from hardy.blocks.shufflenet_v1 import ShuffleNetV1
from hardy.blocks.shufflenet_v2 import ShuffleNetV2
from hardy.blocks.upsample import Upsample, bilinear_kernel


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_every_kernel_keeps_the_size_but_for_the_stride(kernel, dilation, stride):
    x = torch.rand(1, 4, 19, 26)
    shape = (1, 6, -(-19 // stride), -(-26 // stride))
    assert ConvNormAct(4, 6, kernel, stride=stride, dilation=dilation).eval()(x).shape == shape
    assert Asymmetric(4, 6, kernel=kernel, stride=stride, dilation=dilation).eval()(x).shape == shape
    assert DepthwiseSeparable(4, 6, kernel=kernel, stride=stride, dilation=dilation).eval()(x).shape == shape


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConvNormAct(4, 4, 2),
        lambda: Asymmetric(4, 4, kernel=4),
        lambda: NonBottleneck1D(4, 4, kernel=2),
        lambda: ConvNormAct(10, 15, groups=3),
        lambda: GroupedShuffle(10, 16, groups=8),
        lambda: Ghost(4, 5),
        lambda: ShuffleNetV2(5, 5),
        lambda: ShuffleNetV1(8, 16),
        lambda: ShuffleNetV1(8, 8, groups=2, stride=2),
        lambda: NonBottleneck1D(4, 8),
        lambda: Downsample(4, 8, kind="max"),
        lambda: Upsample(4, 8),
        lambda: Upsample(4, 4, kind="transposed", factor=3),
    ],
)
def test_what_cannot_be_built_is_refused(make):
    with pytest.raises(AssertionError):
        make()


def test_an_option_that_is_not_there_is_refused():
    with pytest.raises(TypeError, match="dilate"):
        DepthwiseSeparable(4, 4, dilate=2)


def test_an_asymmetric_pair_is_a_square_of_rank_one():
    pair = Asymmetric(1, 1, kernel=5, mid_act=False).double().eval()
    square = (pair[0].weight * pair[1].weight).detach()  # (1, 1, 5, 1) times (1, 1, 1, 5)
    x = torch.randn(1, 1, 9, 11, dtype=torch.float64)
    scale = (1 + pair[2].eps) ** -0.5
    torch.testing.assert_close(pair(x), F.relu(F.conv2d(x, square, padding=2) * scale))


def test_a_shuffle_takes_from_all_groups_in_turns():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert ChannelShuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert ChannelShuffle(3)(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_two_shuffled_groups_connect_every_input_with_every_output():
    def reach(*layers):
        jacobian = torch.autograd.functional.jacobian(
            lambda x: nn.Sequential(*layers)(x).sum((2, 3)), torch.rand(1, 16, 3, 3) + 1
        )
        return (jacobian.abs().sum((4, 5)).squeeze() > 0).sum(1)

    def plain():
        layer = GroupedShuffle(16, 16, groups=4)
        nn.init.ones_(layer[0][0].weight)
        return layer.eval()

    assert set(reach(plain()).tolist()) == {4}
    assert set(reach(plain(), plain()).tolist()) == {16}


def test_a_bottleneck_adds_its_input_and_ends_with_a_relu():
    block = Bottleneck(8, 8).eval()
    nn.init.zeros_(block.widen[0].weight)
    x = torch.randn(1, 8, 5, 5)
    assert torch.equal(block(x), F.relu(x))
    assert Bottleneck(8, 8, act=False).eval()(x).min() < 0


def test_a_unit_of_shufflenet_v1_sets_its_averages_beside_or_adds_its_input():
    x = torch.randn(1, 8, 6, 6)
    for unit, expected in [
        (ShuffleNetV1(8, 8, groups=2), F.relu(x)),
        (ShuffleNetV1(8, 24, groups=2, stride=2), F.pad(F.relu(F.avg_pool2d(x, 3, 2, 1)), (0, 0, 0, 0, 0, 16))),
    ]:
        unit.eval()
        nn.init.zeros_(unit.widen[0].weight)
        torch.testing.assert_close(unit(x), expected)


def test_a_unit_of_shufflenet_v2_passes_half_of_its_channels():
    unit = ShuffleNetV2(8, 8).eval()
    x = torch.rand(1, 8, 4, 4)
    assert torch.equal(unit(x)[:, ::2], x[:, :4])


def test_shufflenets_have_the_published_sizes():
    """ShuffleNet V2 x1: stages of 4, 8, 4 units; V1 g = 3 likewise; stems and the classifier as in the papers."""

    def stack(unit, widths, **options):
        layers = []
        for before, after, count in zip(widths, widths[1:], (4, 8, 4), strict=False):
            layers += [
                unit(before, after, stride=2, **options),
                *(unit(after, after, **options) for _ in range(count - 1)),
            ]
        return nn.Sequential(*layers)

    def size(*parts):
        return sum(p.numel() for part in parts for p in part.parameters())

    v2 = [
        ConvNormAct(3, 24, stride=2),
        stack(ShuffleNetV2, (24, 116, 232, 464)),
        ConvNormAct(464, 1024, 1),
        nn.Linear(1024, 1000),
    ]
    assert size(*v2) == 2_278_604
    v1 = stack(ShuffleNetV1, (24, 240, 480, 960), groups=3)
    v1[0] = ShuffleNetV1(24, 240, stride=2, groups=3, first_grouped=False)
    assert size(ConvNormAct(3, 24, stride=2), v1, nn.Linear(960, 1000)) == 1_865_728


def test_a_ghost_has_its_primary_channels_first():
    block = Ghost(6, 8).eval()
    x = torch.rand(1, 6, 5, 5)
    assert torch.equal(block(x)[:, :4], block.primary(x))


def test_a_transposed_convolution_starts_as_bilinear_resizing():
    for factor in (2, 4):
        up = Upsample(3, 3, kind="transposed", factor=factor)
        x = torch.rand(1, 3, 7, 9)
        inside = slice(factor, -factor)
        expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
        torch.testing.assert_close(up(x)[..., inside, inside], expected[..., inside, inside])
        assert float(bilinear_kernel(factor).sum()) == pytest.approx(factor**2)


def test_pixel_shuffle_lays_channels_out_as_pixels():
    up = Upsample(1, 1, kind="pixel_shuffle")
    with torch.no_grad():
        up.conv.weight.copy_(torch.arange(1.0, 5.0).reshape(4, 1, 1, 1))
    assert up(torch.ones(1, 1, 1, 1)).flatten().tolist() == [1, 2, 3, 4]


def test_a_cell_over_the_border_counts_only_what_is_there():
    x = torch.ones(1, 1, 3, 3)
    for kind in ("max", "average", "bilinear", "nearest"):
        assert Downsample(1, 1, kind=kind)(x).tolist() == torch.ones(1, 1, 2, 2).tolist()


def test_a_single_value_is_normalised_by_the_running_statistics():
    norm = PooledNorm(2)
    norm.running_mean.copy_(torch.tensor([1.0, 0.0]))
    x = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
    expected = torch.tensor([2.0, 4.0]) / (1 + norm.eps) ** 0.5
    torch.testing.assert_close(norm(x).flatten(), expected)
    assert int(norm.num_batches_tracked) == 0
    norm(torch.rand(2, 2, 1, 1))
    assert int(norm.num_batches_tracked) == 1
