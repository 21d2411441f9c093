"""TENT on one batch norm, where gradient and Adam can be written down."""

import pytest
import torch
from tiny_stream import Grey, OneNorm, Pooled, frames, statistics
from torch import nn

from hardy.adaptation.cotta import CoTTA
from hardy.adaptation.tent import Tent
from hardy.errors import InputError
from hardy.ops.batch_statistics import install, use_batch


def slopes(images, weight, bias):
    """d L / d weight and d L / d bias, by ``d H / d z_k = -p_k (log p_k + H)``."""
    z = statistics(images, weight, bias)
    p = z.exp() / z.exp().sum(1, keepdim=True)
    entropy = -(p * p.log()).sum(1, keepdim=True)
    by_logit = -p * (p.log() + entropy) / entropy.numel()
    normed = statistics(images, torch.ones(3).double(), torch.zeros(3).double())
    return torch.stack(((by_logit * normed).sum((0, 2, 3)), by_logit.sum((0, 2, 3))))


def test_three_steps_are_adam_on_the_true_entropy_and_logits_are_from_before():
    live = Tent(OneNorm().double(), lr=0.1)
    learned = torch.tensor([[1.5, 1.0, 2.0], [0.5, 0.0, -0.2]]).double()
    first, second = torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for step, images in enumerate(frames(3, batch=2), start=1):
        images = images.double()
        torch.testing.assert_close(live(images), statistics(images, *learned))
        slope = slopes(images, *learned)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        learned -= 0.1 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        norm = live.network.norm.norm
        torch.testing.assert_close(torch.stack((norm.weight, norm.bias)).detach(), learned)
    assert live.predicts == "before"


def test_without_updates_it_is_batch_statistics():
    network, images = Pooled(), frames(3, batch=2)
    with_batch = Pooled()
    use_batch(install(with_batch).values())
    live = Tent(network, lr=0)
    for each in images:
        assert torch.equal(live(each), with_batch(each).detach())


def test_only_norms_learn_and_running_statistics_stay():
    live = Tent(OneNorm(), lr=0.1)
    before = {name: value.clone() for name, value in live.network.state_dict().items()}
    live(frames(1)[0])
    changed = {name for name, value in live.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"norm.norm.weight", "norm.norm.bias"}


def test_a_single_value_per_channel_is_normalised_by_the_source():
    live = Tent(Pooled(), lr=0)
    image = frames(1)[0]
    mean = image.mean((2, 3), keepdim=True)
    ones, zeros = torch.ones(3), torch.zeros(3)
    torch.testing.assert_close(live(image), 3 * statistics(image, ones, zeros) + mean / (1 + 1e-5) ** 0.5)


@pytest.mark.parametrize("norm", [nn.GroupNorm(3, 3), nn.InstanceNorm2d(3, affine=True)])
def test_other_norms_learn(norm):
    live = Tent(OneNorm(norm), lr=0.1)
    images = frames(1)[0]
    first = live(images)
    assert not torch.equal(live(images), first)


def test_a_network_without_norms_is_one_line_that_says_how_to_get_one():
    with pytest.raises(InputError, match=r"^adapt: tent trains .* Grey has none; .*hardy\.load.*--statistics obs"):
        Tent(Grey())
    with pytest.raises(InputError, match="has none"):
        Tent(OneNorm(nn.BatchNorm2d(3, affine=False)))


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16")])
def test_weights_of_16_bits_are_refused_with_the_fix(dtype, name):
    """Adam's 1e-8 is 0 in float16, and a step of 1e-5 at a weight of 1 is lost in both."""
    for method in (Tent, CoTTA):
        with pytest.raises(
            InputError, match=rf"^adapt: {method.__name__.lower()} .* are {name}, .*network\.float\(\)$"
        ):
            method(OneNorm().to(dtype))


def test_a_learning_rate_below_0_is_refused():
    with pytest.raises(InputError, match=r"^Tent\.lr: -1"):
        Tent(OneNorm(), lr=-1)
