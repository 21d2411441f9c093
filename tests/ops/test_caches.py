"""Modules that keep a tensor with a history are copied, and stay as they are."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import weight_norm

import hardy
from hardy.ops.caches import without_history


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_module_with_the_older_weight_norm_is_copied_and_pruned():
    module = nn.Sequential(weight_norm(nn.Conv2d(3, 32, 3, padding=1)), nn.ReLU(), nn.Conv2d(32, 11, 1))
    images = torch.rand(1, 3, 8, 8)
    expected = module(images)
    twin = copy.deepcopy(module, without_history(module))
    assert module[0].weight.grad_fn is not None
    torch.testing.assert_close(twin(images), expected)
    network = hardy.wrap(module, classes="camvid11")
    network(images)
    assert torch.equal(copy.deepcopy(network).eval()(images), network.eval()(images))
    small = hardy.prune(network, criterion="l2", ratio=0.5, prune={"schedule": "one_shot"}, show=False)
    assert small.module[0].out_channels == 16
