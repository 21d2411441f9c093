"""A feed-forward layer on maps: 1x1 convolution, 3x3 depthwise convolution, 1x1 convolution; batch norms and ReLU6.

``B(W2 relu6(D(B(W1 x)) + b))``, where D is the depthwise convolution with bias b and the two B are separate batch
norms. The caller adds x.

Source: Zhang et al., "TopFormer: token pyramid transformer for mobile semantic segmentation", CVPR 2022, section 3.2;
the depthwise convolution inside follows Li et al., "LocalViT: bringing locality to vision transformers",
arXiv:2104.05707, 2021.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.ties import Coupling

__all__ = ["ConvFFN"]


class ConvFFN(nn.Module):
    """``(B, C, h, w) -> (B, C, h, w)``.

    Args:
        channels: C.
        hidden: channels between the two 1x1 convolutions.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.widen = ConvNormAct(channels, hidden, kernel=1, act=False)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.narrow = ConvNormAct(hidden, channels, kernel=1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        y: Tensor = self.narrow(F.relu6(self.depthwise(self.widen(x))))
        return y

    def channel_couplings(self) -> tuple[Coupling, ...]:
        """The width between its layers is a hidden width."""
        return (Coupling("hidden"),)

    def follow_cut(self, side: str, count: int) -> None:
        """Do nothing: all widths are read from the layers."""
