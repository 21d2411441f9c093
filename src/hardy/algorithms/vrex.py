"""V-REx: the mean of the domain risks, and their variance.

    mean_i R_i + weight * (1/D) sum_i (R_i - mean R)^2

For the first ``anneal`` steps the variance has the weight ``early_weight``. When the weight changes, the moments of the
optimiser are reset, because they belong to the earlier objective.

Source: Krueger et al., "Out-of-distribution generalization via risk extrapolation (REx)", ICML 2021, eq. 8; the
weights and the annealing are those of Gulrajani and Lopez-Paz, "In search of lost domain generalization", ICLR 2021
(DomainBed).
"""

import torch
from torch import Tensor

from hardy.algorithms._domains import domain_terms, weighted
from hardy.algorithms.base import Algorithm
from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss
from hardy.types import Batch, Terms

__all__ = ["VREx"]


class VREx(Algorithm):
    """Minimise the mean and the variance of the risks of the domains.

    With several processes or gradient accumulation, the variance is computed over each part of the batch.

    Args:
        network: what is trained.
        pixel_loss: the loss of one head.
        weight: of the variance, after the first ``anneal`` steps.
        anneal: number of steps with ``early_weight``; if the run has no more steps, it applies to the end.
        early_weight: of the variance during these steps.

    Raises:
        InputError: for a weight or an ``anneal`` below 0, or an ``early_weight`` without effect.
    """

    needs_domains = 2
    steps: Tensor

    def __init__(
        self,
        network: Network,
        pixel_loss: PixelLoss,
        *,
        weight: float = 10.0,
        anneal: int = 500,
        early_weight: float = 1.0,
    ) -> None:
        for name, value in {"weight": weight, "anneal": anneal, "early_weight": early_weight}.items():
            within(f"VREx.{name}", value, 0)
        if not anneal and early_weight != 1.0:
            raise InputError(f"VREx.early_weight: {early_weight} has no effect with an anneal of 0; leave it out")
        super().__init__(network)
        self.pixel_loss, self.weight, self.anneal, self.early_weight = pixel_loss, weight, anneal, early_weight
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> Terms:
        """The mean over domains of the network's loss terms, and ``variance``, the weighted variance of their sums.

        Raises:
            InputError: when the batch holds one domain only.
        """
        _, terms = domain_terms(self, batch, self.pixel_loss)
        risks = torch.stack([torch.stack(list(one.values())).sum() for one in terms])
        weight = torch.where(self.steps < self.anneal, risks.new_tensor(self.early_weight), self.weight)
        mean = weighted(terms, [1 / len(terms)] * len(terms))
        return {**mean, "variance": weight * risks.var(correction=0)}

    def restarts(self, step: int) -> bool:
        """See `Algorithm.restarts`: true at the first step with ``weight``."""
        return step == self.anneal + 1

    def after_step(self, step: int) -> None:
        """Store the number of steps made."""
        self.steps.fill_(step)
