"""CORAL: the mean risk of the domains, and the distance between the moments of their embeddings.

    mean_i R_i + weight * mean over pairs i < j of [ mean((mu_i - mu_j)^2) + mean((C_i - C_j)^2) ]

``mu`` (C,) is the mean and ``C`` (C, C) the unbiased covariance of a domain's samples. The means in the brackets are
over the elements. The samples come from the embedding (`hardy.types.Outputs`), the input of the head. A classifier has
one sample per image. In a segmentation network every cell of the embedding is a sample; if there are too many cells, a
random subset is used.

All domains go through the network in one forward pass. With frozen batch norms, as in DomainBed of 2022, this equals
one pass per domain.

Source: Sun and Saenko, "Deep CORAL: correlation alignment for deep domain adaptation", ECCV 2016 workshops, eq. 1 to
3; between all pairs of sources and with the means: Gulrajani and Lopez-Paz, "In search of lost domain generalization",
ICLR 2021 (DomainBed).
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from hardy.algorithms._domains import domain_terms, weighted
from hardy.algorithms.base import Algorithm
from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss
from hardy.types import Batch, Outputs, Terms

__all__ = ["CORAL"]


class CORAL(Algorithm):
    """Minimise the mean risk of the domains and align the means and covariances of their embeddings.

    Args:
        network: what is trained; its `outputs` must give the embedding.
        pixel_loss: the loss of one head.
        weight: of the distance between the moments; with 0 only the mean risk is left.
        positions: the largest number of embedding cells used per domain. In each step they are drawn at random from
            all images of the domain. If there are fewer cells, all are used.

    Raises:
        InputError: for a negative ``weight``, or fewer than 2 ``positions``.
    """

    needs_domains = 2

    def __init__(self, network: Network, pixel_loss: PixelLoss, *, weight: float = 1.0, positions: int = 2048) -> None:
        within("CORAL.weight", weight, 0)
        within("CORAL.positions", positions, 2)
        super().__init__(network)
        self.pixel_loss, self.weight, self.positions = pixel_loss, weight, positions

    def check(self, domains: int, batch: int) -> None:
        """See `Algorithm.check`: the covariance needs at least two images of each domain."""
        super().check(domains, batch)
        if self.network.image_level and batch < 2 * domains:
            raise InputError(
                f"optim.batch: {batch} images at a time are fewer than two for each of the {domains} domains; CORAL "
                f"needs {2 * domains} images per process and part to compute the covariances"
            )

    def forward(self, batch: Batch) -> Terms:
        """The mean over domains of the network's loss terms, and ``coral``, the weighted distance of the moments.

        Raises:
            InputError: when the batch holds one domain only or a domain with a single sample, or the network has no
                embedding.
        """
        outputs, terms = domain_terms(self, batch, self.pixel_loss)
        samples = [self._samples(one) for one in outputs]
        mean = weighted(terms, [1 / len(terms)] * len(terms))
        return {**mean, "coral": self.weight * _distance(samples)}

    def _samples(self, outputs: Outputs) -> Tensor:
        """The embedding of a domain as samples (n, C), in float32 or wider."""
        samples = outputs.embedding
        if samples is None:
            raise InputError(
                f"CORAL aligns the embedding, and {type(self.network).__name__} gives none; wrap the module with "
                "embedding='name of the layer before its head', or use mixup or vrex, which need only the logits"
            )
        if samples.ndim == 4:
            samples = samples.movedim(1, -1).flatten(0, -2)
        if len(samples) < 2:
            raise InputError(
                "CORAL: a domain has a single sample in a batch, which has no covariance; raise optim.batch"
            )
        if outputs.logits.ndim == 4 and len(samples) > self.positions:
            samples = samples[torch.randperm(len(samples))[: self.positions].to(samples.device)]
        return samples.to(torch.promote_types(samples.dtype, torch.float32))


def _distance(samples: Sequence[Tensor]) -> Tensor:
    """The mean over pairs of the squared distance between means and between covariances, per element."""
    with torch.autocast(samples[0].device.type, enabled=False):
        moments = [_moments(one) for one in samples]
    apart = [
        (mean - other_mean).square().mean() + (covariance - other_covariance).square().mean()
        for (mean, covariance), (other_mean, other_covariance) in combinations(moments, 2)
    ]
    return torch.stack(apart).mean()


def _moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (C,) and the unbiased covariance (C, C) of ``samples`` (n, C)."""
    mean = samples.mean(0)
    centred = samples - mean
    return mean, centred.mT @ centred / (len(samples) - 1)
