"""Batch norms that normalise by a prototype of the domain: a running mean of its statistics, without gradients.

For a batch of domain d every norm first moves its prototype towards the statistics b of its input, and then uses it:

    P_d <- (1 - w) P_d + w b,    w = 1 / (prior + t) for the domain's t-th update up to 100, then the momentum

This takes one forward pass. After a domain's first 10 batches, only every n-th of its batches updates its prototype;
the other batches cost as much as the source network. The domain is the entered one (`TestTimeAdaptation.enter`). If
none was entered, or with ``domains="detected"``, it is detected, which runs the first third of the network a second
time. `table` returns the prototypes. A norm with one value per channel in a batch keeps its prototype.

Source: Reddy, Baktashmotlagh and Arora, "Towards domain-aware knowledge distillation for continual model
generalization", WACV 2024 (the prototypes; no learning here); Li, Wang, Shi, Liu and Hou, "Revisiting batch
normalization for practical domain adaptation", arXiv:1603.04779, 2016.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from hardy.adaptation._detection import Domains
from hardy.adaptation._prototypes import Prototypes
from hardy.adaptation.base import TestTimeAdaptation
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.batch_statistics import batch_norms, install, recording, use_given, use_mixed, use_source

__all__ = ["BNDomains"]

FIRST = 10
"""The number of first batches of a domain that all update its prototype; afterwards only every n-th does."""


class BNDomains(TestTimeAdaptation):
    """Batch norms with a table of prototypes by domain.

    Args:
        network: a copy of it adapts.
        domains: ``given``: the entered domain, detected only if none is entered; ``detected``: always detected.
        momentum: the weight in (0, 1] of each update after the first 100 of a domain.
        every: after a domain's first 10 batches, its prototype is updated once in this many batches; 1 or more.
        prior: the weight of the source's statistics, in batches, 0 or more; it stabilises a domain's first batches.
        most: the largest number of domains in memory, 1 to 4096; a further domain replaces the least recently used one.

    Raises:
        InputError: for a network without batch norms, or a number outside its range.
    """

    predicts: ClassVar[Literal["before", "after"]] = "after"
    batches: Tensor

    def __init__(
        self,
        network: Network,
        *,
        domains: Literal["given", "detected"] = "given",
        momentum: float = 0.01,
        every: int = 10,
        prior: float = 0.0,
        most: int = 16,
    ) -> None:
        super().__init__(network)
        if not (0 < momentum <= 1 and every >= 1 and 0 <= prior < float("inf") and 1 <= most <= 4096):
            raise InputError(
                f"bn_domains: momentum {momentum}, every {every}, prior {prior} or most {most} does not fit; give a "
                "momentum in (0, 1], every 1 or more, a prior of 0 or more, and 1 to 4096 domains"
            )
        self.every = every
        norms = batch_norms(install(self.network), "bn_domains")
        self._norms = list(norms.values())
        self.domains = Domains(norms, most, detected=domains == "detected")
        self.prototypes = Prototypes(norms, most, momentum, prior=prior)
        self.register_buffer("batches", torch.zeros(most, dtype=torch.int64))

    @torch.no_grad()
    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`."""
        place, new = self.prototypes.place(self.domains.of(self.domain, lambda: self._first(images)))
        self.batches[place] *= not new
        self.batches[place] += 1
        after = int(self.batches[place]) - FIRST
        if after > 0 and after % self.every:
            use_given(self._norms, self.prototypes.at(place))
            predicted: Tensor = self.network(images)
            return predicted
        use_mixed(self._norms, alpha=self.prototypes.weight(place), past=self.prototypes.at(place))
        with recording(self._norms) as statistics:
            logits: Tensor = self.network(images)
        self.prototypes.update(place, statistics)
        return logits

    def infer(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.infer`: by the prototype of the domain that was entered, or of the one detected last;
        by the source's statistics where it has none."""
        use_given(self._norms, self.prototypes.known(self.domains.last(self.domain)))
        return super().infer(images)

    def table(self) -> dict[str, dict[str, Tensor]]:
        """The mean and the biased variance (2, C) by batch norm name and then domain."""
        return self.prototypes.table()

    def confusion(self) -> dict[str, dict[str, int]]:
        """See `TestTimeAdaptation.confusion`; with ``domains="detected"``."""
        return self.domains.confusion()

    def _first(self, images: Tensor) -> list[Tensor]:
        """The statistics of the first third of the norms in the source network."""
        use_source(self._norms)
        with recording(self.domains.norms, end=True) as statistics:
            self.network(images)
        return statistics
