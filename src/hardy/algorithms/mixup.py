"""Mixup across domains: images of two domains are blended, and so are their losses.

The domains of a batch are paired in a random cycle. For each of the D pairs (i, j) a share ``lambda ~ Beta(alpha,
alpha)`` is drawn, and

    x = lambda x_i + (1 - lambda) x_j,    loss = lambda l(f(x), y_i) + (1 - lambda) l(f(x), y_j)

The number of blended images is that of the smaller of the two domains. The objective is the mean over the pairs. In
segmentation each pixel is blended, and its loss is the blend of the losses for its two labels.

Source: Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018, eq. 2; across
domains: Yan, Song, Li, Zou and Ren, arXiv:2001.00677; between the sources, as here: Gulrajani and Lopez-Paz, "In
search of lost domain generalization", ICLR 2021 (DomainBed).
"""

import torch

from hardy.algorithms._domains import refuse_fewer, weighted
from hardy.algorithms.base import Algorithm
from hardy.errors import InputError
from hardy.networks.base import Network, PixelLoss
from hardy.pruning.risk import domain_outputs
from hardy.types import Batch, Terms

__all__ = ["Mixup"]


class Mixup(Algorithm):
    """Minimise the loss of images blended across domains.

    Args:
        network: what is trained.
        pixel_loss: the loss of one head.
        alpha: parameter of the Beta distribution of the shares; near 0 one image dominates, 1 is uniform.

    Raises:
        InputError: for an ``alpha`` that is not above 0.
    """

    needs_domains = 2

    def __init__(self, network: Network, pixel_loss: PixelLoss, *, alpha: float = 0.2) -> None:
        if not 0 < alpha < float("inf"):
            raise InputError(f"Mixup.alpha: {alpha} is out of range; it must be above 0")
        super().__init__(network)
        self.pixel_loss, self.alpha = pixel_loss, alpha

    def forward(self, batch: Batch) -> Terms:
        """The network's loss terms of the blended images, as the mean over the pairs.

        Raises:
            InputError: when the batch holds one domain only.
        """
        present = batch.domains.unique()
        refuse_fewer(self, len(present))
        parts = [batch.where(batch.domains == present[index]) for index in torch.randperm(len(present)).tolist()]
        shares = self._shares(len(parts))
        images, first, second, pairs = [], [], [], []
        for number, (one, other, share) in enumerate(zip(parts, parts[1:] + parts[:1], shares, strict=True)):
            size = min(len(one), len(other))
            images.append(share * one.images[:size] + (1 - share) * other.images[:size])
            first.append(one.labels[:size])
            second.append(other.labels[:size])
            pairs.append(batch.domains.new_full((size,), number))
        blended, _ = domain_outputs(self.network, Batch(torch.cat(images), torch.cat(first), torch.cat(pairs)))
        terms, weights = [], []
        for (outputs, labels), others, share in zip(blended, second, shares, strict=True):
            terms += [self.network.losses(outputs, given, self.pixel_loss) for given in (labels, others)]
            weights += [share / len(parts), (1 - share) / len(parts)]
        return weighted(terms, weights)

    def _shares(self, count: int) -> list[float]:
        """The share of the first image in each of ``count`` pairs, in [0, 1]."""
        alpha = torch.tensor(self.alpha, dtype=torch.float64)
        shares: list[float] = torch.distributions.Beta(alpha, alpha).sample((count,)).tolist()
        return shares
