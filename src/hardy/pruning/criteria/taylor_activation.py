"""First-order Taylor of 2017: |mean over pixels of activation times gradient|, summed over the images of a batch.

For image n and the activation a of a channel it is |mean over pixels of dR/da times a|, where R is the mean of the
domain risks. If a unit has several gate sites, their means are added before the absolute value, because they are
removed together. The sum over the images of a batch is averaged over batches and divided by the Euclidean norm over the
unit. The product is taken at the gate sites, after the last norm layer; a ReLU after it does not change the product.

Source: Molchanov, Tyree, Karras, Aila and Kautz, "Pruning convolutional neural networks for resource efficient
inference", ICLR 2017, the Taylor expansion criterion with layer-wise l2 normalisation. (Method 6 of the code of
Molchanov et al., CVPR 2019, takes absolute values pixel by pixel instead.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria._observed import Means, Observed, relative
from hardy.pruning.criteria.base import Criterion, Halves
from hardy.pruning.gates import by_unit
from hardy.pruning.risk import domain_risks
from hardy.pruning.samples import SampleGradients
from hardy.types import Batch, Terms

__all__ = ["TaylorActivation"]


class TaylorActivation(Criterion):
    """``sum_n |mean_hw (dR/da_n a_n)|``, divided by the Euclidean norm over the unit.

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
        self._samples: list[SampleGradients] = []

    def observe(self, batch: Batch) -> Terms:
        """The mean of the domain risks of ``batch``."""
        with SampleGradients(self._observed.sites, self._observed.count, len(batch), mean=True) as samples:
            risks, _ = domain_risks(self.network, batch, self.pixel_loss)
        self._samples.append(samples)
        return {"risk": self._observed.expect(risks.mean())}

    def collect(self) -> None:
        """See `Criterion.collect`."""
        products = torch.cat([samples.rows for samples in self._samples]) / self._observed.scale()
        self._samples.clear()
        self._means.add(products.abs().sum(0))

    def reset(self) -> None:
        """See `Criterion.reset`."""
        self._observed.forget()
        self._samples.clear()
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
