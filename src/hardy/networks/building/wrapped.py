"""`wrap`: makes a `Network` of any module that maps images to logits."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from hardy.data.label_spaces import LabelSpace, find_label_space
from hardy.errors import InputError, quoted
from hardy.networks.base import IMAGENET_MEAN, IMAGENET_STD, Network, resize
from hardy.networks.building.captured import captured, check_map, check_names
from hardy.networks.building.last_layer import resize_last_layer
from hardy.ops.returned import logits_of
from hardy.trust import permit
from hardy.types import Outputs

__all__ = ["Wrapped", "wrap"]


class Wrapped(Network):
    """A network around a module of the user.

    Args:
        label_space: the classes predicted.
        module: normalised images (B, 3, H, W) -> logits (B, K, h, w) or (B, K), as a tensor or in
            a list, mapping or object that `hardy.ops.returned.logits_in` understands. None calls ``factory``.
        factory: ``"package.module:function"`` that builds the module, so that the artefact can build it again.
        mean: of the RGB values in [0, 1]; subtracted first.
        std: of the RGB values; the difference is divided by it.
        image_level: True if the logits are (B, K).
        last: the names of the layers of ``module`` that predict the classes, if ``factory`` builds another number of
            classes; each is resized to the classes of ``label_space``.
        features: feature name -> name of the submodule of ``module`` whose output (B, C, h, w) it is, in the order of
            `feature_stages`.
        embedding: name of the submodule whose output the head reads: (B, C, h, w), or (B, C) or (B, C, 1, 1) for
            image-level logits. None if it is unknown.

    Raises:
        InputError: for a ``module`` that is not a torch module; without module and factory; for a factory that does not
            exist, is not trusted, or returns something else; for a feature or an embedding that names no submodule; and
            for a mean or a standard deviation that is not three finite numbers, or a deviation not above 0.
    """

    NAME: ClassVar[str] = "wrapped"
    least_size = 1

    def __init__(
        self,
        label_space: LabelSpace,
        module: nn.Module | None,
        *,
        factory: str | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        image_level: bool = False,
        last: Sequence[str] = (),
        features: Mapping[str, str] | None = None,
        embedding: str | None = None,
    ) -> None:
        super().__init__(label_space, mean, std)
        if module is not None and not isinstance(module, nn.Module):
            raise InputError(f"module {quoted(module)} is not a torch module (nn.Module); give the object itself")
        self.module = module if module is not None else _made_by(factory)
        self.image_level = image_level
        options: dict[str, Any] = {"factory": factory, "mean": list(mean), "std": list(std), "image_level": image_level}
        if last:
            options["last"] = list(last)
            for name in last:
                resize_last_layer(self.module, name, (), label_space.classes)
        if features:
            options["features"] = dict(features)
        if embedding is not None:
            options["embedding"] = embedding
        self.architecture = {"name": self.NAME, "options": options}
        self.declared = {f"features[{name!r}]": inside for name, inside in (features or {}).items()}
        self.named = dict(zip(self.declared, features or {}, strict=True))
        if embedding is not None:
            self.declared["embedding"] = embedding
        check_names(self.module, self.declared)
        self.train(self.module.training)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`; features and embedding are the outputs of the declared submodules.

        Raises:
            InputError: if the module returns no logits for the K classes, or a declared submodule does not run or
                returns no map.
        """
        coarse, seen = captured(self.module, self.declared, lambda: self._own(images))
        batch = images.shape[0]
        features = {name: check_map(source, seen[source], batch=batch) for source, name in self.named.items()}
        embedding = seen.get("embedding")
        if embedding is not None and self.image_level:
            embedding = embedding.flatten(1) if tuple(embedding.shape[2:]) == (1, 1) else embedding
            if embedding.ndim != 2:
                shape = tuple(embedding.shape)
                raise InputError(f"embedding has the shape {shape}; for image-level logits it must be (B, C)")
        elif embedding is not None:
            check_map("embedding", embedding, batch=batch)
        return Outputs(
            self._full_size(coarse, images), features, coarse=None if self.image_level else coarse, embedding=embedding
        )

    def forward(self, images: Tensor) -> Tensor:
        """The logits of `outputs`, without capturing features."""
        return self._full_size(self._own(images), images)

    def _full_size(self, coarse: Tensor, images: Tensor) -> Tensor:
        return coarse if self.image_level else resize(coarse, images.shape[-2:])

    def _own(self, images: Tensor) -> Tensor:
        """The logits that the module returns, unchanged."""
        logits = logits_of(self.module(self.normalise(images)), "a wrapped module")
        expected = (images.shape[0], len(self.label_space))  # `len(images)` would fix the batch of an exported graph
        if logits.ndim != (2 if self.image_level else 4) or tuple(logits.shape[:2]) != expected:
            wanted = f"{expected}" if self.image_level else f"({expected[0]}, {expected[1]}, h, w)"
            raise InputError(
                f"the wrapped {type(self.module).__name__} returned logits of shape {tuple(logits.shape)}; "
                f"label space {self.label_space.name!r} needs {wanted}"
            )
        return logits


def wrap(
    module: nn.Module,
    classes: str | Path | LabelSpace,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    factory: str | None = None,
    image_level: bool = False,
    features: Mapping[str, str] | None = None,
    embedding: str | None = None,
) -> Wrapped:
    """A `Network` around ``module``, which is shared, not copied; arguments and errors as for `Wrapped`.

    >>> from torch import nn
    >>> layers = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.Conv2d(16, 11, 1))
    >>> net = wrap(layers, "camvid11", features={"stage1": "1"}, embedding="1")
    >>> net.feature_stages()
    [Stage(name='stage1', stride=4, channels=16)]
    """
    return Wrapped(
        find_label_space(classes),
        module,
        factory=factory,
        mean=mean,
        std=std,
        image_level=image_level,
        features=features,
        embedding=embedding,
    )


def _made_by(factory: str | None) -> nn.Module:
    if factory is None:
        raise InputError("a wrapped network needs its module, or a factory 'package.module:function' that builds it")
    permit("factory", factory)
    module_name, _, function = factory.partition(":")
    try:
        module = vars(importlib.import_module(module_name))[function]()
    except (ImportError, KeyError, ValueError) as error:
        raise InputError(f"factory {factory!r} cannot be found: {error}; write 'package.module:function'") from None
    if not isinstance(module, nn.Module):
        raise InputError(f"factory {factory!r} returned a {type(module).__name__}, not a torch module")
    return module
