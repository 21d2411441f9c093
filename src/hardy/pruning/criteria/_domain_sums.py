"""Used by `ior`: the risk of each domain and its gate gradients, averaged over several batches.

From them the derivatives of the mean and of the variance of the risks are computed for the images of all these batches
together, as if they were one batch whose samples do not interact.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["DomainSums"]


class DomainSums:
    """For each domain i the means of R_i and dR_i/dz over the batches that hold it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Clear the sums."""
        self._risks: dict[int, list[Tensor]] = {}
        self._rows: dict[int, Tensor] = {}

    def add(self, domains: Tensor, risks: Tensor, rows: Tensor) -> None:
        """Add a batch: its ``domains`` (D,), their ``risks`` (D,) and dR_i/dz as ``rows`` (D, G).

        A batch that overflowed is ignored.
        """
        if not (torch.isfinite(rows).all() and torch.isfinite(risks).all()):
            return
        for domain, risk, row in zip(domains.tolist(), risks.detach().double(), rows.double(), strict=True):
            self._risks.setdefault(domain, []).append(risk)
            self._rows[domain] = self._rows[domain] + row if domain in self._rows else row

    def means(self) -> tuple[Tensor, Tensor]:
        """(D,) risks and (D, G) gradients, float64, by ascending domain; both empty when nothing was added."""
        order = sorted(self._risks)
        counts: Mapping[int, int] = {domain: len(self._risks[domain]) for domain in order}
        if not order:
            return torch.zeros(0), torch.zeros(0, 0)
        risks = torch.stack([torch.stack(self._risks[domain]).mean() for domain in order])
        return risks, torch.stack([self._rows[domain] / counts[domain] for domain in order])
