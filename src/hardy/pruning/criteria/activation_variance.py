"""Activation variance: removes the channels whose activations vary most when only the style of the images changes.

Each image is used S times, unchanged and in other colours. The sensitivity u of a channel is the mean over contents and
pixels of the variance over the S styles, as a fraction of the total variance of the channel: 0 for a channel that
depends on content only, 1 for one that depends on style only. The score is 1 - u, averaged over batches. A scale and a
shift do not change u, so u is that of the normalised activation at the gate and does not depend on gamma. For a unit
with several gate sites their u are averaged. A constant channel has the score 1.

Source: the unary sensitivity of Luo, Liu and Yang, "Domain generalization for semantic segmentation by pruning", IJCV
2024, doi 10.1007/s11263-024-02194-5, without its training; the normalisation is Hardy's interpretation.
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
from hardy.pruning.criteria.base import Criterion, Halves
from hardy.pruning.gates import by_unit
from hardy.pruning.risk import domain_risks
from hardy.seed import key, seeded
from hardy.types import Batch, Terms

__all__ = ["ActivationVariance"]


class ActivationVariance(Criterion):
    """``1 - u``, where u is the fraction of a channel's variance that is due to style.

    The styles are read in a separate forward pass in evaluation mode. Only the batch norms keep their mode: in training
    they use the statistics of all S styles. The loss is that of the unchanged batch; its gradients are not read.

    Args:
        network: the network to prune.
        units: its units.
        pixel_loss: the loss of one output head.
        copies: S - 1, the number of restyled copies of each image.
        strength: how strongly their colours change; see `hardy.ops.photometric`.
        seed: the seed of colours and positions; None draws it from torch's CPU generator, which a run seeds.

    Attributes:
        style: returns a restyled copy of images (B, 3, H, W) in [0, 1]; draws from torch's CPU generator.

    Raises:
        InputError: for ``copies`` below 1 or a negative ``strength``.
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
        """The mean of the domain risks of ``batch``; first reads the activations of its styles."""
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

    def halves(self) -> Halves | None:
        """See `Criterion.halves`."""
        found = self._means.halves()
        return None if found is None else (by_unit(found[0][0], self.units), by_unit(found[1][0], self.units))

    def _sensitivities(self, images: Tensor) -> Tensor:
        """u (G,) float64 of images (S B, 3, H, W), ordered by style."""
        with predicting(self.network, batch_statistics=True), self._activations:
            self.network(images)
        found = [
            torch.stack([style_fraction(each.values, self.copies + 1) for each in self._activations.of(unit)]).mean(0)
            for unit in self.units
        ]
        self._activations.forget()
        return torch.cat(found).double()


def style_fraction(values: Tensor, styles: int) -> Tensor:
    """(n,) in [0, 1]: the variance over styles as a fraction of the total variance of ``values`` (S B, n, L)."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    total = values.var((0, 2), correction=0)
    style = values.unflatten(0, (styles, -1)).var(0, correction=0).mean((0, 2))
    return torch.where(total > 0, style / total, 0).clamp(0, 1)
