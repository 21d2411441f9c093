"""The parts of Mask2Former that transformers has, without its backbone, and their initial values.

The values are those of the papers' code: a ring of sampling offsets as in Deformable DETR, and Xavier initialisation of
the transformers. The library initialises only complete models: in a single part ``level_embed`` is uninitialised
memory.

Source: Cheng et al., CVPR 2022; Zhu, Su, Lu, Li, Wang and Dai, "Deformable DETR", ICLR 2021, appendix A.4; Glorot and
Bengio, AISTATS 2010.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former import modeling_mask2former as library

from hardy.networks.base import resize

__all__ = ["PixelDecoder", "SinePositions", "pixel_decoder", "query_decoder"]


class SinePositions(nn.Module):
    """Sines and cosines of the positions of a map in ``2 half`` channels: the first half for y, the second for x.

    It replaces the module of the library, which caches its last result in the process. Training would then use a result
    that was computed in inference mode or without values (`Network.feature_stages`).

    Args:
        half: channels for each of y and x, even.
    """

    def __init__(self, half: int) -> None:
        super().__init__()
        self._half = half

    def forward(self, x: Tensor) -> Tensor:
        """(1, 2 half, h, w) for a map (B, C, h, w)."""
        place = torch.arange(self._half, device=x.device)
        rate = 10000 ** (2 * torch.div(place, 2, rounding_mode="floor").to(x.dtype) / self._half)
        waves = []
        for side in x.shape[-2:]:
            at = torch.arange(1, side + 1, device=x.device).to(x.dtype) / (side + 1e-6) * (2 * math.pi)
            angles = at[:, None] / rate
            waves.append(torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1))
        height, width = x.shape[-2:]
        rows = waves[0].T[None, :, :, None].expand(1, self._half, height, width)
        return torch.cat([rows, waves[1].T[None, :, None, :].expand(1, self._half, height, width)], dim=1)


class PixelDecoder(library.Mask2FormerPixelDecoder):  # type: ignore[misc]
    """The library's layers, called so that an exported graph accepts every image size."""

    undecayed = frozenset({"level_embed"})

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Four maps, finest first -> the three coarse levels, coarsest first, and the map for the masks (B, C, h,
        w)."""
        coarse = [project(x) for project, x in zip(self.input_projections, reversed(maps[1:]), strict=True)]
        sizes = [tuple(x.shape[-2:]) for x in coarse]
        places = [self.position_embedding(x) + self.level_embed[level, :, None, None] for level, x in enumerate(coarse)]
        tokens = self.encoder(
            inputs_embeds=_flat(coarse),
            position_embeddings=_flat(places),
            spatial_shapes_list=sizes,
            valid_ratios=coarse[0].new_ones(coarse[0].shape[0], len(sizes), 2),
            return_dict=True,
        ).last_hidden_state
        parts = tokens.transpose(1, 2).split([height * width for height, width in sizes], dim=2)
        levels = [part.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]
        fine = self.adapter_1(maps[0])
        return levels, self.mask_projection(self.layer_1(fine + resize(levels[-1], fine.shape[-2:])))


class _EncoderLayer(library.Mask2FormerPixelDecoderEncoderLayer):  # type: ignore[misc]
    """The library's layer without its check in training that the result of the last norm is finite: it reads values, so
    it cannot be traced, and a GPU waits for it."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None, **options: Any) -> tuple[Tensor]:
        """Tokens (B, N, C) -> tokens (B, N, C)."""
        masks = {"attention_mask": attention_mask, "encoder_attention_mask": attention_mask}
        attended, _ = self.self_attn(hidden_states, encoder_hidden_states=hidden_states, **masks, **options)
        x = self.self_attn_layer_norm(hidden_states + attended)
        return (self.final_layer_norm(x + self.fc2(self.activation_fn(self.fc1(x)))),)


def _flat(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, h_i, w_i) -> (B, sum of h_i w_i, C)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)


def _centres(sizes: Sequence[Sequence[int]], ratios: Tensor, device: Any) -> Tensor:
    """The centre of each token's cell as (x, y) in [0, 1], repeated for each level: (B, N, levels, 2).

    The library uses `torch.linspace`, which fixes the number of cells in an exported graph. The values are the same.
    """
    centres = []
    for height, width in sizes:
        y = (torch.arange(height, device=device).to(ratios.dtype) + 0.5) / height
        x = (torch.arange(width, device=device).to(ratios.dtype) + 0.5) / width
        centres.append(torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=2).flatten(0, 1))
    return torch.cat(centres)[None, :, None] * ratios[:, None]


def configured(**options: Any) -> Mask2FormerConfig:
    """The library's configuration with ``options``; the backbone that it describes is not built."""
    return Mask2FormerConfig(feature_strides=[4, 8, 16, 32], common_stride=4, dropout=0.0, **options)


def pixel_decoder(channels: Sequence[int], *, width: int, heads: int, layers: int, hidden: int) -> PixelDecoder:
    """A `PixelDecoder` with its initial values.

    Args:
        channels: channels of each map, finest first.
        width: channels of all maps that it returns.
        heads: heads of the deformable attention.
        layers: layers of the encoder of the three coarse maps.
        hidden: channels between the linear layers of the encoder's blocks.
    """
    config = configured(
        feature_size=width,
        mask_feature_size=width,
        hidden_dim=width,
        num_attention_heads=heads,
        encoder_layers=layers,
        encoder_feedforward_dim=hidden,
    )
    made = PixelDecoder(config, list(channels))
    made.position_embedding = SinePositions(width // 2)
    made.level_embed = nn.Parameter(torch.randn(3, width))
    for part in made.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_uniform_(part.weight, a=1)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for projection in made.input_projections:
        nn.init.xavier_uniform_(projection[0].weight)
    made.encoder.get_reference_points = _centres
    _xavier(made.encoder)
    for layer in made.encoder.layers:
        layer.__class__ = _EncoderLayer
        _ring(layer.self_attn)
    return made


def query_decoder(*, width: int, heads: int, layers: int, hidden: int) -> nn.Module:
    """The library's masked-attention decoder with ``layers`` layers; see `pixel_decoder` for the other arguments."""
    config = configured(
        hidden_dim=width,
        mask_feature_size=width,
        num_attention_heads=heads,
        dim_feedforward=hidden,
        decoder_layers=layers + 1,
    )
    made: nn.Module = library.Mask2FormerMaskedAttentionDecoder(config)
    _xavier(made.get_submodule("layers"))
    return made


def _xavier(module: nn.Module) -> None:
    for value in module.parameters():
        if value.ndim > 1:
            nn.init.xavier_uniform_(value)


@torch.no_grad()
def _ring(attention: Any) -> None:
    """Initialise sampling, in place: head m of M samples in direction 2 pi m / M, its k-th point at distance k in the
    larger coordinate, with equal weights."""
    angle = torch.arange(attention.n_heads) * (2 * math.pi / attention.n_heads)
    direction = torch.stack([angle.cos(), angle.sin()], dim=1)
    direction = direction / direction.abs().amax(dim=1, keepdim=True)
    distance = torch.arange(1, attention.n_points + 1)
    offsets = direction[:, None, None] * distance[:, None]
    attention.sampling_offsets.bias.copy_(offsets.expand(-1, attention.n_levels, -1, -1).flatten())
    for zero in (attention.sampling_offsets.weight, attention.attention_weights.weight):
        nn.init.zeros_(zero)
    for layer in (attention.attention_weights, attention.value_proj, attention.output_proj):
        nn.init.zeros_(layer.bias)
