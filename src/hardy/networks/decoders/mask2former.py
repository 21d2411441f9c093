"""The Mask2Former head: queries, each a class and a mask, that attend to the map inside their own masks.

The pixel decoder and the masked attention are those of the transformers library (extra ``heads``). The logits are the
logarithms of the paper's semantic scores ``sum_q softmax(class_q)_k sigmoid(mask_q)``, without "nothing". The order of
the classes is the same, and the softmax of the logits is the share of each class. They have the stride of the masks;
the paper enlarges the masks first.

Source: Cheng, Misra, Schwing, Kirillov and Girdhar, "Masked-attention mask transformer for universal image
segmentation", CVPR 2022; scores as in Cheng, Schwing and Kirillov, "Per-pixel classification is not all you need for
semantic segmentation", NeurIPS 2021, section 3.4; external queries as in Wei et al., "Stronger, fewer, & superior:
harnessing vision foundation models for domain generalized semantic segmentation", CVPR 2024.
"""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

import torch
from torch import Tensor, nn

from hardy.errors import InputError, within
from hardy.networks.decoders._pyramid import one_stride, pyramid
from hardy.networks.decoders._queries import class_logits, layer_losses
from hardy.networks.decoders.base import Decoded, Decoder
from hardy.networks.parts.encoder_errors import reason
from hardy.types import Terms

__all__ = ["Mask2Former"]

_NAME = "decoder 'mask2former'"


