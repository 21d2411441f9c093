"""SegFormer B0 to B5 as trained by MMSegmentation: a head of 1x1 convolutions with norms, and other names.

Source: Xie, Wang, Yu, Anandkumar, Alvarez and Luo, "SegFormer: simple and efficient design for semantic segmentation
with transformers", NeurIPS 2021; github.com/open-mmlab/mmsegmentation.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hardy.networks.parts.segformer_files import depths, squeezed, variant
from hardy.networks.published.base import Publication

__all__ = ["SegFormerMMSegPublication"]

_BLOCK = {
    r"norm1": "norm1",
    r"norm2": "norm2",
    r"attn\.attn\.out_proj": "attn.proj",
    r"attn\.sr": "attn.sr",
    r"attn\.norm": "attn.norm",
    r"ffn\.layers\.0": "mlp.fc1",
    r"ffn\.layers\.1": "mlp.dwconv.dwconv",
    r"ffn\.layers\.4": "mlp.fc2",
}


def _stage(stage: int) -> dict[str, str]:
    """The layers of one stage, counted from 0: a patch embedding, the blocks, a norm."""
    start, ours = rf"backbone\.layers\.{stage}", f"backbone.block{stage + 1}"
    return {
        **{rf"{start}\.1\.(\d+)\.{old}": rf"{ours}.\1.{new}" for old, new in _BLOCK.items()},
        rf"{start}\.1\.(\d+)\.attn\.attn": rf"{ours}.\1.attn",
        rf"{start}\.0\.projection": f"backbone.patch_embed{stage + 1}.proj",
        rf"{start}\.0\.norm": f"backbone.patch_embed{stage + 1}.norm",
        rf"{start}\.2": f"backbone.norm{stage + 1}",
    }


class SegFormerMMSegPublication(Publication):
    """The release has queries, keys and values in one layer; Hardy has a layer for queries and one for the others."""

    network = "segformer"
    repository = "open-mmlab/mmsegmentation"
    checked = "code"
    signs = (r"backbone\.layers\.0\.1\.0\.attn\.attn\.in_proj_weight", r"decode_head\.fusion_conv\.conv\.weight")
    layers: ClassVar[Mapping[str, str]] = {
        **_stage(0),
        **_stage(1),
        **_stage(2),
        **_stage(3),
        r"decode_head\.convs\.([0-3])\.conv": r"head.projections.\1.0",
        r"decode_head\.convs\.([0-3])\.bn": r"head.projections.\1.1",
        r"decode_head\.fusion_conv\.conv": "head.fuse.0",
        r"decode_head\.fusion_conv\.bn": "head.fuse.1",
        r"decode_head\.conv_seg": "head.classifier",
    }

    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """See `Publication.class_count`."""
        return len(weights["decode_head.conv_seg.weight"])

    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Publication.options`."""
        widths = [len(weights[f"backbone.layers.{stage}.0.projection.weight"]) for stage in range(4)]
        size = variant(widths, depths(weights, "backbone.layers.{}.1."))
        width = len(weights["decode_head.conv_seg.weight"][0])
        return {"variant": size, "width": width, "projection": "batch_norm"}

    def converted(self, weights: dict[str, Tensor], class_count: int) -> dict[str, Tensor]:
        """See `Publication.converted`: 1x1 convolutions as linear layers, and queries split from keys and values."""
        result: dict[str, Tensor] = {}
        for name, value in weights.items():
            if name.endswith((".attn.in_proj_weight", ".attn.in_proj_bias")):
                place, leaf = name.rsplit(".in_proj_", 1)
                count = len(value) // 3
                result |= {f"{place}.q.{leaf}": value[:count], f"{place}.kv.{leaf}": value[count:]}
            elif name.endswith((".mlp.fc1.weight", ".mlp.fc2.weight")):
                result[name] = squeezed(value)
            else:
                result[name] = value
        return result
