"""A teacher: a frozen network from which another network learns."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.data.label_spaces import LabelSpace
from hardy.former import FormerName
from hardy.networks.base import Network, resize
from hardy.networks.building.kept_outputs import KeptOutputs, name_of, stacked
from hardy.ops.frozen import Frozen
from hardy.types import Outputs

__all__ = ["Precision", "Teacher"]

Precision = Literal["fp32", "bf16"]


class Teacher(nn.Module):
    """A frozen copy of ``network`` in evaluation mode that returns complete `Outputs`, without gradient.

    An algorithm gets one through the argument ``teacher`` before the ``*`` of its constructor, and may keep it as a
    submodule. It moves between devices with its parent. It has no parameters, buffers or state, so optimisers,
    checkpoints and parameter counts do not include it; `train`, `requires_grad_` and dtype changes do not affect it.

    It computes under `torch.no_grad`, not in inference mode. A loss may save its tensors for the backward pass of the
    student, for example in a product with the student's features; torch does not allow this for inference tensors.

    Contract, tested by ``tests/contracts/test_teachers.py``.

    Args:
        network: the network to copy.
        precision: ``fp32`` computes in the dtype of the weights and ignores autocast, ``bf16`` computes under autocast
            to bfloat16; both return outputs in the dtype of the images. None follows the surrounding autocast.
        size: (height, width) that images are resized to for the network; None keeps theirs.
        kept: the cache of logits; a teacher with a cache returns logits only.
    """

    labels = FormerName("label_space")

    def __init__(
        self,
        network: Network,
        precision: Precision | None = None,
        *,
        size: tuple[int, int] | None = None,
        kept: KeptOutputs | None = None,
    ) -> None:
        super().__init__()
        self._frozen = Frozen(network)
        self.precision, self.size, self.kept = precision, size, kept
        self.training = False

    @property
    def network(self) -> Network:
        """The copy, for reading its stages or its name."""
        return self._frozen.module  # type: ignore[return-value]

    @property
    def label_space(self) -> LabelSpace:
        """The classes that it predicts."""
        return self.network.label_space

    @property
    def image_level(self) -> bool:
        """True if it predicts one class per image."""
        return self.network.image_level

    @property
    def gives_features(self) -> bool:
        """False if it returns logits only."""
        return self.network.gives_features and self.kept is None

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Outputs:
        """Logits, features and extras of ``images`` (B, 3, H, W) RGB in [0, 1], without a graph.

        A network from an ONNX file returns logits only. With a `size`, logits are resized to ``images``; coarse logits
        and features are those of the resized images.

        Raises:
            InputError: for images that the network does not take.
        """
        seen = images if self.size is None else _resized(images, self.size)
        with self._precision(images.device.type):
            found = self._computed(seen) if self.kept is None else self._kept(seen, self.kept)
        if self.precision is not None:
            found = _with_dtype(found, images.dtype)
        if found.logits.ndim == 4 and seen.shape != images.shape:
            found = replace(found, logits=resize(found.logits, images.shape[-2:]))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """The logits of `outputs`."""
        return self.outputs(images).logits

    def train(self, mode: bool = True) -> Self:
        """Do nothing."""
        return self

    def _computed(self, images: Tensor) -> Outputs:
        return self.network.outputs(images.to(self.network.mean.dtype))

    def _kept(self, images: Tensor, kept: KeptOutputs) -> Outputs:
        """The cached logits if all ``images`` have an entry; else the logits of all are computed, and new ones stored.

        A batch is computed completely or not at all, so that values do not depend on which images had an entry.
        """
        names = [name_of(image) for image in images]
        found = [kept.read(name) for name in names]
        known = stacked(found)
        if known is None:
            known = self._least(self._computed(images), images)
            for name, value, old in zip(names, known[1], found, strict=True):
                if old is None:
                    kept.write(name, known[0], value)
        key, values = known[0], known[1].to(images.device)
        if key == "coarse":
            return Outputs(self.network.enlarged(values, images.shape[-2:]), coarse=values)
        return Outputs(values)

    def _least(self, outputs: Outputs, images: Tensor) -> tuple[str, Tensor]:
        """The coarse logits if the logits can be computed from them bit for bit, else the logits; with its kind."""
        coarse = outputs.coarse
        if coarse is not None and torch.equal(self.network.enlarged(coarse, images.shape[-2:]), outputs.logits):
            return "coarse", coarse
        return "logits", outputs.logits

    def _precision(self, device: str) -> AbstractContextManager[object]:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        device = fn(torch.empty(0, device=self.network.mean.device)).device
        self._frozen._apply(lambda value: value.to(device))  # only the device: its dtype does not change
        return self


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """``images`` (B, 3, H, W) resized to ``size``, bilinear with antialiasing, as when images are read."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def _with_dtype(outputs: Outputs, dtype: torch.dtype) -> Outputs:
    """``outputs`` with every floating tensor in ``dtype``."""

    def cast(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}

    coarse, embedding = (None if value is None else value.to(dtype) for value in (outputs.coarse, outputs.embedding))
    return replace(
        outputs,
        logits=outputs.logits.to(dtype),
        features=cast(outputs.features),
        extras=cast(outputs.extras),
        coarse=coarse,
        embedding=embedding,
    )
