"""A teacher averages the student's weights and many views; each step restores some weights to the source.

For masks, f is the student, t the teacher and f0 the source network. For each batch:

    e       = mean over 14 views of softmax t         sizes 0.5, 0.75, ... 2, each also mirrored; undone on the logits
    p       = softmax t(x) where max f0(x) > 0.69, else e         pixel by pixel: the prediction
    step    : Adam on the cross-entropy of f(x) to argmax p, over all weights
    average : t = 0.999 t + 0.001 f
    restore : each weight of f returns to f0 with probability 0.01

For image-level classes, the prediction is t(x) if the mean over the batch of max f0 is 0.9 or more, else the mean of t
over 32 photometric and geometric views of the batch. The step is on the cross-entropy of f(x) to the softmax of the
prediction. As in the released code, norms are in evaluation mode for masks, and normalise by the batch for image-level
classes.

With ``views: light`` there are two views, the image and its mirror image (4 for image-level classes), at about a fifth
of the cost.

Source: Wang, Fink, Van Gool and Dai, "Continual test-time domain adaptation", CVPR 2022, section 3, and its released
code; the form for masks is that of its ACDC experiments.
"""

import copy
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.adaptation.base import TestTimeAdaptation
from hardy.errors import InputError, within
from hardy.networks.base import Network
from hardy.ops.batch_statistics import install, use_batch
from hardy.ops.views import COTTA, LIGHT, View, classification_view, mean_probabilities, probabilities
from hardy.ops.weight_steps import approach, refuse_narrow, restore_some

__all__ = ["CoTTA"]


class CoTTA(TestTimeAdaptation):
    """Predicts with its teacher, before the update.

    Args:
        network: a copy of it adapts; a second copy is the teacher and a third the source.
        lr: the learning rate of Adam; None for 7.5e-6 for masks, 1e-3 for image-level classes.
        views: ``full`` for 14 views (32 for image-level classes), ``light`` for 2 (4).
        confidence: if the source network's confidence is above this, the teacher's prediction without views is used;
            None for 0.69 for masks, 0.9 for image-level classes.
        decay: the decay of the teacher's moving average in each step.
        restore: the probability that a weight returns to the source.
        statistics: of batch norms; None for ``source`` for masks, ``batch`` for image-level classes.

    Raises:
        InputError: for an option out of range, a network without weights, such as an exported file, or one with 16-bit
            weights.
    """

    predicts: ClassVar[Literal["before", "after"]] = "before"

    def __init__(
        self,
        network: Network,
        *,
        lr: float | None = None,
        views: Literal["full", "light"] = "full",
        confidence: float | None = None,
        decay: float = 0.999,
        restore: float = 0.01,
        statistics: Literal["source", "batch"] | None = None,
    ) -> None:
        rate = (1e-3 if network.image_level else 7.5e-6) if lr is None else lr
        within("CoTTA.lr", rate, 0)
        self.confidence = (0.9 if network.image_level else 0.69) if confidence is None else confidence
        for option, value in (("confidence", self.confidence), ("decay", decay), ("restore", restore)):
            within(f"CoTTA.{option}", value, 0, 1)
        super().__init__(network)
        if (statistics or ("batch" if network.image_level else "source")) == "batch":
            use_batch(install(self.network).values())
        self.teacher = copy.deepcopy(self.network).requires_grad_(False)
        self.source = copy.deepcopy(self.network).requires_grad_(False)
        self.network.requires_grad_(True)
        if not any(True for _ in self.network.parameters()):
            raise InputError(
                f"adapt: cotta trains all weights, but {type(network).__name__} has none, like every exported file; "
                "load the network that was exported: hardy.load of its run"
            )
        refuse_narrow(self.network.parameters(), "cotta")
        self.views, self.decay, self.restored = views, decay, restore
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=rate)

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """See `TestTimeAdaptation.optimisers`."""
        return {"student": self._optimiser}

    @torch.no_grad()
    def infer(self, images: Tensor) -> Tensor:
        """The teacher's logits (B, K, H, W), or (B, K), of ``images`` with the current state; changes nothing.

        With image-level classes it draws random views."""
        sure = probabilities(self.source(images)).amax(1)
        if self.network.image_level:
            return self._of_images(images) if float(sure.mean()) < self.confidence else self.teacher(images)
        alone = probabilities(self.teacher(images))
        mean = torch.where((sure > self.confidence).unsqueeze(1), alone, self._of_views(images, alone))
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()

    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`."""
        predicted = self.infer(images)
        target = predicted.softmax(1) if self.network.image_level else predicted.argmax(1)
        F.cross_entropy(self.network(images), target).backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        approach(self.teacher.parameters(), self.network.parameters(), 1 - self.decay)
        restore_some(self.network.parameters(), self.source.parameters(), self.restored)
        return predicted

    def _of_views(self, images: Tensor, alone: Tensor) -> Tensor:
        """The teacher's mean softmax over the views; ``alone`` is its softmax for the images themselves."""
        views = COTTA if self.views == "full" else LIGHT
        others = [view for view in views if view != View()]
        mean = mean_probabilities(self.teacher, images, others, self.network.least_size)
        return mean.lerp(alone.to(mean), 1 / len(views))

    def _of_images(self, images: Tensor) -> Tensor:
        """The teacher's mean logits (B, K) over random views."""
        count = 32 if self.views == "full" else 4
        logits: Tensor = sum(self.teacher(classification_view(images)) for _ in range(count)) / count
        return logits
