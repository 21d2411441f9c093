import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy.ops.cost import gmacs, parameters


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), 9 * 3 * 8 * 20 * 30),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), 9 * 3 * 8 * 10 * 15),
        (nn.Conv2d(3, 6, 3, padding=1, groups=3), 9 * 1 * 6 * 20 * 30),
        (nn.ConvTranspose2d(3, 8, 2, stride=2), 4 * 3 * 8 * 20 * 30),
        (nn.Sequential(nn.Flatten(2), nn.Linear(600, 5)), 3 * 600 * 5),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Upsample(scale_factor=2), nn.AvgPool2d(2)), 0),
    ],
)
def test_layers_by_hand(layer: nn.Module, macs: int) -> None:
    assert gmacs(layer.eval(), (20, 30)) * 1e9 == pytest.approx(macs, abs=1e-3)


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)[:, None]  # (B, 1, N, 3)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def test_attention_is_two_matrix_products() -> None:
    tokens = 4 * 6
    assert gmacs(Attention(), (4, 6)) * 1e9 == pytest.approx(2 * tokens * tokens * 3, abs=1e-3)


def test_training_counts_one_image_and_the_heads_of_training() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.one(x), self.two(x)] if self.training else [self.one(x)]

    network = Both().eval()
    assert gmacs(network, (10, 10)) * 1e9 == pytest.approx(12 * 100)
    assert gmacs(network, (10, 10), training=True) * 1e9 == pytest.approx(27 * 100)
    assert not network.training
    assert parameters(network) == (12 + 4) + (15 + 5)
