"""Batches with restyled copies of their images, in random styles of a trained style perturbation (DSP).

Source: Luo, Liu and Yang, "Domain generalization for semantic segmentation by pruning", IJCV 2024,
doi 10.1007/s11263-024-02194-5, "images sharing the same content but different styles".
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from hardy.ops.dsp import Perturbation
from hardy.seed import seeded
from hardy.types import Batch

__all__ = ["restyled", "together"]


def restyled(batches: Iterable[Batch], dsp: Perturbation, copies: int, seed: int) -> Iterator[Batch]:
    """``batches``, each followed in the same batch by ``copies`` restyled copies of its images.

    A copy has the labels and the domain of its image.

    Args:
        batches: of images in [0, 1].
        dsp: makes the copies.
        copies: 1 or more.
        seed: the seed of the styles; the styles of a batch depend only on it and on the index of the batch.
    """
    for number, batch in enumerate(batches):
        dsp.to(batch.images.device)
        with torch.no_grad(), seeded(seed, "styles", number):
            content, size = dsp.content(batch.images), batch.images.shape[-2:]
            versions = [dsp.redraw(content, dsp.sample(len(batch)), size).to(batch.images) for _ in range(copies)]
        yield together(batch, [batch.images, *versions])


def together(batch: Batch, versions: Sequence[Tensor]) -> Batch:
    """One batch of all ``versions`` (B, 3, H, W) of the images in order, with their labels and domains repeated."""
    times = len(versions)
    return Batch(
        torch.cat(list(versions)),
        batch.labels.repeat(times, *[1] * (batch.labels.ndim - 1)),
        batch.domains.repeat(times),
    )
