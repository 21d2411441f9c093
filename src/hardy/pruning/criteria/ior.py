"""IoR: channels matter that change the mean risk or the variance of the risks across domains.

For each gate z = 1 the score is (dRbar/dz)^2 + alpha (dVar{R_1..R_D}/dz)^2 over the risks of the batch's domains.
Both derivatives are exact and cost one forward and at most two backward passes, however many domains there are:

- with batch statistics samples interact, so the variance gets a backward pass of its own, which asks for the gates'
  parameters only; the caller's backward pass gives the mean;
- with all batch norms frozen, dVar/dz = (2/D) sum_i (R_i - Rbar) dR_i/dz is a weighted sum of the samples' own
  gradients, which the caller's one backward pass yields too.

Source: Cai, Li and Kot, "Toward domain generalized pruning by scoring out-of-distribution importance", NeurIPS 2022
workshop on distribution shifts, arXiv:2210.13810, eq. 4.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hardy.errors import InputError
from hardy.networks.base import Network, PixelLoss
from hardy.pruning.criteria._observed import Observed, Squares
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.gates import SampleGates, gate_gradients, samples_interact
from hardy.pruning.risk import domain_risks
from hardy.pruning.units import Unit
from hardy.types import Batch, Terms

__all__ = ["IoR"]


class IoR(Criterion):
    """Squared first-order effect of each gate on the mean and on the variance of the domain risks.

    Args:
        network: what is pruned.
        units: its units.
        pixel_loss: the loss of one head.
        alpha: weight of the variance's square; 0 is `Taylor`.
        variance: of the risks over the D domains of a batch, ``"population"`` divides by D and ``"sample"`` by D - 1.
        square: square each batch's gradients and then average (``"before"``), or average and then square.

    Raises:
        InputError: for a negative ``alpha``.
    """

    needs_domains = 2

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        pixel_loss: PixelLoss,
        *,
        alpha: float = 1.0,
        variance: Literal["population", "sample"] = "population",
        square: Literal["before", "after"] = "before",
    ) -> None:
        super().__init__(network, units, pixel_loss)
        if not alpha >= 0:
            raise InputError(f"IoR.alpha: {alpha} must be 0 or more")
        self.alpha = alpha
        self.variance = variance
        self._observed = Observed(network, units)
        self._squares = Squares(square)
        self._passes: list[Tensor] = []
        self._samples: list[SampleGates] = []

    def observe(self, batch: Batch) -> Terms:
        """The mean of the domain risks of ``batch``.

        Raises:
            InputError: when the batch holds one domain only.
        """
        if samples_interact(self.network):
            risks, _ = self._risks(batch)
            terms = {"risk": self._observed.expect(risks.mean())}
            parameters = self._observed.parameters
            spread = risks.var(correction=self._correction)
            found = torch.autograd.grad(spread, parameters, retain_graph=True, allow_unused=True)
            gradients = dict(zip(parameters, found, strict=True))
            self._passes.append(gate_gradients(self._observed.places, gradients, self._observed.count))
            return terms
        with SampleGates(self._observed.places, self._observed.count) as samples:
            risks, rows = self._risks(batch)
        apart = risks.detach() - risks.detach().mean()
        # the loss is the mean risk, so a sample's gradient is 1/D of its part of its own domain's
        samples.weigh(2 * len(risks) / (len(risks) - self._correction) * apart[rows])
        self._samples.append(samples)
        return {"risk": self._observed.expect(risks.mean())}

    def collect(self) -> None:
        """See `Criterion.collect`."""
        scale = self._observed.scale()
        parts = len(self._passes) + len(self._samples)
        spread = (
            sum(self._passes, torch.zeros(())) / parts + sum((s.total for s in self._samples), torch.zeros(())) / scale
        )
        self._passes.clear()
        self._samples.clear()
        self._squares.add(self._observed.gradients(scale), spread)

    def reset(self) -> None:
        """See `Criterion.reset`."""
        self._observed.forget()
        self._passes.clear()
        self._samples.clear()
        self._squares.reset()

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return self._squares.scores(self.units, (1.0, self.alpha))

    @property
    def _correction(self) -> int:
        return 0 if self.variance == "population" else 1

    def _risks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        risks, rows = domain_risks(self.network, batch, self.pixel_loss)
        if len(risks) < self.needs_domains:
            raise InputError("ior needs batches of two domains or more: with one the variance of the risks is 0")
        return risks, rows
