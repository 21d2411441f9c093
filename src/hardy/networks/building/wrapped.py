"""`wrap`: any module from images to logits becomes a `Network`."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from hardy.data.labels import LabelSpace, label_space
from hardy.errors import InputError
from hardy.networks.base import IMAGENET_MEAN, IMAGENET_STD, Network, resize
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

    Raises:
        InputError: without module and factory, or for a factory that is not there or makes no module.
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
    ) -> None:
        super().__init__(labels, mean, std)
        self.module = module if module is not None else _made_by(factory)
        self.image_level = image_level
        options: dict[str, Any] = {
            "factory": factory, "mean": list(mean), "std": list(std), "image_level": image_level
        }  # fmt: skip
        if last:
            options["last"] = list(last)
            for name in last:
                resized(self.module, name, (), labels.classes)
        self.architecture = {"name": self.NAME, "options": options}
        self.train(self.module.training)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`; a wrapped module tells no features.

        Raises:
            InputError: when what the module returns holds no logits for the K classes.
        """
        logits = logits_of(self.module(self.normalise(images)), "a wrapped module")
        expected = (images.shape[0], len(self.labels))  # `len` would fix the batch of an exported graph
        if logits.ndim != (2 if self.image_level else 4) or tuple(logits.shape[:2]) != expected:
            wanted = f"{expected}" if self.image_level else f"({expected[0]}, {expected[1]}, h, w)"
            raise InputError(
                f"the wrapped {type(self.module).__name__} returned logits of shape {tuple(logits.shape)}; "
                f"label space {self.labels.name!r} needs {wanted}"
            )
        return Outputs(logits if self.image_level else resize(logits, images.shape[-2:]))


def wrap(
    module: nn.Module,
    classes: str | Path | LabelSpace,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    factory: str | None = None,
    image_level: bool = False,
) -> Wrapped:
    """A `Network` around ``module``, which is shared, not copied; arguments as for `Wrapped`.

    >>> from torch import nn
    >>> net = wrap(nn.Conv2d(3, 11, 1), "camvid11")
    """
    return Wrapped(label_space(classes), module, factory=factory, mean=mean, std=std, image_level=image_level)


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
