"""Any encoder of timm or Hardy with a linear layer, for image-level classes such as those of PACS.

Source: He, Zhang, Ren and Sun, CVPR 2016, for ResNets and their pooled linear classifier; Gulrajani and Lopez-Paz, "In
search of lost domain generalization", ICLR 2021, for its use; the encoders are those of timm (Wightman, 2019) and
of `hardy.networks.encoders`.
"""

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardy.data.label_spaces import LabelSpace
from hardy.errors import within
from hardy.networks.base import Network
from hardy.networks.building.weights import initialise
from hardy.networks.encoders.base import Encoder, family_of, load
from hardy.networks.parts.encoder_errors import one_line_errors, size_errors
from hardy.networks.parts.pyramid import load_encoder, stages
from hardy.types import Outputs

__all__ = ["Classifier"]


class Classifier(Network):
    """Logits (B, K). Features: ``stage1`` .. ``stageN``, the encoder's maps, finest first. The embedding (B, C) is the
    input of the linear layer, before dropout.

    Args:
        label_space: the classes predicted.
        encoder: a size of an encoder of ``hardy list encoder``, or a timm model.
        encoder_weights: None for random initialisation; a weights file, also one of a foundation model with the names
            of its release; a short name of ``hardy list weights``; ``"timm"`` or a timm tag; ``"hf-hub:OWNER/NAME"``.
        dropout: share of the embedding zeroed while training.
        freeze_norm: batch norms keep their running statistics, while their scales and shifts are trained, as in
            DomainBed of 2022. This also holds after pruning.

    Raises:
        InputError: for an unknown encoder, for weights that do not fit or cannot be downloaded, and for a dropout
            outside [0, 1].
    """

    image_level = True

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        encoder: str = "resnet18",
        encoder_weights: str | None = None,
        dropout: float = 0.0,
        freeze_norm: bool = False,
    ) -> None:
        within("Classifier.dropout", dropout, 0, 1)
        super().__init__(label_space)
        self.backbone: Any
        self.encoder_name = encoder
        if family_of(encoder) is not None:
            self.backbone = load(encoder, encoder_weights, embedding=True)
            self.multiple, width = self.backbone.multiple, self.backbone.width
        else:
            self.backbone = load_encoder(encoder, encoder_weights, lambda model: model.reset_classifier(0))
            with one_line_errors(
                f"encoder {encoder!r} cannot be the encoder of a classifier", "choose another encoder"
            ):
                self.indices, _, _, self.multiple = stages(self.backbone)
                width = self.backbone.head_hidden_size
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, len(label_space))
        initialise(self.head)
        self.pretrained = encoder_weights is not None
        self.freeze_norm = freeze_norm
        self.train()

    def train(self, mode: bool = True) -> Self:
        """See `torch.nn.Module.train`; with ``freeze_norm`` batch norms stay in evaluation mode."""
        super().train(mode)
        if self.freeze_norm:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def encoder(self) -> Sequence[nn.Module]:
        """The encoder."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        maps, embedding = self._seen(self.normalise(images))
        logits = self.head(self.dropout(embedding))
        features = {f"stage{number}": x for number, x in enumerate(maps, start=1)}
        return Outputs(logits, features, embedding=embedding)

    def _seen(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The encoder's maps and its embedding."""
        if isinstance(self.backbone, Encoder):
            maps = self.backbone(images)
            return maps, self.backbone.embed(maps[-1])
        with size_errors(self.encoder_name, self.backbone, self._of_timm, images):
            return self._of_timm(images)

    def _of_timm(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        last, maps = self.backbone.forward_intermediates(images, indices=self.indices)
        return maps, self.backbone.forward_head(last)
