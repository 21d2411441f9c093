import pytest
import torch
from torch.nn import functional as F

from hardy.blocks.unified_attention_fusion import UnifiedAttentionFusion


@pytest.fixture
def block() -> UnifiedAttentionFusion:
    torch.manual_seed(0)
    return UnifiedAttentionFusion(3, 4).double().eval()


def test_it_is_equation_1_with_the_attention_of_equation_3(block: UnifiedAttentionFusion) -> None:
    x, y = torch.randn(2, 3, 6, 9, dtype=torch.float64), torch.randn(2, 3, 3, 5, dtype=torch.float64)
    norm = (1 + block.smooth[1].eps) ** 0.5  # a batch norm that has seen nothing
    up = F.interpolate(y, (6, 9), mode="bilinear", align_corners=False)
    expected = torch.stack([x.mean(1), x.max(1).values, up.mean(1), up.max(1).values], dim=1)
    expected = (F.conv2d(expected, block.attention[0][0].weight, padding=1) / norm).relu()
    share = (F.conv2d(expected, block.attention[1][0].weight, padding=1) / norm).sigmoid()
    mixed = F.conv2d(share * up + (1 - share) * x, block.smooth[0].weight, padding=1)
    torch.testing.assert_close(block(x, y), (mixed / norm).relu())


@pytest.mark.parametrize(("bias", "taken"), [(60.0, "y"), (-60.0, "x")])
def test_at_the_limits_one_map_is_taken_whole(block: UnifiedAttentionFusion, bias: float, taken: str) -> None:
    maps = {name: torch.randn(1, 3, 6, 9, dtype=torch.float64) for name in "xy"}
    torch.nn.init.constant_(block.attention[1][1].bias, bias)
    torch.testing.assert_close(block(maps["x"], maps["y"]), block.smooth(maps[taken]))
