"""Activation variance: channels go first whose activations vary most when only the style of the images changes.

Each image is shown S times, as it is and in other colours. The sensitivity u of a channel is the mean over contents
and pixels of the variance over the S styles, as a fraction of the channel's whole variance: 0 for a channel that sees
content only, 1 for one that sees style only. The score is 1 - u, averaged over batches. A fraction is the same before
and behind a scale and shift, so it is that of the normalised activation where the gate sits, and does not fall with
gamma. A unit in several places has the mean of their u. A channel that never varies holds no style and scores 1.

Source: the unary sensitivity of Luo, Liu and Yang, "Domain generalization for semantic segmentation by pruning", IJCV
2024, doi 10.1007/s11263-024-02194-5, without its training; what it normalises by is Hardy's reading.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from hardy.errors import within
from hardy.networks.base import Network, PixelLoss
from hardy.ops.photometric import photometric
from hardy.pruning.activations import Activations
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria._observed import Means
from hardy.pruning.criteria._predicting import predicting
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.gates import by_unit
from hardy.pruning.risk import domain_risks
from hardy.seed import key, seeded
from hardy.types import Batch, Terms

__all__ = ["ActivationVariance"]


class ActivationVariance(Criterion):
    """``1 - u``, u the fraction of a channel's variance that is due to style.

    The styles are looked at in a forward pass of their own, in evaluation mode except for the batch norms, which use
    the statistics of all S styles when the network is trained; the loss is that of the batch as it is, and no gradient
    of it is read.

    Args:
        network: what is pruned.
        units: its units.
        pixel_loss: the loss of one head.
        copies: S - 1, how many restyled copies of each image are looked at.
        strength: how far their colours are from the image's; see `hardy.ops.photometric`.
        seed: another seed draws other colours and positions; None follows the run's.

    Attributes:
        style: makes a restyled copy of images (B, 3, H, W) in [0, 1], drawing from torch's CPU generator.
    """

    style: Callable[[Tensor], Tensor]

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        pixel_loss: PixelLoss,
        *,
        copies: int = 2,
        strength: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(network, units, pixel_loss)
        within("ActivationVariance.copies", copies, 1)
        within("ActivationVariance.strength", strength, 0)
        self.copies = copies
        self.seed = int(torch.randint(2**31, ())) if seed is None else seed
        self.style = partial(photometric, strength=strength)
        self._activations = Activations(network, units)
        self._means = Means()
        self._seen: list[Tensor] = []
        self._looks = 0

    def observe(self, batch: Batch) -> Terms:
        """The mean of the domain risks of ``batch``, after a look at its styles."""
        with seeded(key(self.seed, "style"), self._looks):
            images = torch.cat([batch.images, *(self.style(batch.images) for _ in range(self.copies))])
            self._seen.append(self._sensitivities(images))
        self._looks += 1
        risks, _ = domain_risks(self.network, batch, self.pixel_loss)
        return {"risk": risks.mean()}

    def collect(self) -> None:
        """See `Criterion.collect`."""
        self._means.add(1 - torch.stack(self._seen).mean(0))
        self._seen.clear()

    def reset(self) -> None:
        """See `Criterion.reset`."""
        self._means.reset()
        self._seen.clear()
        self._looks = 0

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return by_unit(self._means.mean()[0], self.units)

    def _sensitivities(self, images: Tensor) -> Tensor:
        """u (G,) float64 of images (S B, 3, H, W), style by style."""
        with predicting(self.network, batch_statistics=True), self._activations:
            self.network(images)
        found = [
            torch.stack([style_fraction(each.values, self.copies + 1) for each in self._activations.of(unit)]).mean(0)
            for unit in self.units
        ]
        self._activations.forget()
        return torch.cat(found).double()


def style_fraction(values: Tensor, styles: int) -> Tensor:
    """(n,) in [0, 1]: the variance over styles as a fraction of the whole variance of ``values`` (S B, n, L)."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    total = values.var((0, 2), correction=0)
    style = values.unflatten(0, (styles, -1)).var(0, correction=0).mean((0, 2))
    return torch.where(total > 0, style / total, 0).clamp(0, 1)
