"""Overhaul: compares features before the activation, and only where their difference matters after it.

    L = 1e-5 (512^2 / (H W)) / N * sum over pairs i and elements of [S > T or T > 0] (S - T)^2 / d_i
    T = max(f_t, m),    S = r(f_s)

f_t and f_s are values before an activation. The margin m of a channel is the mean of its negative values. It is
computed from the scale g and the shift b of the batch norm before the tap, with x normally distributed with mean b and
standard deviation |g|:

    m = E[x | x < 0] = b - |g| phi(b / |g|) / Phi(-b / |g|),    m = -3 |g| where Phi(-b / |g|) <= 0.001

r is a 1x1 convolution without bias, initialised from N(0, 2 / channels), and a batch norm; both are trained with the
student. If the maps differ in size, the output of r is resized to the teacher's. d_i is 2^(n - 1 - i) for the pairs 0
to n - 1, the finest first. N is the number of images and H x W their size. The paper's sum grows with the map, so it is
scaled to crops of 512 x 512: at that size the value is that of the authors' code.

The taps are found automatically; see `hardy.distillation._preactivations`. In a residual stage the batch norm does not
include the shortcut, so the margin is an approximation. The same is true for activations other than ReLU.

The published weight is known to harm pairs of networks of different families. If the blocks that hold the deepest taps
are not defined in the same source file, the loss is multiplied by ``unlike``, and the table of the run says so.

Source: Heo et al., "A comprehensive overhaul of feature distillation", ICCV 2019, eq. 1 to 5; regressor, factors and
the limit of the margin as in the authors' code; unlike networks: issue 16 of that code, where 0.01 of the weight helps.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardy.distillation._features import FeatureLoss
from hardy.distillation._matching import Matching, at_scale, values_of
from hardy.distillation._preactivations import Preactivations
from hardy.distillation.base import FeaturePair, PairedOutputs, Tap
from hardy.errors import InputError, within
from hardy.networks.base import Network
from hardy.networks.building.teacher import Teacher
from hardy.networks.parts.stages import INPUT

__all__ = ["Overhaul", "margins"]

_PIXELS = 512 * 512
_FACTOR = 1e-5


class Overhaul(FeatureLoss):
    """Args:
        matching: the features that belong together.
        teacher: what ``teacher_bn: batch`` runs; None runs the network of ``matching``.
        weight: of the loss.
        taps: the features to compare, see `Matching`; maps only. For a feature, the value before its last activation is
            used. The value of a layer is used as it is; the teacher's layer must be the output of a batch norm.
        divisors: d_i, one for each pair; by default 2^(n - 1 - i).
        teacher_bn: ``eval`` uses the teacher's normal outputs. ``batch`` runs it a second time with batch norms that
            use the statistics of the batch, as the authors' code for segmentation does, but without changing the
            running statistics.
        warm_up: number of steps in which this loss trains only the regressors, not the student.
        unlike: factor for networks of different families, see the module; 1 for none.

    Raises:
        InputError: for a number below 0; for ``divisors`` that are not one number above 0 for each pair; for a feature
            without a layer before an activation; for a teacher's layer without a batch norm; and what `Matching.pairs`
            raises.
    """

    def __init__(
        self,
        matching: Matching,
        teacher: Teacher | Network | None = None,
        *,
        weight: float = 1.0,
        taps: Sequence[Any] = ("stages",),
        divisors: Sequence[float] = (),
        teacher_bn: Literal["eval", "batch"] = "eval",
        warm_up: int = 0,
        unlike: float = 0.01,
    ) -> None:
        within("Overhaul.warm_up", warm_up, 0)
        within("Overhaul.unlike", unlike, 0)
        pairs, self.norms = _found(matching, taps)
        super().__init__(weight, pairs, normed=True)
        if divisors and (len(divisors) != len(pairs) or not all(0 < each < math.inf for each in divisors)):
            raise InputError(
                f"Overhaul.divisors: {list(divisors)} is not one number above 0 for each of {len(pairs)} taps"
            )
        self.divisors = tuple(divisors) or tuple(2.0 ** (len(pairs) - 1 - place) for place in range(len(pairs)))
        self.matching, self.teacher_bn, self.warm_up = matching, teacher_bn, warm_up
        self._given = (teacher,)  # a tuple, so that a network is not registered as a part of the loss
        self.first_stage = ("warm_up", warm_up)
        self.factor = 1.0 if _alike(matching, pairs[-1]) else unlike
        for pair, align in zip(pairs, self.aligners, strict=True):
            nn.init.normal_(align.get_parameter("project.weight"), std=math.sqrt(2 / pair.teacher.channels))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.steps: Tensor

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`."""
        if self.teacher_bn == "batch":
            outputs = replace(outputs, teacher_features=self._with_batch_statistics(outputs.images))
        if self.warm_up and int(self.steps) < self.warm_up:
            still = {name: value.detach() for name, value in outputs.student_features.items()}
            outputs = replace(outputs, student_features=still)
        self._check(outputs)
        return super().forward(outputs) * (_FACTOR * self.factor * _PIXELS / outputs.images.shape[-2:].numel())

    def compare(self, student: Tensor, teacher: Tensor, place: int) -> Tensor:
        """See `FeatureLoss.compare`; without the factors in front of the sum over pairs."""
        margin = margins(self._teacher.get_submodule(self.norms[place])).to(teacher)
        target = torch.maximum(teacher, margin[:, None, None])
        counted = (student > target) | (target > 0)
        return ((student - target).square() * counted).sum() / len(student) / self.divisors[place]

    def aligner(self, pair: FeaturePair) -> str:
        """See `DistillationLoss.aligner`."""
        unlike = "" if self.factor == 1 else f"; unlike networks, times {self.factor:g}"
        return f"{super().aligner(pair)} and batch norm{unlike}"

    def after_step(self, step: int) -> None:
        """See `DistillationLoss.after_step`."""
        self.steps.fill_(step)

    @property
    def _teacher(self) -> Network:
        assert self.matching.teacher is not None, "Matching.pairs checks it"
        return self.matching.teacher

    @torch.no_grad()
    def _with_batch_statistics(self, images: Tensor) -> dict[str, Tensor]:
        """The teacher's values when its batch norms use the statistics of ``images``."""
        network, (given,) = self._teacher, self._given
        teacher = given if isinstance(given, Teacher) else None
        with _batch_statistics(network), self.matching.recording() as (_, recorded):
            try:
                taught = teacher.outputs(images) if teacher else network.outputs(images.to(network.mean.dtype))
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise InputError(
                    "Overhaul.teacher_bn: batch needs batches of 2 or more images, because a batch norm of the teacher "
                    "gets one value per channel; use larger batches, or eval"
                ) from None
        values = values_of(taught, recorded)
        return at_scale(values, teacher.size, images.shape[-2:]) if teacher and teacher.size else values

    def _check(self, outputs: PairedOutputs) -> None:
        """Raise `InputError` for a batch that gives the batch norm of a regressor a single value per channel."""
        for pair in self.pairs:
            value = outputs.student_features[pair.student.name]
            if self.training and value.numel() == value.shape[1]:
                raise InputError(
                    f"Overhaul: the batch norm after {pair.student.name!r} gets one image with a single cell and "
                    "cannot compute statistics; use larger batches or images"
                )


