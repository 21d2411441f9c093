"""EoMT: queries join the last blocks of a plain vision transformer, which then work as the decoder.

Before each of these blocks, and after the last, the tokens go through the transformer's norm. The class and the mask of
a query are computed from its token q: ``class = W q``, ``mask = MLP(q) . U``, where U is the map of the patches,
enlarged to stride 4 by transposed convolutions. With masked attention a query attends only to the patches inside its
mask. The share of queries with masked attention falls to 0 during training (annealing), ``P = (1 - t) ** 0.9``, block
after block, so that inference does not need it. In block i = 0 .. n - 1, t rises from 0 to 1 between (i + 1) / (n + 2)
and (i + 2) / (n + 2) of the steps.

The class of the transformers library cannot be used: it builds a separate transformer with fixed positions for one
square image size. Here the blocks are those of the encoder, and images can have any size. The logits are the logarithms
of the semantic scores, as in ``mask2former``.

Source: Kerssies, Cavagnero, Hermans, Norouzi, Averta, Leibe, Dubbelman and de Geus, "Your ViT is secretly an image
segmentation model", CVPR 2025, section 3; the steps at which the share of each block falls are Hardy's choice.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.errors import InputError, within
from hardy.networks.decoders._queries import class_logits, layer_losses
from hardy.networks.decoders.base import Decoded, Decoder
from hardy.networks.parts.stages import is_fake
from hardy.types import Terms

__all__ = ["EoMT"]

_HIDDEN = -1e9
"""Added to the attention scores of the patches that a query does not attend to."""


class EoMT(Decoder):
    """Logits at stride 4, or at the patch size divided by a power of 2. Only for timm's plain vision transformers,
    without the options ``vit.blocks`` and ``vit.final_norm``.

    It is trained by its own losses, like ``mask2former``, with the same extras. The blocks that the queries join belong
    to the encoder: a tuner freezes and tunes them, and ``optim.encoder_rate`` applies to them.

    Args:
        channels: of each map; all are equal.
        strides: of each map; all are equal.
        class_count: K.
        query_count: Q.
        blocks: the number of last blocks that the queries join.
        mask_steps: the number of training steps over which masked attention is annealed, counted as forward passes in
            training; set it to ``optim.steps``. 0 trains without masked attention.
        points: the number of points at which each mask is compared with the labels.

    Raises:
        InputError: for an encoder with several strides or widths, or a number out of range.
    """

    joins = True
    undecayed = frozenset({"query"})
    steps_done: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        query_count: int = 100,
        blocks: int = 4,
        mask_steps: int = 0,
        points: int = 12544,
    ) -> None:
        for option, least in {"query_count": 1, "blocks": 1, "mask_steps": 0, "points": 4}.items():
            within(f"EoMT.{option}", locals()[option], least)
        if len(set(strides)) > 1 or len(set(channels)) > 1:
            raise InputError("eomt needs a plain vision transformer of timm, whose maps have one stride")
        super().__init__(channels, strides, class_count)
        width = channels[-1]
        self.query_count, self.count, self.mask_steps, self.points = query_count, blocks, mask_steps, points
        self.query = nn.Parameter(torch.randn(query_count, width))
        self.classifier, self.nothing = nn.Linear(width, class_count), nn.Linear(width, 1)
        layers = [nn.Linear(width, width) for _ in range(3)]
        self.mask_head = nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])
        times = max(1, round(math.log2(strides[-1])) - 2)
        self.upscale = nn.Sequential(*(_Doubled(width) for _ in range(times)))
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.blocks, self.norm = nn.ModuleList(), nn.Module()

    def take_over(self, blocks: Sequence[nn.Module], norm: nn.Module) -> None:
        """See `Decoder.take_over`."""
        self.blocks, self.norm = nn.ModuleList(blocks), norm

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`; the last of ``maps`` are the prefix tokens (B, P, C)."""
        last, prefix = maps[-2], maps[-1]
        size, start = last.shape[-2:], self.query_count + prefix.shape[1]
        queries = self.query.expand(last.shape[0], -1, -1)
        tokens = torch.cat([queries, prefix, last.flatten(2).transpose(1, 2)], dim=1)
        extras: dict[str, Tensor] = {}
        for place, block in enumerate(self.blocks):
            seen = None
            if self.training:
                classes, masks, _ = self._predicted(tokens, start, size)
                extras |= {f"query_classes_{place}": classes, f"query_masks_{place}": masks}
                seen = self._seen(masks, tokens.shape[1], start, size, self.share(place))
            tokens = block(tokens) if seen is None else block(tokens, attn_mask=seen)
        if self.training:
            self.steps_done += 1
        classes, masks, fine = self._predicted(tokens, start, size)
        logits = class_logits(classes, masks)
        return Decoded(fine, logits, {**extras, "query_classes": classes, "query_masks": masks})

    def losses(self, extras: Mapping[str, Tensor], labels: Tensor) -> Terms:
        """See `Decoder.losses`."""
        return layer_losses(extras, labels, self.count, self.points)

    def share(self, place: int) -> float:
        """The share of the queries with masked attention in block ``place``, in [0, 1]; 1 without values."""
        if not self.mask_steps:
            return 0.0
        if is_fake(self.steps_done):
            return 1.0
        done = float(self.steps_done) / self.mask_steps * (self.count + 2) - (place + 1)
        return float((1 - min(max(done, 0.0), 1.0)) ** 0.9)

    def _predicted(self, tokens: Tensor, start: int, size: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits (B, Q, K + 1), mask logits (B, Q, h', w') and the enlarged map (B, C, h', w') of the tokens."""
        normed = self.norm(tokens)
        queries = normed[:, : self.query_count]
        fine = self.upscale(normed[:, start:].transpose(1, 2).unflatten(2, tuple(size)))
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_head(queries), fine)
        return torch.cat([self.classifier(queries), self.nothing(queries)], dim=-1), masks, fine

    def _seen(self, masks: Tensor, length: int, start: int, size: Sequence[int], share: float) -> Tensor | None:
        """The values added to the attention scores (B, 1, N, N) for the ``share`` of the queries; None for share 0."""
        if share == 0:
            return None
        inside = F.interpolate(masks.detach(), size=tuple(size), mode="bilinear", align_corners=False).flatten(2) > 0
        if share < 1:
            free = torch.rand(inside.shape[:2], device=masks.device) > share
            inside = inside | free[..., None]
        added = masks.new_zeros(masks.shape[0], length, length)
        added[:, : self.query_count, start:] = torch.where(inside, 0.0, _HIDDEN)
        return added[:, None]


class _Doubled(nn.Module):
    """``(B, C, h, w) -> (B, C, 2 h, 2 w)``: transposed and depthwise convolution, and a layer norm over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(width, width, 2, 2)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.conv2(F.gelu(self.conv1(x))).permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)
