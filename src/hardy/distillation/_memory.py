"""A memory of vectors with a fixed size per class; new vectors replace the oldest.

Source: the queues of Yang et al., "Cross-image relational knowledge distillation for semantic segmentation", CVPR 2022,
section 3.3. Here only entries that were written are drawn; the authors' queues start with noise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Memory"]


class Memory(nn.Module):
    """The last ``size`` unit vectors of each class, in half precision: ``2 * classes * size * channels`` bytes.

    Args:
        classes: the number of classes.
        size: the largest number of vectors per class.
        channels: C, the length of a vector.
    """

    def __init__(self, classes: int, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(classes, size, channels, dtype=torch.float16))
        self.register_buffer("written", torch.zeros(classes, dtype=torch.int64))
        self.entries: Tensor
        self.written: Tensor

    @torch.no_grad()
    def write(self, vectors: Tensor, classes: Sequence[int]) -> None:
        """Add ``vectors`` (n, C) in order, in place; ``classes`` gives the class of each vector."""
        written, size = self.written.tolist(), self.entries.shape[1]
        places: dict[tuple[int, int], int] = {}  # if several vectors get the same place, the last is kept
        for row, label in enumerate(classes):
            places[label, written[label] % size] = row
            written[label] += 1
        if places:
            labels, slots = (list(values) for values in zip(*places, strict=True))
            rows = torch.tensor(list(places.values()), device=vectors.device)
            self.entries[labels, slots] = vectors[rows].to(self.entries.dtype)
        self.written.copy_(torch.tensor(written))

    def drawn(self, count: int) -> Tensor:
        """About ``count`` different vectors (n, C) in float32, up to ``ceil(count / classes)`` of each class.

        They are drawn with torch's CPU generator.
        """
        size = self.entries.shape[1]
        share = -(-count // len(self.entries))
        labels, slots = [], []
        for label, written in enumerate(self.written.tolist()):
            chosen = torch.randperm(min(written, size))[:share]
            slots.append(chosen)
            labels.append(torch.full_like(chosen, label))
        device = self.entries.device
        return self.entries[torch.cat(labels).to(device), torch.cat(slots).to(device)].float()
