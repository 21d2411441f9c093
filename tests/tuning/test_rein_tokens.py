"""The tokens of Rein alone: the numbers of the official class, published counts, and initial values."""

import math

import pytest
import torch

from hardy.tuning._rein_tokens import ReinTokens


def golden(rank: int | None) -> ReinTokens:
    made = ReinTokens(3, 8, prefix=1, tokens=5, rank=rank, link=True, query_width=4).double()
    with torch.no_grad():
        for k, (_, value) in enumerate(sorted(made.named_parameters())):
            places = torch.arange(value.numel(), dtype=torch.float64)
            value.copy_((0.3 * torch.sin(0.7 * places + k + 1)).view_as(value))
    return made


PUBLISHED = {
    None: (
        {
            0: (2.055998914870, 38.985685390278, [0.242321225495, 0.407763180005, 0.526898319904, 0.639090278249]),
            2: (1.978612988365, 39.083258436913, [0.278343562595, 0.453046312416, 0.561116087543, 0.646883411877]),
        },
        (-0.050540666995, [0.132672360359, 0.177234400159, 0.012543024519, -0.387150227016]),
    ),
    2: (
        {
            0: (2.799679313701, 41.224184507478, [0.089870054335, 0.423408251931, 0.702145551558, 0.893708271919]),
            2: (2.787666329196, 41.217128777558, [0.089548853841, 0.422059532720, 0.700374710851, 0.892310183875]),
        },
        (-3.470832731485, [0.022588958013, -0.143348715488, -0.281937592601, -0.297026241593]),
    ),
}
"""Rank -> block -> sum, sum of sizes and four values of the official class in float64; then of its queries."""


@pytest.mark.parametrize("rank", PUBLISHED)
def test_the_numbers_of_the_official_class(rank: int | None) -> None:
    part = golden(rank)
    x = torch.cos(0.31 * torch.arange(64, dtype=torch.float64)).view(2, 4, 8)
    layers, (total, row) = PUBLISHED[rank]
    for block, (summed, sizes, values) in layers.items():
        y = part(x, block)
        found = torch.stack([y.sum(), y.abs().sum(), *y[1, 3, :4]])
        torch.testing.assert_close(
            found, torch.tensor([summed, sizes, *values], dtype=torch.float64), rtol=0, atol=1e-9
        )
        assert torch.equal(y[:, 0], x[:, 0])
    queries = part.queries()
    assert queries.shape == (5, 4)
    found = torch.stack([queries.sum(), *queries[4]])
    torch.testing.assert_close(found, torch.tensor([total, *row], dtype=torch.float64), rtol=0, atol=1e-9)


LARGE, HUGE = (24, 1024), (32, 1280)


@pytest.mark.parametrize(
    ("size", "options", "count"),
    [
        (LARGE, {"link": True}, 2_990_081),
        (LARGE, {}, 2_530_817),
        (HUGE, {"link": True}, 4_510_721),
        (LARGE, {"share": False, "rank": None}, 24 * (100 * 1024 + 2 * (1024**2 + 1024)) + 1),
        (LARGE, {"share": False, "rank": None, "link": True}, 59_332_864 + 1),
        (LARGE, {"rank": None, "link": True}, 5_016_064 + 1),
    ],
)
def test_the_published_numbers_of_parameters(size: tuple[int, int], options: dict, count: int) -> None:
    with torch.device("meta"):
        assert sum(value.numel() for value in ReinTokens(*size, **options).parameters()) == count


def test_the_initial_values() -> None:
    torch.manual_seed(0)
    low, free = ReinTokens(2, 1024, link=True), ReinTokens(2, 1024, rank=None)
    for value, bound in (
        (low.learnable_tokens_a, 0.08183),
        (low.learnable_tokens_b, 0.08183),
        (free.learnable_tokens, 0.05786),
    ):
        assert 0.99 * bound < value.abs().max() <= bound + 5e-6
        assert abs(value.std() - bound / math.sqrt(3)) < 0.01 * bound
    assert low.scale.tolist() == pytest.approx([0.001])
    for layer in (low.mlp_token2feat, low.mlp_delta_f, low.transform, low.merge):
        bound = layer.in_features**-0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert 0 < layer.bias.abs().max() <= bound
    zero = ReinTokens(2, 64, zero_start=True)
    assert zero.scale is None
    assert not any(value.any() for value in zero.mlp_delta_f.parameters())
    x = torch.rand(2, 5, 64)
    assert torch.equal(zero(x, 1), x)
    assert zero.mlp_token2feat.weight.any()
