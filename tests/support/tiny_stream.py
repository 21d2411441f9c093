"""Networks and images small enough to work through a step of a test-time method by hand."""

import torch
from torch import Tensor, nn

from hardy.data.label_spaces import LabelSpace
from hardy.networks.base import Network
from hardy.types import Outputs

__all__ = ["Grey", "OneNorm", "Pooled", "frames", "grey_classes", "statistics"]


def grey_classes(count: int = 3) -> LabelSpace:
    """Classes ``a``, ``b``, ...; their colours are grey."""
    names = tuple("abcdefgh"[:count])
    return LabelSpace("few", names, tuple((10 * i, 10 * i, 10 * i) for i in range(count)))


def frames(count: int, batch: int = 1, size: tuple[int, int] = (4, 6)) -> list[Tensor]:
    """Batches of noise (B, 3, H, W) in [0, 1], the same in every call."""
    return [torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(i)) for i in range(count)]


class OneNorm(Network):
    """Logits are one batch norm of the three colours: ``w_k (x_k - mu_k) / sqrt(var_k + eps) + b_k``."""

    least_size = 1

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__(grey_classes(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.norm = nn.BatchNorm2d(3) if norm is None else norm
        if norm is None:
            self.norm.running_mean.copy_(torch.tensor([0.4, 0.5, 0.6]))
            self.norm.running_var.copy_(torch.tensor([0.05, 0.1, 0.2]))
            self.norm.weight.data.copy_(torch.tensor([1.5, 1.0, 2.0]))
            self.norm.bias.data.copy_(torch.tensor([0.5, 0.0, -0.2]))
        self.eval()

    def outputs(self, images: Tensor) -> Outputs:
        return Outputs(self.norm(self.normalise(images)))


class Grey(Network):
    """Logits of a 1 x 1 convolution; no norm."""

    least_size = 1

    def __init__(self) -> None:
        super().__init__(grey_classes())
        self.mix = nn.Conv2d(3, 3, 1)

    def outputs(self, images: Tensor) -> Outputs:
        return Outputs(self.mix(self.normalise(images)))


class Pooled(Network):
    """A batch norm behind a global pooling, whose channels have one value at batch 1, added to a batch-normed map."""

    least_size = 1

    def __init__(self) -> None:
        super().__init__(grey_classes(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.eval()

    def outputs(self, images: Tensor) -> Outputs:
        x = self.normalise(images)
        return Outputs(3 * self.first(x) + self.second(x.mean((2, 3), keepdim=True)))


def statistics(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The logits of `OneNorm` with batch statistics, from the formula, in the precision of the arguments."""
    mean = images.mean((0, 2, 3), keepdim=True)
    var = ((images - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return weight.view(1, 3, 1, 1) * (images - mean) / (var + 1e-5).sqrt() + bias.view(1, 3, 1, 1)
