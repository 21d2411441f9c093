"""Entropy minimisation on reliable samples that differ from earlier ones; EATA without its Fisher penalty.

    L = mean over kept samples of  exp(E0 - E) E        E = -sum_k p_k log p_k

    kept:  E < E0 = margin log K   and   |cos(p, m)| < redundancy

m is the running mean of the softmax p of the kept samples, ``m = 0.9 m + 0.1 new``. No gradient flows through the
factor exp(E0 - E). A sample is a pixel (Hardy's extension of the classification method), or an image for image-level
classes. Batch norms normalise by the batch. Each batch gives one step of gradient descent with momentum on the weights
and biases of all norm layers; if no sample is kept, there is no step.

Source: Niu, Wu, Zhang, Chen, Zheng, Zhao and Tan, "Efficient test-time model adaptation without forgetting",
ICML 2022, eq. 3 to 6, and its released code.
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

__all__ = ["ETA"]


class ETA(TestTimeAdaptation):
    """Predicts before the update.

    Args:
        network: a copy of it adapts.
        lr: the learning rate.
        margin: E0 as a share of the largest entropy, log K.
        redundancy: the largest absolute cosine with the running mean.

    Raises:
        InputError: for a network without norm layers with 32-bit weights, or an option below 0.
    """

    predicts: ClassVar[Literal["before", "after"]] = "before"
    mean: Tensor

    def __init__(self, network: Network, *, lr: float = 2.5e-4, margin: float = 0.4, redundancy: float = 0.05) -> None:
        for option, value in (("lr", lr), ("margin", margin), ("redundancy", redundancy)):
            within(f"ETA.{option}", value, 0)
        super().__init__(network)
        self.margin, self.redundancy = margin, redundancy
        self._optimiser = momentum_descent(learn_norms(self.network, "eta"), lr)
        self.register_buffer("mean", torch.zeros(len(network.label_space)))

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """See `TestTimeAdaptation.optimisers`."""
        return {"norms": self._optimiser}

    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`."""
        logits: Tensor = self.network(images)
        loss = reliable_loss(logits, self.mean, self.margin, self.redundancy)
        if loss is not None:
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
        return logits
