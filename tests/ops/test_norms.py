"""Running statistics that stay as they are."""

import pytest
import torch
from torch import nn

from hardy.ops.norms import statistics_kept


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
    assert norm.running_mean.mean() > 1


def test_put_back_after_an_error_too():
    norm = nn.BatchNorm2d(2)
    with pytest.raises(ZeroDivisionError), statistics_kept(norm):
        norm(torch.randn(4, 2, 3, 3))
        raise ZeroDivisionError
    assert norm.momentum == 0.1
    assert int(norm.num_batches_tracked) == 0
