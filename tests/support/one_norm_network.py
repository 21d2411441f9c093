"""A network that is one batch norm on its images, so that what a method makes of it can be computed by hand."""

import torch
from torch import Tensor, nn

from hardy.data.label_spaces import SPACES
from hardy.networks.base import Network
from hardy.types import Outputs


class OneNorm(Network):
    """The logits are the images, which are not normalised first, through batch norms and what else is given."""

    least_size = 1

    def __init__(self, *parts: nn.Module, mean: float = 1.0, var: float = 4.0) -> None:
        super().__init__(SPACES["camvid11"], (0, 0, 0), (1, 1, 1))
        self.parts = nn.Sequential(*(parts or (nn.BatchNorm2d(3, eps=1e-12),)))
        for module in self.parts.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.fill_(mean)
                module.running_var.fill_(var)

    def outputs(self, images: Tensor) -> Outputs:
        return Outputs(self.parts(self.normalise(images)), {}, {})


def values(*numbers: float) -> Tensor:
    """An image (1, 3, 1, n) with these values in each channel."""
    return torch.tensor(numbers, dtype=torch.float32).view(1, 1, 1, -1).expand(1, 3, 1, -1).contiguous()
