"""D-VAE, the mirrored decoder and VGG-19's layers."""

import pytest
import torch
from torch import nn

from hardy.ops.style_vae import DVAE, divergence, mirror, style_of
from hardy.ops.vgg import VGG19


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_divergence_is_the_kl_of_two_normal_distributions(reduction):
    torch.manual_seed(0)
    psi, xi = torch.randn(5, 7, dtype=torch.float64), 0.5 + torch.rand(5, 7, dtype=torch.float64)
    xi[0] *= -1  # the sign of a deviation means nothing
    normal = torch.distributions.Normal
    each = torch.distributions.kl_divergence(normal(psi, xi.abs()), normal(torch.zeros_like(psi), 1.0))
    expected = each.mean() if reduction == "mean" else each.sum(1).mean()
    found = divergence(psi, xi, reduction)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)  # the 1e-5 inside the logarithm
    exact = 0.5 * (psi**2 + xi**2 - (xi**2 + 1e-5).log() - 1)
    assert found.item() == pytest.approx((exact.mean() if reduction == "mean" else exact.sum() / 5).item(), rel=1e-12)


def test_shapes_of_a_style_and_its_code():
    torch.manual_seed(0)
    vae = DVAE(6)
    style = style_of(torch.rand(3, 6, 4, 5))
    psi, xi = vae.encode(style)
    assert style.shape == (3, 12)
    assert psi.shape == xi.shape == (3, 6)
    assert vae.decode(psi).shape == (3, 12)
    widths = [(layer.in_features, layer.out_features) for layer in vae.modules() if isinstance(layer, nn.Linear)]
    assert widths == [(12, 12), (12, 12), (12, 12), (6, 12), (12, 12), (12, 12)]


def test_the_decoder_of_vgg_mirrors_it():
    decoder = mirror(512, 8)
    convolutions = [layer for layer in decoder if isinstance(layer, nn.Conv2d)]
    widths = [convolutions[0].in_channels, *(layer.out_channels for layer in convolutions)]
    assert widths == [512, 256, 256, 256, 256, 128, 128, 64, 64, 3]
    places = [number for number, layer in enumerate(decoder) if isinstance(layer, nn.Upsample)]
    before = [sum(isinstance(layer, nn.Conv2d) for layer in decoder[:place]) for place in places]
    assert before == [1, 5, 7]
    assert isinstance(decoder[-1], nn.Conv2d)
    assert sum(p.numel() for p in decoder.parameters()) == 3_505_219


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_decoder_goes_back_by_its_stride(stride):
    assert mirror(48, stride)(torch.rand(2, 48, 5, 3)).shape == (2, 3, 5 * stride, 3 * stride)


def test_vgg_up_to_relu4_1():
    vgg = VGG19()
    assert len(vgg) == 31
    assert vgg.read == [3, 10, 17, 30]
    # A 1x1 convolution of 12 parameters, then nine of 3x3 with biases.
    pairs = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 256), (256, 512)]
    assert sum(p.numel() for p in vgg.parameters()) == 12 + sum(9 * a * b + b for a, b in pairs) == 3_505_740
    with torch.no_grad():
        maps = vgg(torch.rand(1, 3, 36, 41))
    assert [tuple(one.shape[1:]) for one in maps] == [(64, 36, 41), (128, 18, 21), (256, 9, 11), (512, 5, 6)]
    assert all(one.min() >= 0 for one in maps)
