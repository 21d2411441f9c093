"""Attention biases by distance: by hand, pair by pair in float64, and on the trained grid."""

import pytest
import torch

from hardy.ops.relative_bias import relative_biases


def test_a_row_of_three_stretched_over_five() -> None:
    table = torch.tensor([[10.0, 20.0, 40.0]])  # one head; at distance 0, 1, 2 of three cells
    biases = relative_biases(table, (1, 3), (1, 5))
    halves = [10, 15, 20, 30, 40]  # the distances of five cells are half as long
    assert biases.shape == (1, 5, 5)
    assert biases[0].tolist() == [[halves[abs(one - other)] for other in range(5)] for one in range(5)]
    assert relative_biases(table, (1, 3), (1, 2))[0].tolist() == [[10, 40], [40, 10]]
    assert relative_biases(table, (1, 3), (1, 1))[0].tolist() == [[10]]


@pytest.mark.parametrize(("grid", "stride"), [((3, 5), 1), ((6, 9), 2), ((5, 4), 2), ((2, 3), 1)])
def test_every_pair_of_cells_has_the_bias_of_its_distance(grid: tuple[int, int], stride: int) -> None:
    torch.manual_seed(0)
    trained, heads = (4, 5), 2
    table = torch.randn(heads, 20, dtype=torch.float64)
    biases = relative_biases(table, trained, grid, stride)

    def at(head: int, place: list[float]) -> float:
        """The table between its cells."""
        floors = [min(int(p), side - 2) for p, side in zip(place, trained, strict=True)]
        shares = [p - floor for p, floor in zip(place, floors, strict=True)]
        return sum(
            (shares[0] if down else 1 - shares[0])
            * (shares[1] if right else 1 - shares[1])
            * float(table[head, (floors[0] + down) * trained[1] + floors[1] + right])
            for down in (0, 1)
            for right in (0, 1)
        )

    queries = [(y, x) for y in range(0, grid[0], stride) for x in range(0, grid[1], stride)]
    keys = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    scale = [(there - 1) / (here - 1) for there, here in zip(trained, grid, strict=True)]
    expected = [
        [
            [at(head, [abs(q - k) * s for q, k, s in zip(query, key, scale, strict=True)]) for key in keys]
            for query in queries
        ]
        for head in range(heads)
    ]
    torch.testing.assert_close(biases, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_on_the_trained_grid_the_table_is_read_as_it_is() -> None:
    table = torch.randn(3, 6)
    biases = relative_biases(table, (2, 3), (2, 3))
    assert torch.equal(biases[:, 0], table), "from the first cell, distances are places"
    assert torch.equal(biases.diagonal(dim1=1, dim2=2), table[:, :1].expand(3, 6))
