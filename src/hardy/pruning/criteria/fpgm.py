"""FPGM: removes channels near the geometric median of their layer, which others can replace. It needs no data.

The vector of a channel is the concatenation of all filters that produce it, over every convolution and linear layer of
its unit. The score is the sum of the Euclidean distances to the vectors of the other channels. Zero channels, such as
masked ones, are not counted, so a masked network has the same scores as the pruned one.

Source: He, Liu, Wang, Hu and Yang, "Filter pruning via geometric median for deep convolutional neural networks
acceleration", CVPR 2019, section 3; the norm cut is that of the authors' code (1 minus its ``rate_norm``). Hardy
ranks all layers together, relative to the mean of each; the paper prunes the same share of each (scope ``layer``).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hardy.errors import InputError
from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria._filters import banks_of, rows
from hardy.pruning.criteria.base import Criterion

__all__ = ["FPGM"]


class FPGM(Criterion):
    """``sum_j ||w_i - w_j||`` over the other channels j of the unit.

    Args:
        network: the network to prune.
        units: its units.
        pixel_loss: the loss of one output head; not used.
        normalise: take the mean distance instead of the sum, and divide it by the mean of the unit at construction.
        norm_cut: the share of each unit, rounded down, that is removed first, by filter norm. The score of these
            channels is their filter norm divided by the largest one of the unit. The score of the others is 1 plus
            their distance to each other.

    Raises:
        InputError: for a ``norm_cut`` outside [0, 1).
    """

    needs_data = False

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        pixel_loss: PixelLoss,
        *,
        normalise: bool = True,
        norm_cut: float = 0.0,
    ) -> None:
        super().__init__(network, units, pixel_loss)
        if not 0 <= norm_cut < 1:
            raise InputError(f"FPGM.norm_cut: {norm_cut} must be in [0, 1): it is the share of filters cut by norm")
        self.normalise = normalise
        self.norm_cut = norm_cut
        self._banks = {unit.name: banks_of(network, unit) for unit in units}
        self._means = {unit.name: float(self._distances(self._vectors(unit)).mean()) for unit in units}

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return {unit.name: self._score(unit).cpu() for unit in self.units}

    def _score(self, unit: Unit) -> Tensor:
        vectors = self._vectors(unit)
        scale = (self._means[unit.name] or 1.0) if self.normalise else 1.0
        cut = int(unit.size * self.norm_cut)
        if not cut:
            return self._distances(vectors) / scale
        filter_norms: Tensor = torch.linalg.vector_norm(vectors, dim=1)
        order = filter_norms.argsort(stable=True)
        scores = filter_norms / filter_norms.max().clamp(min=torch.finfo(filter_norms.dtype).tiny)
        scores[order[cut:]] = 1 + self._distances(vectors[order[cut:]]) / scale
        return scores

    def _vectors(self, unit: Unit) -> Tensor:
        """(n, F) float64, all filters of each channel."""
        return torch.cat([rows(bank, bank.weight) for bank in self._banks[unit.name]], 1)

    def _distances(self, vectors: Tensor) -> Tensor:
        """(n,) sum, or with ``normalise`` mean, of each row's distances to the others that are not zero."""
        others = vectors.abs().sum(1) > 0
        distances: Tensor = torch.cdist(vectors, vectors[others]).sum(1)
        counts = (others.sum() - others.long()).clamp(min=1) if self.normalise else torch.ones_like(distances)
        return distances / counts
