"""The distillation terms of a student and one teacher: a weighted list of losses, built and checked together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from hardy.distillation._features import refuse_not_finite
from hardy.distillation._matching import Matching, at_scale, class_order, in_order, values_of
from hardy.distillation.base import DistillationLoss, PairedOutputs
from hardy.errors import InputError
from hardy.networks.base import Network, resize
from hardy.networks.building.teacher import Teacher
from hardy.registry import DISTILLATIONS
from hardy.types import IGNORE, Outputs, Terms

__all__ = ["Choices", "DistillationTerms", "Resolution"]

Choices = Mapping[str, Mapping[str, Any]]
"""The losses: name -> options."""

Resolution = Literal["coarse", "full"]
"""Where logits are compared: at the student's own stride, or at the size of the images."""


class DistillationTerms(nn.Module):
    """The losses of ``choices``, which compare ``network`` with a teacher.

    Args:
        network: the student.
        teacher: a frozen `Teacher`, or a network that is trained together with the student. It is not registered as a
            submodule.
        choices: the losses and their options.
        resolution: ``coarse`` compares logits at the student's own stride (`Outputs.coarse`), which costs little. With
            ``full``, or if the student has no coarse logits or the sides of the images are no multiples of theirs,
            logits are compared at the size of the images.
        steps: the number of steps of the run; None if it is not known.

    Attributes:
        chosen: the losses, each with all its options.

    Raises:
        InputError: if ``choices`` is empty; if only one of the networks predicts image-level classes; for a loss of
            maps and image-level classes; for a teacher that lacks a class of the student; for a loss whose first stage
            is not shorter than ``steps``; and what the losses raise.
    """

    def __init__(
        self,
        network: Network,
        teacher: Teacher | Network,
        choices: Choices,
        resolution: Resolution = "coarse",
        steps: int | None = None,
    ) -> None:
        super().__init__()
        if not choices:
            raise InputError("losses: the list is empty; name one or more, such as losses: {kl: {weight: 3}}")
        taught = teacher.network if isinstance(teacher, Teacher) else teacher
        if taught.image_level != network.image_level:
            kinds = ("masks", "image-level classes")
            raise InputError(
                f"teacher: it predicts {kinds[taught.image_level]}, but the network predicts "
                f"{kinds[network.image_level]}; both must predict the same"
            )
        self.order = class_order(network.label_space, taught.label_space)
        self.resolution = resolution
        self.matching = Matching(network, taught if teacher.gives_features else None)
        self.seen = teacher.size if isinstance(teacher, Teacher) else None
        supply = {
            "network": network,
            "teacher": teacher,
            "matching": self.matching,
            "class_count": len(network.label_space),
            "label_space": network.label_space,
        }
        self.chosen: dict[str, dict[str, Any]] = {}
        self.losses = nn.ModuleDict()
        for name, options in choices.items():
            if network.image_level and DISTILLATIONS.get(name).dense:  # type: ignore[attr-defined]
                raise InputError(
                    f"losses.{name}: it compares maps of logits, but {type(network).__name__} predicts one class per "
                    "image; leave it out, as in losses: {kl: {weight: 3}}"
                )
            built = DISTILLATIONS.build(name, supply, **options)
            _refuse_short(name, built, steps)
            self.chosen[name] = DISTILLATIONS.describe(name).check(options)
            self.losses[name.replace(".", "_")] = built

    @property
    def needs_labels(self) -> bool:
        """Whether every loss reads labels."""
        return all(loss.needs_labels for loss in self._each())

    @property
    def starts(self) -> list[int]:
        """For each loss, the number of steps before the first one in which it trains the network."""
        return [loss.first_stage[1] for loss in self._each()]

    def optimisers(self) -> dict[str, Optimizer]:
        """The optimisers that the losses step, as ``<loss>/<name>``."""
        return {f"{key}/{name}": own for key, loss in self._named() for name, own in loss.optimisers().items()}

    def after_step(self, step: int) -> None:
        """See `DistillationLoss.after_step`."""
        for loss in self._each():
            loss.after_step(step)

    def table(self) -> list[tuple[str, str, str, str]]:
        """Rows (loss, student's tap, teacher's tap, aligner), one for each pair; one for a loss of logits."""
        rows = []
        for name, loss in self._named():
            rows += [(name, _shown(pair.student), _shown(pair.teacher), loss.aligner(pair)) for pair in loss.pairs]
            if not loss.pairs:
                rows.append((name, "logits", "logits", "classes by name" if self.order else "none"))
        return rows

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        outputs: Outputs,
        taught: Outputs,
        recorded: Sequence[Mapping[str, Tensor]] = ({}, {}),
        unlabelled: Tensor | None = None,
    ) -> Terms:
        """The weighted terms, named after their losses.

        Args:
            images: (B, 3, H, W) as the student got them.
            labels: (B, H, W) or (B,).
            outputs: the student's outputs.
            taught: the teacher's outputs for the same images; no gradient flows into them.
            recorded: the values from `Matching.recording`.
            unlabelled: (B,) bool, True for images without labels; None if all have labels. All pixels of images
                without labels count.

        Raises:
            InputError: for logits of the teacher that are not finite.
        """
        student, teacher = self._logits(outputs, taught, images.shape[-2:])
        refuse_not_finite("logits", teacher)
        counted = _counted(labels, student, unlabelled)
        features = {name: value.detach() for name, value in values_of(taught, recorded[1]).items()}
        if self.seen:
            features = at_scale(features, self.seen, images.shape[-2:])
        paired = PairedOutputs(images, student, teacher, counted, labels, values_of(outputs, recorded[0]), features)
        terms: Terms = {}
        for name, loss in self._named():
            seen = paired if unlabelled is None or not loss.needs_labels else _where(paired, ~unlabelled)
            if len(seen.images):
                terms |= {f"{name}_{part}" if part else name: value for part, value in loss.terms(seen).items()}
        return terms

    def _logits(self, outputs: Outputs, taught: Outputs, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The student's and the teacher's logits to compare, with the same shape and class order."""
        if outputs.logits.ndim == 2:
            return outputs.logits, in_order(taught.logits, self.order).detach()
        coarse = _coarse(outputs, size) if self.resolution == "coarse" else None
        student = outputs.logits if coarse is None else coarse
        source = _coarse(taught, self.seen or size) if coarse is not None else None
        teacher = in_order(taught.logits if source is None else source, self.order).detach()
        return student, resize(teacher, student.shape[-2:])

    def _named(self) -> Iterator[tuple[str, DistillationLoss]]:
        for name, loss in self.losses.items():
            assert isinstance(loss, DistillationLoss)
            yield name, loss

    def _each(self) -> Iterator[DistillationLoss]:
        return (loss for _, loss in self._named())


def _refuse_short(name: str, loss: DistillationLoss, steps: int | None) -> None:
    """Raise `InputError` if ``loss`` would stay in its first stage for all ``steps`` of the run."""
    option, silent = loss.first_stage
    if steps is not None and silent >= steps:
        raise InputError(
            f"losses.{name}: it does not train the network in its first {silent} steps ({option}), and the run has "
            f"{steps}; train for more steps, or give a smaller {option}"
        )


def _coarse(outputs: Outputs, size: Sequence[int]) -> Tensor | None:
    """The coarse logits for images of ``size`` (H, W); None if that size is not a multiple of theirs."""
    coarse = outputs.coarse
    if coarse is None or any(side % cells for side, cells in zip(size, coarse.shape[-2:], strict=True)):
        return None
    return coarse


def _counted(labels: Tensor, logits: Tensor, unlabelled: Tensor | None) -> Tensor:
    """The positions of ``logits`` that count, (B, h, w) or (B,) bool; labels are resized by nearest neighbour."""
    counted = labels != IGNORE
    if logits.ndim == 4 and counted.shape[-2:] != logits.shape[-2:]:
        counted = F.interpolate(counted[:, None].float(), size=logits.shape[-2:], mode="nearest-exact")[:, 0] > 0
    if unlabelled is not None:
        counted = counted | unlabelled.view(-1, *(1,) * (counted.ndim - 1))
    return counted


def _where(paired: PairedOutputs, chosen: Tensor) -> PairedOutputs:
    """``paired`` for the images where ``chosen`` (B,) bool is True."""
    assert paired.labels is not None, "labels are given"
    return PairedOutputs(
        paired.images[chosen],
        paired.student[chosen],
        paired.teacher[chosen],
        paired.counted[chosen],
        paired.labels[chosen],
        {name: value[chosen] for name, value in paired.student_features.items()},
        {name: value[chosen] for name, value in paired.teacher_features.items()},
    )


def _shown(tap: Any) -> str:
    where = f"stride {tap.stride}" if tap.stride else "vector"
    return f"{tap.name} ({where}, {tap.channels} channels)"
