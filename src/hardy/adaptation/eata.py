"""ETA with a penalty on changes of weights that are important in the source domain; it needs images of that domain.

    L = mean over kept samples of  exp(E0 - E) E   +   penalty sum_i F_i (theta_i - theta0_i)^2

    kept:  E < E0 = margin log K   and   |cos(p, m)| < redundancy
    F_i = mean over source batches of (d CE(f(x), argmax f(x)) / d theta_i)^2       before the stream, at theta0

m is the running mean of the softmax p of the kept samples, ``m = 0.9 m + 0.1 new``. A sample is a pixel (Hardy's
extension of the classification method), or an image for image-level classes. Batch norms normalise by the batch, also
for F. Each batch gives one step of gradient descent with momentum on the weights and biases of all norm layers; if no
sample is kept, there is no step. The method is not source-free: without images of the source domain use ``eta``, which
is the same without the penalty.

Source: Niu, Wu, Zhang, Chen, Zheng, Zhao and Tan, "Efficient test-time model adaptation without forgetting",
ICML 2022, eq. 3 to 9, and its released code.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.adaptation._norm_weights import learn_norms, momentum_descent
from hardy.adaptation._reliable import reliable_loss
from hardy.adaptation.base import TestTimeAdaptation
from hardy.errors import InputError, within
from hardy.networks.base import Network
from hardy.ops.weight_steps import copies

__all__ = ["EATA"]


class EATA(TestTimeAdaptation):
    """Predicts before the update.

    Args:
        network: a copy of it adapts.
        source_images: batches (B, 3, H, W) of clean images of the source domain, RGB in [0, 1], without labels; about
            500 to 2000 images in the paper. Each batch gives one gradient. A single tensor is split into batches of one
            image.
        lr: the learning rate.
        margin: E0 as a share of the largest entropy, log K.
        redundancy: the largest absolute cosine with the running mean.
        penalty: the weight of the Fisher penalty.

    Raises:
        InputError: for a network without norm layers with 32-bit weights, no source images, or an option below 0.
    """

    predicts: ClassVar[Literal["before", "after"]] = "before"
    mean: Tensor

    def __init__(
        self,
        network: Network,
        source_images: Iterable[Tensor] | Tensor,
        *,
        lr: float = 2.5e-4,
        margin: float = 0.4,
        redundancy: float = 0.05,
        penalty: float = 2000.0,
    ) -> None:
        for option, value in (("lr", lr), ("margin", margin), ("redundancy", redundancy), ("penalty", penalty)):
            within(f"EATA.{option}", value, 0)
        super().__init__(network)
        self.margin, self.redundancy, self.penalty = margin, redundancy, penalty
        self._learned = learn_norms(self.network, "eata")
        self._optimiser = momentum_descent(self._learned, lr)
        self.source = copies(self._learned)
        batches = source_images.split(1) if isinstance(source_images, Tensor) else source_images
        self.fisher = copies(_fisher(self.network, self._learned, batches))
        self.register_buffer("mean", torch.zeros(len(network.label_space)))

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """See `TestTimeAdaptation.optimisers`."""
        return {"norms": self._optimiser}

    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`."""
        logits: Tensor = self.network(images)
        loss = reliable_loss(logits, self.mean, self.margin, self.redundancy)
        if loss is not None:
            for value, start, importance in zip(self._learned, self.source, self.fisher, strict=True):
                loss = loss + self.penalty * (importance * (value - start).square()).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
        return logits


@torch.enable_grad()
def _fisher(network: Network, learned: list[nn.Parameter], batches: Iterable[Tensor]) -> list[Tensor]:
    """The mean over ``batches`` of the squared gradient of the cross-entropy to the predicted class, per weight."""
    totals, count = [torch.zeros_like(value) for value in learned], 0
    for images in batches:
        logits = network(images.to(learned[0].device))
        loss = F.cross_entropy(logits, logits.detach().argmax(1))
        slopes = torch.autograd.grad(loss, learned, allow_unused=True)
        totals = [
            total if slope is None else total + slope.square() for total, slope in zip(totals, slopes, strict=True)
        ]
        count += 1
    if not count:
        raise InputError(
            "adapt: eata got no images of the source domain, which its Fisher penalty needs; give some, or use eta"
        )
    return [total / count for total in totals]
