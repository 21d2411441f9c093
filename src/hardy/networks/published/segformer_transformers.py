"""SegFormer B0 to B5 as saved by the transformers library: the authors' weights with other names.

That library's layer norms have an epsilon of 1e-5.

Source: Xie, Wang, Yu, Anandkumar, Alvarez and Luo, "SegFormer: simple and efficient design for semantic segmentation
with transformers", NeurIPS 2021; github.com/huggingface/transformers.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hardy.networks.parts.segformer_files import depths, fused_from_coarse, joined, variant
from hardy.networks.published.base import Publication

__all__ = ["SegFormerTransformersPublication"]

_BLOCK = {
    r"layer_norm_([12])": r"norm\1",
    r"attention\.self\.query": "attn.q",
    r"attention\.self\.key": "attn.k",
    r"attention\.self\.value": "attn.v",
    r"attention\.self\.sr": "attn.sr",
    r"attention\.self\.layer_norm": "attn.norm",
    r"attention\.output\.dense": "attn.proj",
    r"mlp\.dense([12])": r"mlp.fc\1",
    r"mlp\.dwconv\.dwconv": "mlp.dwconv.dwconv",
}


def _stage(stage: int) -> dict[str, str]:
    """The layers of one stage, counted from 0; the first group is the block's number."""
    start, ours = r"segformer\.encoder", f"backbone.block{stage + 1}"
    blocks = {
        rf"{start}\.block\.{stage}\.(\d+)\.{old}": rf"{ours}.\1.{new.replace(chr(92) + '1', chr(92) + '2')}"
        for old, new in _BLOCK.items()
    }
    return blocks | {
        rf"{start}\.patch_embeddings\.{stage}\.proj": f"backbone.patch_embed{stage + 1}.proj",
        rf"{start}\.patch_embeddings\.{stage}\.layer_norm": f"backbone.patch_embed{stage + 1}.norm",
        rf"{start}\.layer_norm\.{stage}": f"backbone.norm{stage + 1}",
        rf"decode_head\.linear_c\.{stage}\.proj": f"head.projections.{stage}",
    }


class SegFormerTransformersPublication(Publication):
    """The release has keys and values in two layers; Hardy has them in one."""

    network = "segformer"
    repository = "huggingface/transformers"
    checked = "code"
    signs = (r"segformer\.encoder\.patch_embeddings\.0\.proj\.weight", r"decode_head\.linear_c\.0\.proj\.weight")
    layers: ClassVar[Mapping[str, str]] = {
        **_stage(0),
        **_stage(1),
        **_stage(2),
        **_stage(3),
        r"decode_head\.linear_fuse": "head.fuse.0",
        r"decode_head\.batch_norm": "head.fuse.1",
        r"decode_head\.classifier": "head.classifier",
    }

    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """See `Publication.class_count`."""
        return len(weights["decode_head.classifier.weight"])

    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Publication.options`."""
        start = "segformer.encoder"
        widths = [len(weights[f"{start}.patch_embeddings.{stage}.proj.weight"]) for stage in range(4)]
        size = variant(widths, depths(weights, start + ".block.{}."))
        width = len(weights["decode_head.classifier.weight"][0])
        return {"variant": size, "width": width, "projection": "linear", "eps": 1e-5, "embedding_eps": 1e-5}

    def converted(self, weights: dict[str, Tensor], class_count: int) -> dict[str, Tensor]:
        """See `Publication.converted`: linear layers as 1x1 convolutions, and the finest map first."""
        result = joined(weights)
        for name in [name for name in result if name.startswith("head.projections.") and name.endswith(".weight")]:
            result[name] = result[name][..., None, None]
        if "head.fuse.0.weight" in result:
            result["head.fuse.0.weight"] = fused_from_coarse(result["head.fuse.0.weight"])
        return result
