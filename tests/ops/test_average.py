"""The moving average of weights, by hand."""

import torch
from torch import nn

from hardy.ops.average import average_into


def test_weights_are_averaged_and_counters_copied():
    module = nn.BatchNorm2d(1)
    averaged = {name: value.clone() for name, value in module.state_dict().items()}
    module.weight.data.fill_(3.0)
    module.running_mean.fill_(-1.0)
    module.num_batches_tracked.fill_(7)
    average_into(averaged, module, 0.75, step=1000)
    assert averaged["weight"].item() == 0.75 * 1.0 + 0.25 * 3.0
    assert averaged["running_mean"].item() == -0.25
    assert averaged["num_batches_tracked"].item() == 7
    assert module.weight.item() == 3.0


def test_the_start_is_soon_forgotten():
    """At step 1 the past keeps 1/10, at step 2 2/11, at step 27 3/4: then the decay asked for is reached."""
    module = nn.Linear(1, 1, bias=False)
    for step, kept in ((1, 1 / 10), (2, 2 / 11), (26, 26 / 35), (27, 0.75), (28, 0.75)):
        averaged = {"weight": torch.ones(1, 1)}
        module.weight.data.zero_()
        average_into(averaged, module, 0.75, step)
        torch.testing.assert_close(averaged["weight"], torch.full((1, 1), kept), rtol=1e-6, atol=0)


def test_no_gradient_is_recorded():
    module = nn.Linear(2, 2)
    averaged = {name: value.clone() for name, value in module.state_dict().items()}
    average_into(averaged, module, 0.5, 1)
    assert not any(value.requires_grad for value in averaged.values())
