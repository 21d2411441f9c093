"""DoSe: self-distillation that keeps norm statistics close to prototypes of the domain and replays hard images.

For a batch x of domain d, with weights theta (the teacher) and the source's weights theta_0:

    1  X_s, X_t          two batches of views of x; X_s has x itself
    2  y, b_T            mean softmax of the teacher over both, geometry undone; its norm statistics on X_t
    3  theta' = M theta_0 + (1 - M) theta,     M ~ Bernoulli(restore) for every number: before the step
    4  L = CE(y', f_theta'(X_s)) + layer |b_S - b_T|^2 + domain |b_S - P_d|^2,     y' = pseudo-label of y
    5  one optimiser step;  P_d <- running mean of b_T (100 batches, then weight 0.01)
    6  on every n-th batch x goes into the buffer if the variance of gradients between theta and theta' is high;
       every 100 images, 8 of the buffer go through 1-4 with their own d, and a step
    7  the prediction: f_theta'(x), batch norms by P_d

b is the mean and biased variance of each channel at the input of every batch norm and layer norm. In 2 and 4 batch
norms use batch statistics. The two batches of views differ, because with X_s = X_t and M = 0 the term ``layer`` would
be 0. With restore = 0.1 a change of the weights is halved in 6.6 updates, so what lasts is in the prototypes and the
buffer. In the light form X_s is the image and X_t its noisy mirror image, and only X_t gives y.

Source: Reddy, Baktashmotlagh and Arora, "Towards domain-aware knowledge distillation for continual model
generalization", WACV 2024, from a summary. The split of the views, the detection of domains, the shares of the buffer
and all numbers except restore = 0.1 and the 100 images are Hardy's choice.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hardy.adaptation import _dose
from hardy.adaptation._detection import Domains
from hardy.adaptation._exemplars import Exemplars
from hardy.adaptation._prototypes import Prototypes
from hardy.adaptation._vog import gradients, variance
from hardy.adaptation.base import TestTimeAdaptation
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.batch_statistics import install, recording, use_batch, use_given, use_source
from hardy.ops.frozen import Frozen
from hardy.ops.views import View

__all__ = ["DoSe"]

MOST = 16
"""The largest number of domains in memory; a further domain replaces the least recently used one."""


class DoSe(TestTimeAdaptation):
    """Domain-aware self-distillation.

    Args:
        network: a copy of it adapts.
        form: ``full``, or ``light`` at about half of its cost.
        domains: ``given``: the entered domain, detected only if none is entered; ``detected``: always detected.
        learned: what is trained: ``all`` weights, or those of the ``norms``.
        lr: the learning rate.
        labels: pseudo-labels: ``soft`` probabilities, ``hard`` classes, or ``confident`` classes (probability above
            0.69).
        restore: the probability that a weight returns to the source's value before an update, in [0, 1].
        parts: settings of an update, with their defaults: ``layer`` (1) and ``domain`` (1), the weights of the terms;
            ``distance`` (``mean``), ``sum`` or ``scaled``, see `hardy.adaptation._dose.apart`; ``views`` (4), including
            the image, for the full form; ``restore_every`` (1), in updates; ``optimiser`` (``adam``) or ``sgd`` with
            momentum 0.9; ``prediction`` with batch norms that use the ``prototype`` (the default), the ``batch`` or the
            ``source``.
        memory: settings of the buffer, with their defaults: ``capacity`` (64), up to 4096, 0 for no buffer; ``vog``
            (``code``), ``printed``, or ``random`` for random scores instead; ``every`` (10): score one in this many
            batches; ``replay_every`` (100) images, replay ``replayed`` (8) images.

    Raises:
        InputError: for a network without batch norms and layer norms, one with 16-bit weights, or a setting out of
            range.
    """

    predicts: ClassVar[Literal["before", "after"]] = "after"
    images_seen: Tensor
    updates: Tensor

    def __init__(
        self,
        network: Network,
        *,
        form: Literal["full", "light"] = "full",
        domains: Literal["given", "detected"] = "given",
        learned: Literal["all", "norms"] = "all",
        lr: float = 1e-5,
        labels: Literal["soft", "hard", "confident"] = "soft",
        restore: float = 0.1,
        parts: Mapping[str, Any] = {},
        memory: Mapping[str, Any] = {},
    ) -> None:
        super().__init__(network)
        if not (0 <= restore <= 1 and 0 <= lr < float("inf")):
            raise InputError(f"dose: restore {restore} or lr {lr} does not fit; give [0, 1] and 0 or more")
        self.parts = _dose.filled(_dose.Parts, "parts", parts)
        self.memory = _dose.filled(_dose.Memory, "memory", memory)
        self.light, self.labels, self.restored = form == "light", labels, restore
        narrow = next((v.dtype for v in self.network.parameters() if v.dtype in (torch.float16, torch.bfloat16)), None)
        if narrow:
            raise InputError(f"dose: the network's weights are {narrow}; its small steps need float32: network.float()")
        norms = install(self.network)
        if not norms:
            raise InputError("dose: the network has neither batch norms with running statistics nor layer norms")
        self._norms = list(norms.values())
        self.source = Frozen(self.network)
        self.domains = Domains(install(self.source.module), MOST, detected=domains == "detected")
        self.prototypes = Prototypes(norms, MOST)
        self.exemplars = Exemplars(self.memory.capacity)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.network.requires_grad_(learned == "all")
        for norm in self._norms:
            norm.requires_grad_(True)
        self.optimiser: torch.optim.Optimizer = (
            torch.optim.Adam(self._learned(), lr=lr, fused=True)
            if self.parts.optimiser == "adam"
            else torch.optim.SGD(self._learned(), lr=lr, momentum=0.9)
        )

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """See `TestTimeAdaptation.optimisers`."""
        return {"weights": self.optimiser}

    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`."""
        place, new = self.prototypes.place(self.domains.of(self.domain, lambda: self._first(images)))
        if new:
            self.exemplars.drop(place)
        scored = self.memory.capacity > 0 and int(self.step) % self.memory.every == 0
        graded = scored and self.memory.vog != "random"
        if graded:
            prototype = [one.clone() for one in self.prototypes.at(place)]  # the same for both states
            use_given(self._norms, prototype)
            before, classes = gradients(self.network, images, self.network.std)
        self.prototypes.update(place, self.learn(images, place))
        if scored:
            if graded:
                use_given(self._norms, prototype)
                after, _ = gradients(self.network, images, self.network.std, classes)
                scores = variance(before, after, self.memory.vog)
            else:
                scores = torch.rand(len(images))
            for image, score in zip(images, scores.tolist(), strict=True):
                self.exemplars.push(image, place, score)
        self._replay(images)
        return self._predicted(images, self.prototypes.at(place))

    def infer(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.infer`: by the prototype of the domain that was entered, or of the one detected last;
        by the source's statistics where it has none."""
        return self._predicted(images, self.prototypes.known(self.domains.last(self.domain)))

    def learn(self, images: Tensor, place: int) -> list[Tensor]:
        """Update the weights once on ``images`` of the domain in row ``place``; return the teacher's statistics."""
        here, seen, there, others = _dose.two_batches(
            images, self.parts.views, light=self.light, least=self.network.least_size
        )
        use_batch(self._norms)
        labels, taught = self._taught(images, here, seen, there, others)
        if int(self.updates) % self.parts.restore_every == 0:
            _dose.restore_(self._learned(), self._start_values(), self.restored)
        with recording(self._norms, gradient=True) as found:
            logits = _dose.undone(self.network(seen), here, images.shape[-2:])
        loss = _dose.cross_entropy(logits, labels)
        distance, start = self.parts.distance, self.prototypes.sources()
        loss = loss + self.parts.layer * _dose.apart(found, taught, distance, start)
        if self.prototypes.counts[place]:
            loss = loss + self.parts.domain * _dose.apart(found, self.prototypes.at(place), distance, start)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.updates += 1
        return taught

    def drift(self) -> float:
        """The Euclidean distance of the learned weights from the source's."""
        pairs = zip(self._learned(), self._start_values(), strict=True)
        return float(sum((value.detach() - start).square().sum() for value, start in pairs) ** 0.5)

    def table(self) -> dict[str, dict[str, Tensor]]:
        """The mean and the biased variance (2, C) by norm name and then domain."""
        return self.prototypes.table()

    def confusion(self) -> dict[str, dict[str, int]]:
        """See `TestTimeAdaptation.confusion`; with ``domains="detected"``."""
        return self.domains.confusion()

    @torch.no_grad()
    def _taught(
        self, images: Tensor, here: list[View], seen: Tensor, there: list[View], others: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The pseudo-labels, and the norm statistics of the second batch of views."""
        with recording(self._norms) as taught:
            views = _dose.undone(self.network(others), there, images.shape[-2:])
        if not self.light and self.parts.views > 1:
            views += _dose.undone(self.network(seen), here, images.shape[-2:])
        mean = torch.stack([view.float().softmax(1) for view in views]).mean(0)
        return _dose.pseudo_labels(mean, self.labels), taught

    def _replay(self, images: Tensor) -> None:
        """Count ``images``, and learn from the buffer if a replay is due."""
        every, before, count = self.memory.replay_every, int(self.images_seen), len(images)
        self.images_seen += count
        if before // every != (before + count) // every:
            for image, place in self.exemplars.drawn(self.memory.replayed):
                self.learn(image.to(images), place)

    @torch.no_grad()
    def _predicted(self, images: Tensor, prototype: list[Tensor]) -> Tensor:
        if self.parts.prediction == "prototype":
            use_given(self._norms, prototype)
        elif self.parts.prediction == "batch":
            use_batch(self._norms)
        else:
            use_source(self._norms)
        logits: Tensor = self.network(images)
        return logits

    def _first(self, images: Tensor) -> list[Tensor]:
        """The statistics of the first third of the norms in the source network."""
        with recording(self.domains.norms, end=True) as statistics:
            self.source(images)
        return statistics

    def _learned(self) -> list[nn.Parameter]:
        return [value for value in self.network.parameters() if value.requires_grad]

    def _start_values(self) -> list[Tensor]:
        pairs = zip(self.network.parameters(), self.source.module.parameters(), strict=True)
        return [start for value, start in pairs if value.requires_grad]
