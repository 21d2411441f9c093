"""The input and output of networks: a `Batch` and `Outputs`.

Letters used in shapes throughout: B batch, C channels, H W pixels, h w cells, K classes, D domains.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["IGNORE", "Batch", "Outputs", "Stage", "Terms"]

IGNORE = 255
"""The label of pixels that losses and metrics ignore."""

Terms = dict[str, Tensor]
"""Named scalar loss terms; their sum is minimised."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with their labels and domains.

    Attributes:
        images: (B, 3, H, W) float RGB in [0, 1].
        labels: (B, H, W) int64 class ids, `IGNORE` for unlabelled pixels; or (B,) for image-level classes.
        domains: (B,) int64 index of each image's domain, in the order of the domains in the recipe; -1 for an image
            without labels, which only algorithms with ``uses_unlabelled`` get.
    """

    images: Tensor
    labels: Tensor
    domains: Tensor

    def to(self, device: torch.device | str, layout: torch.memory_format = torch.contiguous_format) -> "Batch":
        """The same batch on ``device``, its images in memory ``layout``."""
        images = self.images.to(device, non_blocking=True, memory_format=layout)
        return Batch(images, self.labels.to(device, non_blocking=True), self.domains.to(device, non_blocking=True))

    def where(self, chosen: Tensor) -> "Batch":
        """The images where ``chosen`` (B,) bool is True."""
        return Batch(self.images[chosen], self.labels[chosen], self.domains[chosen])

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of a network for a batch of images.

    Attributes:
        logits: (B, K, H, W), or (B, K) for image-level networks.
        features: named feature maps (B, C, h, w), the encoder's stages first; `Network.feature_stages` lists them.
        extras: named further tensors, batch first; auxiliary logits are ``extras["aux_<name>"]`` (B, K, h, w).
        coarse: (B, K, h, w), the logits at the network's own stride, before `Network.enlarged` resizes them to the
            images. None for image-level networks.
        embedding: the input of the head, (B, C, h, w), or pooled (B, C) for image-level networks, before any dropout.
            The head is the classifying layer and the layers before it that have a single input. So the embedding is the
            last map that combines all branches and scales. None for a wrapped module that does not name it.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    coarse: Tensor | None = None
    embedding: Tensor | None = None

    def where(self, chosen: Tensor) -> "Outputs":
        """The outputs of the images where ``chosen`` (B,) bool is True."""
        return Outputs(
            self.logits[chosen],
            {name: value[chosen] for name, value in self.features.items()},
            {name: value[chosen] for name, value in self.extras.items()},
            None if self.coarse is None else self.coarse[chosen],
            None if self.embedding is None else self.embedding[chosen],
        )


class Stage(NamedTuple):
    """One feature of a network, as `Network.feature_stages` lists it.

    Attributes:
        name: its key in `Outputs.features`.
        stride: pixels of the image per cell, the same in both directions.
        channels: C of the map (B, C, h, w).
    """

    name: str
    stride: int
    channels: int
