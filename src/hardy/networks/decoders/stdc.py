"""BiSeNet's context path as in STDC-Seg: attention refines the coarse maps, which are fused with a fine map.

Source: Yu, Wang, Peng, Gao, Yu and Sang, "BiSeNet: bilateral segmentation network for real-time semantic segmentation",
ECCV 2018, section 3.2; Fan et al., "Rethinking BiSeNet for real-time semantic segmentation", CVPR 2021, section 3.3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.attention_refinement import AttentionRefinement
from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.feature_fusion import FeatureFusion
from hardy.blocks.pooled_norm import PooledNorm
from hardy.errors import InputError, within
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder

__all__ = ["STDCDecoder"]


class STDCDecoder(Decoder):
    """Logits at the stride of the third map from the end, which is 8 for most encoders.

    Args:
        channels: of each map, three or more.
        strides: of each map.
        class_count: K.
        context: channels of the refined maps; the papers' is 128.
        width: channels of the fused map, a multiple of 4; the papers' is 256.

    Raises:
        InputError: for fewer than three maps, or a number out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        context: int = 128,
        width: int = 256,
    ) -> None:
        within("STDCDecoder.context", context, 1)
        within("STDCDecoder.width", width, 4)
        if width % 4 != 0:
            raise InputError(f"stdc width={width}: give a multiple of 4")
        if len(channels) < 3:
            raise InputError(f"stdc needs three maps; this encoder has {len(channels)}")
        super().__init__(channels, strides, class_count)
        fine, middle, coarse = channels[-3:]
        self.average = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(coarse, context, 1, bias=False), PooledNorm(context), nn.ReLU()
        )
        self.refine_coarse, self.smooth_coarse = AttentionRefinement(coarse, context), ConvNormAct(context, context)
        self.refine_middle, self.smooth_middle = AttentionRefinement(middle, context), ConvNormAct(context, context)
        self.fusion = FeatureFusion(fine + context, width)
        self.head = nn.Sequential(ConvNormAct(width, width), nn.Conv2d(width, class_count, 1))
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        fused = self.fuse(maps)["fused"]
        return Decoded(fused, self.head(fused))

    def fuse(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """``context_middle`` and ``context_fine``, at the sizes of the middle and the fine map, and ``fused``."""
        fine, middle, coarse = maps[-3:]
        x = self.refine_coarse(coarse) + self.average(coarse)
        context_middle = self.smooth_coarse(_spread(x, middle))
        context_fine = self.smooth_middle(_spread(self.refine_middle(middle) + context_middle, fine))
        fused = self.fusion(torch.cat([fine, context_fine], dim=1))
        return {"context_middle": context_middle, "context_fine": context_fine, "fused": fused}


def _spread(x: Tensor, finer: Tensor) -> Tensor:
    """``x`` resized to ``finer`` by nearest neighbour."""
    return F.interpolate(x, size=finer.shape[-2:], mode="nearest")
