"""Cross-image relations: similarities between pixels of different images are to be the same in student and teacher.

    L = L_batch + 0.1 L_pixels + 0.1 L_regions

Each part is the mean over pixels of KL(softmax_j(t_i . m_j / T) || softmax_j(s_i . m_j / T)). All vectors have length
1, and T is the temperature:

- batch: m are the pixels of one image of the batch, the student's for s and the teacher's for t. The mean is over all
  pairs of images, including each image with itself. Larger maps are averaged to at most ``most_nodes`` positions.
- pixels: m are about 4096 vectors from a memory of the teacher's pixels, the same number for each class. A projector
  maps the student's pixels to the teacher's channels. Each image adds up to 16 pixels of each of its classes.
- regions: the same with about 1024 vectors, each the mean of the teacher's pixels of one class in one image.

The memory holds only pixels with a label. Images without labels are used only in the first part. A weight of 0 turns a
part off. The memory parts use at most 4096 pixels of a batch; if there are more, they are drawn at random. The
teacher's map is resized to the student's. The authors also add the divergence of the logits (`hardy.distillation.kl`,
weight 1). For some data sets they use a weight of 0.01 for the two memory parts.

The memory holds half-precision values, 2 K C (pixel_memory + region_memory) bytes, and is part of a checkpoint: 27 MB
for 19 classes and 288 channels. The authors' code keeps 20000 pixels and 2000 regions per class, 241 MB, of which a
step compares about 216 and 54. In two points it differs from the paper: the memory starts with noise, and the pixels
written to it come from wrong positions.

Source: Yang, Zhou, An, Jiang, Xu and Zhang, "Cross-image relational knowledge distillation for semantic segmentation",
CVPR 2022, eq. 4 to 12; sizes and the projector from the authors' code.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.distillation._maps import head_taps, labels_at, pooled, tokens, wide
from hardy.distillation._matching import Matching
from hardy.distillation._memory import Memory
from hardy.distillation.base import DistillationLoss, FeaturePair, PairedOutputs
from hardy.errors import InputError, within
from hardy.networks.base import resize
from hardy.types import IGNORE, Terms

__all__ = ["CIRKD"]

_QUERIES = 4096
_PIXELS, _REGIONS = 4096, 1024
_PER_CLASS = 16


class CIRKD(DistillationLoss):
    """Args:
        matching: finds the taps.
        class_count: K, the number of classes.
        weight: of all parts.
        taps: see `Matching`; one pair. None for the embedding, or for image-level classes the deepest stage.
        temperature: T of all parts.
        pixel_weight: of the part ``pixels``; 0 turns it off.
        region_weight: of the part ``regions``; 0 turns it off.
        pixel_memory: the largest number of pixels per class in the memory.
        region_memory: the largest number of regions per class in the memory.
        most_nodes: the largest number of positions per image in the part ``batch``, which compares all pairs.

    Raises:
        InputError: for a value out of range, taps that are not one pair, and what `Matching.pairs` raises.
    """

    draws = True

    def __init__(
        self,
        matching: Matching,
        class_count: int,
        *,
        weight: float = 1.0,
        taps: Sequence[Any] | None = None,
        temperature: float = 0.1,
        pixel_weight: float = 0.1,
        region_weight: float = 0.1,
        pixel_memory: int = 2000,
        region_memory: int = 500,
        most_nodes: int = 1024,
    ) -> None:
        super().__init__(weight)
        for name, value, least in (
            ("pixel_weight", pixel_weight, 0),
            ("region_weight", region_weight, 0),
            ("pixel_memory", pixel_memory, 1),
            ("region_memory", region_memory, 1),
            ("most_nodes", most_nodes, 1),
        ):
            within(f"CIRKD.{name}", value, least)
        if not 0 < temperature < float("inf"):
            raise InputError(f"CIRKD.temperature: {temperature} is out of range; it must be above 0")
        self.pairs = matching.pairs(head_taps(matching, taps), "CIRKD.taps")
        if len(self.pairs) > 1:
            raise InputError(f"CIRKD.taps: {len(self.pairs)} pairs; name one, such as [embedding]")
        self.temperature, self.most_nodes = temperature, most_nodes
        self.part_weights = {"batch": 1.0, "pixels": pixel_weight, "regions": region_weight}
        student, teacher = (tap.channels for tap in self.pairs[0])
        self.pixels = Memory(class_count, pixel_memory, teacher) if pixel_weight else None
        self.regions = Memory(class_count, region_memory, teacher) if region_weight else None
        self.projector = (
            nn.Sequential(
                nn.Conv2d(student, teacher, 1, bias=False),
                nn.BatchNorm2d(teacher),
                nn.ReLU(),
                nn.Conv2d(teacher, teacher, 1, bias=False),
            )
            if pixel_weight or region_weight
            else None
        )

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`; in training mode the batch is first written to the memory."""
        return torch.stack(list(self._parts(outputs).values())).sum()

    def terms(self, outputs: PairedOutputs) -> Terms:
        """The terms ``batch``, ``pixels`` and ``regions``, except those that are turned off."""
        return {name: self.weight * value for name, value in self._parts(outputs).items()}

    def aligner(self, pair: FeaturePair) -> str:
        """See `DistillationLoss.aligner`."""
        sizes = f"{pair.student.channels} to {pair.teacher.channels}"
        return "none" if self.projector is None else f"two 1x1 convolutions {sizes} for the memory"

    def _parts(self, outputs: PairedOutputs) -> dict[str, Tensor]:
        """The parts, each with its weight in the sum."""
        student, teacher = (wide(value) for value in outputs.features(self.pairs[0]))
        with torch.autocast(student.device.type, enabled=False):
            teacher = resize(teacher, student.shape[-2:])
            found = {"batch": self._batch(pooled(student, self.most_nodes), pooled(teacher, self.most_nodes))}
            if self.projector is not None:
                found |= self._remembered(self.projector(student), teacher, outputs.labels)
            return {name: self.part_weights[name] * value for name, value in found.items()}

    def _batch(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The part ``batch``, from maps (B, C, h, w) of the student and (B, C', h, w) of the teacher."""
        own, taught = (F.normalize(tokens(x), dim=2) for x in (student, teacher))
        values = []
        for left, right in zip(own, taught, strict=True):  # one image with all: (B, n, n) values at a time
            values.append(self._divergence(left @ own.mT, right @ taught.mT))
        return torch.stack(values).mean()

    def _remembered(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """The memory parts, for two maps (B, C, h, w) of the same shape."""
        own, taught = (F.normalize(tokens(x), dim=2) for x in (student, teacher))
        size = student.shape[-2:]
        here = torch.full(own.shape[:2], IGNORE) if labels is None else labels_at(labels.cpu(), size).flatten(1)
        if self.training:
            self._remember(taught, here)
        queries = (here.flatten() != IGNORE).nonzero()[:, 0]
        if len(queries) > _QUERIES:
            queries = queries[torch.randperm(len(queries))[:_QUERIES]]
        queries = queries.to(own.device)
        own, taught = own.flatten(0, 1)[queries], taught.flatten(0, 1)[queries]
        found = {}
        for name, memory, count in (("pixels", self.pixels, _PIXELS), ("regions", self.regions, _REGIONS)):
            if memory is not None:
                known = memory.drawn(count).to(own)
                some = len(queries) > 0 and len(known) > 0
                value = self._divergence(own @ known.T, taught @ known.T) if some else 0 * student.flatten()[:1].sum()
                found[name] = value
        return found

    def _remember(self, teacher: Tensor, labels: Tensor) -> None:
        """Write pixels and regions of ``teacher`` (B, n, C), unit vectors with ``labels`` (B, n) on the CPU."""
        rows, row_labels, means, mean_labels = [], [], [], []
        for image, here in enumerate(labels):
            for label in here[here != IGNORE].unique().tolist():
                places = (here == label).nonzero()[:, 0]
                chosen = places[torch.randperm(len(places))[:_PER_CLASS]]
                rows.append(chosen + image * len(here))
                row_labels += [label] * len(chosen)
                means.append(teacher[image, places.to(teacher.device)].mean(0))
                mean_labels.append(label)
        if self.pixels is not None and rows:
            self.pixels.write(teacher.flatten(0, 1)[torch.cat(rows).to(teacher.device)], row_labels)
        if self.regions is not None and means:
            self.regions.write(F.normalize(torch.stack(means), dim=1), mean_labels)

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean divergence over the rows of two matrices of cosines, (..., m) each."""
        log_p, log_q = (F.log_softmax(x / self.temperature, -1) for x in (teacher, student))
        return (log_p.exp() * (log_p - log_q)).sum(-1).mean()
