import torch
from torch import nn
from torch.nn import functional as F

from hardy.blocks.fusion_unit import FusionUnit


def test_branches_are_made_equal_and_added() -> None:
    torch.manual_seed(0)
    unit = FusionUnit(3, 4, 6, dilation=2).double().eval()
    for norm in (layer for layer in unit.modules() if isinstance(layer, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    detail = torch.randn(2, 3, 9, 14, dtype=torch.float64)
    context = torch.randn(2, 4, 5, 7, dtype=torch.float64)

    def normed(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        mean, var, scale, shift = (
            v.view(1, -1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    large = F.interpolate(context, (9, 14), mode="bilinear", align_corners=False)
    seen = F.conv2d(large, unit.filter[0].weight, padding=2, dilation=2, groups=4)
    seen = normed(seen, unit.filter[1]).clamp(min=0)
    one = normed(F.conv2d(seen, unit.context[0].weight, unit.context[0].bias), unit.context[1])
    other = normed(F.conv2d(detail, unit.detail[0].weight, unit.detail[0].bias), unit.detail[1])
    torch.testing.assert_close(unit(detail, context), (one + other).clamp(min=0), rtol=1e-12, atol=1e-12)
