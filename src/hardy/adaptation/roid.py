"""Weighted likelihood ratios, consistency with an augmented view, averaging with the source weights, corrected prior.

    L = 1/N sum_i w_i [ R(p_i) + SCE(q_i, p_i) ]                  p = softmax, q = softmax of an augmented view

    R(p)      = -sum_k c_k log(c_k / (1 - c_k) + 1e-5)            c = p, at most 0.99
    SCE(q, p) = -1/2 sum_k p_k log q_k  -  1/2 sum_k q_k log p_k
    w         = exp(3 d s), and 0 where d is under its mean       d = 1 - cos(p, m), s = -entropy(p), each scaled to
                                                                  [0, 1] by its least and largest value in the batch

m is the running mean of p, ``m = 0.9 m + 0.1 mean(p)``, and starts at 1/K. A sample is one of N pixels (Hardy's
extension of the classification method), or an image for image-level classes. If all values are equal, as for one image,
the scaled value is 1. After the step, ``theta = 0.99 theta + 0.01 theta0``. The prediction is p from before the step,
times the smoothed prior of the batch

    (b_k + e) / (1 + e K)       b = mean of p,  e = max(1/N, 1/K) / max_k b_k

(the released code multiplies the logits by it instead). Batch norms normalise by the batch. Each batch gives one step
of gradient descent with momentum on the weights and biases of all norm layers. For masks, the augmented view has other
colours, blur and noise, and is mirrored with probability 1/2, which is undone on its logits. For image-level classes,
it is also rotated, scaled and shifted.

Source: Marsden, Doebler and Yang, "Universal test-time adaptation through weight ensembling, diversity weighting, and
prior correction", WACV 2024, section 4, and its released code.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.adaptation._norm_weights import learn_norms, momentum_descent
from hardy.adaptation.base import TestTimeAdaptation
from hardy.errors import within
from hardy.networks.base import Network
from hardy.ops.entropy import entropy, flat
from hardy.ops.views import classification_view, draw_views, jittered
from hardy.ops.weight_steps import approach, copies

__all__ = ["ROID"]


class ROID(TestTimeAdaptation):
    """Predicts before the update.

    Args:
        network: a copy of it adapts.
        lr: the learning rate.
        temperature: of the weights w; 1/3 gives the factor 3.
        clip: the largest probability in the likelihood ratio.
        consistency: use the augmented view; without it a batch costs half.
        pull: the share of the source weights in the average after each step.
        prior: correct the prior of the prediction. The correction favours frequent classes, so the mean IoU, which
            weights all classes equally, can fall.

    Raises:
        InputError: for a network without norm layers with 32-bit weights, or an option out of range.
    """

    predicts: ClassVar[Literal["before", "after"]] = "before"
    mean: Tensor

    def __init__(
        self,
        network: Network,
        *,
        lr: float = 2.5e-4,
        temperature: float = 0.3333333333333333,
        clip: float = 0.99,
        consistency: bool = True,
        pull: float = 0.01,
        prior: bool = True,
    ) -> None:
        within("ROID.lr", lr, 0)
        within("ROID.temperature", temperature, 1e-6)
        within("ROID.clip", clip, 0, 0.999999)
        within("ROID.pull", pull, 0, 1)
        super().__init__(network)
        self.temperature, self.clip, self.pull = temperature, clip, pull
        self.consistency, self.prior = consistency, prior
        self._learned = learn_norms(self.network, "roid")
        self._optimiser = momentum_descent(self._learned, lr)
        self.source = copies(self._learned)
        self.register_buffer("mean", torch.full((len(network.label_space),), 1 / len(network.label_space)))

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """See `TestTimeAdaptation.optimisers`."""
        return {"norms": self._optimiser}

    def infer(self, images: Tensor) -> Tensor:
        """The logits (B, K, H, W), or (B, K), of ``images`` with the current state; changes nothing."""
        return self._corrected(self.network(images))

    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`."""
        logits: Tensor = self.network(images)
        samples = flat(logits)
        weights = self._weights(samples.detach())
        loss = (weights * _likelihood_ratio(samples, self.clip)).mean()
        if self.consistency:
            loss = loss + (weights * _symmetric(flat(self._augmented(images)), samples)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        approach(self._learned, self.source, self.pull)
        return self._corrected(logits.detach())

    def _weights(self, samples: Tensor) -> Tensor:
        """w (N,) of the logits ``samples`` (N, K); updates the running mean in place."""
        probabilities = samples.softmax(1)
        diverse = _scaled(1 - F.cosine_similarity(probabilities, self.mean.to(probabilities)[None], dim=1))
        certain = _scaled(-entropy(samples))
        self.mean.lerp_(probabilities.mean(0).to(self.mean), 0.1)
        weights = (diverse * certain / self.temperature).exp()
        return weights.masked_fill(diverse < diverse.mean(), 0)

    def _augmented(self, images: Tensor) -> Tensor:
        """The logits of an augmented view of ``images``, in the geometry of the images."""
        if self.network.image_level:
            seen: Tensor = self.network(classification_view(images))
            return seen
        (view,) = draw_views(1, scales=(1.0,))
        return view.undo(self.network(view.of(jittered(images))), images.shape[-2:])

    def _corrected(self, logits: Tensor) -> Tensor:
        """The logarithm of p times the smoothed prior of the batch, up to a constant for each sample."""
        if not self.prior:
            return logits
        probabilities = flat(logits).softmax(1)
        batch, (count, classes) = probabilities.mean(0), probabilities.shape
        smooth = max(1 / count, 1 / classes) / batch.max()
        prior = (batch + smooth) / (1 + smooth * classes)
        return logits + prior.log().to(logits.dtype).view(1, -1, *(1,) * (logits.ndim - 2))


def _likelihood_ratio(samples: Tensor, clip: float) -> Tensor:
    """R (N,) of the logits ``samples`` (N, K)."""
    clipped = samples.softmax(1).clamp(max=clip)
    return -(clipped * (clipped / (1 - clipped) + 1e-5).log()).sum(1)


def _symmetric(other: Tensor, samples: Tensor) -> Tensor:
    """SCE (N,) of logits (N, K)."""
    forth = (samples.softmax(1) * other.log_softmax(1)).sum(1)
    back = (other.softmax(1) * samples.log_softmax(1)).sum(1)
    return -(forth + back) / 2


def _scaled(values: Tensor) -> Tensor:
    """``values`` (N,) scaled to [0, 1]; all 1 if they are equal."""
    least, most = values.aminmax()
    return (values - least) / (most - least) if bool(most > least) else torch.ones_like(values)
