"""Query-based soft distillation: attention with the teacher's keys rebuilds the teacher's features from the student's.

    L = mean_i |sum_j a_ij v_j - t_i|^2 / C + |v(mean_i s_i) - mean_i t_i|^2 / C
    a_i = softmax_j(q_i . t_j),    q_i = W_q LN(s_i),    v_j = W_v LN(s_j)

s and t are the features of student and teacher at the n positions of a map, and C is the number of the teacher's
channels. The keys are the teacher's features; the values come from the student's. The attention has one head and is not
scaled. The second term compares the averages over an image, with its own head v; it needs no query, because the softmax
over a single position is 1. The teacher's map is resized to the student's; both are averaged to at most 4096 positions.

An algorithm that masks patches of a second view sets ``mask``, and gives the masked positions as the positions that
count.

Source: Younger-hua/GKD, "Generalizable knowledge distillation", CVPR 2026, arXiv:2603.02554, its first stage; there the
features are the tokens of vision transformers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hardy.distillation._maps import marked_at, pooled, tokens, wide
from hardy.distillation._matching import Matching
from hardy.distillation.base import DistillationLoss, FeaturePair, PairedOutputs
from hardy.networks.base import resize
from hardy.types import Terms

__all__ = ["QuerySoft"]

_MOST = 4096
"""The largest number of positions of a map; the attention matrix has the square of this number of values."""


class QuerySoft(DistillationLoss):
    """Args:
        matching: finds the taps.
        weight: of both terms.
        taps: see `Matching`. Several are summed.
        image: also compare the averages of the maps over an image.
        mask: compute the first term only over the positions that count.

    Raises:
        InputError: for a negative ``weight``, and what `Matching.pairs` raises.
    """

    def __init__(
        self,
        matching: Matching,
        *,
        weight: float = 1.0,
        taps: Sequence[Any] = ("deepest",),
        image: bool = True,
        mask: bool = False,
    ) -> None:
        super().__init__(weight)
        self.masks = mask
        self.pairs = matching.pairs(taps, "QuerySoft.taps", vectors=True)
        self.queries = nn.ModuleList(_head(pair) for pair in self.pairs)
        self.values = nn.ModuleList(_head(pair) for pair in self.pairs)
        self.wholes = nn.ModuleList(_head(pair) for pair in self.pairs) if image else None

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`."""
        return torch.stack(list(self._parts(outputs).values())).sum()

    def terms(self, outputs: PairedOutputs) -> Terms:
        """The term ``positions`` and, unless it is off, the term ``image``."""
        return {name: self.weight * value for name, value in self._parts(outputs).items()}

    def aligner(self, pair: FeaturePair) -> str:
        """See `DistillationLoss.aligner`."""
        return f"query and value, {pair.student.channels} to {pair.teacher.channels}"

    def _parts(self, outputs: PairedOutputs) -> dict[str, Tensor]:
        """The unweighted terms."""
        parts: dict[str, list[Tensor]] = {}
        for index, pair in enumerate(self.pairs):
            student, teacher = (wide(value) for value in outputs.features(pair))
            with torch.autocast(student.device.type, enabled=False):
                if self.wholes is not None:
                    built = self.wholes[index](student.mean((2, 3)))
                    parts.setdefault("image", []).append((built - teacher.mean((2, 3))).square().mean())
                teacher = tokens(pooled(resize(teacher, student.shape[-2:]), _MOST))
                student = pooled(student, _MOST)
                each = (self._built(index, tokens(student), teacher) - teacher).square().mean(2)
                if self.masks:
                    counted = marked_at(outputs.counted, student.shape[-2:]).flatten(1)
                    value = torch.where(counted, each, 0).sum() / counted.sum().clamp_min(1)
                else:
                    value = each.mean()
                parts.setdefault("positions", []).append(value)
        return {name: torch.stack(values).sum() for name, values in parts.items()}

    def _built(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The teacher's features (B, n, C) as rebuilt from the student's features (B, n, c)."""
        attention = (self.queries[index](student) @ teacher.mT).softmax(2)
        built: Tensor = attention @ self.values[index](student)
        return built


def _head(pair: FeaturePair) -> nn.Sequential:
    """A norm and a linear layer, from the student's channels to the teacher's."""
    return nn.Sequential(nn.LayerNorm(pair.student.channels), nn.Linear(pair.student.channels, pair.teacher.channels))
