"""Several teachers as one: their class probabilities are averaged, over the classes that all of them predict.

    t = log (1/n) sum_i softmax(t_i) + (1/n) sum_i logsumexp(t_i)

so that softmax(t) is the mean. The second sum is the same for all classes of a position. With it the logits of a single
teacher do not change, which matters for losses that compare positions, such as ``cwd``. Classes are matched by name.
The logits of classes that not all teachers have are removed first.

Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015, section 1 (the
arithmetic mean of an ensemble's predictions).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.teacher import Teacher
from hardy.types import Outputs

__all__ = ["Averaged"]


class Averaged(Network):
    """The average of ``teachers``; it returns logits only.

    Args:
        teachers: one or more.

    Raises:
        InputError: for teachers without a class in common, or when one predicts masks and another image-level classes.
    """

    gives_features = False
    least_size = 1

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        super().__init__(_shared([teacher.label_space for teacher in teachers]), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        if len({teacher.image_level for teacher in teachers}) > 1:
            raise InputError("teacher: one predicts masks and another image-level classes; all must predict the same")
        self.image_level = teachers[0].image_level
        self.teachers = nn.ModuleList(teachers)
        self._orders = [[teacher.label_space.index(name) for name in self.label_space.classes] for teacher in teachers]

    def outputs(self, images: Tensor) -> Outputs:
        """The logits (B, K, H, W), or (B, K), of the mean probabilities, in float32 at least.

        Raises:
            InputError: for images that a teacher does not take.
        """
        total: Tensor | None = None
        sizes: Tensor | float = 0.0
        for teacher, order in zip(self.teachers, self._orders, strict=True):
            logits = teacher(images)
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            chosen = wide[:, torch.tensor(order, device=wide.device)]
            size = chosen.logsumexp(1, keepdim=True)
            total = chosen - size if total is None else torch.logaddexp(total, chosen - size)
            sizes = sizes + size
        assert total is not None, "there is a teacher"
        return Outputs(total - math.log(len(self.teachers)) + sizes / len(self.teachers))


def _shared(spaces: Sequence[LabelSpace]) -> LabelSpace:
    """The classes that are in each of ``spaces``, with the order and colours of the first."""
    first = spaces[0]
    common = [name for name in first.classes if all(name in space.classes for space in spaces)]
    names = " and ".join(dict.fromkeys(space.name for space in spaces))
    if not common:
        raise InputError(f"teacher: {names} have no class in common; name teachers that predict the same classes")
    if len(common) == len(first):
        return first
    return LabelSpace(
        f"the classes common to {names}", tuple(common), tuple(first.colours[first.index(c)] for c in common)
    )
