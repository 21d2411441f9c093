"""Batch norms that normalise by a prototype of the domain: a running mean of its statistics, without any gradient.

For a batch of domain d every norm first moves its prototype to the statistics b of its input, and then uses it:

    P_d <- (1 - w) P_d + w b,    w = 1 / (prior + t) for the domain's move t up to 100, then the momentum

That is one forward pass. After a domain's first 10 batches only every n-th of its batches moves its prototype, and the
others cost what the source network costs. The domain is the one that was entered (`TestTimeAdaptation.enter`); where
none was, or with ``domains="detected"``, it is detected, which needs the first third of the network once more. `table`
gives the prototypes away. A norm with one value per channel in a batch uses its source statistics.

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
"""How many batches of a domain move its prototype, one after the other, before only every n-th does."""


class BNDomains(TestTimeAdaptation):
    """A table of prototypes by domain.

    Args:
        network: a copy of it adapts.
        domains: ``given``: as entered, detected only where none is; ``detected``: always detected.
        momentum: the weight in (0, 1] of each move after the first 100 of a domain.
        every: after a domain's first 10 moves, every how many batches its prototype moves; 1 or more.
        prior: how many batches the source's statistics count for, 0 or more: they steady a domain's first images.
        most: the number of domains that are remembered, 1 or more; for one more, the one that was used longest ago is
            forgotten.

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
        """For each batch norm's name, and in it for each domain, mean and biased variance (2, C)."""
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
