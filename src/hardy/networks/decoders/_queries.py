"""Shared by decoders with queries: the scores of the classes, and the losses of all layers.

Source: Cheng, Schwing and Kirillov, "Per-pixel classification is not all you need for semantic segmentation", NeurIPS
2021, section 3.4, for the scores; Cheng et al., "Masked-attention mask transformer for universal image segmentation",
CVPR 2022, for the losses of each layer.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hardy.networks.decoders._set_loss import set_loss, targets_of
from hardy.types import Terms

__all__ = ["class_logits", "layer_losses"]


def class_logits(classes: Tensor, masks: Tensor) -> Tensor:
    """Logarithms of the scores ``sum_q softmax(class_q)_k sigmoid(mask_q)``, (B, K, h, w), at least in float32.

    1e-8 is added to each score, so that the logarithm of 0 is finite.

    Args:
        classes: (B, Q, K + 1) logits, the last for "nothing".
        masks: (B, Q, h, w) logits.
    """
    scores = torch.einsum("bqk,bqhw->bkhw", classes.softmax(-1)[..., :-1], masks.sigmoid())
    return (scores.to(torch.promote_types(scores.dtype, torch.float32)) + 1e-8).log()


def layer_losses(extras: Mapping[str, Tensor], labels: Tensor, layers: int, points: int) -> Terms:
    """``segmentation`` of the last layer, and ``aux_layers``, the sum of those before it, each matched separately.

    Args:
        extras: ``query_classes`` and ``query_masks``; for layers i before the last also ``query_classes_<i>`` and
            ``query_masks_<i>``, if they exist.
        labels: (B, H, W) class ids.
        layers: the largest number of layers before the last.
        points: see `set_loss`.
    """
    wide = torch.promote_types(extras["query_masks"].dtype, torch.float32)
    targets = targets_of(labels, wide, most=extras["query_classes"].shape[-1] - 1)
    ends = ["", *(f"_{layer}" for layer in range(layers) if f"query_masks_{layer}" in extras)]
    found = [set_loss(extras[f"query_classes{e}"], extras[f"query_masks{e}"], targets, points) for e in ends]
    inner = {"aux_layers": torch.stack(found[1:]).sum()} if found[1:] else {}
    return {"segmentation": found[0], **inner}
