"""A bounded memory of vectors, apart for each class, of which the oldest are replaced.

Source: the queues of Yang et al., "Cross-image relational knowledge distillation for semantic segmentation", CVPR 2022,
section 3.3. Here an entry is drawn only after it was written; the authors' queues start with noise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Memory"]


class Memory(nn.Module):
    """The last ``size`` unit vectors of each class, in half precision: a buffer of ``2 classes size channels`` bytes.

    Args:
        classes: the number of classes.
        size: the most vectors of a class.
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
        """Add ``vectors`` (n, C), in order, to the class of each, in place."""
        written, size = self.written.tolist(), self.entries.shape[1]
        places: dict[tuple[int, int], int] = {}  # of vectors for the same place the last one counts
        for row, label in enumerate(classes):
            places[label, written[label] % size] = row
            written[label] += 1
        if places:
            labels, slots = (list(values) for values in zip(*places, strict=True))
            rows = torch.tensor(list(places.values()), device=vectors.device)
            self.entries[labels, slots] = vectors[rows].to(self.entries.dtype)
        self.written.copy_(torch.tensor(written))

    def drawn(self, count: int) -> Tensor:
        """About ``count`` different vectors (n, C) in float32, as many of each class where there are as many.

        Draws from torch's CPU generator.
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
