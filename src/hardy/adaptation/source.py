"""The unadapted network: it learns nothing and is the baseline for the other methods.

Source: the baseline "Source" of Wang, Shelhamer, Liu, Olshausen and Darrell, "Tent: fully test-time adaptation by
entropy minimization", ICLR 2021, section 4.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from hardy.adaptation.base import TestTimeAdaptation

__all__ = ["Source"]


class Source(TestTimeAdaptation):
    """The network in evaluation mode."""

    predicts: ClassVar[Literal["before", "after"]] = "before"

    @torch.no_grad()
    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`."""
        logits: Tensor = self.network(images)
        return logits
