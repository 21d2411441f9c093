"""Training shared weights by the sandwich rule: the largest architecture is the teacher of the smaller ones.

In every step the largest architecture learns from the labels. The smallest and two random ones learn from the class
probabilities that the largest predicts for the same images:

    loss = loss of the labels for the largest
         + sum over the three of T^2 mean_i KL(softmax(t_i / T) || softmax(s_i / T))

t are the logits of the largest, which get no gradient from these terms, and s those of a smaller one; i runs over the
labelled pixels. So one training gives the teacher and the students, as in FasterSeg's co-search.

Source: Yu and Huang, "Universally slimmable networks and improved training techniques", ICCV 2019, sections 3.3
(sandwich rule, two random widths) and 3.4 (in-place distillation); temperature: Hinton, Vinyals and Dean,
arXiv:1503.02531, 2015. Teacher and student on shared weights: Chen et al., "FasterSeg", ICLR 2020, section 3.4.
"""

from random import Random
from typing import cast

import torch

from hardy.algorithms.base import Algorithm
from hardy.networks.base import PixelLoss
from hardy.ops.divergence import divergence
from hardy.searching.supernet import Supernet
from hardy.types import IGNORE, Batch, Terms

__all__ = ["Sandwich"]


class Sandwich(Algorithm):
    """See the module.

    Args:
        network: the shared weights.
        pixel_loss: the loss of the largest architecture's logits.
        temperature: T.
    """

    def __init__(self, network: Supernet, pixel_loss: PixelLoss, *, temperature: float = 1.0) -> None:
        super().__init__(network)
        self.pixel_loss, self.temperature = pixel_loss, temperature

    def forward(self, batch: Batch) -> Terms:
        """``largest``, the loss with the labels, and the divergences ``smallest``, ``first`` and ``second``."""
        supernet = cast(Supernet, self.network)
        space = supernet.space
        taught = supernet.logits(space.largest(), batch.images)
        terms = {"largest": self.pixel_loss(taught, batch.labels)}
        rng = Random(int(torch.randint(2**62, ())))  # drawn under the step's key
        for name, architecture in (
            ("smallest", space.smallest()),
            ("first", space.draw(rng)),
            ("second", space.draw(rng)),
        ):
            logits = supernet.logits(architecture, batch.images)
            terms[name] = divergence(taught, logits, batch.labels != IGNORE, self.temperature)
        return terms
