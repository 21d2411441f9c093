"""DSS: removes the channels whose mean activation maps differ most between domains.

The output maps of every convolution and linear layer are averaged over all images of a domain. The score of a channel
is the cosine similarity of the mean maps of two domains, averaged over the layers of its unit. The author compares the
sources with unlabelled images of the test domain. Here only source domains are used, and the score is the mean over all
pairs of them. 1 is added, so that scores are not negative; this does not change the order. The similarity with a zero
map is 0.

Source: Sun, "Pruning for better domain generalizability", ICML 2023 workshop on spurious correlations, invariance and
stability, arXiv:2306.13237; the formula and the layers are those of the author's code, which prunes the same share
of each layer (scope ``layer``).
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria._filters import banks_of
from hardy.pruning.criteria._predicting import predicting
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.risk import domain_risks
from hardy.pruning.samples import by_channel
from hardy.types import Batch, Terms

__all__ = ["DSS"]

_Sums = dict[tuple[int, int], Tensor]
"""The sum of the maps, (C, L), by (index of the bank, domain)."""


class DSS(Criterion):
    """``1 + cos(mean map of one domain, mean map of another)``, averaged over pairs of domains.

    The maps are read in a separate forward pass in evaluation mode. The loss is that of the batch; its gradients are
    not read. All images must have the same size.

    Args:
        network: the network to prune.
        units: its units.
        pixel_loss: the loss of one output head.
    """

    needs_domains = 2

    def __init__(self, network: Network, units: Sequence[Unit], pixel_loss: PixelLoss) -> None:
        super().__init__(network, units, pixel_loss)
        self._banks = [(unit, bank) for unit in units for bank in banks_of(network, unit)]
        self._sums: _Sums = {}
        self._seen: _Sums = {}

    def observe(self, batch: Batch) -> Terms:
        """The mean of the domain risks of ``batch``; first reads its maps.

        Raises:
            InputError: for a layer whose output has no fixed number of rows for each image.
        """
        handles = [
            bank.module.register_forward_hook(partial(self._look, number, batch.domains))
            for number, (_, bank) in enumerate(self._banks)
        ]
        try:
            with predicting(self.network):
                self.network(batch.images)
        finally:
            for handle in handles:
                handle.remove()
        risks, _ = domain_risks(self.network, batch, self.pixel_loss)
        return {"risk": risks.mean()}

    def collect(self) -> None:
        """See `Criterion.collect`.

        Raises:
            InputError: for images of another size than before.
        """
        for place, total in self._seen.items():
            known = self._sums.get(place)
            if known is not None and known.shape != total.shape:
                raise InputError("dss averages maps over images, which must all have the same size; set data.crop")
            self._sums[place] = total if known is None else known + total
        self._seen = {}

    def reset(self) -> None:
        """See `Criterion.reset`."""
        self._sums = {}
        self._seen = {}

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`.

        Raises:
            InputError: if maps of fewer than two domains were collected.
        """
        if len(domains := sorted({domain for _, domain in self._sums})) < self.needs_domains:
            raise InputError(f"dss compares domains and collected maps of {len(domains)}; it needs two or more")
        found: dict[str, list[Tensor]] = {unit.name: [] for unit in self.units}
        for number, (unit, bank) in enumerate(self._banks):
            maps = torch.stack([self._sums[number, domain] for domain in domains])
            similar = similarity(maps.double()).cpu()
            found[unit.name].append(similar[bank.channels].mean(1))
        return {name: 1 + torch.stack(values).mean(0) for name, values in found.items()}

    def _look(self, number: int, domains: Tensor, module: nn.Module, _: object, values: Tensor) -> None:
        """Add the output maps (B, C, ...) of a bank's module to the sums of their domains."""
        maps = by_channel(module, values)
        if len(maps) % len(domains):
            raise InputError(
                f"dss: a {type(module).__name__} outputs {len(maps)} rows for {len(domains)} images: its maps cannot "
                "be separated by domain; leave such units out with prune.kinds"
            )
        maps = maps.unflatten(0, (len(domains), -1)).transpose(1, 2).flatten(2)  # concatenate the windows of an image
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        for domain in domains.unique().tolist():
            total = maps[domains == domain].sum(0)
            known = self._seen.get((number, domain))
            self._seen[number, domain] = total if known is None else known + total


def similarity(maps: Tensor) -> Tensor:
    """(C,) in [-1, 1]: the mean over pairs of domains of the cosine between their ``maps`` (D, C, L)."""
    count = len(maps)
    units = nn.functional.normalize(maps, dim=2)
    pairs = units.sum(0).square().sum(1) - units.square().sum((0, 2))  # every pair twice
    return (pairs / (count * (count - 1))).clamp(-1, 1)
