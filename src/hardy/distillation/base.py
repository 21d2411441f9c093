"""The interface of a distillation loss: it compares what a student and its teacher compute for the same images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from hardy.errors import within
from hardy.types import Terms

__all__ = ["DistillationLoss", "FeaturePair", "PairedOutputs", "Tap"]


class Tap(NamedTuple):
    """A place in a network whose value a loss reads.

    Attributes:
        name: a feature of `Outputs.features`, ``embedding``, or the name of a module, whose output is read.
        stride: pixels of the image per cell; 0 for a vector (B, C), which has no positions.
        channels: C of the value.
    """

    name: str
    stride: int
    channels: int


class FeaturePair(NamedTuple):
    """A tap of the student and the tap of the teacher that it is compared with."""

    student: Tap
    teacher: Tap


@dataclass(frozen=True, slots=True)
class PairedOutputs:
    """What a student and its teacher compute for the same images.

    Attributes:
        images: (B, 3, H, W) RGB in [0, 1], as the student got them.
        student: the student's logits (B, K, h, w), or (B, K) for image-level classes.
        teacher: the teacher's logits, of the same shape and with its classes in the student's order; no gradient.
        counted: (B, h, w) or (B,) bool, the positions that count: all but ignored pixels.
        labels: (B, H, W) or (B,) int64 class ids, `IGNORE` for ignored pixels; None for images without labels.
        student_features: the student's values (B, C, h, w), or (B, C), by the names of its taps.
        teacher_features: the same of the teacher; no gradient.
    """

    images: Tensor
    student: Tensor
    teacher: Tensor
    counted: Tensor
    labels: Tensor | None = None
    student_features: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, Tensor] = field(default_factory=dict)

    def features(self, pair: FeaturePair) -> tuple[Tensor, Tensor]:
        """The values of ``pair``, the student's (B, C, h, w) and the teacher's (B, C', h', w'); a vector is 1 x 1."""
        values = self.student_features[pair.student.name], self.teacher_features[pair.teacher.name]
        student, teacher = (value[..., None, None] if value.ndim == 2 else value for value in values)
        return student, teacher


class DistillationLoss(nn.Module, ABC):
    """A loss that is small when the student computes what its teacher computes.

    A subclass implements `forward`, which returns the unweighted loss. Its constructor takes before the ``*`` what it
    needs of: ``matching`` (`hardy.distillation._matching.Matching`, for losses of features), ``network`` (the student),
    ``teacher`` (a `hardy.networks.building.teacher.Teacher`) and ``class_count``. Options follow the ``*``; each loss
    has an option ``weight``. A loss of features has an option ``taps`` and sets `pairs`.

    What a loss trains, such as an aligner, is registered as its own parameters; the outer optimiser trains them. What
    it keeps from step to step are buffers. A part with an optimiser of its own, such as a critic, is stepped inside
    `forward`; see `hardy.algorithms.base.Algorithm.optimisers`.

    Contract, tested by ``tests/contracts/test_distillation.py`` for every loss: a finite scalar of at least float32; no
    gradient reaches the teacher's values; the loss of a batch does not depend on the values at positions that do not
    count, if `masks` is True; the value does not grow with the number of images (each image twice: the same value);
    the same seed gives the same bits, also after a resume.
    """

    dense: bool = False
    """True when it compares maps of logits: it is refused for image-level classes."""
    needs_labels: bool = False
    """True when it reads `PairedOutputs.labels`: images without labels are left out."""
    masks: bool = False
    """True when ignored pixels change nothing."""
    draws: bool = False
    """True when its value depends on random draws."""
    first_stage: tuple[str, int] = ("", 0)
    """An option and its value: the steps at the start in which the student learns nothing from this loss."""
    pairs: tuple[FeaturePair, ...] = ()
    """The taps that are compared; empty for losses of logits."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        within(f"{type(self).__name__}.weight", weight, 0)
        self.weight = weight

    @abstractmethod
    def forward(self, outputs: PairedOutputs) -> Tensor:
        """The unweighted scalar loss of ``outputs``."""

    def terms(self, outputs: PairedOutputs) -> Terms:
        """The weighted terms of ``outputs``, by name; by default the one of `forward`, named ``""``.

        A loss of several parts returns one term for each; the name of a part follows the name of the loss.
        """
        return {"": self.weight * self(outputs)}

    def aligner(self, pair: FeaturePair) -> str:
        """What makes the student's value of ``pair`` comparable, in a few words, for the table of a run."""
        return "none"

    def optimisers(self) -> Mapping[str, Optimizer]:
        """The optimisers that `forward` steps, by name; none by default."""
        return {}

    def after_step(self, step: int) -> None:
        """Called after optimiser step ``step`` (the first is 1)."""
