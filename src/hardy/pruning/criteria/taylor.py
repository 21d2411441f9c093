"""First-order Taylor: an estimate of the change of the mean risk if a channel were removed.

For each gate z = 1 (`hardy.pruning.gates`) the score is the mean over batches of (dR/dz)^2, where R is the mean of the
domain risks. This is the squared first-order change of the loss when the channel is removed. With ``square="sample"``
each image's part of dR/dz is squared, and the squares are summed over the images of a batch ("FG", full gradient,
method 23 of the authors' code).

Source: Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance estimation for neural network pruning", CVPR 2019,
methods "Taylor FO" and "Taylor FO-FG" with gates after batch norms; eq. 2 of Cai, Li and Kot, arXiv:2210.13810.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria._observed import Observed, Squares, placed
from hardy.pruning.criteria.base import Criterion, Halves
from hardy.pruning.risk import domain_risks
from hardy.pruning.samples import SampleGradients
from hardy.types import Batch, Terms

__all__ = ["Taylor"]


class Taylor(Criterion):
    """Squared first-order effect of each gate on the mean risk.

    Args:
        network: the network to prune.
        units: its units.
        pixel_loss: the loss of one output head.
        square: square the gradient of each image and sum (``"sample"``), square that of each batch and then average
            (``"before"``), or average and then square (``"after"``).
        skip: the gradient of a gate with several sites (a residual stream) is a sum over the sites. Its square is
            divided by 1 (``"none"``), by the number of sites (``"places"``), or by the number n of residual blocks,
            which is the number of sites minus 1 (``"blocks"``). ``"nvidia"`` is ``"blocks"``, with 3 for a gate with a
            single site; these are the weights 1, 1, 3/4, 3/6 and 1 of inner and skip gates in the authors' code for
            ResNet-50.
        gates: one for each channel that can be cut out (``"unit"``), or those of the authors (``"paper"``): after every
            batch norm of a residual block and at the output of each block, see `hardy.pruning.residual`; a ratio then
            counts these gates.
        accumulate: average the gradients of this many batches before squaring. If batches are left over at the end of a
            round, they are not used.

    Raises:
        InputError: for an ``accumulate`` below 1, or above 1 with another ``square`` than ``"before"``.
    """

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        pixel_loss: PixelLoss,
        *,
        square: Literal["sample", "before", "after"] = "before",
        skip: Literal["none", "places", "blocks", "nvidia"] = "none",
        gates: Literal["unit", "paper"] = "unit",
        accumulate: int = 1,
    ) -> None:
        units = placed(network, units, gates)
        super().__init__(network, units, pixel_loss)
        within("Taylor.accumulate", accumulate, 1)
        if accumulate > 1 and square != "before":
            raise InputError(f"Taylor.accumulate: {accumulate} has no effect with square {square}; leave one out")
        self.skip = skip
        self._by_sample = square == "sample"
        self._observed = Observed(network, units)
        self._squares = Squares(square, accumulate)
        self._samples: list[SampleGradients] = []

    def observe(self, batch: Batch) -> Terms:
        """The mean of the domain risks of ``batch``."""
        if not self._by_sample:
            with self._observed.gates_applied():
                risks, _ = domain_risks(self.network, batch, self.pixel_loss)
            return {"risk": self._observed.expect(risks.mean())}
        with SampleGradients(self._observed.sites, self._observed.count, len(batch)) as samples:
            risks, _ = domain_risks(self.network, batch, self.pixel_loss)
        self._samples.append(samples)
        return {"risk": self._observed.expect(risks.mean())}

    def collect(self) -> None:
        """See `Criterion.collect`."""
        scale = self._observed.scale()
        if self._by_sample:
            self._squares.add((torch.cat([samples.rows for samples in self._samples]) / scale).square().sum(0))
            self._samples.clear()
        else:
            self._squares.add(self._observed.gradients(scale))

    def reset(self) -> None:
        """See `Criterion.reset`."""
        self._observed.forget()
        self._samples.clear()
        self._squares.reset()

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return self._squares.scores(self.units, (1.0,), self.skip)

    def halves(self) -> Halves | None:
        """See `Criterion.halves`."""
        return self._squares.halves(self.units, (1.0,), self.skip)
