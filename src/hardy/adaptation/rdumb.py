"""ETA that returns to the source network after every thousand batches.

    L = mean over kept samples of  exp(E0 - E) E        kept: E < E0 = margin log K and |cos(p, m)| < redundancy

The loss is that of `hardy.adaptation.eta`. After every ``every`` batches the weights, the momentum and the running mean
m return to their start values, so forgetting or a collapse cannot last longer than that.

Source: Press, Schneider, Kuemmerer and Bethge, "RDumb: a simple approach that questions our progress in continual
test-time adaptation", NeurIPS 2023, section 4, and its released code.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hardy.adaptation._norm_weights import learn_norms, momentum_descent
from hardy.adaptation._reliable import reliable_loss
from hardy.adaptation.base import TestTimeAdaptation
from hardy.errors import within
from hardy.networks.base import Network
from hardy.ops.weight_steps import copies, set_to

__all__ = ["RDumb"]


class RDumb(TestTimeAdaptation):
    """Predicts before the update.

    Args:
        network: a copy of it adapts.
        lr: the learning rate.
        margin: E0 as a share of the largest entropy, log K.
        redundancy: the largest absolute cosine with the running mean.
        every: the number of batches between two returns to the source.

    Raises:
        InputError: for a network without norm layers with 32-bit weights, an option below 0, or ``every`` below 1.
    """

    predicts: ClassVar[Literal["before", "after"]] = "before"
    mean: Tensor

    def __init__(
        self,
        network: Network,
        *,
        lr: float = 2.5e-4,
        margin: float = 0.4,
        redundancy: float = 0.05,
        every: int = 1000,
    ) -> None:
        for option, value in (("lr", lr), ("margin", margin), ("redundancy", redundancy)):
            within(f"RDumb.{option}", value, 0)
        within("RDumb.every", every, 1)
        super().__init__(network)
        self.margin, self.redundancy, self.every = margin, redundancy, every
        self._learned = learn_norms(self.network, "rdumb")
        self._optimiser = momentum_descent(self._learned, lr)
        self.source = copies(self._learned)
        self.register_buffer("mean", torch.zeros(len(network.label_space)))

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """See `TestTimeAdaptation.optimisers`."""
        return {"norms": self._optimiser}

    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`."""
        if int(self.step) % self.every == 0:
            set_to(self._learned, self.source)
            self._optimiser.state.clear()
            self.mean.zero_()
        logits: Tensor = self.network(images)
        loss = reliable_loss(logits, self.mean, self.margin, self.redundancy)
        if loss is not None:
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
        return logits
