"""Two-stage distillation: first the teacher's features without labels, then the task on a frozen encoder.

Stage 1 is the share ``feature_share`` of the steps. It minimises three mean squared errors to the teacher's features,
each with a head of the loss ``query_soft``:

    L = weight (E_image(x) + E_positions(x) + E_positions(x'))

E_image compares the spatial averages of the feature maps, E_positions the maps themselves. x' is a second view of x in
which the share ``masked`` of the patches is set to the network's mean colour. The teacher sees all of x, and the error
of x' is computed only at masked positions. All images are used, also those without labels. The task head is not trained
yet.

Stage 2 minimises the loss on the labels. The layers that compute the features of stage 1, called the encoder here, are
frozen, including their norms. With an ``encoder_rate`` r above 0 they are trained at r times the learning rate instead.
At the change of stage the optimiser's moments are reset.

Teacher and network may predict different classes. The published gain is confounded with more training steps. Compare
with ``feature_share: 0``, ``encoder_rate: 1`` and the same number of steps.

Source: Younger-hua/GKD, "Generalizable knowledge distillation", CVPR 2026, arXiv:2603.02554, there for vision
transformers in two runs. Two differences are Hardy's: a convolutional network in one run, and the averaged map in place
of the image's token.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hardy.algorithms._unlabelled import task_terms, unlabelled_of
from hardy.algorithms.base import Algorithm, TextTable
from hardy.distillation._features import refuse_not_finite
from hardy.distillation._matching import Matching, values_of
from hardy.distillation.base import DistillationLoss, PairedOutputs
from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss
from hardy.networks.building.teacher import Teacher
from hardy.ops.norms import statistics_kept
from hardy.registry import DISTILLATIONS
from hardy.types import Batch, Outputs, Terms

__all__ = ["TwoStage"]

_log = logging.getLogger("hardy")


class TwoStage(Algorithm):
    """Learn the teacher's features without labels, then the task.

    Args:
        network: what is trained.
        pixel_loss: the loss of one head.
        teacher: a network with features.
        steps: the number of optimiser steps, of both stages together.
        feature_share: the share of the steps that is stage 1, in [0, 1].
        masked: the share of the patches that are masked in the second view, in [0, 1]; with 0 there is no second view.
        patch: the side of a patch in pixels; with 0, the largest stride of the compared features, or half of the
            smaller side of the images if that is less.
        taps: the features to compare; see `hardy.distillation._matching.Matching`.
        weight: of the errors of stage 1.
        encoder_rate: the learning-rate factor r of the encoder in stage 2, in [0, 1]; with 0 it is frozen.

    Raises:
        InputError: for an option out of range, a teacher without features, and what `Matching.pairs` raises; in
            training for a ``patch`` that covers whole images.
    """

    uses_unlabelled = True
    reaches_all = False
    reads_weights = True

    def __init__(
        self,
        network: Network,
        pixel_loss: PixelLoss,
        teacher: Teacher,
        steps: int,
        *,
        feature_share: float = 0.5,
        masked: float = 0.5,
        patch: int = 0,
        taps: Sequence[Any] = ("deepest",),
        weight: float = 1.0,
        encoder_rate: float = 0.0,
    ) -> None:
        for name, value in (("feature_share", feature_share), ("masked", masked), ("encoder_rate", encoder_rate)):
            within(f"TwoStage.{name}", value, 0, 1)
        within("TwoStage.patch", patch, 0)
        super().__init__(network)
        self.pixel_loss, self.teacher = pixel_loss, teacher
        self.masked, self.encoder_rate = masked, encoder_rate
        self.change = round(feature_share * steps)
        self.matching = Matching(network, teacher.network if teacher.gives_features else None)
        options = {"taps": taps, "weight": weight}
        self.whole = self._loss(options)
        self.hidden = self._loss({**options, "image": False, "mask": True}) if masked else None
        self.patch = patch
        self._stride = max(pair.student.stride for pair in self.whole.pairs) or 16
        self._encoder = _reached(network, self.matching, [pair.student.name for pair in self.whole.pairs])
        self._before: list[Tensor] = []
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.steps: Tensor

    def restarts(self, step: int) -> bool:
        """See `Algorithm.restarts`: at the first step of stage 2."""
        return 0 < self.change == step - 1

    def forward(self, batch: Batch) -> Terms:
        """The terms of the stage: ``image``, ``positions`` and ``masked``, or the network's loss terms."""
        if int(self.steps) < self.change:
            return self._features(batch.images)
        missing = unlabelled_of(batch)
        if missing is not None and not bool(missing.all()):
            batch = batch.where(~missing)
        with self._frozen():
            outputs = self.network.outputs(batch.images)
        return task_terms(self.network, outputs, batch, self.pixel_loss) or {"segmentation": 0.0 * outputs.logits.sum()}

    def table(self) -> TextTable:
        """The features of stage 1 and their heads, and the steps of each stage."""
        rows = [
            (f"{pair.student.name} ({pair.student.channels} channels)", pair.teacher.name, self.whole.aligner(pair))
            for pair in self.whole.pairs
        ]
        return TextTable(f"features of the first {self.change} steps", ("student", "teacher", "heads"), rows)

    def after_backward(self) -> None:
        """See `Algorithm.after_backward`: with an ``encoder_rate`` in (0, 1), remember the encoder's weights."""
        if int(self.steps) >= self.change and 0 < self.encoder_rate < 1:
            self._before = [value.detach().clone() for value in self._encoder]

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """See `Algorithm.after_step`. The optimiser's update is proportional to its learning rate, so applying the
        share r of the encoder's update is the same as r times the learning rate."""
        for value, before in zip(self._encoder, self._before, strict=False):
            value.copy_(torch.lerp(before, value, self.encoder_rate))
        self._before = []
        self.steps.fill_(step)
        if step == self.change:
            how = f"at {self.encoder_rate:g} of its rate" if self.encoder_rate else "frozen"
            _log.info("step %d: stage 1 ends; the task is trained now, the encoder %s", step, how)

    def _loss(self, options: Mapping[str, Any]) -> DistillationLoss:
        built: DistillationLoss = DISTILLATIONS.build("query_soft", {"matching": self.matching}, **options)
        return built

    def _features(self, images: Tensor) -> Terms:
        """The errors of stage 1."""
        with self.matching.recording() as (own, others):
            outputs = self.network.outputs(images)
            taught = values_of(self.teacher.outputs(images), others)
        refuse_not_finite("features", *(taught[pair.teacher.name] for pair in self.whole.pairs))
        every = torch.ones_like(images[:, 0], dtype=torch.bool)
        terms = self.whole.terms(_paired(images, outputs, every, values_of(outputs, own), taught))
        if self.hidden is None:
            return terms
        mask = self._drawn(images)
        view = torch.where(mask[:, None], self.network.mean.to(images), images)
        with self.matching.recording() as (own, _), statistics_kept(self.network):
            outputs = self.network.outputs(view)
        found = self.hidden.terms(_paired(view, outputs, mask, values_of(outputs, own), taught))
        return terms | {"masked": torch.stack(list(found.values())).sum()}

    def _drawn(self, images: Tensor) -> Tensor:
        """(B, H, W) bool, True in the masked patches; each image has the same number of them, at least one."""
        count, (height, width) = len(images), images.shape[-2:]
        side = self.patch or min(self._stride, max(1, min(height, width) // 2))
        rows, columns = -(-height // side), -(-width // side)
        cells = rows * columns
        if cells == 1 and self.masked < 1:
            raise InputError(
                f"TwoStage.patch: {side} pixels cover all of the images of {height}x{width}, so a masked one shows "
                "nothing; give a smaller patch, a larger data.crop, or masked: 0"
            )
        ranks = torch.rand(count, cells).argsort(1).argsort(1)
        chosen = (ranks < max(1, round(self.masked * cells))).view(count, rows, columns).to(images.device)
        wide = chosen.repeat_interleave(side, 1).repeat_interleave(side, 2)
        return wide[:, :height, :width]

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """With an ``encoder_rate`` of 0, the encoder gets no gradients and is in evaluation mode inside the block."""
        if self.encoder_rate:
            yield
            return
        held = {id(value) for value in self._encoder}
        inside = [module for module in self.network.modules() if _is_within(module, held)]
        modes = [(each, each.training) for module in inside for each in module.modules()]
        for value in self._encoder:
            value.requires_grad_(False)
        for module in inside:
            module.eval()
        try:
            yield
        finally:
            for value in self._encoder:
                value.requires_grad_(True)
            for module, mode in modes:
                module.training = mode


def _is_within(module: nn.Module, held: set[int]) -> bool:
    """Whether ``module`` has parameters and all of them are ``held``, by id."""
    own = [id(value) for value in module.parameters()]
    return bool(own) and held.issuperset(own)


def _paired(
    images: Tensor, outputs: Outputs, counted: Tensor, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
) -> PairedOutputs:
    """The input of the feature losses; the logits in it are not compared."""
    taught = {name: value.detach() for name, value in teacher.items()}
    return PairedOutputs(images, outputs.logits, outputs.logits.detach(), counted, None, dict(student), taught)


def _reached(network: Network, matching: Matching, taps: Sequence[str]) -> list[nn.Parameter]:
    """The trained parameters of ``network`` that the values of ``taps`` depend on; runs it once in evaluation mode."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    with torch.enable_grad(), matching.recording() as (own, _):
        values = values_of(network.outputs(network.example().to(network.mean)), own)
    for module, mode in modes:
        module.training = mode
    trained = [value for value in network.parameters() if value.requires_grad]
    total = torch.stack([values[name].sum() for name in taps]).sum()
    if not trained or not total.requires_grad:
        return []
    found = torch.autograd.grad(total, trained, allow_unused=True)
    return [value for value, gradient in zip(trained, found, strict=True) if gradient is not None]
