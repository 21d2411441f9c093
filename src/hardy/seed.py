"""One number decides all randomness.

Every random draw in Hardy is made under a key derived from the run's seed and the place of the draw (a step, a
sample, a rank), never from the state some earlier draw left behind. So a run can stop anywhere and go on with the
same bits, and the number of loader workers changes nothing.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["key", "seed_all", "seeded"]


def key(seed: int, *place: int | str) -> int:
    """A 63-bit number that depends on ``seed`` and on every part of ``place``, and on nothing else."""
    text = ":".join(str(part) for part in (seed, *place)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed_all(seed: int, *place: int | str) -> None:
    """Seed torch (every device), numpy and `random` from ``key(seed, *place)``."""
    number = key(seed, *place)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - for code of others that draws from numpy's global state
    torch.manual_seed(number)


@contextmanager
def seeded(seed: int, *place: int | str) -> Iterator[None]:
    """Draw under ``key(seed, *place)`` on the CPU inside the block; the outer CPU state is untouched after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(seed, *place))
        yield
