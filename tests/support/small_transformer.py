"""A small transformer of timm's classes as encoder, and a head: what a tuner of tokens has something to do with.

Source: written for the tests.
"""

from collections.abc import Sequence
from typing import Any, Literal

from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.types import Outputs

__all__ = ["SmallTransformer"]


class SmallTransformer(Network):
    """Features: ``stage1`` and ``stage2``, after the second and the last of three blocks, at stride 8.

    Args:
        labels: the classes predicted.
        kind: plain: fused query, key and value; registers: four tokens more, and layer scale 1; split: separate query,
            key and value, rotated positions, gated MLPs; biased: the fused layer's biases apart from it.
    """

    least_size = 16
    multiple = 8

    def __init__(self, label_space, *, kind: Literal["plain", "registers", "split", "biased"] = "plain") -> None:
        super().__init__(label_space)
        shared: dict[str, Any] = {
            "img_size": 32,
            "patch_size": 8,
            "embed_dim": 24,
            "depth": 3,
            "num_heads": 2,
            "num_classes": 0,
            "dynamic_img_size": True,
        }
        if kind in ("plain", "registers"):
            more = {"reg_tokens": 4, "init_values": 1.0, "no_embed_class": True} if kind == "registers" else {}
            self.body: Any = VisionTransformer(**shared, **more, global_pool="")
        else:
            split = {"qkv_fused": False, "swiglu_mlp": True, "use_rot_pos_emb": True} if kind == "split" else {}
            self.body = Eva(**shared, **split, init_values=1.0, global_pool="")
        self.middle = nn.Sequential(nn.Conv2d(24, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.head = nn.Conv2d(12, len(label_space), 1)
        initialise(self.middle)
        initialise(self.head)

    def encoder(self) -> Sequence[nn.Module]:
        """The transformer."""
        return (self.body,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        x = self.normalise(images)
        first, last = self.body.forward_intermediates(x, indices=[1, 2], norm=True, intermediates_only=True)
        logits = self.head(self.middle(last + first))
        return Outputs(resize(logits, images.shape[-2:]), {"stage1": first, "stage2": last, "logits": logits})
