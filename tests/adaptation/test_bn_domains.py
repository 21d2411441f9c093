"""Prototypes on a network of one norm, by hand; domains kept apart, given or detected; the table that is given away."""

import copy

import pytest
import torch
from one_norm_network import OneNorm, values
from torch import nn

from hardy.adaptation.bn_domains import BNDomains
from hardy.adaptation.bn_stats import BNStats
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.seed import seeded


def images(count, seed=0):
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def tiny():
    with seeded(0, "network"):
        return create("tiny", "camvid11", width=8).eval()


def normal(x, mean, var):
    return (x - mean) / var**0.5


def test_the_running_mean_of_each_domain_by_hand():
    """0, 4 has mean 2 and variance 4; 2, 10 has mean 6 and variance 16; together 4 and 10."""
    live = BNDomains(OneNorm())
    one, two = values(0, 4), values(2, 10)
    live.enter("day")
    torch.testing.assert_close(live(one), normal(one, 2, 4))
    torch.testing.assert_close(live(two), normal(two, 4, 10))
    live.enter("night")
    torch.testing.assert_close(live(two), normal(two, 6, 16))
    live.enter("day")
    torch.testing.assert_close(live(two), normal(two, (4 * 2 + 6) / 3, (10 * 2 + 16) / 3))
    table = live.table()
    assert list(table) == ["parts.0"]
    torch.testing.assert_close(table["parts.0"]["night"], torch.tensor([[6.0] * 3, [16.0] * 3]))
    assert list(table["parts.0"]) == ["day", "night"]
    torch.testing.assert_close(live.prototypes.of("night")["parts.0"], table["parts.0"]["night"])
    with pytest.raises(InputError, match=r"^there is no prototype of the domain 'nigth'; did you mean 'night'\?$"):
        live.prototypes.of("nigth")


def test_predicting_takes_the_prototype_of_the_domain_that_was_entered_alone():
    """Of a domain without a prototype the source's mean 1 and variance 4; of a detected one that of the last batch."""
    live = BNDomains(OneNorm(mean=1, var=4))
    for name, given in (("day", (0, 4)), ("night", (2, 10))):
        live.enter(name)
        live(values(*given))
    for name, mean, var in (("day", 2, 4), ("night", 6, 16), ("dusk", 1, 4), (None, 1, 4)):
        live.enter(name)
        torch.testing.assert_close(live.predict(values(5, 7)), normal(values(5, 7), mean, var))
    live = BNDomains(OneNorm(mean=1, var=4), domains="detected")
    live.enter("day")
    live(values(0, 4))
    live.enter("night")
    torch.testing.assert_close(live.predict(values(5, 7)), normal(values(5, 7), 2, 4))


def test_the_prior_and_the_momentum_by_hand():
    live = BNDomains(OneNorm(mean=1, var=4), prior=1)
    live.enter("day")
    torch.testing.assert_close(live(values(2, 10)), normal(values(2, 10), (1 + 6) / 2, (4 + 16) / 2))
    live = BNDomains(OneNorm(), momentum=0.25, every=1)
    live.enter("day")
    for _ in range(100):
        live(values(0, 4))
    torch.testing.assert_close(live(values(2, 10)), normal(values(2, 10), 2 + 0.25 * 4, 4 + 0.25 * 12))


def test_after_its_first_batches_a_prototype_moves_on_every_nth_one():
    """Ten batches with mean 2; of the next, with mean 6, only the third. Those of another domain do not count."""
    live = BNDomains(OneNorm(), every=3)
    live.enter("day")
    for _ in range(10):
        live(values(0, 4))
    means = []
    for _ in range(4):
        live.enter("night")
        live(values(0, 2))
        live.enter("day")
        logits = live(values(4, 8))
        means.append(float(live.prototypes.of("day")["parts.0"][0, 0]))
        torch.testing.assert_close(logits, normal(values(4, 8), means[-1], 4))
    assert means == pytest.approx([2, 2, 2 + 4 / 11, 2 + 4 / 11])


def test_the_prototype_of_a_constant_stream_is_its_statistics_and_the_prediction_that_of_the_batch():
    network = tiny()
    live, batch = BNDomains(network), BNStats(network)
    live.enter("day")
    for _ in range(3):
        torch.testing.assert_close(live(images(2)), batch(images(2)), rtol=1e-4, atol=1e-5)


def test_where_there_is_one_value_the_prototype_stays_the_sources():
    live = BNDomains(OneNorm(mean=1, var=4))
    live.enter("day")
    torch.testing.assert_close(live(values(7)), values(3))
    assert live.prototypes.of("day")["parts.0"].tolist() == [[1.0] * 3, [4.0] * 3]


def test_for_one_domain_too_many_the_oldest_is_forgotten():
    live = BNDomains(OneNorm(), most=2)
    for name, given in (("a", (0, 4)), ("b", (2, 10)), ("a", (0, 4)), ("c", (0, 2))):
        live.enter(name)
        live(values(*given))
    assert sorted(live.table()["parts.0"]) == ["a", "c"]
    torch.testing.assert_close(live.prototypes.of("c")["parts.0"][:, 0], torch.tensor([1.0, 1.0]))


@pytest.mark.slow
def test_a_domain_that_is_not_given_is_detected_and_comes_back():
    """Dark and bright noise: 15 dark images, 15 bright, 15 dark; the domain changes at the third image of another."""
    draw = torch.Generator().manual_seed(0)
    dark, bright = ([level + 0.2 * torch.rand(1, 3, 32, 48, generator=draw) for _ in range(15)] for level in (0.1, 0.7))
    live = BNDomains(tiny(), domains="detected")
    for name, part in (("dark", dark), ("bright", bright), ("dark", dark)):
        live.enter(name)
        for one in part:
            live(one)
    assert live.confusion() == {
        "dark": {"detected/1": 28, "detected/2": 2},
        "bright": {"detected/2": 13, "detected/1": 2},
    }
    assert {name for one in live.table().values() for name in one} == {"detected/1", "detected/2"}
    live = BNDomains(tiny())
    for one in dark[:2]:
        live(one)
    assert live.domains.detection.prototypes.names.listed() == {"detected/1": 0}, "where none is entered"
    assert live.confusion() == {}


def test_the_network_may_be_copied_and_keeps_its_weights():
    network = tiny()
    live = copy.deepcopy(BNDomains(network))
    live(images(1))
    learned = {id(value) for value in live.network.parameters()}
    assert all(torch.equal(a, b) for a, b in zip(live.network.parameters(), network.parameters(), strict=True))
    assert len(learned) == len(list(network.parameters()))


def test_half_precision_predicts_the_same_and_keeps_prototypes_in_float32():
    network = tiny()
    wide, narrow = BNDomains(network), BNDomains(copy.deepcopy(network).half())
    for seed in range(12):
        logits = narrow(images(1, seed).half())
        torch.testing.assert_close(logits.float(), wide(images(1, seed)), rtol=0.05, atol=0.05)
    assert logits.dtype == torch.float16
    assert narrow.prototypes.values.dtype == torch.float32


def test_what_does_not_fit_is_refused():
    for options in ({"momentum": 0.0}, {"every": 0}, {"prior": -1.0}, {"most": 0}):
        with pytest.raises(InputError, match=r"^bn_domains: momentum .* does not fit"):
            BNDomains(tiny(), **options)
    with pytest.raises(InputError, match=r"^bn_domains adapts batch norms"):
        BNDomains(OneNorm(nn.Conv2d(3, 3, 1)))
