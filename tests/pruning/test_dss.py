"""Cosines between the mean maps of domains, by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy.data.label_spaces import find_label_space
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.pruning.criteria.dss import DSS, similarity
from hardy.pruning.units import Member, Unit, find_units
from hardy.types import Batch, Outputs

EACH = ((0,), (1,))
UNIT = Unit("a", 2, (Member("a", "out", EACH),), ("a",))


class Colours(Network):
    """Channels that copy red and green, an in-place ReLU, then their mean."""

    def __init__(self):
        super().__init__(find_label_space("pacs7"))
        self.a = nn.Conv2d(3, 2, 1, bias=False)
        self.a.weight.data = torch.eye(2, 3).view(2, 3, 1, 1)

    def outputs(self, images):
        return Outputs(F.relu(self.a(images), inplace=True).mean((2, 3)))


def mean_logit(logits, labels):
    return logits.mean()


def batch_of(domains, reds, greens):
    """Images of one row, from the rows of red and green."""
    red, green = torch.tensor(reds), torch.tensor(greens)
    images = torch.stack([red, green, torch.zeros_like(red)], 1).unsqueeze(2)
    return Batch(images, torch.zeros(len(domains), dtype=torch.long), torch.tensor(domains))


def scored(criterion, *batches):
    for batch in batches:
        sum(criterion.observe(batch).values()).backward()
        criterion.collect()
    return criterion.scores()["a"].tolist()


def test_one_more_than_the_cosine_of_mean_maps_before_the_activation():
    """Domain 0 has means (1, 0) and (1, 0), domain 1 (2, 2) and (-3, 0); the means run over all batches."""
    batches = [
        batch_of([0, 1], [[2.0, 0.0], [3.0, 1.0]], [[1.0, 4.0], [-3.0, 0.0]]),
        batch_of([1, 0], [[1.0, 3.0], [0.0, 0.0]], [[-3.0, 0.0], [1.0, -4.0]]),
    ]
    assert scored(DSS(Colours(), [UNIT], mean_logit), *batches) == pytest.approx([1 + 1 / math.sqrt(2), 0])


def test_the_mean_over_pairs_of_domains_and_a_dead_map():
    """Maps (1, 0), (0, 1) and (1, 1): cosines 0, and twice 1 / sqrt 2. The other channel is dead in one domain."""
    maps = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [2.0, 0.0]], [[1.0, 1.0], [5.0, 0.0]]])
    assert similarity(maps).tolist() == pytest.approx([2 / math.sqrt(2) / 3, 1 / 3])


def test_the_mean_over_the_layers_of_a_unit(toy, draw_batch, pixel_loss):
    toy.eval()
    units = find_units(toy)
    criterion, batch = DSS(toy, units, pixel_loss), draw_batch([0, 1, 1, 0])
    sum(criterion.observe(batch).values()).backward()
    criterion.collect()
    seen = {}
    for name in ("stem", "block.narrow"):
        toy.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.clone()}))
    with torch.no_grad():
        toy(batch.images)
    cosines = [
        F.cosine_similarity(maps[[0, 3]].mean(0).flatten(1), maps[[1, 2]].mean(0).flatten(1)) for maps in seen.values()
    ]
    torch.testing.assert_close(criterion.scores()["stem"], 1 + sum(cosines) / 2)


def test_maps_of_several_sizes_or_of_one_domain_are_refused():
    criterion = DSS(Colours(), [UNIT], mean_logit)
    scored(criterion, batch_of([0, 1], [[1.0], [1.0]], [[1.0], [1.0]]))
    with pytest.raises(InputError, match="must all have the same size"):
        scored(criterion, batch_of([0, 1], [[1.0, 2.0], [1.0, 2.0]], [[1.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(InputError, match="dss compares domains and collected maps of 1"):
        scored(DSS(Colours(), [UNIT], mean_logit), batch_of([3, 3], [[1.0], [1.0]], [[1.0], [1.0]]))
