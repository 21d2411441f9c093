"""The interface of every network: images to logits, with its own normalisation and its own losses."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from hardy.blocks.sizes import nearest_multiples, resize
from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError, quoted
from hardy.former import FormerName
from hardy.networks.building.changes import Change, Plan, plan_of
from hardy.networks.parts.stages import stages_of
from hardy.ops.caches import without_history
from hardy.types import Outputs, Stage, Terms

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Network", "PixelLoss", "refuse_plain", "resize"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

PixelLoss = Callable[[Tensor, Tensor], Tensor]
"""``(logits (B, K, ...), labels (B, ...)) -> scalar``; see `hardy.losses`."""


class Network(nn.Module, ABC):
    """A map from images (B, 3, H, W) RGB in [0, 1] to logits (B, K, H, W), or (B, K) for image-level classes.

    A subclass implements `outputs` and, if its loss is not the default one, `losses`. Its constructor takes
    ``label_space`` before the ``*`` (the program supplies it) and its options after it; `hardy.create` stores the
    options so that the artefact can build the network again.

    Contract, tested by ``tests/contracts/test_networks.py`` for every network: normalisation is the first step;
    every input size from `least_size` up works; auxiliary heads run only in training mode; in evaluation mode the
    logits of an image do not depend on the other images of the batch.

    Attributes:
        label_space: the classes predicted.
        part: name of the submodule whose layer names users know, such as a wrapped module; empty for the network
            itself.
        least_size: the smallest side, in pixels, of an image that the network accepts.
        multiple: its layers see images whose sides are multiples of it; see `fitted`. A network sets it to its coarsest
            stride, or to 32: then the cells of its maps cover the image exactly, and maps of different strides that are
            resized onto each other are not shifted. With 1 the layers see images as they are, so a published
            network computes what its release computes at any size. Artefacts do not store it.
        image_level: True when the network predicts one class per image.
        gives_features: False for a network that returns logits only, such as an exported file.
        auxiliary_weight: the weight of each auxiliary head's loss.
        align_corners: resize logits with aligned corners, also in losses; False for half-pixel centres.
        architecture: ``{"name": ..., "options": {...}}`` with the value of every option, from which the artefact builds
            the network again. Empty for a network that `hardy.create` did not build. Also holds ``"mean"`` and
            ``"std"`` after `renormalise`, and ``"pretrained"``: origin, licence and checksum of encoder weights of
            ``hardy list weights``.
        written: options that `architecture` stores instead of those given, such as a file's content instead of its
            path.
        pretrained: True if `encoder` started from pre-trained weights.
        changes: changes made to the network since it was built, in order; see `hardy.networks.building.changes`.
        resting: names of the modules that always stay in evaluation mode; a tuner sets them.
        linked: names of the modules whose methods ``queries()`` return the parts of `queries`; a tuner sets them.
        origin: the source of the weights that a tuner does not train; None if it is unknown or must not be used.
            Written and read by `hardy.engine.rest`.
        lineage: an entry for each training that used more than labelled images; see
            `hardy.networks.building.lineage`.
    """

    part: ClassVar[str] = ""
    least_size: int = 32
    multiple: int = 1
    image_level: bool = False
    gives_features: bool = True
    auxiliary_weight: float = 0.4
    align_corners: bool = False
    architecture: dict[str, Any]
    written: Mapping[str, Any] = MappingProxyType({})
    pretrained: bool = False
    changes: list[Change]
    resting: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()
    labels = FormerName("label_space")
    origin: Mapping[str, Any] | None = None
    lineage: tuple[Mapping[str, Any], ...] = ()
    mean: Tensor
    std: Tensor

    def __deepcopy__(self, memo: dict[int, object]) -> "Network":
        """A copy; tensors that modules cache between calls are copied without their autograd graph."""
        memo.update(without_history(self))
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(vars(self), memo))  # type: ignore[no-untyped-call]
        return copied

    def __init__(
        self,
        label_space: LabelSpace,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        _check_normalisation(mean, std)
        self.label_space = label_space
        self.architecture = {}
        self.changes = []
        for name, values in (("mean", mean), ("std", std)):
            value = torch.tensor(values, dtype=torch.get_default_dtype())  # integers become floats too
            self.register_buffer(name, value.view(1, 3, 1, 1), persistent=False)

    @property
    def plan(self) -> Plan:
        """The channels kept by pruning, by module and side, as indices into the dense network's; empty if nothing was
        removed. A module that a tuner renamed is listed under each of its names."""
        return plan_of(self.changes)

    def link(self, names: Sequence[str]) -> None:
        """Take `queries` from the modules ``names``, in place. A network whose decoder can read external queries also
        passes them to it."""
        self.linked = tuple(names)

    @property
    def queries(self) -> Tensor | None:
        """The external queries (m, C), with gradients, for a decoder that has m queries: the sum over the `linked`
        modules, computed at each access. None without linked modules."""
        found: list[Tensor] = [self.get_submodule(name).queries() for name in self.linked]  # type: ignore[operator]
        return sum(found[1:], start=found[0]) if found else None

    def train(self, mode: bool = True) -> Self:
        """See `torch.nn.Module.train`; the modules named in `resting` stay in evaluation mode."""
        super().train(mode)
        for name in self.resting:
            self.get_submodule(name).eval()
        return self

    def normalise(self, images: Tensor) -> Tensor:
        """``(images - mean) / std`` as a new tensor, resized to `fitted`, bilinear.

        Raises:
            InputError: for images that are not (B, 3, H, W), not floating point, or smaller than `least_size`.
        """
        if not torch.compiler.is_exporting():  # in an exported graph the checks would become bounds on its sizes
            self._check(images)
        return (resize(images, self.fitted(images.shape[-2:])) - self.mean) / self.std

    def fitted(self, size: Sequence[int]) -> tuple[int, int]:
        """The size that the layers see of images of ``size`` (H, W): the nearest multiples of `multiple`."""
        return nearest_multiples(size, self.multiple)

    def example(self, side: int = 64, count: int = 2) -> Tensor:
        """An input for tracing, on the CPU: noise (``count``, 3, s, s), where s is twice the larger of ``side`` and
        `least_size`."""
        edge = 2 * max(self.least_size, side)
        return torch.rand(count, 3, edge, edge, dtype=self.mean.dtype, generator=torch.Generator().manual_seed(0))

    def read(self, images: Tensor) -> list[Tensor]:
        """The outputs that pruning must not remove: the logits, and in training mode the auxiliary logits."""
        outputs = self.outputs(images)
        return [outputs.logits, *(value for name, value in outputs.extras.items() if name.startswith("aux_"))]

    def known_as(self, name: str) -> str:
        """The name by which users know the layer ``name``; see `part`."""
        return name.removeprefix(self.part).removeprefix(".") if self.part else name

    def renormalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the ``mean`` and ``std`` that `normalise` uses, in place; the artefact stores both.

        Args:
            mean: of the RGB values in [0, 1].
            std: of the RGB values.

        Raises:
            InputError: if they are not three finite numbers each, or a standard deviation is not above 0.
        """
        _check_normalisation(mean, std)
        self.mean = torch.tensor(list(mean)).view(1, 3, 1, 1).to(self.mean)
        self.std = torch.tensor(list(std)).view(1, 3, 1, 1).to(self.std)
        if self.architecture:
            self.architecture = {**self.architecture, "mean": list(mean), "std": list(std)}

    def _check(self, images: Tensor) -> None:
        shape = tuple(images.shape)
        if images.ndim != 4 or shape[1] != 3:
            raise InputError(f"{type(self).__name__} takes RGB images (B, 3, H, W), not a tensor of shape {shape}")
        if not images.is_floating_point():
            raise InputError(f"{type(self).__name__} takes float images in [0, 1], not {images.dtype}; divide by 255")
        if min(shape[-2:]) < self.least_size:
            least, size = f"{self.least_size}x{self.least_size}", f"{shape[2]}x{shape[3]}"
            raise InputError(f"{type(self).__name__} takes images of at least {least} pixels, not {size}")

    @abstractmethod
    def outputs(self, images: Tensor) -> Outputs:
        """Logits at the size of ``images`` (B, 3, H, W) and the other fields of `hardy.types.Outputs`: intermediate
        features, coarse logits, the embedding, and in training mode the auxiliary logits at their own size, as
        ``extras["aux_<name>"]``."""

    def forward(self, images: Tensor) -> Tensor:
        """The logits of `outputs`."""
        return self.outputs(images).logits

    def feature_stages(self, size: Sequence[int] | None = None) -> list[Stage]:
        """The features of `outputs` in order: the encoder's stages, finest first, then the maps computed from them.

        The network does not run: a copy without values is traced, so weights, buffers, modes and the random state do
        not change. For a pruned network the channels are those that are left. A feature has H / stride x W / stride
        cells, rounded up, where H and W are those of `fitted`; more where the network pads small images.

        Args:
            size: (H, W) of the images to trace with; None tries sizes that most networks take.

        Raises:
            InputError: for a network that runs at none of the sizes, or whose code depends on tensor values.
        """
        return stages_of(self, size)

    def losses(self, outputs: Outputs, labels: Tensor, pixel_loss: PixelLoss) -> Terms:
        """Named terms whose sum is minimised: ``pixel_loss`` of the logits, and ``pixel_loss`` of the logits of each
        auxiliary head, resized to the labels by `enlarged` and weighted by `auxiliary_weight`.

        Args:
            outputs: the result of `outputs` for these images.
            labels: (B, H, W) int64, or (B,) for image-level networks.
            pixel_loss: the loss of one head.
        """
        terms = {"segmentation" if outputs.logits.ndim == 4 else "classification": pixel_loss(outputs.logits, labels)}
        for name, value in outputs.extras.items():
            if name.startswith("aux_"):
                terms[name] = self.weight_of(name) * pixel_loss(self.enlarged(value, labels.shape[-2:]), labels)
        return terms

    def weight_of(self, head: str) -> float:
        """The weight of the loss of the auxiliary head ``head``, such as ``aux_stage``."""
        return self.auxiliary_weight

    def enlarged(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """``logits`` (B, K, h, w) resized to ``size`` (H, W), bilinear; see `align_corners`."""
        return resize(logits, size, align_corners=self.align_corners)

    def encoder(self) -> Sequence[nn.Module]:
        """The modules of the encoder; empty for a network without one.

        A `pretrained` encoder may have its own learning-rate factor; a tuner may freeze the encoder.
        """
        return ()


def refuse_plain(network: object) -> None:
    """Check that ``network`` is a `Network`.

    Raises:
        InputError: if it is not; the message names its class and how to make a `Network`.
    """
    if not isinstance(network, Network):
        raise InputError(
            f"{type(network).__name__} is not a Network; make one from a module: hardy.wrap(module, classes=...), or "
            "load a folder: hardy.load(folder)"
        )


def _check_normalisation(mean: Any, std: Any) -> None:
    """Check that mean and standard deviation are three finite numbers each, and the deviations above 0."""
    for name, numbers in (("mean", mean), ("std", std)):
        three = isinstance(numbers, Sequence) and not isinstance(numbers, str) and len(numbers) == 3
        if not three or not all(isinstance(each, float | int) and math.isfinite(each) for each in numbers):
            raise InputError(f"{name} {quoted(numbers)} is not one number for each of R, G and B")
        if name == "std" and min(numbers) <= 0:
            raise InputError(f"std {quoted(numbers)} is not above 0")
