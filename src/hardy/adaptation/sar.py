"""Sharpness-aware entropy minimisation on reliable samples, with a return to the source when it collapses.

    reliable:  E < E0 = margin log K                         E = -sum_k p_k log p_k
    climb:     theta' = theta + rho g / |g|                  g = gradient of the mean E of the reliable samples
    step:      from theta, with the gradient at theta' of the mean E of those that are still reliable

A sample is a pixel (Hardy's extension of the classification method), or an image for image-level classes. The running
mean of the second loss, ``m = 0.9 m + 0.1 new``, falls when all predictions become equal. If it is below ``floor``, the
weights and the momentum return to the source. As in the released code m itself is kept, so the weights return after
every batch until the loss is normal again. If even the source network is so confident of its reliable samples, SAR only
uses batch statistics.

Batch norms normalise by the batch. The weights and biases of norm layers are trained, except for the last quarter of
the encoder's norms. The authors leave out the last stage of a ResNet and the last blocks of a ViT.

Source: Niu, Wu, Zhang, Wen, Chen, Zhao and Tan, "Towards stable test-time adaptation in dynamic wild world",
ICLR 2023, section 4, and its released code.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hardy.adaptation._norm_weights import learn_norms, momentum_descent
from hardy.adaptation.base import TestTimeAdaptation
from hardy.errors import within
from hardy.networks.base import Network
from hardy.ops.entropy import entropy
from hardy.ops.weight_steps import climb, copies, set_to

__all__ = ["SAR"]


class SAR(TestTimeAdaptation):
    """Predicts before the update.

    Args:
        network: a copy of it adapts.
        lr: the learning rate.
        margin: E0 as a share of the largest entropy, log K.
        rho: the length of the ascent step.
        floor: the limit of the running mean of the second loss, in nats; with 0 it never returns to the source.
        leave: the share of the encoder's norms, counted from the last, that are not trained.

    Raises:
        InputError: for a network without norm layers with 32-bit weights, or an option out of range.
    """

    predicts: ClassVar[Literal["before", "after"]] = "before"
    mean: Tensor

    def __init__(
        self,
        network: Network,
        *,
        lr: float = 1e-3,
        margin: float = 0.4,
        rho: float = 0.05,
        floor: float = 0.2,
        leave: float = 0.25,
    ) -> None:
        for option, value in (("lr", lr), ("margin", margin), ("rho", rho), ("floor", floor)):
            within(f"SAR.{option}", value, 0)
        within("SAR.leave", leave, 0, 1)
        super().__init__(network)
        self.margin, self.rho, self.floor = margin, rho, floor
        self._learned = learn_norms(self.network, "sar", leave=leave)
        self._optimiser = momentum_descent(self._learned, lr)
        self.source = copies(self._learned)
        self.register_buffer("mean", torch.tensor(-1.0))  # negative means no value yet: an entropy is >= 0

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """See `TestTimeAdaptation.optimisers`."""
        return {"norms": self._optimiser}

    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`."""
        logits: Tensor = self.network(images)
        bound = self.margin * math.log(logits.shape[1])
        surprise = entropy(logits)
        reliable = surprise.detach() < bound
        if bool(reliable.any()):
            surprise[reliable].mean().backward()  # type: ignore[no-untyped-call]
            before = climb(self._learned, self.rho)
            self._optimiser.zero_grad()
            second = entropy(self.network(images))[reliable]
            again = second.detach() < bound
            if bool(again.any()):
                loss = second[again].mean()
                loss.backward()  # type: ignore[no-untyped-call]
                self._note(loss.detach())
            set_to(self._learned, before)
            if bool(again.any()):
                self._optimiser.step()
        if 0 <= self.mean < self.floor:
            set_to(self._learned, self.source)
            self._optimiser.state.clear()
        return logits

    def _note(self, loss: Tensor) -> None:
        """Move the running mean towards ``loss``, in place."""
        self.mean.copy_(loss if self.mean < 0 else torch.lerp(self.mean, loss.to(self.mean), 0.1))
