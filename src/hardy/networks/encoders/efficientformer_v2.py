"""EfficientFormerV2 S0, S1, S2 and L at any size: depthwise convolutions, and attention at the end of two stages.

The layers are timm's. Attention at stride 16 works on a map of half the size; the downsampling to stride 32 has queries
at every second cell. The position biases, trained on images of 224x224 pixels, are resized to the image's grid.

Source: Li et al., "Rethinking vision transformers for MobileNet size and speed", ICCV 2023, section 3; the biases'
interpolation: `hardy.ops.relative_bias`.
"""

from typing import Any

import timm
from torch import Tensor

from hardy.networks.encoders.base import Encoder
from hardy.networks.parts.any_size_attention import AnySizeAttention2d, AnySizeDownsample

__all__ = ["EfficientFormerV2"]


class EfficientFormerV2(Encoder):
    """Maps at strides 4, 8, 16, 32 of (32, 48, 96, 176) channels for S0, (32, 48, 120, 224) for S1, (32, 64, 144, 288)
    for S2 and (40, 80, 192, 384) for L.

    Weights come from a file with timm's names or from a timm tag.

    Args:
        name: ``efficientformerv2_s0``, ``efficientformerv2_s1``, ``efficientformerv2_s2`` or ``efficientformerv2_l``.
    """

    variants = ("efficientformerv2_s0", "efficientformerv2_s1", "efficientformerv2_s2", "efficientformerv2_l")
    in_timm = True
    outside = ("head.", "head_dist.")

    def __init__(self, name: str) -> None:
        model: Any = timm.create_model(name)
        super().__init__(name, [stage["num_chs"] for stage in model.feature_info])
        self.stem, self.stages, self.norm = model.stem, model.stages, model.norm
        for stage in self.stages[2:]:
            if (attention := getattr(stage.downsample, "attn", None)) is not None:
                stage.downsample.attn = AnySizeDownsample(attention)
            for block in stage.blocks:
                if block.token_mixer is not None:
                    block.token_mixer = AnySizeAttention2d(block.token_mixer)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Shapes as above; the last map after its norm."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [*maps[:-1], self.norm(x)]
