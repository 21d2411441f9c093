"""Entropy minimisation: trains the scales and shifts of norms to lower the entropy of the predictions.

    L = mean over pixels of  -sum_k p_k log p_k          p = softmax of the logits

Batch norms normalise by the batch. Each batch gives one Adam step on the weights and biases of all norm layers. The
loss is the entropy; some code calls the cross-entropy to the predicted class TENT, but that is another loss.

Source: Wang, Shelhamer, Liu, Olshausen and Darrell, "Tent: fully test-time adaptation by entropy minimization",
ICLR 2021, section 3, and its released code.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hardy.adaptation._norm_weights import learn_norms
from hardy.adaptation.base import TestTimeAdaptation
from hardy.errors import within
from hardy.networks.base import Network
from hardy.ops.entropy import entropy

__all__ = ["Tent"]


class Tent(TestTimeAdaptation):
    """Predicts before the update.

    Args:
        network: a copy of it adapts.
        lr: the learning rate of Adam; with 0 only the statistics of batch norms adapt.

    Raises:
        InputError: for a network without norm layers with 32-bit weights, or an ``lr`` below 0.
    """

    predicts: ClassVar[Literal["before", "after"]] = "before"

    def __init__(self, network: Network, *, lr: float = 1e-3) -> None:
        within("Tent.lr", lr, 0)
        super().__init__(network)
        self._optimiser = torch.optim.Adam(learn_norms(self.network, "tent"), lr=lr)

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """See `TestTimeAdaptation.optimisers`."""
        return {"norms": self._optimiser}

    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`."""
        logits: Tensor = self.network(images)
        entropy(logits).mean().backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return logits
