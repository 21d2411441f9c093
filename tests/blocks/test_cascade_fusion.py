import torch
from torch import nn
from torch.nn import functional as F

from hardy.blocks.cascade_fusion import CascadeFusion


def test_the_sum_of_the_two_maps() -> None:
    torch.manual_seed(0)
    unit = CascadeFusion(3, 5, 4).double().eval()
    for norm in (layer for layer in unit.modules() if isinstance(layer, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    coarse = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    fine = torch.randn(2, 5, 7, 11, dtype=torch.float64)
    large = F.interpolate(coarse, (7, 11), mode="bilinear", align_corners=False)
    scales = [(part[1].weight / (1 + 1e-5) ** 0.5, part[1].bias) for part in (unit.coarse, unit.fine)]
    one = F.conv2d(large, unit.coarse[0].weight, padding=2, dilation=2)
    other = torch.einsum("oi,bihw->bohw", unit.fine[0].weight[:, :, 0, 0], fine)
    total = sum(x * a[:, None, None] + b[:, None, None] for x, (a, b) in zip((one, other), scales, strict=True))
    fused, seen = unit(coarse, fine)
    torch.testing.assert_close(fused, total.clamp(min=0), rtol=1e-12, atol=1e-12)
    assert torch.equal(seen, large)
