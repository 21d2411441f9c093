"""Holistic distillation: a critic learns to distinguish the teacher's score maps from the student's.

    L = -E D(s),    D minimises  -E D(t) + E D(s) + 10 E (|grad D(e t + (1 - e) s)| - 1)^2

s and t are the logits of student and teacher, resized to a square. D is a Wasserstein critic with gradient penalty. In
each step the critic is trained first, with its own optimiser, on its loss times 0.1. Then it is fixed, and it scores
the student. The norm of the critic's gradient is clipped at 1, which is not in the paper: without clipping, the critic
diverged at ten times the paper's learning rate. With ``condition_on_image`` the critic also gets the image, as in the
paper; in the authors' released code it gets only the logits. The gradient in the penalty is that with respect to the
logits.

Source: Liu et al., "Structured knowledge distillation for semantic segmentation", CVPR 2019, eq. 5 and 6; the layers of
the critic, its optimiser and its weight from the authors' code.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parametrize
from torch.optim import SGD, Optimizer

from hardy.distillation._critic import Critic, gradient_penalty
from hardy.distillation.base import DistillationLoss, PairedOutputs
from hardy.errors import InputError, within
from hardy.networks.base import Network, resize

__all__ = ["Holistic"]

_SCALE = 0.1
"""The weight of the critic's own loss."""

_CLIP = 1.0
"""The largest norm of the critic's gradient."""


class Holistic(DistillationLoss):
    """Args:
        network: the student, which normalises the images for the critic.
        class_count: K, the channels of the logits.
        weight: of the student's loss.
        size: the side of the square that logits are resized to, 16 or more; use less than 65 for small images.
        condition_on_image: also give the image to the critic.
        penalty: the weight of the gradient penalty.
        critic_lr: the learning rate of the critic, in (0, 1), for SGD with momentum 0.9 and weight decay 1e-4.
        decay_steps: the number of steps in which ``critic_lr`` falls to 0, as ``(1 - step / decay_steps) ** 0.9``; with
            0 it is constant.

    Raises:
        InputError: for a value out of range.
    """

    dense = True
    draws = True

    def __init__(
        self,
        network: Network,
        class_count: int,
        *,
        weight: float = 0.1,
        size: int = 65,
        condition_on_image: bool = False,
        penalty: float = 10.0,
        critic_lr: float = 4e-4,
        decay_steps: int = 0,
    ) -> None:
        super().__init__(weight)
        within("Holistic.size", size, 16)
        within("Holistic.penalty", penalty, 0)
        within("Holistic.decay_steps", decay_steps, 0)
        if not 0 < critic_lr < 1:
            raise InputError(f"Holistic.critic_lr: {critic_lr} is out of range; it must be between 0 and 1")
        self.size, self.condition_on_image, self.penalty = size, condition_on_image, penalty
        self.critic_lr, self.decay_steps = critic_lr, decay_steps
        self.normalise = network.normalise  # only the method: the student is not a submodule of its loss
        self.critic = Critic(class_count + (3 if condition_on_image else 0), size)
        self.optimiser = SGD(self.critic.parameters(), lr=critic_lr, momentum=0.9, weight_decay=1e-4)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.steps: Tensor

    def optimisers(self) -> dict[str, Optimizer]:
        """The optimiser of the critic."""
        return {"critic": self.optimiser}

    def after_step(self, step: int) -> None:
        """See `DistillationLoss.after_step`."""
        self.steps.fill_(step)

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`; in training mode the critic makes one step first."""
        with torch.autocast(outputs.student.device.type, enabled=False):
            student, teacher = (self._square(maps) for maps in (outputs.student, outputs.teacher))
            image = self._square(self.normalise(outputs.images)) if self.condition_on_image else None
            if self.training:
                self._step(student.detach(), teacher, image)
            with _fixed(self.critic):
                return -self._judge(image)(student).mean()

    def _square(self, maps: Tensor) -> Tensor:
        return resize(maps.to(self.critic.norm.weight.dtype), (self.size, self.size))

    def _judge(self, image: Tensor | None) -> Callable[[Tensor], Tensor]:
        """The critic as a function of logits (B, K, s, s), given the images ``image`` (B, 3, s, s)."""

        def judge(maps: Tensor) -> Tensor:
            scores: Tensor = self.critic(_beside(maps, image))
            return scores

        return judge

    def _step(self, student: Tensor, teacher: Tensor, image: Tensor | None) -> None:
        """Train the critic by one step, in place."""
        if self.decay_steps:
            left = max(0.0, 1 - int(self.steps) / self.decay_steps)
            self.optimiser.param_groups[0]["lr"] = self.critic_lr * left**0.9
        self.critic.train().observe(torch.cat([_beside(teacher, image), _beside(student, image)]))
        judge = self._judge(image)
        self.optimiser.zero_grad()
        with torch.enable_grad(), parametrize.cached():  # one power iteration, one set of weights for all passes
            wrong = judge(student).mean() - judge(teacher).mean()
            loss = _SCALE * (wrong + self.penalty * gradient_penalty(judge, teacher, student))
            loss.backward()
        clip_grad_norm_(self.critic.parameters(), _CLIP)
        self.optimiser.step()
        self.optimiser.zero_grad()


def _beside(maps: Tensor, image: Tensor | None) -> Tensor:
    return maps if image is None else torch.cat([maps, image], 1)


@contextmanager
def _fixed(critic: nn.Module) -> Iterator[None]:
    """Inside the block ``critic`` is in evaluation mode; gradients flow through it but not into its parameters."""
    critic.eval().requires_grad_(False)
    try:
        yield
    finally:
        critic.requires_grad_(True)
