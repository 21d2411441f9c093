"""Small networks with one of every coupling, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.data.label_spaces import find_label_space
from hardy.networks.base import Network, resize
from hardy.types import Batch, Outputs


class Block(nn.Module):
    """Expand, filter depthwise, narrow, add: an inverted residual with in-place activations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(2 * width)
        self.filter = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.narrow = nn.Conv2d(2 * width, width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.expand(x)), inplace=True)
        y = F.relu(self.norm2(self.filter(y)), inplace=True)
        return x + self.norm3(self.narrow(y))


class Toy(Network):
    """Stem, residual block, a concatenation, a pre-activation norm, a convolution without norm, two heads."""

    least_size = 8

    def __init__(self, width: int = 12) -> None:
        super().__init__(find_label_space("camvid11"))
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.stem_norm = nn.BatchNorm2d(width)
        self.block = Block(width)
        self.side = nn.Conv2d(width, 10, 3, padding=1)
        self.early = nn.BatchNorm2d(width + 10)
        self.mix = nn.Conv2d(width + 10, 14, 1)
        self.mix_norm = nn.BatchNorm2d(14)
        self.up = nn.ConvTranspose2d(14, 9, 2, stride=2)
        self.head = nn.Conv2d(9, 11, 1)
        self.aux_hidden = nn.Conv2d(width, 9, 1)
        self.aux = nn.Conv2d(9, 11, 1)

    def outputs(self, images: Tensor) -> Outputs:
        x = self.block(F.relu(self.stem_norm(self.stem(self.normalise(images))), inplace=True))
        joined = torch.cat([F.relu(self.side(x)), x], 1)
        fused = F.relu(self.mix_norm(self.mix(F.relu(self.early(joined)))))
        extras = {"aux_early": self.aux(F.relu(self.aux_hidden(x)))} if self.training else {}
        logits = self.head(F.relu(self.up(fused)))
        return Outputs(resize(logits, images.shape[-2:]), {"fused": fused}, extras)


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Norms as after some training: scales, shifts and running statistics that are not 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)


@pytest.fixture
def toy() -> Network:
    torch.manual_seed(0)
    network = Toy()
    randomise(network)
    return network.double()


@pytest.fixture
def batch() -> Batch:
    return draw([0, 1, 0, 2, 1, 0])


@pytest.fixture
def draw_batch() -> Callable[..., Batch]:
    return draw


def draw(domains: list[int], seed: int = 0, size: int = 16) -> Batch:
    """Images whose brightness depends on their domain, labels with some ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    count = len(domains)
    images = torch.rand(count, 3, size, size, dtype=torch.float64, generator=generator)
    images = images / (1 + torch.tensor(domains).view(-1, 1, 1, 1))
    labels = torch.randint(0, 11, (count, size, size), generator=generator)
    labels[torch.rand(count, size, size, generator=generator) < 0.1 + 0.2 * torch.tensor(domains).view(-1, 1, 1)] = 255
    return Batch(images, labels, torch.tensor(domains))


@pytest.fixture
def pixel_loss() -> Callable[[Tensor, Tensor], Tensor]:
    return lambda logits, labels: F.cross_entropy(logits, labels, ignore_index=255)


@pytest.fixture
def randomised() -> Callable[[nn.Module], None]:
    return randomise
