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
        name: a feature of `Outputs.features`, ``embedding``, or the name of a module, whose output is read (its input
            with ``.input`` at the end of the name).
        stride: image pixels per cell of the value; 0 for a vector (B, C), which has no positions.
        channels: C, the number of channels of the value.
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
        teacher: the teacher's logits, with the same shape and classes in the student's order; without gradient.
        counted: (B, h, w) or (B,) bool, the positions that count: all except ignored pixels.
        labels: (B, H, W) or (B,) int64 class ids, `IGNORE` for ignored pixels; None for images without labels.
        student_features: the student's values (B, C, h, w), or (B, C), by the names of its taps.
        teacher_features: the teacher's values, in the same form; without gradient.
    """

    images: Tensor
    student: Tensor
    teacher: Tensor
    counted: Tensor
    labels: Tensor | None = None
    student_features: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, Tensor] = field(default_factory=dict)

    def features(self, pair: FeaturePair) -> tuple[Tensor, Tensor]:
        """The student's value (B, C, h, w) and the teacher's (B, C', h', w') of ``pair``; a vector becomes 1 x 1."""
        values = self.student_features[pair.student.name], self.teacher_features[pair.teacher.name]
        student, teacher = (value[..., None, None] if value.ndim == 2 else value for value in values)
        return student, teacher


class DistillationLoss(nn.Module, ABC):
    """A loss that is small when the student computes what its teacher computes.

    A subclass implements `forward`, which returns the unweighted loss. Before the ``*`` its constructor takes those of
    the following that it needs: ``matching`` (`hardy.distillation._matching.Matching`, for feature losses), ``network``
    (the student), ``teacher`` (a `hardy.networks.building.teacher.Teacher`), ``class_count`` and ``label_space``.
    Options follow the ``*``; each loss has an option ``weight``. A feature loss has an option ``taps`` and sets
    `pairs`.

    A loss registers what it trains, such as an aligner, as its own parameters; the outer optimiser trains them. It
    registers what it keeps from step to step as buffers. A part with its own optimiser, such as a critic, is stepped
    inside `forward`; see `hardy.algorithms.base.Algorithm.optimisers`.

    Contract, tested by ``tests/contracts/test_distillation.py`` for every loss:

    - the loss is a finite scalar in float32 or wider;
    - no gradient reaches the teacher's values;
    - if `masks` is True, the loss does not depend on the values at positions that do not count;
    - the value does not grow with the number of images (each image twice gives the same value);
    - the same seed gives the same bits, also after a resume.
    """

    dense: bool = False
    """True when the loss compares maps of logits. It is refused for image-level classes."""
    needs_labels: bool = False
    """True when the loss reads `PairedOutputs.labels`. Images without labels are left out."""
    masks: bool = False
    """True when ignored pixels do not change the loss."""
    draws: bool = False
    """True when the value depends on random draws."""
    first_stage: tuple[str, int] = ("", 0)
    """An option and its value: the number of steps at the start in which this loss does not train the student."""
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
        """The weighted terms of ``outputs``, by name; by default the single value of `forward`, with the name ``""``.

        A loss of several parts returns one term for each. In logs, the name of a part follows the name of the loss.
        """
        return {"": self.weight * self(outputs)}

    def aligner(self, pair: FeaturePair) -> str:
        """A short description, for the table of a run, of how the student's value of ``pair`` is made comparable."""
        return "none"

    def optimisers(self) -> Mapping[str, Optimizer]:
        """The optimisers that `forward` steps, by name; none by default."""
        return {}

    def after_step(self, step: int) -> None:
        """Called after optimiser step ``step`` (the first is 1)."""
