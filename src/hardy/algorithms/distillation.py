"""Distillation: the network is trained on the labels and on what a teacher computes for the same images.

    loss = loss of the labels + s sum_l w_l L_l(student, teacher)

The L_l are the losses of ``hardy list distillation``. The teacher is frozen, in evaluation mode. A recipe names it as
``teacher``; in the recovery after pruning the default teacher is the network before pruning. Student and teacher may
differ in family, strides, order of classes, normalisation and image size. If the teacher is an earlier run of the same
network, the method is called born-again networks. For images without labels (``data.unlabelled``), only the L_l that
read no labels are computed. Batch norms see all images.

With ``balance: gradients``, s limits the influence of distillation: the gradient norm of all distillation terms
together is at most ``limit`` times that of the loss of the labels. Both norms are over the network's trained
parameters. s is measured every ``balance_every`` steps, in the first part of an accumulated batch where both norms are
above 0. The new s is the mean of the measured value and the previous s, and it is logged; the last one is in the notes
of the run's records. Some losses have a first stage in which they do not train the network: s is measured again at the
first step in which they do, and the measured value is used as it is. With ``balance: fixed``, s is 1.

Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015, section 2; the
sum of weighted losses for segmentation: Liu et al., "Structured knowledge distillation for semantic segmentation", CVPR
2019, eq. 7; weights by the norm of gradients after: Chen et al., "GradNorm", ICML 2018, section 3; to recover a pruned
network from the unpruned one: Muralidharan et al., "Compact language models via pruning and knowledge distillation",
NeurIPS 2024, section 3; the same network as the teacher: Furlanello et al., "Born-again neural networks", ICML 2018.
"""

import logging
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from hardy.algorithms._unlabelled import task_terms, unlabelled_of
from hardy.algorithms.base import Algorithm, TextTable
from hardy.distillation._terms import Choices, DistillationTerms
from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss
from hardy.networks.building.teacher import Teacher
from hardy.sections import Kind
from hardy.types import Batch, Terms

__all__ = ["Distillation"]

_log = logging.getLogger("hardy")


