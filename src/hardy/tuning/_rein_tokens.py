"""The trained part of `hardy.tuning.rein` for one stage of blocks: tokens that refine the output of each block.

Its parameters have the names of the authors' release, so the authors' checkpoints can be loaded. Source: see
`hardy.tuning.rein`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PATCH", "QUERY_WIDTH", "SCALE", "Refined", "ReinTokens"]

PATCH, SCALE, QUERY_WIDTH = 16, 0.001, 256
"""The side of a patch in the bound of the initial tokens, the initial scale, and the channels of a query."""


class ReinTokens(nn.Module):
    """Refines the outputs of the blocks of a stage, ``(x, i) -> x`` of the same shape, with tokens T_i (m, c).

    For the cells f (B, n, c) of block i, without prefix tokens::

        S = softmax(f T_i^T / sqrt(c))  over the m tokens
        f + scale * ((S[:, 1:] (T_i[1:] W_T + b_T) + f) W_f + b_f)

    The first token takes a share of the softmax but adds nothing.

    Args:
        depth: L, the number of blocks.
        width: c, the number of channels of their outputs.
        axis: the channel axis of their outputs.
        prefix: the number of tokens at the start of a transformer's output that are not refined; or one for each block.
        tokens: m, the number of tokens of a block.
        rank: the tokens are products of two matrices of this rank; None for a full matrix.
        core: refine the outputs; if False, there are only tokens and queries.
        link: also compute queries.
        share: use the same W_T, W_f and W_Q for all blocks.
        zero_start: W_f and b_f start at zero, and there is no scale.
        query_width: the number of channels of a query.
        device: of the parameters.
        dtype: of the parameters.
    """

    undecayed: ClassVar[frozenset[str]] = frozenset({"learnable_tokens", "learnable_tokens_a", "learnable_tokens_b"})
    """Parameters without weight decay, in addition to those that never have it."""

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        axis: int = 2,
        prefix: int | Sequence[int] = 0,
        tokens: int = 100,
        rank: int | None = 16,
        core: bool = True,
        link: bool = False,
        share: bool = True,
        zero_start: bool = False,
        query_width: int = QUERY_WIDTH,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.axis, self.free, self.temperature = axis, rank is None, math.sqrt(width)
        self.prefixes = (prefix,) * depth if isinstance(prefix, int) else tuple(prefix)
        if rank is None:
            self.learnable_tokens = _drawn((depth, tokens, width), width, made)
        else:
            self.learnable_tokens_a = _drawn((depth, tokens, rank), math.sqrt(width * rank), made)
            self.learnable_tokens_b = _drawn((depth, rank, width), math.sqrt(width * rank), made)
        copies = 1 if share else depth
        if core:
            self.scale = None if zero_start else nn.Parameter(torch.full((1,), SCALE, **made))
            self.mlp_token2feat = _layers(copies, width, width, made)
            self.mlp_delta_f = _layers(copies, width, width, made)
            if zero_start:
                for value in self.mlp_delta_f.parameters():
                    nn.init.zeros_(value)
        if link:
            self.transform = _layers(copies, width, query_width, made)
            self.merge = nn.Linear(3 * query_width, query_width, **made)

    def tokens(self) -> Tensor:
        """T (L, m, c)."""
        if self.free:
            return self.learnable_tokens
        return self.learnable_tokens_a @ self.learnable_tokens_b

    def forward(self, x: Tensor, block: int) -> Tensor:
        """The refined output ``x`` of block number ``block`` (the first is 0)."""
        last = x.ndim - 1
        cells = x if self.axis == last else x.movedim(self.axis, last)
        if prefix := self.prefixes[block]:  # one split, whose backward pass copies the gradient once
            head, cells = cells.split([prefix, cells.shape[1] - prefix], 1)
            return torch.cat([head, self._refined(cells, block)], 1)
        refined = self._refined(cells.flatten(1, -2), block).reshape(cells.shape)
        return refined if self.axis == last else refined.movedim(last, self.axis)

    def _refined(self, cells: Tensor, block: int) -> Tensor:
        """The refined ``cells`` (B, n, c), with any strides.

        Batched products read the cells without a copy that would stay in memory for the backward pass, and additions
        are fused with products where possible."""
        if self.free:
            tokens = self.learnable_tokens[block]
        else:
            tokens = self.learnable_tokens_a[block] @ self.learnable_tokens_b[block]
        count = cells.shape[0]
        shares = torch.bmm(cells, (tokens / self.temperature).mT.expand(count, -1, -1)).softmax(-1)
        values = F.pad(_layer(self.mlp_token2feat, block)(tokens[1:]), (0, 0, 1, 0))  # nothing from the first token
        change: Tensor = _layer(self.mlp_delta_f, block)(torch.baddbmm(cells, shares, values.expand(count, -1, -1)))
        return cells + change if self.scale is None else torch.addcmul(cells, change, self.scale)

    def queries(self) -> Tensor:
        """The queries (m, query_width): the merged maximum, mean and last of the projections Q_i = T_i W_Q + b_Q.

        The inputs of the merging layer are interleaved: the three values of the first channel, then of the second, and
        so on.
        """
        tokens = self.tokens()
        if isinstance(self.transform, nn.ModuleList):
            each = torch.stack([layer(one) for layer, one in zip(self.transform, tokens.unbind(), strict=True)])
        else:
            each = self.transform(tokens)
        three = torch.stack([each.amax(0), each.mean(0), each[-1]], -1)
        merged: Tensor = self.merge(three.flatten(-2))
        return merged


class Refined(nn.Module):
    """``block`` with its output refined by ``tokens``; another module registers ``tokens`` as its submodule."""

    def __init__(self, block: nn.Module, tokens: ReinTokens, number: int) -> None:
        super().__init__()
        self.block, self.number = block, number
        self._tokens = (tokens,)  # in a tuple, so that the tokens are not a submodule of every block
        self.train(block.training)

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        refined: Tensor = self._tokens[0](self.block(*args, **kwargs), self.number)
        return refined


def _drawn(shape: tuple[int, ...], fan: float, made: Mapping[str, Any]) -> nn.Parameter:
    """Uniform in [-v, v] with v = sqrt(6 / (3 p^2 + fan))."""
    bound = math.sqrt(6 / (3 * PATCH**2 + fan))
    return nn.Parameter(torch.empty(shape, **made).uniform_(-bound, bound))


def _layers(copies: int, inputs: int, outputs: int, made: Mapping[str, Any]) -> nn.Module:
    """One linear layer, or a list of ``copies`` layers if there are more."""
    layers = [nn.Linear(inputs, outputs, **made) for _ in range(copies)]
    return layers[0] if copies == 1 else nn.ModuleList(layers)


def _layer(layers: nn.Module, block: int) -> nn.Module:
    return layers[block] if isinstance(layers, nn.ModuleList) else layers
