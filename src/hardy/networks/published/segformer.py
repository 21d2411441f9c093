"""SegFormer B0 to B5 as published by the authors on Cityscapes and ADE20K; the head has linear projections.

The release's layer norms of patch embeddings and reduced keys have an epsilon of 1e-5, all others 1e-6.

Source: Xie, Wang, Yu, Anandkumar, Alvarez and Luo, "SegFormer: simple and efficient design for semantic segmentation
with transformers", NeurIPS 2021; github.com/NVlabs/SegFormer.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hardy.networks.parts.segformer_files import depths, fused_from_coarse, variant
from hardy.networks.published.base import Publication

__all__ = ["SegFormerPublication"]


class SegFormerPublication(Publication):
    """The release has a classifier that its head never uses."""

    network = "segformer"
    repository = "NVlabs/SegFormer"
    checked = "code"
    signs = (r"backbone\.block1\.0\.attn\.kv\.weight", r"decode_head\.linear_c1\.proj\.weight")
    layers: ClassVar[Mapping[str, str]] = {
        r"backbone\.(patch_embed[1-4]\.(?:proj|norm)|norm[1-4])": r"backbone.\1",
        r"backbone\.(block[1-4]\.\d+\.(?:norm[12]|attn\.(?:q|kv|proj|sr|norm)|mlp\.(?:fc[12]|dwconv\.dwconv)))": (
            r"backbone.\1"
        ),
        **{rf"decode_head\.linear_c{place + 1}\.proj": f"head.projections.{place}" for place in range(4)},
        r"decode_head\.linear_fuse\.conv": "head.fuse.0",
        r"decode_head\.linear_fuse\.bn": "head.fuse.1",
        r"decode_head\.linear_pred": "head.classifier",
    }
    dropped: ClassVar[Mapping[str, str]] = {
        r"decode_head\.conv_seg\.(weight|bias)": "a classifier that the published head never uses"
    }

    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """See `Publication.class_count`."""
        return len(weights["decode_head.linear_pred.weight"])

    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Publication.options`."""
        widths = [len(weights[f"backbone.patch_embed{stage}.proj.weight"]) for stage in range(1, 5)]
        counts = [depths(weights, f"backbone.block{stage}.")[0] for stage in range(1, 5)]
        width = len(weights["decode_head.linear_pred.weight"][0])
        return {"variant": variant(widths, counts), "width": width, "projection": "linear", "embedding_eps": 1e-5}

    def converted(self, weights: dict[str, Tensor], class_count: int) -> dict[str, Tensor]:
        """See `Publication.converted`: linear layers as 1x1 convolutions, and the finest map first."""
        changed = {name: value[..., None, None] for name, value in weights.items() if _is_projection(name)}
        if "head.fuse.0.weight" in weights:
            changed["head.fuse.0.weight"] = fused_from_coarse(weights["head.fuse.0.weight"])
        return weights | changed


def _is_projection(name: str) -> bool:
    return name.startswith("head.projections.") and name.endswith(".weight")
