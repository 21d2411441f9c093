"""`wrap`: any module from images to logits becomes a `Network`."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from hardy.data.labels import LabelSpace, label_space
from hardy.errors import InputError
from hardy.networks.base import IMAGENET_MEAN, IMAGENET_STD, Network, resize
from hardy.networks.building.captured import check_map, check_names, watched
from hardy.networks.building.last_layer import resized
from hardy.ops.returned import logits_of
from hardy.trust import permit
from hardy.types import Outputs

__all__ = ["Wrapped", "wrap"]


class Wrapped(Network):
    """A network whose layers are a module of the user's.

    Args:
        labels: the classes predicted.
        module: normalised images (B, 3, H, W) -> logits (B, K, h, w) or (B, K), as a tensor or in
            a list, mapping or object that `hardy.ops.returned.logits_in` understands. None calls ``factory`` for it.
        factory: ``"package.module:function"`` that makes the module, so that the artefact can make it again.
        mean: of the RGB values in [0, 1], subtracted first.
        std: of the RGB values; divided by.
        image_level: True when the logits are (B, K).
        last: the layers of ``module`` that predict the classes, where they are not those that the factory makes: each
            is made for as many as ``labels`` has.
        features: for each feature the name of the module inside ``module`` whose output (B, C, h, w) it is, in the
            order of `feature_stages`.
        embedding: the name of the module inside whose output the head reads: (B, C, h, w), or (B, C) or (B, C, 1, 1)
            for image-level logits. None where it is not known.

    Raises:
        InputError: without module and factory, for a factory that is not there or makes no module, or for a feature or
            an embedding that names no module.
    """

    NAME: ClassVar[str] = "wrapped"
    least_size = 1

    def __init__(
        self,
        labels: LabelSpace,
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
        super().__init__(labels, mean, std)
        self.module = module if module is not None else _made_by(factory)
        self.image_level = image_level
        options: dict[str, Any] = {"factory": factory, "mean": list(mean), "std": list(std), "image_level": image_level}
        if last:
            options["last"] = list(last)
            for name in last:
                resized(self.module, name, (), labels.classes)
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
        """See `Network.outputs`; features and embedding are those declared by the names of modules.

        Raises:
            InputError: when what the module returns holds no logits for the K classes, or a declared module does not
                run or gives no map.
        """
        coarse, seen = watched(self.module, self.declared, lambda: self._own(images))
        batch = images.shape[0]
        features = {name: check_map(source, seen[source], batch=batch) for source, name in self.named.items()}
        embedding = seen.get("embedding")
        if embedding is not None and self.image_level:
            embedding = embedding.flatten(1) if tuple(embedding.shape[2:]) == (1, 1) else embedding
            if embedding.ndim != 2:
                shape = tuple(embedding.shape)
                raise InputError(f"embedding has the shape {shape}; of image-level logits it must be (B, C)")
        elif embedding is not None:
            check_map("embedding", embedding, batch=batch)
        return Outputs(
            self._whole(coarse, images), features, coarse=None if self.image_level else coarse, embedding=embedding
        )

    def forward(self, images: Tensor) -> Tensor:
        """The logits of `outputs`; features are not kept."""
        return self._whole(self._own(images), images)

    def _whole(self, coarse: Tensor, images: Tensor) -> Tensor:
        return coarse if self.image_level else resize(coarse, images.shape[-2:])

    def _own(self, images: Tensor) -> Tensor:
        """The logits as the module returns them."""
        logits = logits_of(self.module(self.normalise(images)), "a wrapped module")
        expected = (images.shape[0], len(self.labels))  # `len` would fix the batch of an exported graph
        if logits.ndim != (2 if self.image_level else 4) or tuple(logits.shape[:2]) != expected:
            wanted = f"{expected}" if self.image_level else f"({expected[0]}, {expected[1]}, h, w)"
            raise InputError(
                f"the wrapped {type(self.module).__name__} returned logits of shape {tuple(logits.shape)}; "
                f"label space {self.labels.name!r} needs {wanted}"
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
        label_space(classes),
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
        raise InputError("a wrapped network needs its module, or a factory 'package.module:function' that makes it")
    permit("factory", factory)
    module_name, _, function = factory.partition(":")
    try:
        module = vars(importlib.import_module(module_name))[function]()
    except (ImportError, KeyError, ValueError) as error:
        raise InputError(f"factory {factory!r} cannot be found: {error}; write 'package.module:function'") from None
    if not isinstance(module, nn.Module):
        raise InputError(f"factory {factory!r} made a {type(module).__name__}, not a torch module")
    return module
