"""L2: removes the channels whose filters have the smallest Euclidean norm. It needs no data.

A channel's score is the norm of all weights that produce it, over every convolution and linear layer of its unit,
divided by the mean of the unit at construction, so that layers of different scale can be ranked together.

Source: He, Kang, Dong, Fu and Yang, "Soft filter pruning for accelerating deep convolutional neural networks", IJCAI
2018, section 3, which ranks the filters of one layer; Hardy ranks all layers together, relative to the mean of each.
"""

from collections.abc import Sequence

from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria._filters import FilterNorms
from hardy.pruning.criteria.base import Criterion

__all__ = ["L2"]


class L2(Criterion):
    """``sqrt(sum w ** 2)`` over the filters that produce each channel.

    Args:
        network: the network to prune.
        units: its units.
        pixel_loss: the loss of one output head; not used.
        normalise: divide by the mean of the unit at construction.
    """

    needs_data = False

    def __init__(
        self, network: Network, units: Sequence[Unit], pixel_loss: PixelLoss, *, normalise: bool = True
    ) -> None:
        super().__init__(network, units, pixel_loss)
        self._filter_norms = FilterNorms(network, units, 2, normalise)

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return self._filter_norms.scores()
