"""First-order Taylor on the weights: the squared first-order effect of each weight on the loss, summed per channel.

The score of a channel is the sum of (w dR/dw)^2 over all weights that produce it, in every convolution and linear layer
of its unit, averaged over batches. R is the mean of the domain risks. Biases and norm layers are not counted.

Source: Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance estimation for neural network pruning", CVPR 2019,
first order on weights, the squares of single weights added up: method 0 of the authors' code.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria._filters import banks_of, filter_sums
from hardy.pruning.criteria._observed import Means, Watch
from hardy.pruning.criteria.base import Criterion, Halves
from hardy.pruning.gates import by_unit
from hardy.pruning.risk import domain_risks
from hardy.types import Batch, Terms

__all__ = ["TaylorWeight"]


class TaylorWeight(Criterion):
    """``sum (w dR/dw) ** 2`` over the filters that produce each channel.

    Frozen weights get a gradient for the score only and stay frozen.

    Args:
        network: the network to prune.
        units: its units.
        pixel_loss: the loss of one output head.
    """

    def __init__(self, network: Network, units: Sequence[Unit], pixel_loss: PixelLoss) -> None:
        super().__init__(network, units, pixel_loss)
        self._banks = [banks_of(network, unit) for unit in units]
        self._watch = Watch()
        self._means = Means()
        self._thawed: list[Tensor] = []

    def observe(self, batch: Batch) -> Terms:
        """The mean of the domain risks of ``batch``."""
        for weight in (bank.weight for some in self._banks for bank in some):
            if not weight.requires_grad:
                self._thawed.append(weight.requires_grad_(True))
        risks, _ = domain_risks(self.network, batch, self.pixel_loss)
        return {"risk": self._watch.expect(risks.mean())}

    def collect(self) -> None:
        """See `Criterion.collect`."""
        scale = self._watch.scale()
        self._means.add(filter_sums(self._banks, lambda weight: _square(weight, scale)))
        self._freeze()

    def reset(self) -> None:
        """See `Criterion.reset`."""
        self._watch.forget()
        self._means.reset()
        self._freeze()

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return by_unit(self._means.mean()[0], self.units)

    def halves(self) -> Halves | None:
        """See `Criterion.halves`."""
        found = self._means.halves()
        return None if found is None else (by_unit(found[0][0], self.units), by_unit(found[1][0], self.units))

    def _freeze(self) -> None:
        for weight in self._thawed:
            weight.requires_grad_(False)
            weight.grad = None
        self._thawed.clear()


def _square(weight: Tensor, scale: Tensor) -> Tensor:
    """``(w dR/dw) ** 2`` from the gradient of the parameter; 0 without a gradient."""
    if weight.grad is None:
        return torch.zeros_like(weight)
    return (weight.detach().double() * weight.grad.double() / scale).square()
