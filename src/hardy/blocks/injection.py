"""Injection: a coarse map that has a global view gates a fine map.

``local * s(gate) + context``, or ``local * s(gate)`` without the sum. Each of the three is a 1x1 convolution with batch
norm: ``local`` of the fine map, the others of the coarse map. s is the hard sigmoid. ``s(gate)`` and ``context`` are
resized to the fine map.

Source: with the sum, Zhang et al., "TopFormer: token pyramid transformer for mobile semantic segmentation", CVPR 2022,
section 3.3; without it, Wan et al., "SeaFormer: squeeze-enhanced axial transformer for mobile semantic segmentation",
ICLR 2023, section 3.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.sizes import resize

__all__ = ["Injection"]


class Injection(nn.Module):
    """``(B, C_fine, H, W), (B, C_coarse, h, w) -> (B, C_out, H, W)``.

    Args:
        fine_channels: C_fine.
        coarse_channels: C_coarse.
        out_channels: C_out.
        add: False leaves out the sum.
    """

    def __init__(self, fine_channels: int, coarse_channels: int, out_channels: int, *, add: bool = True) -> None:
        super().__init__()
        self.local = ConvNormAct(fine_channels, out_channels, kernel=1, act=False)
        self.gate = ConvNormAct(coarse_channels, out_channels, kernel=1, act=False)
        self.context = ConvNormAct(coarse_channels, out_channels, kernel=1, act=False) if add else None

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Shapes as above."""
        size = fine.shape[-2:]
        gated: Tensor = self.local(fine) * resize(F.hardsigmoid(self.gate(coarse)), size)
        return gated if self.context is None else gated + resize(self.context(coarse), size)
