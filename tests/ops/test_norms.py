"""Running statistics that stay as they are, and some that are estimated again."""

import copy

import pytest
import torch
from torch import nn

from hardy.ops.norms import countable, reestimate, statistics_kept


def test_the_batch_is_normalised_and_nothing_is_remembered():
    norm = nn.BatchNorm2d(2, momentum=0.3)
    norm(torch.randn(4, 2, 3, 3))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    images = 5 + 2 * torch.randn(4, 2, 3, 3)
    with statistics_kept(norm):
        out = norm(images)
    assert out.mean((0, 2, 3)).abs().max() < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert norm.momentum == 0.3
    norm(images)
    wanted = 0.7 * before["running_mean"] + 0.3 * images.mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, wanted)


def test_put_back_after_an_error_too():
    norm = nn.BatchNorm2d(2)
    with pytest.raises(ValueError, match="expected 4D input"), statistics_kept(norm):
        norm(torch.randn(4, 2, 3))
    assert norm.momentum == 0.1
    assert int(norm.num_batches_tracked) == 0


# ---------------------------------------------------------------------------------------------------- estimated again


@pytest.fixture
def stack():
    """Convolution, norm, dropout, convolution, norm, and a norm that never runs, in float64 after some training."""
    torch.manual_seed(1)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5, momentum=0.3)
    )
    network = nn.ModuleDict({"layers": layers, "idle": nn.BatchNorm2d(2)}).double()
    network.forward = layers.forward
    network["layers"].train()(torch.randn(4, 3, 8, 8, dtype=torch.float64))
    return network


def images(count, seed, offset=0.0):
    return offset + torch.randn(count, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_statistics_are_those_of_all_batches_together(stack):
    """Batches of different sizes and means; the second norm sees what the first makes by each batch's statistics."""
    first, norm, _, second, last = stack["layers"]
    batches = [images(2, 0), images(5, 1, 100.0), images(3, 2, -40.0)]
    assert reestimate(stack, batches) == 3
    inputs = [first(batch) for batch in batches]
    joined = torch.cat(inputs).transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, joined.mean(1), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(norm.running_var, joined.var(1, correction=1), rtol=1e-13, atol=0)

    def normalised(values):
        variance, mean = torch.var_mean(values, (0, 2, 3), correction=0, keepdim=True)
        scaled = (values - mean) / (variance + norm.eps).sqrt()
        return scaled * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

    joined = torch.cat([second(normalised(values)) for values in inputs]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(last.running_mean, joined.mean(1), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(last.running_var, joined.var(1, correction=1), rtol=1e-11, atol=0)


def test_one_batch_is_torchs_own_update_without_a_past(stack):
    twin = copy.deepcopy(stack)
    reestimate(stack, [images(4, 5)])
    twin["layers"][2].p = 0.0
    for norm in (twin["layers"][1], twin["layers"][4]):
        norm.momentum = 1.0
    twin.train()(images(4, 5))
    for place in (1, 4):
        torch.testing.assert_close(stack["layers"][place].running_var, twin["layers"][place].running_var)
        torch.testing.assert_close(stack["layers"][place].running_mean, twin["layers"][place].running_mean)


def test_nothing_else_changes_and_twice_is_once(stack):
    stack["layers"][0].train()
    stack["layers"][1].eval()
    modes = [module.training for module in stack.modules()]
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    found = []
    for noise in (0, 3):
        torch.rand(noise)
        reestimate(stack, [images(2, 0), images(2, 1)])
        found.append({name: value.clone() for name, value in stack.state_dict().items()})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    changed = {name for name, value in found[0].items() if not torch.equal(value, before[name])}
    of_norms = {f"layers.{i}.{name}" for i in (1, 4) for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed == of_norms
    assert [module.training for module in stack.modules()] == modes
    assert [norm.momentum for norm in (stack["layers"][1], stack["layers"][4], stack["idle"])] == [0.1, 0.3, 0.1]
    assert not any(module._forward_pre_hooks for module in stack.modules())


def test_without_batches_or_norms_nothing_is_counted(stack):
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    assert reestimate(stack, []) == 0
    assert all(torch.equal(value, before[name]) for name, value in stack.state_dict().items())
    assert countable(stack)
    assert not countable(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)))
    free = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    assert reestimate(free.double(), [images(2, 0)]) == 1


def test_a_batch_too_small_leaves_all_as_it_was():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3)).double()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        reestimate(network, [images(3, 0), images(1, 1)])
    assert torch.equal(network[1].running_mean, torch.zeros(3, dtype=torch.float64))
    assert network[1].momentum == 0.1
    assert network.training
