"""Style sensitivities: worked by hand, and the law of total variance."""

import pytest
import torch

from hardy.pruning.sensitivity import binary, deviations, normalised, unary, whitened_variance


def activations(styles=3, images=4, channels=5, positions=60):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(styles, images, channels, positions, dtype=torch.float64, generator=draw)


def test_both_by_hand():
    # two styles of one image, two channels, one position: deviations -1, 1 and -2, 2
    values = torch.tensor([[[[1.0], [0.0]]], [[[3.0], [4.0]]]], dtype=torch.float64)
    apart = deviations(values)
    assert apart.abs().tolist() == [[1.0], [2.0]]
    assert unary(apart).tolist() == [1.0, 4.0]
    assert binary(apart, "covariance").tolist() == [2.0, 2.0]
    assert binary(apart).tolist() == pytest.approx([1.0, 1.0])
    factor = torch.tensor([3.0, 0.5], dtype=torch.float64)
    assert unary(apart, factor).tolist() == [9.0, 1.0]
    assert binary(apart, "covariance", factor).tolist() == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize("styles", [2, 3])
def test_both_are_of_the_covariance_of_the_deviations(styles):
    """Spec: Sigma_ij is the mean over styles, images and positions of D_i D_j."""
    values = activations(styles=styles)
    values[:, :, 1] += values[:, :, 0]
    apart = values - values.mean(0)
    sigma = torch.einsum("spil,spjl->ij", apart, apart) / (styles * 4 * 60)
    off = 1 - torch.eye(5, dtype=torch.float64)
    size = sigma.abs()
    found = deviations(values)
    torch.testing.assert_close(unary(found), sigma.diagonal())
    torch.testing.assert_close(binary(found, "covariance"), (size * off).sum(1))
    deviation = sigma.diagonal().sqrt()
    torch.testing.assert_close(binary(found), (size / deviation.outer(deviation) * off).sum(1))


def test_a_channel_that_no_style_changes_is_correlated_with_none():
    values = activations()
    values[:, :, 2] = values[:1, :, 2]
    found = binary(deviations(values))
    assert found[2] < 1e-9
    assert found.isfinite().all()


def test_the_unary_is_the_share_of_variance_that_style_causes():
    values = activations()
    values[:, :, 0] = values[:1, :, 0]  # content only: the same in every style
    values[:, :, 1] = torch.arange(3.0, dtype=torch.float64)[:, None, None]  # style only
    share = unary(deviations(values), values.var((0, 1, 3), correction=0).rsqrt())
    assert ((share >= 0) & (share <= 1 + 1e-12)).all()
    assert float(share[0]) == pytest.approx(0, abs=1e-20)
    assert float(share[1]) == pytest.approx(1)
    whole = values.var((0, 1, 3), correction=0)
    within = values.var(0, correction=0).mean((0, 2)) / whole
    torch.testing.assert_close(share, within)


def test_correlated_channels_have_a_high_binary_sensitivity():
    values = activations()
    values[:, :, 1] = 3 * values[:, :, 0]
    values[:, :, 2] = -values[:, :, 0]
    found = binary(deviations(values))
    assert (found[:3] > 2).all()
    assert (found[3:] < 1).all()
    torch.testing.assert_close(found, binary(deviations(values * torch.tensor([1, 9.0, 2, 5, 1])[:, None])))


def test_whitened_variance_is_that_of_each_images_correlations():
    values = activations(styles=2, images=3, channels=4)
    expected = torch.zeros(4, dtype=torch.float64)
    for image in range(3):
        matrices = torch.stack([torch.corrcoef(values[style, image]) for style in range(2)])
        spread = matrices.var(0, correction=0)
        expected += (spread.sum(1) - spread.diagonal()) / 3
    torch.testing.assert_close(whitened_variance(values), expected)
    assert whitened_variance(values[:1].repeat(3, 1, 1, 1)).abs().max() < 1e-15


def test_weights():
    values = [torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0, 8.0])]
    assert [v.tolist() for v in normalised(values)] == [[0.5, 1.5], [0.5, 0.5, 2.0]]
    assert [v.tolist() for v in normalised(values, "sum")] == [[0.25, 0.75], pytest.approx([1 / 6, 1 / 6, 2 / 3])]
    assert [v.tolist() for v in normalised(values, "minmax", together=True)] == [
        pytest.approx([0, 2 / 7]),
        pytest.approx([1 / 7, 1 / 7, 1]),
    ]
    assert float(torch.cat(normalised(values, "softmax", together=True)).sum()) == pytest.approx(1)
    spike = torch.zeros(100)
    spike[0] = 1
    assert normalised([spike])[0].max() == 5
