"""Small networks that a user may write himself, with what no network of a library in the matrix has: weight norm, group
norms beside grouped convolutions, a channel shuffle inside a residual sum, torch's own transformer."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

__all__ = ["OWN"]


class Residual(nn.Module):
    """Its layers added to what they take."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


class Encoder(nn.Module):
    """Patches, torch's own transformer encoder, a classifier of the mean token."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 8, 8)
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, nn.LayerNorm(64), enable_nested_tensor=False)
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def weight_normed(classes: int) -> nn.Module:
    """Convolutions with weight norm (Salimans and Kingma, NeurIPS 2016), no other norm."""

    def conv(into: int, out: int, stride: int = 1) -> nn.Module:
        return parametrizations.weight_norm(nn.Conv2d(into, out, 3, stride, 1))

    block = Residual(conv(64, 96), nn.ReLU(), conv(96, 64))
    return nn.Sequential(conv(3, 32, 2), nn.ReLU(), conv(32, 64, 2), nn.ReLU(), block, nn.Conv2d(64, classes, 1))


def group_normed(classes: int) -> nn.Module:
    """Group norms of 8 groups, and grouped convolutions, in residual blocks."""

    def block(width: int) -> nn.Module:
        layers = nn.Conv2d(width, width, 3, 1, 1, groups=8), nn.GroupNorm(8, width), nn.ReLU()
        return Residual(*layers, nn.Conv2d(width, width, 1), nn.GroupNorm(8, width))

    stem = nn.Conv2d(3, 64, 3, 2, 1), nn.GroupNorm(8, 64), nn.ReLU()
    down = nn.Conv2d(64, 128, 3, 2, 1), nn.GroupNorm(8, 128), nn.ReLU()
    return nn.Sequential(*stem, block(64), *down, block(128), nn.Conv2d(128, classes, 1))


def shuffled(classes: int) -> nn.Module:
    """Grouped convolutions with a channel shuffle between them, added to their input (Zhang et al., CVPR 2018)."""

    def block(width: int, groups: int) -> nn.Module:
        narrow = nn.Conv2d(width, width // 2, 1, groups=groups), nn.BatchNorm2d(width // 2), nn.ReLU()
        filtered = nn.Conv2d(width // 2, width // 2, 3, 1, 1, groups=width // 2), nn.BatchNorm2d(width // 2)
        widen = nn.Conv2d(width // 2, width, 1, groups=groups), nn.BatchNorm2d(width)
        return Residual(*narrow, nn.ChannelShuffle(groups), *filtered, *widen)

    stem = nn.Conv2d(3, 96, 3, 2, 1), nn.BatchNorm2d(96), nn.ReLU()
    down = nn.Conv2d(96, 192, 3, 2, 1), nn.BatchNorm2d(192), nn.ReLU()
    return nn.Sequential(*stem, block(96, 2), block(96, 2), *down, block(192, 2), nn.Conv2d(192, classes, 1))


OWN = {
    "weight_norm": weight_normed, "group_norm": group_normed, "channel_shuffle": shuffled,
    "TransformerEncoder": Encoder,
}  # fmt: skip
"""By name, a function of the number of classes; images of 64x64."""
