"""SegFormer B0 to B5: a mix transformer and a head of linear layers; 3.7 to 84.6 M parameters.

Attention covers the complete image from the first stage on. Depthwise convolutions between the linear layers replace a
position encoding, so every image size works. Heads and hidden channels can be pruned.

Source: Xie, Wang, Yu, Anandkumar, Alvarez and Luo, "SegFormer: simple and efficient design for semantic segmentation
with transformers", NeurIPS 2021, section 3.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from hardy.data.label_spaces import LabelSpace
from hardy.errors import within
from hardy.networks.base import Network, resize
from hardy.networks.decoders.segformer import SegFormerHead
from hardy.networks.encoders.base import load
from hardy.types import Outputs

__all__ = ["SegFormer"]


class SegFormer(Network):
    """Features: ``stage1`` .. ``stage4``, the encoder's maps at strides 4, 8, 16, 32; (32, 64, 160, 256) channels for
    B0, (64, 128, 320, 512) for the others. Coarse logits at stride 4; the embedding is the map that joins all maps in
    the head.

    Args:
        label_space: the classes predicted.
        variant: size of the encoder.
        encoder_weights: None for random initialisation; a file of a mix transformer's weights with the names of the
            authors' checkpoints or of the transformers library.
        width: channels of the head; None for the paper's, 256 for B0 and B1 and 768 for the others.
        projection: the head's first layers, one per map: ``"batch_norm"`` for a 1x1 convolution, batch norm and ReLU
            (MMSegmentation), ``"linear"`` for a linear layer only (the paper).
        dropout: share of channels zeroed before the classifier while training.
        drop_path: stochastic depth: share of images that skip the last block in training; it rises linearly over the
            blocks.
        eps: epsilon of all layer norms except those of ``embedding_eps``; 1e-6 in the authors' and MMSegmentation's
            code, 1e-5 in the transformers library.
        embedding_eps: epsilon of the layer norms of patch embeddings and of reduced keys and values; 1e-6 in
            MMSegmentation's code, 1e-5 in the others.

    Raises:
        InputError: for a number out of range, or weights that are not a file or do not fit.
    """

    multiple = 32

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        variant: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = "b0",
        encoder_weights: str | None = None,
        width: int | None = None,
        projection: Literal["batch_norm", "linear"] = "batch_norm",
        dropout: float = 0.1,
        drop_path: float = 0.1,
        eps: float = 1e-6,
        embedding_eps: float = 1e-6,
    ) -> None:
        within("SegFormer.eps", eps, 1e-12, 1)
        within("SegFormer.embedding_eps", embedding_eps, 1e-12, 1)
        within("SegFormer.drop_path", drop_path, 0, 1)
        super().__init__(label_space)
        self.backbone = load(
            f"mit_{variant}", encoder_weights, drop_path=drop_path, eps=eps, embedding_eps=embedding_eps
        )
        if width is None:
            width = 256 if variant in ("b0", "b1") else 768
        channels, strides = self.backbone.channels, self.backbone.strides
        self.head = SegFormerHead(
            channels, strides, len(label_space), width=width, projection=projection, dropout=dropout
        )
        self.pretrained = encoder_weights is not None

    def encoder(self) -> Sequence[nn.Module]:
        """The mix transformer."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        maps: list[Tensor] = self.backbone(self.normalise(images))
        features = {f"stage{number}": x for number, x in enumerate(maps, start=1)}
        embedding, logits, _ = self.head.decode(maps)
        return Outputs(resize(logits, images.shape[-2:]), features, coarse=logits, embedding=embedding)
