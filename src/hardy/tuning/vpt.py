"""VPT: trains prompts, which are tokens in addition to those of the image, in a frozen vision transformer.

    shallow    [x_1, Z_1, E_1] = L_1([x_0, P, E_0])         prompts P before the first block; the others read Z
    deep       [x_i, _, E_i] = L_i([x_i-1, P_i-1, E_i-1])   new prompts before every block; their outputs are dropped

x are the class and register tokens, E the patches. Prompts get no position embedding. P ~ U(-v, v) with v^2 = 6 / (3
p^2 + c), where p is the patch size and c the width. Prompts are tokens, so they cannot be merged into weights.

Source: Jia, Tang, Chen, Cardie, Belongie, Hariharan and Lim, "Visual prompt tuning", ECCV 2022; the
initial values are those of the authors' code.
"""

import math
from typing import Any

import torch
from timm.layers import AttentionRope
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.tuning._layers import replace, within
from hardy.tuning.base import Tuner, freeze_encoder

__all__ = ["VPT"]


class VPT(Tuner):
    """For plain vision transformers of timm: its classes VisionTransformer and Eva.

    Args:
        tokens: the number of prompts that each block reads, 1 or more.
        deep: new prompts before every block; if False, only before the first.

    Raises:
        InputError: for fewer than one token.
    """

    def __init__(self, *, tokens: int = 50, deep: bool = True) -> None:
        if tokens < 1:
            raise InputError(f"tuner.tokens: {tokens} is out of range; it must be 1 or more")
        self.tokens, self.deep = tokens, deep

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`."""
        found: list[Any] = [module for _, module in within(network) if isinstance(module, (VisionTransformer, Eva))]
        if not found:
            raise InputError(
                f"tuner: vpt needs a plain vision transformer (timm's VisionTransformer or Eva), and the encoder of "
                f"{type(network).__name__} is not one; use another encoder or another tuner"
            )
        freeze_encoder(network)
        for model in found:
            for attention in model.blocks.modules():
                if isinstance(attention, (AttentionRope, EvaAttention)):  # prompts are not rotated
                    attention.num_prefix_tokens += self.tokens
            if self.deep:
                replace(network, {block: _Prompted(block, self._drawn(model), model) for block in model.blocks})
            else:
                _insert(model, self._drawn(model))

    def _drawn(self, model: Any) -> nn.Parameter:
        """New prompts (tokens, C)."""
        weight = next(model.blocks.parameters())
        bound = math.sqrt(6 / (3 * model.patch_embed.patch_size[0] ** 2 + model.embed_dim))
        empty = torch.empty(self.tokens, model.embed_dim, dtype=weight.dtype, device=weight.device)
        return nn.Parameter(empty.uniform_(-bound, bound))


class _Prompted(nn.Module):
    """A block that reads its own prompts after the prefix tokens, and drops their outputs.

    Args:
        block: the original block.
        prompts: (tokens, C).
        model: the transformer, which gives the number of prefix tokens.
    """

    def __init__(self, block: nn.Module, prompts: nn.Parameter, model: Any) -> None:
        super().__init__()
        self.block, self.prompts = block, prompts
        self.prefix: int = model.num_prefix_tokens

    def forward(self, x: Tensor, *args: Any, **given: Any) -> Tensor:
        out = self.block(_with_prompts(x, self.prompts, self.prefix), *args, **given)
        return torch.cat([out[:, : self.prefix], out[:, self.prefix + len(self.prompts) :]], dim=1)


class _Inserted:
    """Mixed into the class of a transformer: prompts follow the prefix tokens and are counted as prefix tokens."""

    def _pos_embed(self, x: Tensor) -> Any:
        model: Any = self
        model.num_prefix_tokens -= len(model.prompts)
        try:
            found = super()._pos_embed(x)  # type: ignore[misc]
            first, *rest = found if isinstance(found, tuple) else (found,)
            first = _with_prompts(first, model.prompts, model.num_prefix_tokens)
        finally:
            model.num_prefix_tokens += len(model.prompts)
        return (first, *rest) if rest else first


def _insert(model: Any, prompts: nn.Parameter) -> None:
    """Change the class of ``model``, in place, so that it reads ``prompts``."""
    kind = type(model)
    model.prompts = prompts
    model.num_prefix_tokens += len(prompts)
    model.__class__ = type(f"Prompted{kind.__name__}", (_Inserted, kind), {"__module__": kind.__module__})


def _with_prompts(x: Tensor, prompts: Tensor, prefix: int) -> Tensor:
    """Tokens (B, N, C) with ``prompts`` after the first ``prefix``."""
    return torch.cat([x[:, :prefix], prompts.expand(len(x), -1, -1), x[:, prefix:]], dim=1)