def margins(norm: nn.Module) -> Tensor:
    """The mean (C,) of the negative values of each channel of the output of a batch norm ``norm``; see the module.

    A channel with scale 0 is constant: its margin is its shift, or 0 if the shift is above 0.
    """
    scale, shift = (norm.get_parameter(name).detach().float() for name in ("weight", "bias"))
    spread = scale.abs()
    ratio = shift / spread.clamp_min(1e-12)
    below = torch.special.ndtr(-ratio)
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    return torch.where(below > 0.001, shift - spread * density / below.clamp_min(0.001), -3 * spread)


@contextmanager
def _batch_statistics(network: nn.Module) -> Iterator[None]:
    """Inside the block the batch norms of ``network`` use batch statistics and do not change their running ones."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, (training, tracked) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracked


def _found(matching: Matching, taps: Sequence[Any]) -> tuple[tuple[FeaturePair, ...], list[str]]:
    """The pairs of values before activations, and the teacher's batch norm of each pair.

    Stages that were not named individually are left out if they have no such value, as long as one stage is left.
    """
    owner = "Overhaul.taps"
    chosen = matching.pairs(taps, owner)
    networks = (matching.student, matching.teacher)
    assert networks[1] is not None, "Matching.pairs checks it"
    seen = [Preactivations(network) for network in networks if network is not None]
    names = [tuple(_layer(seen[side], pair[side], side == 1) for side in (0, 1)) for pair in chosen]
    found = [both for both in names if None not in both]
    lost = [place for place, both in enumerate(names) if None in both]
    if lost and (not found or any(chosen[place].student.name in _words(taps) for place in lost)):
        side = names[lost[0]].index(None)
        which, need = (("student", "an activation"), ("teacher", "an activation after a batch norm"))[side]
        raise InputError(
            f"{owner}: the {which}, {type(networks[side]).__name__}, has no layer before {need} in "
            f"{chosen[lost[0]][side].name!r}; name layers that have one: [student, teacher]"
        )
    pairs = matching.pairs([list(both) for both in found], owner)
    norms = [seen[1].norm(pair.teacher.name) for pair in pairs]
    for pair, norm in zip(pairs, norms, strict=True):
        if norm is None or getattr(networks[1].get_submodule(norm), "weight", None) is None:
            raise InputError(
                f"{owner}: the teacher's {pair.teacher.name!r} is not the output of a batch norm with a scale, which "
                "the margins are computed from; name a layer that is"
            )
    return pairs, [norm for norm in norms if norm is not None]


def _layer(seen: Preactivations, tap: Tap, normed: bool) -> str | None:
    """The layer to tap for a feature; any other tap already names a layer."""
    return seen.layer(tap.name, normed=normed) if tap.name in seen.features else tap.name


def _words(taps: Sequence[Any]) -> set[str]:
    """The names in ``taps``."""
    return {name for entry in taps for name in ([entry] if isinstance(entry, str) else entry)}


def _alike(matching: Matching, pair: FeaturePair) -> bool:
    """Whether the blocks that hold the taps of ``pair`` are defined in the same source file."""
    networks = (matching.student, matching.teacher)
    first, second = (
        type(_block(network, tap.name)).__module__
        for network, tap in zip(networks, pair, strict=True)
        if network is not None
    )
    return first == second


def _block(network: Network, layer: str) -> nn.Module:
    """The smallest module around ``layer`` with two or more convolutions that is not a container class of PyTorch."""
    parts = layer.removesuffix(INPUT).split(".")
    around = [network.get_submodule(".".join(parts[:count])) for count in range(len(parts), 0, -1)]
    return next((module for module in around if _is_block(module)), network)


def _is_block(module: nn.Module) -> bool:
    convolutions = sum(isinstance(each, nn.Conv2d) for each in module.modules())
    return convolutions > 1 and not type(module).__module__.startswith("torch.")
