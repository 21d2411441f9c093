"""Each mixture on a network of one norm, by hand, and the whole network against torch's own batch norms."""

import copy

import pytest
import torch
from one_norm_network import OneNorm, values
from torch import nn

from hardy.adaptation.bn_stats import BNStats
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.seed import seeded


def images(count, seed=0):
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def tiny():
    with seeded(0, "network"):
        return create("tiny", "camvid11", width=8).eval()


def by_torch(network, given):
    """The logits with torch's batch norms in training mode."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    return copied(given), copied.eval()


def test_the_batchs_statistics_are_torchs_in_training():
    network = tiny()
    live = BNStats(network)
    for seed in range(2):
        torch.testing.assert_close(live(images(2, seed)), by_torch(network, images(2, seed))[0].detach())


def test_ema_moves_the_running_statistics_as_torch_does_and_then_predicts_with_them():
    network = tiny()
    live = BNStats(network, mix="ema", momentum=0.1)
    torch.testing.assert_close(live(images(2)), by_torch(network, images(2))[1](images(2)).detach())
    before = by_torch(network, images(2))[1]
    torch.testing.assert_close(live(images(2, 1)), by_torch(before, images(2, 1))[1](images(2, 1)).detach())


@pytest.mark.parametrize(
    ("options", "mean", "var"),
    [
        ({"mix": "alpha", "alpha": 0.25}, 1.25, 4.25),
        ({"mix": "alpha", "alpha": 0.0}, 1.0, 4.0),
        ({"mix": "count", "count": 12.0}, 1.25, 4.25),  # 4 values: 4 / (12 + 4)
        ({"mix": "count", "count": 4.0}, 1.5, 4.5),
        ({"mix": "batch"}, 2.0, 5.0),
        ({"mix": "ema", "momentum": 0.5}, 1.5, (4 + 20 / 3) / 2),  # the unbiased variance of the batch is 20 / 3
    ],
)
def test_each_mixture_by_hand(options, mean, var):
    """A channel with the values -1, 1, 3, 5 has mean 2 and biased variance 5; the source's are 1 and 4."""
    live = BNStats(OneNorm(mean=1, var=4), **options)
    torch.testing.assert_close(live(values(-1, 1, 3, 5)), (values(-1, 1, 3, 5) - mean) / var**0.5)
    torch.testing.assert_close(BNStats(OneNorm(mean=1, var=4), **options)(values(7)), values(3))


def test_after_a_batch_that_raises_ema_has_its_earlier_statistics_and_mode():
    class Narrow(nn.Module):
        def forward(self, x):
            assert x.shape[-1] < 5
            return x

    live = BNStats(OneNorm(nn.BatchNorm2d(3), Narrow()), mix="ema")
    live(values(1, 2))
    wanted, kept = live.predict(values(3)), live.state()["tensors"]
    with pytest.raises(AssertionError):
        live(values(1, 2, 3, 4, 5))
    assert all(torch.equal(value, kept[name]) for name, value in live.state()["tensors"].items())
    assert torch.equal(live.predict(values(3)), wanted)


def test_what_does_not_fit_is_refused():
    for name, value in (("alpha", 1.5), ("count", 0.0), ("momentum", 0.0)):
        with pytest.raises(InputError, match=f"^bn_stats: {name} is {value}; give a number in "):
            BNStats(tiny(), **{name: value})
    with pytest.raises(InputError, match=r"^bn_stats adapts batch norms"):
        BNStats(OneNorm(nn.Conv2d(3, 3, 1)))
