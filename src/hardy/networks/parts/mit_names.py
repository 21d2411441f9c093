"""Renames the weights of published mix transformers to Hardy's names, those of the authors' ImageNet checkpoints.

The transformers library has the same layers under other names, with separate keys and values of the attention, and
counts stages and blocks from 0. The encoder of a segmentation network has a prefix in both.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["in_our_names"]

_PREFIXES = ("segformer.encoder.", "encoder.", "backbone.")
_LAYERS = {
    "layer_norm_1": "norm1",
    "layer_norm_2": "norm2",
    "attention.self.query": "attn.q",
    "attention.self.key": "attn.k",
    "attention.self.value": "attn.v",
    "attention.self.sr": "attn.sr",
    "attention.self.layer_norm": "attn.norm",
    "attention.output.dense": "attn.proj",
    "mlp.dense1": "mlp.fc1",
    "mlp.dense2": "mlp.fc2",
}
_EMBEDDINGS = {"proj": "proj", "layer_norm": "norm"}


def in_our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` of a mix transformer under Hardy's names; unknown names do not change."""
    renamed = {_renamed(name): value for name, value in weights.items()}
    for name in [name for name in renamed if ".attn.k." in name]:
        key, value = renamed.pop(name), renamed.pop(name.replace(".attn.k.", ".attn.v."), None)
        renamed[name.replace(".attn.k.", ".attn.kv.")] = key if value is None else torch.cat([key, value])
    return renamed


def _renamed(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    if found := re.fullmatch(r"block\.(\d)\.(\d+)\.(.+)\.(weight|bias)", name):
        stage, place, layer, leaf = found.groups()
        return f"block{int(stage) + 1}.{place}.{_LAYERS.get(layer, layer)}.{leaf}"
    if found := re.fullmatch(r"patch_embeddings\.(\d)\.(.+)\.(weight|bias)", name):
        stage, layer, leaf = found.groups()
        return f"patch_embed{int(stage) + 1}.{_EMBEDDINGS.get(layer, layer)}.{leaf}"
    if found := re.fullmatch(r"layer_norm\.(\d)\.(weight|bias)", name):
        return f"norm{int(found[1]) + 1}.{found[2]}"
    return name
