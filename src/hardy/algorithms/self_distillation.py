"""Self-distillation: the network is trained on the labels and on the class probabilities of a teacher.

    loss = loss of the labels + weight T^2 mean_i KL(softmax(t_i / T) || softmax(s_i / T))

s and t are the logits of the network and of its teacher, and i runs over the labelled pixels. The teacher is frozen, in
evaluation mode, and gets the same images as the network. A recipe names it as ``teacher``. In the recovery after
pruning the default teacher is the network before pruning. No adapter is needed, because both networks have logits of
the same shape.

Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015, section 2; to
recover a pruned network from the unpruned one by its logits: Muralidharan et al., "Compact language models via pruning
and knowledge distillation", NeurIPS 2024, section 3.
"""

import math

from hardy.algorithms.base import Algorithm
from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss, resize
from hardy.networks.building.teacher import Teacher
from hardy.ops.divergence import divergence
from hardy.types import IGNORE, Batch, Terms

__all__ = ["SelfDistillation"]


class SelfDistillation(Algorithm):
    """Minimise the loss on the labels plus the divergence from the teacher.

    Args:
        network: what is trained.
        pixel_loss: the loss of one head.
        teacher: predicts the same classes as ``network``.
        temperature: T; above 1 the small probabilities of the teacher have more weight.
        weight: of the divergence; with 0 only the loss on the labels is left.

    Raises:
        InputError: for a ``temperature`` that is not above 0, a negative ``weight``, or a teacher of other classes.
    """

    def __init__(
        self,
        network: Network,
        pixel_loss: PixelLoss,
        teacher: Teacher,
        *,
        temperature: float = 1.0,
        weight: float = 3.0,
    ) -> None:
        if not 0 < temperature < math.inf:
            raise InputError(f"SelfDistillation.temperature: {temperature} is out of range; it must be above 0")
        within("SelfDistillation.weight", weight, 0)
        if (teacher.labels.classes, teacher.image_level) != (network.labels.classes, network.image_level):
            raise InputError(
                f"SelfDistillation: the teacher predicts {teacher.labels.name} and the network {network.labels.name}; "
                "both must predict the same classes"
            )
        super().__init__(network)
        self.pixel_loss, self.temperature, self.weight = pixel_loss, temperature, weight
        self.teacher = teacher

    def forward(self, batch: Batch) -> Terms:
        """The network's loss terms of ``batch``, and ``distillation``, the weighted divergence from the teacher."""
        outputs = self.network.outputs(batch.images)
        taught = self.teacher(batch.images)
        if taught.ndim == 4:
            taught = resize(taught, outputs.logits.shape[-2:])
        apart = divergence(taught, outputs.logits, batch.labels != IGNORE, self.temperature)
        terms = self.network.losses(outputs, batch.labels, self.pixel_loss)
        return {**terms, "distillation": self.weight * apart}
