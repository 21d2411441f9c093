"""A buffer of the hardest images of each domain, of a fixed size.

It holds up to ``capacity`` images. Each of D domains has at most ceil(capacity / D) of them, those with the highest
scores. If the buffer is full, an image of a domain below that share replaces the image with the lowest score of the
domain with the most images. Images are stored in 8 bits. An image with more than `LARGEST` pixels is resized to fit,
with its aspect ratio kept.

Source: Reddy, Baktashmotlagh and Arora, "Towards domain-aware knowledge distillation for continual model
generalization", WACV 2024 (the buffer); the shares and the sizes are Hardy's reading.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LARGEST", "Exemplars"]

LARGEST = 256 * 512
"""The largest number of pixels of a stored image."""


class Exemplars(nn.Module):
    """The images, each with its score and the index of its domain in a table (-1 for an empty slot)."""

    pixels: Tensor
    sizes: Tensor
    places: Tensor
    scores: Tensor

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.register_buffer("pixels", torch.zeros(capacity, 3 * LARGEST, dtype=torch.uint8))
        self.register_buffer("sizes", torch.zeros(capacity, 2, dtype=torch.int64))
        self.register_buffer("places", torch.full((capacity,), -1))
        self.register_buffer("scores", torch.zeros(capacity, dtype=torch.float64))

    def __len__(self) -> int:
        return int((self.places >= 0).sum())

    @torch.no_grad()
    def push(self, image: Tensor, place: int, score: float) -> bool:
        """Store ``image`` (3, H, W) in [0, 1], in place, if its score is high enough; returns whether it is stored."""
        if self.capacity == 0 or not math.isfinite(score):
            return False
        held = set(self.places.tolist()) - {-1} | {place}
        share = math.ceil(self.capacity / len(held))
        for other in held:
            self._trim(other, share)
        own, free = (self.places == place).nonzero().flatten(), (self.places < 0).nonzero().flatten()
        if len(own) < share and len(free):
            at = int(free[0])
        elif len(own) < share and len(fullest := self._fullest()) > len(own) + 1:
            at = int(fullest[self.scores[fullest].argmin()])
        elif len(own) and score > float(self.scores[own].min()):
            at = int(own[self.scores[own].argmin()])
        else:
            return False
        small = _fitting(image)
        flat = (small.clamp(0, 1) * 255).round().to(torch.uint8).flatten()
        self.pixels[at, : len(flat)] = flat
        self.sizes[at] = torch.tensor(small.shape[-2:])
        self.places[at], self.scores[at] = place, score
        return True

    def drop(self, place: int) -> None:
        """Delete the images of the domain at ``place``, in place."""
        self.places[self.places == place] = -1

    def drawn(self, count: int) -> list[tuple[Tensor, int]]:
        """Up to ``count`` different random images (1, 3, H, W) in [0, 1], each with the index of its domain."""
        filled = (self.places >= 0).nonzero().flatten()
        chosen = filled[torch.randperm(len(filled))[:count].to(filled.device)]
        return [(self.image(int(at)), int(self.places[at])) for at in chosen]

    def image(self, at: int) -> Tensor:
        """The image (1, 3, H, W) in [0, 1] that is stored at ``at``."""
        height, width = self.sizes[at].tolist()
        return self.pixels[at, : 3 * height * width].view(1, 3, height, width).float() / 255

    def _fullest(self) -> Tensor:
        """The slots with images of the domain that has the most images."""
        return (self.places == self.places[self.places >= 0].mode().values).nonzero().flatten()

    def _trim(self, place: int, share: int) -> None:
        """Delete the images with the lowest scores of the domain at ``place``, beyond its ``share``, in place."""
        own = (self.places == place).nonzero().flatten()
        self.places[own[self.scores[own].argsort(descending=True)[share:]]] = -1


def _fitting(image: Tensor) -> Tensor:
    """``image`` (3, H, W), resized if it has more than `LARGEST` pixels."""
    height, width = image.shape[-2:]
    if height * width <= LARGEST:
        return image
    factor = math.sqrt(LARGEST / (height * width))
    size = [max(1, int(height * factor)), max(1, int(width * factor))]
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
