"""All random draws depend on one seed.

Every random draw in Hardy uses a key computed from the run's seed and the place of the draw (a step, a sample, a rank).
It does not depend on earlier draws. So a run can be stopped anywhere and resumed with exactly the same results, and the
number of loader workers has no effect.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["key", "seed_all", "seeded"]


def key(seed: int, *place: int | str) -> int:
    """A 63-bit number that depends only on ``seed`` and on every part of ``place``."""
    text = ":".join(str(part) for part in (seed, *place)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed_all(seed: int, *place: int | str) -> None:
    """Seed torch (every device), numpy and `random` from ``key(seed, *place)``."""
    number = key(seed, *place)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - for other libraries that use numpy's global state
    torch.manual_seed(number)


@contextmanager
def seeded(seed: int, *place: int | str) -> Iterator[None]:
    """Inside the block the CPU generator is seeded with ``key(seed, *place)``; afterwards its old state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(seed, *place))
        yield
