"""Knowledge adaptation: an auto-encoder first compresses the teacher's deepest feature; then the student imitates it.

Stage one takes ``autoencoder_steps`` steps. An auto-encoder is trained on the teacher's feature t, with its own
optimiser, and this loss does not train the student:

    L_AE = mean (D(E(t)) - t)^2 + 1e-7 |E(t)|_1

The l1 norm is that of an image, averaged over images. t is divided by its root mean square over the first batch, so
that the learning rate suits features of any magnitude (with values around 170, the paper's rate diverged). In stage two
E is fixed, and the student's feature s is trained with

    L = 50 mean |u(C_f(s)) - u(E(t))| + 1 / n^2 sum_ij (cos(a_i, a_j) - cos(e_i, e_j))^2

u divides the values of an image by their l2 norm. a = C_a(s) and e = E(t) have n positions, at most 4096; larger maps
are averaged. C_f is a 3x3 convolution, batch norm and ReLU; C_a is a 3x3 convolution; both maps are resized to E(t). E
has three 3x3 convolutions with batch norm and LeakyReLU 0.1, from the teacher's C channels to C, C/2 and C/2. D is the
reverse; its last layer is linear, so it can reach any value. As in torchdistill, the convolutions of E keep the size of
the map by default; those of the paper have stride 2.

torchdistill 1.1.5 computes the same adaptation term but another affinity: it normalises each channel over the
positions, and compares channels one by one. The affinity here is the paper's cosine of two positions.

Source: He, Shen, Tian, Gong, Sun and Yan, "Knowledge adaptation for efficient semantic segmentation", CVPR 2019, eq. 1
to 4.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from hardy.distillation._maps import affinity_error, pooled, wide
from hardy.distillation._matching import Matching
from hardy.distillation.base import DistillationLoss, FeaturePair, PairedOutputs
from hardy.errors import InputError, within
from hardy.networks.base import resize
from hardy.types import Terms

__all__ = ["KnowledgeAdaptation"]

_SPARSITY = 1e-7
_MOST = 4096
"""The largest number of positions that the affinity compares."""


class KnowledgeAdaptation(DistillationLoss):
    """Args:
        matching: finds the taps.
        weight: of both terms.
        taps: see `Matching`; one pair. The auto-encoder compresses the teacher's value.
        autoencoder_steps: the number of steps of stage one; in the paper, one epoch.
        autoencoder_lr: the learning rate of the auto-encoder, in (0, 10), for SGD with momentum 0.9 and weight decay
            1e-4.
        stride: of the three convolutions of E, 1 or 2.
        adaptation_weight: of the first term of stage two.
        affinity_weight: of its second term.

    Raises:
        InputError: for a value out of range, taps that are not one pair, and what `Matching.pairs` raises.
    """

    def __init__(
        self,
        matching: Matching,
        *,
        weight: float = 1.0,
        taps: Sequence[Any] = ("deepest",),
        autoencoder_steps: int = 400,
        autoencoder_lr: float = 0.1,
        stride: int = 1,
        adaptation_weight: float = 50.0,
        affinity_weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        within("KnowledgeAdaptation.autoencoder_steps", autoencoder_steps, 0)
        within("KnowledgeAdaptation.stride", stride, 1, 2)
        within("KnowledgeAdaptation.adaptation_weight", adaptation_weight, 0)
        within("KnowledgeAdaptation.affinity_weight", affinity_weight, 0)
        if not 0 < autoencoder_lr < 10:
            raise InputError(
                f"KnowledgeAdaptation.autoencoder_lr: {autoencoder_lr} is out of range; it must be between 0 and 10"
            )
        self.pairs = matching.pairs(taps, "KnowledgeAdaptation.taps")
        if len(self.pairs) > 1:
            raise InputError(f"KnowledgeAdaptation.taps: {len(self.pairs)} pairs; name one, such as [deepest]")
        self.autoencoder_steps = autoencoder_steps
        self.first_stage = ("autoencoder_steps", autoencoder_steps)
        self.adaptation_weight, self.affinity_weight = adaptation_weight, affinity_weight
        student, teacher = (tap.channels for tap in self.pairs[0])
        half = max(1, teacher // 2)
        self.encoder = nn.Sequential(
            *_down(teacher, teacher, stride), *_down(teacher, half, stride), *_down(half, half, stride)
        )
        self.decoder = nn.Sequential(
            *_up(half, half, stride), *_up(half, teacher, stride), _transposed(teacher, teacher, stride)
        )
        self.feature_adapter = nn.Sequential(nn.Conv2d(student, half, 3, padding=1), nn.BatchNorm2d(half), nn.ReLU())
        self.affinity_adapter = nn.Conv2d(student, half, 3, padding=1)
        own = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimiser = SGD(own, lr=autoencoder_lr, momentum=0.9, weight_decay=1e-4)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.zeros(()))  # of the teacher's feature; 0 until the first batch
        self.steps: Tensor
        self.scale: Tensor

    def optimisers(self) -> dict[str, Optimizer]:
        """The optimiser of the auto-encoder."""
        return {"autoencoder": self.optimiser}

    def after_step(self, step: int) -> None:
        """See `DistillationLoss.after_step`."""
        self.steps.fill_(step)

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`; 0 in stage one, where in training mode the auto-encoder makes one step."""
        return torch.stack(list(self._parts(outputs).values())).sum()

    def terms(self, outputs: PairedOutputs) -> Terms:
        """The terms ``adaptation`` and ``affinity``."""
        return {name: self.weight * value for name, value in self._parts(outputs).items()}

    def aligner(self, pair: FeaturePair) -> str:
        """See `DistillationLoss.aligner`."""
        half = max(1, pair.teacher.channels // 2)
        return f"3x3 convolutions {pair.student.channels} to {half}, auto-encoder {pair.teacher.channels} to {half}"

    def _parts(self, outputs: PairedOutputs) -> dict[str, Tensor]:
        """The terms, each with its weight in the sum."""
        student, teacher = (wide(value) for value in outputs.features(self.pairs[0]))
        with torch.autocast(student.device.type, enabled=False):
            if int(self.steps) < self.autoencoder_steps:
                if self.training:
                    self._step(teacher)
                nothing = 0 * self.affinity_adapter.weight.sum()  # depends on a parameter, so a backward pass works
                return {"adaptation": nothing, "affinity": nothing}
            self.encoder.eval()
            with torch.no_grad():
                compact = self.encoder(self._scaled(teacher))
            adapted = resize(self.feature_adapter(student), compact.shape[-2:])
            related = resize(self.affinity_adapter(student), compact.shape[-2:])
            return {
                "adaptation": self.adaptation_weight * _distance(adapted, compact),
                "affinity": self.affinity_weight * affinity_error(pooled(related, _MOST), pooled(compact, _MOST)),
            }

    def _step(self, teacher: Tensor) -> None:
        """Train the auto-encoder by one step, in place."""
        self.encoder.train()
        self.decoder.train()
        self.optimiser.zero_grad()
        teacher = self._scaled(teacher)
        with torch.enable_grad():
            compact = self.encoder(teacher)
            rebuilt = resize(self.decoder(compact), teacher.shape[-2:])
            loss = (rebuilt - teacher).square().mean() + _SPARSITY * compact.abs().sum((1, 2, 3)).mean()
            loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def _scaled(self, teacher: Tensor) -> Tensor:
        """``teacher`` divided by `scale`, which the first call sets in place."""
        if not self.scale:
            self.scale.copy_(teacher.square().mean().sqrt().clamp_min(1e-12))
        return teacher / self.scale


def _distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean absolute difference of two maps (B, C, h, w), each image divided by its l2 norm."""
    own, taught = (F.normalize(x.flatten(1), dim=1) for x in (student, teacher))
    return (own - taught).abs().mean()


def _down(before: int, after: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.LeakyReLU(0.1)]


def _up(before: int, after: int, stride: int) -> list[nn.Module]:
    return [_transposed(before, after, stride), nn.BatchNorm2d(after), nn.LeakyReLU(0.1)]


def _transposed(before: int, after: int, stride: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 3, stride, 1, output_padding=stride - 1)
