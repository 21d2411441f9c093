"""Prototypes of domains: for every domain, the statistics of every norm, as a running mean over its batches.

The weight w is 1 / (prior + t) for the domain's t-th batch up to t = ``warm_up``, and ``momentum`` afterwards:

    P <- (1 - w) P + w b,        P = the source's statistics before the first batch

The tables have a fixed size, so that they can be buffers. If they are full, a new domain replaces the least recently
used one.

Source: Reddy, Baktashmotlagh and Arora, "Towards domain-aware knowledge distillation for continual model
generalization", WACV 2024; the weights are Hardy's reading of it.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hardy.adaptation.base import LONGEST_DOMAIN
from hardy.errors import InputError, nearest
from hardy.ops.batch_statistics import Norm

__all__ = ["Names", "Prototypes"]


class Names(nn.Module):
    """A table of up to ``most`` names of domains; a further name replaces the least recently used one."""

    text: Tensor
    used: Tensor

    def __init__(self, most: int) -> None:
        super().__init__()
        self.register_buffer("text", torch.zeros(most, LONGEST_DOMAIN, dtype=torch.uint8))
        self.register_buffer("used", torch.zeros(most, dtype=torch.int64))

    def find(self, name: str) -> int | None:
        """The row of ``name``; None if the table does not have it."""
        same = (self.text == self._encoded(name)).all(1).nonzero()
        return int(same[0]) if len(same) else None

    def place(self, name: str) -> tuple[int, bool]:
        """The row of ``name``, and whether it was added now; updates the table in place."""
        found = self.find(name)
        place = int(self.used.argmin()) if found is None else found
        self.text[place] = self._encoded(name)
        self.used[place] = self.used.max() + 1
        return place, found is None

    def listed(self) -> dict[str, int]:
        """Every name with its row."""
        rows = [bytes(row.tolist()).rstrip(b"\0").decode() for row in self.text]
        return {name: place for place, name in enumerate(rows) if name}

    def _encoded(self, name: str) -> Tensor:
        text = name.encode().ljust(LONGEST_DOMAIN, b"\0")
        return torch.tensor(list(text), dtype=torch.uint8, device=self.text.device)


class Prototypes(nn.Module):
    """The statistics of ``norms`` by domain.

    Args:
        norms: by name, as `hardy.ops.batch_statistics.install` returns them.
        most: the largest number of domains in memory.
        momentum: the weight of a batch after ``warm_up``.
        warm_up: the number of batches of a domain that have equal weights.
        prior: the weight of the source's statistics, in batches.
    """

    counts: Tensor
    source: Tensor
    values: Tensor

    def __init__(
        self, norms: Mapping[str, Norm], most: int, momentum: float = 0.01, warm_up: int = 100, prior: float = 0.0
    ) -> None:
        super().__init__()
        source = [norm.source.float() for norm in norms.values()]
        self.norms = tuple(norms)
        self.momentum, self.warm_up, self.prior = momentum, warm_up, prior
        self._sizes = [one.shape[1] for one in source]
        self.names = Names(most)
        self.register_buffer("counts", torch.zeros(most, dtype=torch.int64))
        self.register_buffer("source", torch.cat(source, 1), persistent=False)
        self.register_buffer("values", self.source.expand(most, -1, -1).clone())

    def place(self, domain: str) -> tuple[int, bool]:
        """The row of ``domain``, and whether it is new. The prototype of a new domain is the source's statistics."""
        place, new = self.names.place(domain)
        if new:
            self.counts[place] = 0
            self.values[place] = self.source
        return place, new

    def at(self, place: int) -> list[Tensor]:
        """The prototype in row ``place``: (2, C) for each norm, as views that an update changes."""
        return list(self.values[place].split(self._sizes, 1))

    def known(self, domain: str | None) -> list[Tensor]:
        """The prototype of ``domain``: (2, C) for each norm; the statistics of the source where it has none yet."""
        place = None if domain is None else self.names.find(domain)
        return self.sources() if place is None or not self.counts[place] else self.at(place)

    def sources(self) -> list[Tensor]:
        """The statistics (2, C) of the source for each norm."""
        return list(self.source.split(self._sizes, 1))

    def weight(self, place: int) -> float:
        """The weight of the next batch."""
        batch = int(self.counts[place]) + 1
        return 1 / (self.prior + batch) if batch <= self.warm_up else self.momentum

    @torch.no_grad()
    def update(self, place: int, statistics: Sequence[Tensor]) -> None:
        """Move the prototype in row ``place`` towards the ``statistics`` (2, C) of each norm in a batch, in place."""
        self.values[place].lerp_(torch.cat([one.to(self.values) for one in statistics], 1), self.weight(place))
        self.counts[place] += 1

    def table(self) -> dict[str, dict[str, Tensor]]:
        """Copies of the statistics (2, C) by norm name and then domain, for the domains with at least one batch."""
        known = {name: self.at(place) for name, place in self.names.listed().items() if self.counts[place]}
        return {norm: {name: rows[i].clone() for name, rows in known.items()} for i, norm in enumerate(self.norms)}

    def of(self, domain: str) -> dict[str, Tensor]:
        """The prototype of ``domain``: a copy of the statistics (2, C) by the names of the norms.

        Raises:
            InputError: for a domain without a prototype; the message names the nearest known domain.
        """
        known = {name: place for name, place in self.names.listed().items() if self.counts[place]}
        if domain not in known:
            raise InputError(f"there is no prototype of the domain {domain!r}{nearest(domain, known)}")
        return {norm: one.clone() for norm, one in zip(self.norms, self.at(known[domain]), strict=True)}
