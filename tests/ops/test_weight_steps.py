"""Steps of weights by numbers that a reader can check."""

import pytest
import torch
from torch import nn

from hardy.ops.entropy import entropy, flat
from hardy.ops.weight_steps import approach, climb, copies, restore_some, set_to


def test_approach_and_set_to():
    weights, goal = [torch.tensor([0.0, 4.0])], [torch.tensor([1.0, 0.0])]
    approach(weights, goal, 0.25)
    assert weights[0].tolist() == [0.25, 3.0]
    set_to(weights, goal)
    assert weights[0].tolist() == [1.0, 0.0]


def test_a_share_of_the_numbers_is_restored():
    torch.manual_seed(0)
    weights, goal = [torch.ones(100, 100)], [torch.zeros(100, 100)]
    restore_some(weights, goal, 0.1)
    assert set(weights[0].unique().tolist()) == {0.0, 1.0}
    assert float(1 - weights[0].mean()) == pytest.approx(0.1, abs=0.01)
    restore_some(weights, goal, 0.0)
    assert weights[0].max() == 1
    restore_some(weights, goal, 1.0)
    assert weights[0].max() == 0


def test_climbing_is_a_step_of_the_radius_over_all_weights():
    weights = [nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([5.0]))]
    weights[0].grad, weights[1].grad = torch.tensor([3.0]), torch.tensor([-4.0])
    before = climb(weights, 0.5)
    assert [value.item() for value in before] == [1, 2, 5]
    assert [value.item() for value in weights] == pytest.approx([1.3, 1.6, 5])
    weights[0].grad = weights[1].grad = None
    climb(weights, 0.5)
    assert [value.item() for value in weights] == pytest.approx([1.3, 1.6, 5])


def test_copies_are_apart_and_not_trained():
    weight = nn.Parameter(torch.tensor([1.0]))
    (copy,) = copies([weight])
    weight.data.fill_(3)
    assert copy.item() == 1
    assert not copy.requires_grad


def test_entropy_is_0_when_sure_and_log_k_when_even():
    even, sure = torch.zeros(4), torch.tensor([1000.0, 0, 0, 0])
    found = entropy(torch.stack((even, sure), 1).reshape(1, 4, 1, 2).half())
    assert found.shape == (1, 1, 2)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([1.3862944, 0])
    halves = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert entropy(halves).item() == pytest.approx(1.0397208)


def test_flat_takes_images_then_rows_then_columns():
    maps = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert flat(maps)[:5].tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11], [12, 16, 20]]
    assert torch.equal(flat(maps[:, :, 0, 0]), maps[:, :, 0, 0])
