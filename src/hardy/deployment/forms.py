"""The form in which a network is timed: unchanged, or with folded batch norms, channels last, or in bfloat16."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from hardy.deployment.folding import agreement, fold
from hardy.deployment.proof import ProofError, random_images
from hardy.errors import InputError
from hardy.networks.base import Network

__all__ = ["AS_IT_IS", "Form", "Formed", "Precision"]

Precision = Literal["float32", "bfloat16"]
"""The precision of weights and activations; images are float32 and are cast inside the timed region."""

AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Formed:
    """A network in a form.

    Attributes:
        network: a copy in evaluation mode.
        words: the form in words; `AS_IT_IS` for a plain copy.
        notes: what folding and precision changed, one line each; empty for a plain copy.
        folding: ``43 of 55 batch norms folded``; empty if the form does not fold.
    """

    network: Network
    words: str = AS_IT_IS
    notes: tuple[str, ...] = ()
    folding: str = ""


@dataclass(frozen=True)
class Form:
    """How a network is changed before it is timed; by default it is not.

    Attributes:
        fold: fold batch norms and re-parameterise timm's modules; see `hardy.deployment.folding`.
        channels_last: store the channels of a pixel next to each other in memory.
        dtype: precision of weights and activations.
    """

    fold: bool = False
    channels_last: bool = False
    dtype: Precision = "float32"

    @property
    def plain(self) -> bool:
        """Whether the network is not changed."""
        return self == Form()

    @property
    def layout(self) -> torch.memory_format:
        """The memory format of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def checked(self, runtimes: Sequence[str]) -> "Form":
        """This form, if ``runtimes`` can run it.

        Raises:
            InputError: for an unknown precision, and for channels last or bfloat16 in a runtime other than eager.
        """
        if self.dtype not in get_args(Precision):
            raise InputError(f"there is no dtype {self.dtype!r}; there are: {', '.join(get_args(Precision))}")
        eager_only = {"channels_last": self.channels_last, f"dtype {self.dtype}": self.dtype != "float32"}
        for name in (name for name, chosen in eager_only.items() if chosen and set(runtimes) != {"eager"}):
            raise InputError(f"{name}: onnxruntime chooses its own layout and precision; choose the runtime eager")
        return self

    def of(self, network: Network, size: Sequence[int], device: torch.device) -> Formed:
        """A copy of ``network`` on ``device`` in this form, run on random images of ``size``.

        Raises:
            InputError: if it cannot be folded or does not run in this precision.
        """
        still = copy.deepcopy(network).to(device).eval()
        if self.plain:
            return Formed(still)
        made, folded, words, notes = still, "", [], []
        if self.fold:
            try:
                folding = fold(still, size=size)
            except ProofError as error:
                raise InputError(str(error)) from None
            made, folded = folding.network, folding.counted
            words.append("folded")
            notes.append(str(folding))
        if self.channels_last:
            words.append("channels last")
        if self.dtype != "float32":
            words.append(self.dtype)
        made = copy.deepcopy(made).to(getattr(torch, self.dtype)).to(memory_format=self.layout)
        if self.dtype != "float32":
            notes.append(self._agreement(still, made, size))
        return Formed(made, ", ".join(words), tuple(notes), folded)

    def _agreement(self, still: Network, made: Network, size: Sequence[int]) -> str:
        images = random_images(size, 2)
        try:
            share = agreement(still, made, images, size)
        except RuntimeError as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(f"{type(still).__name__} does not run in {self.dtype}: {why}") from None
        return f"{self.dtype}: the class of float32 on {share:.2%} of the pixels of {len(images)} random images"

    def images(self, images: Tensor) -> Tensor:
        """``images`` in the memory format of this form."""
        return images.contiguous(memory_format=self.layout)
