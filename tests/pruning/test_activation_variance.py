"""The share of a channel's variance that style causes, by hand and on planted channels."""

import copy

import pytest
import torch
from torch import nn

from hardy.data.label_spaces import find_label_space
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.photometric import photometric
from hardy.pruning.criteria.activation_variance import ActivationVariance, style_fraction
from hardy.pruning.units import Member, Unit, find_units
from hardy.types import Batch, Outputs

UNIT = Unit("a", 3, (Member("a", "out", ((0,), (1,), (2,))), Member("norm", "out", ((0,), (1,), (2,)))), ("norm",))


class Planted(Network):
    """Channels red less green, blue, and both added, then a norm with dropout behind it."""

    def __init__(self):
        super().__init__(find_label_space("pacs7"))
        self.a = nn.Conv2d(3, 3, 1, bias=False)
        self.a.weight.data = torch.tensor([[1.0, -1, 0], [0, 0, 1], [1, -1, 1]]).view(3, 3, 1, 1)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def outputs(self, images):
        return Outputs(self.drop(self.norm(self.a(images))).mean((2, 3)))


def mean_logit(logits, labels):
    return logits.square().mean()


def darker(images):
    """One step less of every colour: red less green stays, blue goes with it."""
    return images - 2


def colours(*pixels):
    """Images of one pixel each."""
    images = torch.tensor(pixels).view(-1, 3, 1, 1)
    return Batch(images, torch.zeros(len(images), dtype=torch.long), torch.zeros(len(images), dtype=torch.long))


def scored(criterion, *batches):
    for batch in batches:
        sum(criterion.observe(batch).values()).backward()
        criterion.collect()
    return criterion.scores()


def test_the_fraction_by_hand():
    """Contents 0 and 4, each in styles 0 and +2: styles vary by 1, all of 0, 4, 2, 6 by 5."""
    values = torch.tensor([[0.0, 7.0, 0.0], [4.0, 9.0, 0.0], [2.0, 7.0, 3.0], [6.0, 9.0, 3.0]]).unsqueeze(2)
    assert style_fraction(values, 2).tolist() == pytest.approx([1 / 5, 0, 1])
    assert style_fraction(torch.ones(4, 1, 2), 2).tolist() == [0.0]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gamma", [1.0, 1e-3])
def test_planted_channels(training, gamma):
    """Red less green (0 and 4) is content only; blue (1 twice) is style only; their sum is 1, 5 and -1, 3."""
    network = Planted().train(training)
    nn.init.constant_(network.norm.weight, gamma)
    criterion = ActivationVariance(network, [UNIT], mean_logit, copies=1)
    criterion.style = darker
    scores = scored(criterion, colours([0.0, 0.0, 1.0], [4.0, 0.0, 1.0]))["a"]
    assert scores.tolist() == pytest.approx([1, 0, 1 - 1 / 5], abs=1e-4)
    assert network.norm.weight.grad is not None  # the loss is there to be trained on
    assert all(module.training is training for module in network.modules())


def test_the_mean_over_batches():
    criterion = ActivationVariance(Planted(), [UNIT], mean_logit, copies=1)
    criterion.style = darker
    # of 1, 3 and -1, 1 style is 1 of 2 in the second batch
    batches = [colours([0.0, 0.0, 1.0], [4.0, 0.0, 1.0]), colours([0.0, 0.0, 1.0], [2.0, 0.0, 1.0])]
    assert float(scored(criterion, *batches)["a"][2]) == pytest.approx(1 - (1 / 5 + 1 / 2) / 2, abs=1e-4)


def test_the_looks_leave_statistics_alone():
    network, plain = Planted(), Planted()
    batch = colours([0.0, 0.5, 1.0], [1.0, 0.0, 0.5])
    ActivationVariance(network, [UNIT], mean_logit).observe(batch)
    plain.outputs(batch.images)
    torch.testing.assert_close(network.norm.running_var, plain.norm.running_var)
    assert int(network.norm.num_batches_tracked) == 1


@pytest.mark.parametrize("training", [True, False])
def test_norms_use_the_statistics_that_they_use_anyway(toy, batch, pixel_loss, training):
    twin = copy.deepcopy(toy.train(training))
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.add_(1.0)
    units = find_units(toy)
    scores = [scored(ActivationVariance(net, units, pixel_loss, seed=0), batch)["mix"] for net in (toy, twin)]
    assert torch.equal(*scores) is training


def test_the_seed_decides_the_colours(toy, batch, pixel_loss):
    units = find_units(toy)
    first, again, other = (
        scored(ActivationVariance(toy.eval(), units, pixel_loss, seed=seed), batch)["mix"] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert ((first > 0) & (first < 1)).all()


def test_every_look_has_new_colours_of_the_asked_strength(toy, batch, pixel_loss):
    seen = []
    criterion = ActivationVariance(toy, find_units(toy), pixel_loss, copies=3, strength=0.5, seed=0)
    assert criterion.style.keywords == {"strength": 0.5}

    def style(images):
        seen.append(photometric(images, 0.5))
        return seen[-1]

    criterion.style = style
    scored(criterion, batch, batch)
    assert len(seen) == 6
    assert len({float(copy.sum()) for copy in seen}) == 6


def test_options_out_of_range_are_refused(toy, pixel_loss):
    for options in ({"copies": 0}, {"strength": -1.0}):
        with pytest.raises(InputError, match=rf"ActivationVariance\.{next(iter(options))}: .* out of range"):
            ActivationVariance(toy, find_units(toy), pixel_loss, **options)