class Distillation(Algorithm):
    """Minimise the loss on the labels plus a weighted list of distillation losses.

    Args:
        network: what is trained.
        pixel_loss: the loss of one head.
        teacher: predicts at least the classes of ``network``.
        steps: the number of optimiser steps; None if it is not known.
        losses: the losses by name, each with its options, including ``weight``. If empty, ``{kl: {}, cwd: {}}``, or
            ``{kl: {}}`` for image-level classes.
        resolution: where logits are compared: at the network's own stride (``coarse``) or at the images' size.
        balance: ``gradients`` or ``fixed``; see the module.
        limit: the largest ratio of the two gradient norms.
        balance_every: steps between two measurements of the gradients.

    Raises:
        InputError: for a ``limit`` that is not above 0, a ``balance_every`` below 1, and what `DistillationTerms`
            raises.
    """

    uses_unlabelled = True
    reads_weights = True

    def __init__(
        self,
        network: Network,
        pixel_loss: PixelLoss,
        teacher: Teacher,
        steps: int | None = None,
        *,
        losses: Annotated[Mapping[str, Mapping[str, Any]], Kind("distillation")] = {},
        resolution: Literal["coarse", "full"] = "coarse",
        balance: Literal["gradients", "fixed"] = "gradients",
        limit: float = 1.0,
        balance_every: int = 50,
    ) -> None:
        within("Distillation.balance_every", balance_every, 1)
        if not limit > 0:
            raise InputError(f"Distillation.limit: {limit} is out of range; it must be above 0")
        super().__init__(network)
        self.pixel_loss, self.balance, self.limit, self.balance_every = pixel_loss, balance, limit, balance_every
        self.teacher = teacher
        usual: Choices = {"kl": {}} if network.image_level else {"kl": {}, "cwd": {}}
        self.distilled = DistillationTerms(network, teacher, losses or usual, resolution, steps)
        self.uses_unlabelled = not self.distilled.needs_labels
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("measured", torch.full((), -1, dtype=torch.long))
        self.scale: Tensor
        self.steps: Tensor
        self.measured: Tensor

    def chosen(self) -> Mapping[str, Any]:
        """The losses in use, each with all its options."""
        return {"losses": self.distilled.chosen}

    def notes(self) -> Mapping[str, float]:
        """The last s, if it was measured: ``distillation_scale``."""
        return {"distillation_scale": float(self.scale)} if int(self.measured) >= 0 else {}

    def optimisers(self) -> dict[str, Optimizer]:
        """The optimisers of the losses."""
        return self.distilled.optimisers()

    def forward(self, batch: Batch) -> Terms:
        """The network's loss terms of ``batch``, and one weighted term for each distillation loss."""
        with self.distilled.matching.recording() as recorded:
            outputs = self.network.outputs(batch.images)
            taught = self.teacher.outputs(batch.images)
        terms = task_terms(self.network, outputs, batch, self.pixel_loss)
        distilled = self.distilled(batch.images, batch.labels, outputs, taught, recorded, unlabelled_of(batch))
        if self.balance == "gradients":
            if self._due():
                self._measure(terms, distilled)
            distilled = {name: self.scale * value for name, value in distilled.items()}
        return {**terms, **distilled}

    def table(self) -> TextTable:
        """The losses, the values that they compare, and what aligns these."""
        return TextTable("distillation", ("loss", "student", "teacher", "aligner"), self.distilled.table())

    def after_step(self, step: int) -> None:
        """See `Algorithm.after_step`."""
        self.steps.fill_(step)
        self.distilled.after_step(step)

    def _due(self) -> bool:
        """Whether to measure now: if a loss has begun since the last time, or ``balance_every`` steps after it."""
        return self.training and (self._begun() or int(self.steps) - int(self.measured) >= self.balance_every)

    def _begun(self) -> bool:
        """Whether a loss has begun to train the network since the last measurement, or there was none."""
        return any(int(self.measured) < start <= int(self.steps) for start in (0, *self.distilled.starts))

    def _measure(self, terms: Terms, distilled: Terms) -> None:
        """Set `scale` from the gradient norms of the two groups of terms, if both are above 0 and finite.

        Without labels the norm of the task is 0. In a first stage of the losses the norm of distillation is 0. In both
        cases `scale` stays as it is, and the next part or step is measured.
        """
        teaching = gradient_norm(distilled, self.network)
        if not 0 < teaching < math.inf:
            return
        task = gradient_norm(terms, self.network)
        if not 0 < task < math.inf:
            return
        wanted = min(1.0, self.limit * task / teaching)
        self.scale.fill_(wanted if self._begun() else (float(self.scale) + wanted) / 2)
        self.measured.copy_(self.steps)
        _log.info(
            "step %d: distillation is scaled by %.4g (gradient norms: labels %.4g, distillation %.4g)",
            int(self.steps) + 1,
            float(self.scale),
            task,
            teaching,
        )


_FACTORS = (2.0**12, 1.0, 2.0**-12)
"""The terms are multiplied by the first factor before their gradient is computed, and the norm is divided by it.
Otherwise small gradients would be 0 in float16. If the norm overflows, the next factor is tried. In float32, a power of
2 does not change the result."""


def gradient_norm(terms: Terms, network: Network) -> float:
    """The norm of the gradient of the sum of ``terms``, over the trained parameters of ``network``; 0 without one."""
    trained = [value for value in network.parameters() if value.requires_grad]
    total = torch.stack(list(terms.values())).sum() if terms else torch.zeros(())
    if not trained or not total.requires_grad:
        return 0.0
    norm = 0.0
    for factor in _FACTORS:
        found = torch.autograd.grad(factor * total, trained, retain_graph=True, allow_unused=True)
        norms = [value.float().norm() for value in found if value is not None]
        norm = float(torch.stack(norms).norm()) / factor if norms else 0.0
        if math.isfinite(norm):
            break
    return norm
