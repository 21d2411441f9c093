"""Michel: the absolute derivative of the loss with respect to the mask of an attention head, averaged over batches.

The score of a gate is |dR/dz|, averaged over batches and divided by the Euclidean norm over its unit; R is the mean of
the domain risks. The method is designed for units of kind ``heads``, where a gate masks one head's input to the output
projection, but it works for any unit. Each batch gives one absolute value. So batches with one image per domain are
closest to the expectation over samples in the paper.

Source: Michel, Levy and Neubig, "Are sixteen heads really better than one?", NeurIPS 2019, section 4.1, with the
layer-wise l2 normalisation named there, after Molchanov et al., ICLR 2017.
"""

from collections.abc import Sequence

from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria._observed import Means, Observed, relative
from hardy.pruning.criteria.base import Criterion, Halves
from hardy.pruning.gates import by_unit
from hardy.pruning.risk import domain_risks
from hardy.types import Batch, Terms

__all__ = ["MichelHeads"]


class MichelHeads(Criterion):
    """``|dR/dz|`` of each gate, divided by the Euclidean norm over the unit.

    Args:
        network: the network to prune.
        units: its units.
        pixel_loss: the loss of one output head.
        normalise: divide each unit's scores by their Euclidean norm, so that layers can be ranked together.
    """

    def __init__(
        self, network: Network, units: Sequence[Unit], pixel_loss: PixelLoss, *, normalise: bool = True
    ) -> None:
        super().__init__(network, units, pixel_loss)
        self.normalise = normalise
        self._observed = Observed(network, units)
        self._means = Means()

    def observe(self, batch: Batch) -> Terms:
        """The mean of the domain risks of ``batch``."""
        risks, _ = domain_risks(self.network, batch, self.pixel_loss)
        return {"risk": self._observed.expect(risks.mean())}

    def collect(self) -> None:
        """See `Criterion.collect`."""
        self._means.add(self._observed.gradients(self._observed.scale()).abs())

    def reset(self) -> None:
        """See `Criterion.reset`."""
        self._observed.forget()
        self._means.reset()

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return self._scored(self._means.mean())

    def halves(self) -> Halves | None:
        """See `Criterion.halves`."""
        found = self._means.halves()
        return None if found is None else (self._scored(found[0]), self._scored(found[1]))

    def _scored(self, mean: Tensor) -> dict[str, Tensor]:
        scores = by_unit(mean[0], self.units)
        return relative(scores) if self.normalise else scores
