"""Pair-wise similarity: the cosines between positions of an image are to be the same in student and teacher.

    L = 1 / (N n^2) sum_ij (a^s_ij - a^t_ij)^2,    a_ij = cos(f_i, f_j)

The sum is over all pairs of the n nodes of each of N images. A node is the average, or the maximum, of a square of
``size`` x ``size`` cells of the feature map. With ``node: fraction``, ``size`` is a fraction of the map's height and
width. No aligner is needed, because only cosines are compared. The teacher's map is resized to the student's.

The gradient includes that of the norms in the cosine. The authors' code treats the norms as constants, so its gradient
has another direction. It also defines a node as a fraction of the map, 0.5 by default: on 64 x 64 cells this leaves 2 x
2 nodes. With ``fraction`` the map is divided evenly; the authors' code leaves narrow strips at odd sizes.

Source: Liu et al., "Structured knowledge distillation for semantic segmentation", CVPR 2019, eq. 3; nodes of 2 x 2
cells as in section 4.3 there.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.distillation._maps import affinity_error, head_taps, wide
from hardy.distillation._matching import Matching
from hardy.distillation.base import DistillationLoss, PairedOutputs
from hardy.errors import InputError, within
from hardy.networks.base import resize

__all__ = ["Pairwise"]


class Pairwise(DistillationLoss):
    """Args:
        matching: finds the taps.
        weight: of the loss.
        taps: see `Matching`; None for the embedding, or for image-level classes the deepest stage. Several are summed.
        node: what ``size`` counts: cells (``pixels`` of the map) or a ``fraction`` of the map's height and width.
        size: the side of a node: a whole number of cells, or a fraction in (0, 1].
        pooling: how the cells of a node are combined: ``avg`` or ``max``.
        most_nodes: the largest number of nodes per image; if there would be more, nodes become larger.

    Raises:
        InputError: for a ``size`` that does not fit ``node``, a value out of range, and what `Matching.pairs` raises.
    """

    def __init__(
        self,
        matching: Matching,
        *,
        weight: float = 1.0,
        taps: Sequence[Any] | None = None,
        node: Literal["pixels", "fraction"] = "pixels",
        size: float = 2.0,
        pooling: Literal["avg", "max"] = "avg",
        most_nodes: int = 4096,
    ) -> None:
        super().__init__(weight)
        within("Pairwise.most_nodes", most_nodes, 1)
        if node == "pixels" and not (size >= 1 and size % 1 == 0):
            raise InputError(f"Pairwise.size: {size} is not a whole number of cells; use 1 or more, or node: fraction")
        if node == "fraction" and not 0 < size <= 1:
            raise InputError(f"Pairwise.size: {size} is not a fraction; use a number in (0, 1], or node: pixels")
        self.node, self.size, self.pooling, self.most_nodes = node, size, pooling, most_nodes
        self.pairs = matching.pairs(head_taps(matching, taps), "Pairwise.taps")

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`."""
        values = []
        for pair in self.pairs:
            student, teacher = (wide(value) for value in outputs.features(pair))
            with torch.autocast(student.device.type, enabled=False):
                teacher = resize(teacher, student.shape[-2:])
                values.append(affinity_error(self._nodes(student), self._nodes(teacher)))
        return torch.stack(values).sum()

    def _nodes(self, x: Tensor) -> Tensor:
        """The nodes of ``x`` (B, C, h, w) as a smaller map, (B, C, h', w')."""
        if self.node == "pixels":
            side = int(self.size)
            while math.prod(-(-cells // side) for cells in x.shape[-2:]) > self.most_nodes:
                side += 1
            pool = F.avg_pool2d if self.pooling == "avg" else F.max_pool2d
            return pool(x, side, ceil_mode=True)
        across = math.ceil(1 / self.size - 1e-9)  # so that 0.333333333 gives 3
        high, wide_ = x.shape[-2:]
        while (shape := (min(across, high), min(across, wide_)))[0] * shape[1] > self.most_nodes:
            across = min(across, max(shape)) - 1
        adaptive = F.adaptive_avg_pool2d if self.pooling == "avg" else F.adaptive_max_pool2d
        return adaptive(x, shape)
