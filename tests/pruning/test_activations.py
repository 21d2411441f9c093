"""What is read of large maps: all of the map and not its border, the same positions for copies, others each time."""

import pytest
import torch
from timm import layers
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from hardy.pruning.activations import Activations
from hardy.pruning.criteria.activation_variance import style_fraction
from hardy.pruning.sensitivity import deviations, unary
from hardy.pruning.units import Member, Unit

CHANNELS = 128


def unit_of(channels):
    return Unit("norm", channels, (Member("norm", "out", tuple((c,) for c in range(channels))),), ("norm",))


class OnlyNorm(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x)


def seen(network, channels, value, seed=0):
    watch = Activations(network, [unit_of(channels)], attached=False)
    torch.manual_seed(seed)
    with watch, torch.no_grad():
        network(value)
    return watch.of(unit_of(channels))[0]


def planted(sides, border):
    """Two styles (2 x 2, C, h, w) of two contents: the even channels follow style everywhere but on ``border``."""
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(2, CHANNELS, *sides, generator=generator).repeat(2, 1, 1, 1)
    style = torch.tensor([-2.0, -2.0, 2.0, 2.0]).view(4, 1, 1, 1).repeat(1, CHANNELS, *sides)
    style[:, 1::2] = 0
    style[(..., *border)] = 0
    return content + style


@pytest.mark.parametrize("sides", [(256, 512), (128, 256), (64, 128), (256, 256), (64, 64), (192, 192)])
@pytest.mark.parametrize("border", [(slice(None), 0), (0, slice(None))], ids=["column", "row"])
def test_a_signal_off_the_border_is_seen(sides, border):
    """Maps of 512x1024, 512x512 and 768x768 images at strides 2 to 8: a fixed stride over the flattened map read their
    first column alone, where nothing follows style; 4 of a variance of 5 does."""
    sides = (sides[0] // 2, sides[1] // 2) if sides[0] > 150 else sides  # the stride was a multiple of the width too
    values, factor = seen(OnlyNorm(nn.BatchNorm2d(CHANNELS)), CHANNELS, planted(sides, border))
    share = unary(deviations(values.unflatten(0, (2, -1))), factor)
    assert share[::2].tolist() == pytest.approx([4 / 5] * (CHANNELS // 2), abs=0.15)
    assert share[1::2].max() < 1e-6  # the same positions in both styles, so that equal contents cancel
    fraction = style_fraction(values, 2)
    assert fraction[::2].min() > 0.65
    assert fraction[1::2].max() < 1e-6


def test_the_share_of_the_sample_is_that_of_the_whole_map():
    """Factor and deviations are of the same positions: u stays in [0, 1] and its mean is that of all positions."""
    whole = planted((64, 128), (slice(None), slice(0, 64)))
    whole = whole + torch.linspace(0, 3, 128)
    flat = whole.flatten(2)
    expected = unary(deviations(flat.unflatten(0, (2, -1))), (flat.var((0, 2), correction=0) + 1e-5).rsqrt())
    network = OnlyNorm(nn.BatchNorm2d(CHANNELS))
    found = []
    for seed in range(12):
        values, factor = seen(network, CHANNELS, whole, seed)
        found.append(unary(deviations(values.unflatten(0, (2, -1))), factor))
        assert 0 <= float(found[-1].min()) <= float(found[-1].max()) <= 1
    assert float((torch.stack(found).mean(0) - expected).abs().max()) < 0.06


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_narrow_unit_shows_more_positions_and_a_seed_repeats_them(channels_last):
    network = OnlyNorm(nn.BatchNorm2d(16))
    value = torch.randn(2, 16, 64, 128)
    value = value.contiguous(memory_format=torch.channels_last) if channels_last else value
    one, again, other = (seen(network, 16, value, seed).values for seed in (1, 1, 2))
    assert 450 < one.shape[2] <= 512
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert seen(OnlyNorm(nn.BatchNorm2d(CHANNELS)), CHANNELS, torch.randn(1, CHANNELS, 64, 128)).values.shape[2] <= 64
    small = torch.randn(2, 16, 16, 32)
    assert torch.equal(seen(network, 16, small).values, small.flatten(2))


@pytest.mark.parametrize("norm", [LayerNorm2d, layers.LayerNorm2d, layers.RmsNorm2d])
def test_norms_of_maps_have_their_channels_first(norm):
    value = torch.randn(2, 4, 6, 5)
    assert torch.equal(seen(OnlyNorm(norm(4)), 4, value).values, value.flatten(2))


@pytest.mark.parametrize("norm", [nn.RMSNorm, layers.RmsNorm, layers.SimpleNorm])
def test_other_norms_have_them_last(norm):
    value = torch.randn(2, 6, 5, 4)
    assert torch.equal(seen(OnlyNorm(norm(4)), 4, value).values, value.flatten(1, 2).transpose(1, 2))


def test_channels_that_are_the_last_axis():
    """Tokens (B, N, C) and maps (B, h, w, C): positions are sampled, channels are not."""
    network = OnlyNorm(nn.LayerNorm(CHANNELS))
    place = torch.arange(64.0)[:, None] * 1000 + torch.arange(128.0)
    maps = place[None, :, :, None].expand(1, 64, 128, CHANNELS)
    for value in (maps, maps.flatten(1, 2)):
        found = seen(network, CHANNELS, value.contiguous()).values
        assert found.shape[1] == CHANNELS
        assert 48 <= found.shape[2] <= 64
        assert (found == found[:, :1]).all()
        rows, columns = (found[0, 0] // 1000).unique(), (found[0, 0] % 1000).unique()
        assert len(rows) >= 32
        assert len(columns) >= 32
