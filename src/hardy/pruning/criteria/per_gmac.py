"""Per GMAC: the scores of another criterion, divided by the multiply-accumulates that each channel costs.

A ranking over all layers by importance alone takes many cheap channels before a GMAC goal is met. Here a channel is
removed early when little importance is lost for each GMAC saved. With v the score of a channel by the criterion ``of``,
and c the GMACs saved when one channel of its unit is removed from the network that is pruned, the score is v / c. The
costs are scaled so that the mean of 1 / c over all channels is 1. A channel whose removal alone saves nothing has the
smallest c of all units that save something. Within a unit the order is that of ``of``.

Source: ours. Removing the least v / c first is the greedy rule for the knapsack problem of Dantzig, "Discrete-variable
extremum problems", Operations Research 1957; knapsacks choose channels in Shen, Yin, Molchanov, Mao, Liu and Alvarez,
"Structural pruning via latency-saliency knapsack", NeurIPS 2022. The counts are those of `hardy.pruning.shapes`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from hardy.errors import InputError, check_size, quoted
from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria.base import Criterion, Halves
from hardy.pruning.shapes import Layers, dense_widths
from hardy.registry import CRITERIA
from hardy.sections import Kind
from hardy.types import Batch, Terms

__all__ = ["PerGmac"]


class PerGmac(Criterion):
    """Importance for each GMAC saved.

    Args:
        network: what is pruned.
        units: its units.
        pixel_loss: the loss of one head.
        of: the criterion that scores the channels, with its options: ``{name: {option: value}}``.
        size: (height, width) of the images at which GMACs are counted; None takes it from the observed batches.

    Raises:
        InputError: when ``of`` is not exactly one criterion or has a penalty, ``size`` is not (height, width), or
            ``size`` is None and ``of`` reads weights only.
    """

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        pixel_loss: PixelLoss,
        *,
        of: Annotated[Mapping[str, Mapping[str, Any]], Kind("criterion")] = {"taylor": {}},
        size: Sequence[int] | None = None,
    ) -> None:
        if len(of) != 1:
            raise InputError(f"PerGmac.of: {quoted(dict(of))} must be one criterion, such as {{taylor: {{}}}}")
        (name, options), *_ = of.items()
        supply = {"network": network, "units": units, "pixel_loss": pixel_loss}
        self._of: Criterion = CRITERIA.build(name, supply, **options)
        if self._of.sparse:
            raise InputError(
                f"PerGmac.of: the scores of {name} are scales that training shrinks below a threshold, which has no "
                "meaning for scales divided by GMACs: use a criterion without a penalty, such as {taylor: {}}"
            )
        super().__init__(network, self._of.units, pixel_loss)
        if size is not None:
            check_size("PerGmac.size", size, 1)
        elif not self._of.needs_data:
            raise InputError(f"PerGmac.size: {name} sees no images; give size: [height, width] of the images")
        self.needs_data, self.needs_domains = self._of.needs_data, self._of.needs_domains
        self._size, self._cost = size, dict[str, float]()

    def observe(self, batch: Batch) -> Terms:
        """See `Criterion.observe`."""
        self._size = self._size or batch.images.shape[-2:]
        return self._of.observe(batch)

    def collect(self) -> None:
        """See `Criterion.collect`."""
        self._of.collect()

    def reset(self) -> None:
        """See `Criterion.reset`."""
        self._of.reset()

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return self._per_gmac(self._of.scores())

    def halves(self) -> Halves | None:
        """See `Criterion.halves`."""
        halves = self._of.halves()
        return None if halves is None else (self._per_gmac(halves[0]), self._per_gmac(halves[1]))

    def rivals(self) -> Mapping[str, dict[str, Tensor]]:
        """Those of ``of``, divided by the same costs."""
        return {name: self._per_gmac(scores) for name, scores in self._of.rivals().items()}

    def readings(self) -> dict[str, float]:
        """See `Criterion.readings`."""
        return self._of.readings()

    def _per_gmac(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._cost = self._cost or self._counted()
        return {name: value / self._cost[name] for name, value in scores.items()}

    def _counted(self) -> dict[str, float]:
        """The GMACs that one channel of each unit costs, scaled; counted once, in the network as it is given."""
        layers, dense = Layers(self.network, self.units, self._size or ()), dense_widths(self.units)
        complete = layers.gmacs(dense)
        saved = {name: complete - layers.gmacs({**dense, name: width - 1}) for name, width in dense.items()}
        least = min((value for value in saved.values() if value > 0), default=1.0)
        cost = {name: value if value > 0 else least for name, value in saved.items()}
        each = torch.tensor([cost[unit.name] for unit in self.units for _ in range(unit.size)], dtype=torch.float64)
        return {name: value * float((1 / each).mean()) for name, value in cost.items()}
