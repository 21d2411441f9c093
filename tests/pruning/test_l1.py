"""Sums of absolute weights, by hand."""

import torch
from torch import nn

from hardy.data.label_spaces import find_label_space
from hardy.networks.base import Network
from hardy.pruning.criteria.l1 import L1
from hardy.pruning.units import find_units
from hardy.types import Outputs


class Pair(Network):
    """Two convolutions added up, then a head; the second transposed."""

    least_size = 4

    def __init__(self):
        super().__init__(find_label_space("pacs7"))
        self.a, self.b = nn.Conv2d(3, 2, 1), nn.ConvTranspose2d(3, 2, 1)
        self.head = nn.Conv2d(2, 7, 1)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[4.0, 0, 0], [1, -1, 1]]).view(2, 3, 1, 1))
            self.b.weight.copy_(torch.tensor([[2.0, 0], [-4, 0], [0, 0]]).view(3, 2, 1, 1))

    def outputs(self, images):
        return Outputs(self.head(self.a(images) + self.b(images)))


def test_sums_over_all_filters_of_a_channel(pixel_loss):
    network = Pair()
    units = find_units(network)
    assert L1(network, units, pixel_loss, normalise=False).scores()["a"].tolist() == [10.0, 3.0]
    assert L1(network, units, pixel_loss).scores()["a"].tolist() == [10 / 6.5, 3 / 6.5]


def test_the_scale_stays_that_of_the_start(pixel_loss):
    network = Pair()
    scored = L1(network, find_units(network), pixel_loss)
    with torch.no_grad():
        network.a.weight[0] = 0
        network.b.weight[:, 0] = 0
    assert scored.scores()["a"].tolist() == [0.0, 3 / 6.5]