class Mask2Former(Decoder):
    """Logits at the stride of the first of the last four maps. Maps of a plain transformer, which all have one stride,
    are first resized to 4, 2, 1 and 1/2 of their size.

    It is trained by its own losses, not by the recipe's ``loss``: ``segmentation`` of the last layer and
    ``aux_layers``, the sum over the layers before it; see `hardy.networks.decoders._set_loss`. The embedding is the map
    whose products with the queries are the masks; the queries also attend to the coarser maps. Extras: the logits
    ``query_classes`` (B, Q, K + 1) and ``query_masks`` (B, Q, h, w); in training also ``query_classes_<i>`` and
    ``query_masks_<i>``, those before each layer i.

    Args:
        channels: of each map, four or more.
        strides: of each map.
        class_count: K.
        query_count: Q.
        width: channels of all maps and queries, 64 or more, a multiple of 32 and of ``heads``.
        heads: heads of every attention.
        pixel_layers: layers of the pixel decoder's deformable attention.
        layers: layers of the masked attention, three or more to use all three coarse maps.
        pixel_hidden: channels between the linear layers of the pixel decoder's blocks.
        hidden: channels between the linear layers of the masked attention's blocks.
        points: the number of points at which each mask is compared with the labels.

    Raises:
        InputError: without transformers, for fewer than four maps, or a number out of range.
    """

    undecayed = frozenset({"level_embed", "query_embed"})

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        query_count: int = 100,
        width: int = 256,
        heads: int = 8,
        pixel_layers: int = 6,
        layers: int = 9,
        pixel_hidden: int = 1024,
        hidden: int = 2048,
        points: int = 12544,
    ) -> None:
        for option, least in {"query_count": 1, "heads": 1, "pixel_layers": 1, "layers": 1, "points": 4}.items():
            within(f"Mask2Former.{option}", locals()[option], least)
        within("Mask2Former.pixel_hidden", pixel_hidden, 1)
        within("Mask2Former.hidden", hidden, 1)
        if width < 64 or width % 32 != 0 or width % heads != 0:
            raise InputError(f"mask2former width={width}: give a multiple of 32 and of heads={heads}, 64 or more")
        if len(channels) < 4:
            raise InputError(f"mask2former needs four maps; this encoder has {len(channels)}")
        super().__init__(channels, strides, class_count)
        parts = _parts()
        self.query_count, self.width, self.points, self._layers = query_count, width, points, layers
        self._one_stride = one_stride(strides)
        sizes = {"width": width, "heads": heads}
        self.pixel_decoder = parts.pixel_decoder(channels[-4:], layers=pixel_layers, hidden=pixel_hidden, **sizes)
        self.query_decoder = parts.query_decoder(layers=layers, hidden=hidden, **sizes)
        self.positions = parts.SinePositions(width // 2)
        self.level_embed = nn.Parameter(torch.randn(3, width))
        self.query_embed: nn.Parameter | None = nn.Parameter(torch.randn(query_count, width))
        self.query_feat: nn.Parameter | nn.Linear = nn.Parameter(torch.randn(query_count, width))
        self.classifier = nn.Linear(width, class_count)
        self.nothing = nn.Linear(width, 1)
        self._queries: Callable[[], Tensor] | None = None

    @property
    def queries(self) -> Callable[[], Tensor] | None:
        """The function that returns the queries (Q, ``width``), with gradients, at each `decode`; None: the head's own.

        It is a function or a bound method, not a module. Setting it removes the head's own queries: the tensor is the
        position embedding of every layer, and a new linear layer, ``query_feat``, computes the first layer's input from
        it.
        """
        return self._queries

    @queries.setter
    def queries(self, given: Callable[[], Tensor]) -> None:
        assert callable(given)
        if self._queries is None:
            like = self.level_embed
            del self.query_embed, self.query_feat
            self.query_feat = nn.Linear(self.width, self.width, device=like.device, dtype=like.dtype)
        self._queries = given

    def read_queries(self, source: Callable[[], Tensor]) -> None:
        """See `Decoder.read_queries` and `queries`."""
        self.queries = source

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`.

        Raises:
            InputError: if `queries` returns a tensor of another shape.
        """
        coarse, fine = self.pixel_decoder(pyramid(maps) if self._one_stride else list(maps[-4:]))
        inner, masks = self._attended(coarse, fine)
        extras: dict[str, Tensor] = {}
        for layer in range(self._layers + 1) if self.training else [self._layers]:
            end = "" if layer == self._layers else f"_{layer}"
            queries = inner[layer].transpose(0, 1)
            extras[f"query_classes{end}"] = torch.cat([self.classifier(queries), self.nothing(queries)], dim=-1)
            extras[f"query_masks{end}"] = masks[layer]
        return Decoded(fine, class_logits(extras["query_classes"], extras["query_masks"]), extras)

    def losses(self, extras: Mapping[str, Tensor], labels: Tensor) -> Terms:
        """See `Decoder.losses`. Deep supervision: the queries of each layer are matched separately."""
        return layer_losses(extras, labels, self._layers, self.points)

    def _attended(self, coarse: Sequence[Tensor], fine: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """For each layer, and before the first, the queries (Q, B, C) and their mask logits (B, Q, h, w)."""
        places, feats = self._own()
        batch = fine.shape[0]  # `len` would fix the batch size of an exported graph
        levels = [x.flatten(2) + embed[None, :, None] for x, embed in zip(coarse, self.level_embed, strict=True)]
        positions = [self.positions(x).flatten(2).permute(2, 0, 1) for x in coarse]
        found = self.query_decoder(
            inputs_embeds=feats[:, None].repeat(1, batch, 1),
            query_position_embeddings=places[:, None].repeat(1, batch, 1),
            pixel_embeddings=fine,
            encoder_hidden_states=[x.permute(2, 0, 1) for x in levels],
            multi_stage_positional_embeddings=positions,
            feature_size_list=[x.shape[-2:] for x in coarse],
            return_dict=True,
        )
        return found.intermediate_hidden_states, found.masks_queries_logits

    def _own(self) -> tuple[Tensor, Tensor]:
        """The position embeddings and the first features of the queries, (Q, C) each."""
        if self._queries is None:
            assert isinstance(self.query_embed, Tensor)
            assert isinstance(self.query_feat, Tensor)
            return self.query_embed, self.query_feat
        assert isinstance(self.query_feat, nn.Linear)
        given = self._queries()
        if tuple(given.shape) != (self.query_count, self.width):
            raise InputError(
                f"mask2former: the external queries have the shape {tuple(given.shape)}, and the head takes "
                f"({self.query_count}, {self.width}); set its query_count and width, or the tuner's tokens"
            )
        return given, self.query_feat(given)


def _parts() -> ModuleType:
    try:
        from hardy.networks.decoders import _mask2former_parts
    except ModuleNotFoundError as error:
        raise InputError(f"{_NAME}: {error.name} is not installed; pip install 'hardy[heads]'") from None
    except ImportError as error:  # transformers refuses versions of other packages this way
        raise InputError(
            f"{_NAME}: transformers cannot be used ({reason(error)}); pip install 'hardy[heads]'"
        ) from None
    return _mask2former_parts
