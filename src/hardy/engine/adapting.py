"""A network that learns while it is measured or predicts: which method, and when it forgets.

One method sees a stream of images in the order of the data, each image once. It forgets as the section ``adapt`` says:
before each domain, never, or before the next batch once it has seen so many images. A domain that fails leaves it as it
was before that domain.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hardy.adaptation.base import TestTimeAdaptation
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.recipe import Adapt, from_values
from hardy.registry import ADAPTATIONS
from hardy.seed import seeded

__all__ = ["Adapting", "adapted", "chosen", "notes"]


def chosen(adapt: str | Mapping[str, Any] | Adapt | None, overrides: Sequence[str] = ()) -> Adapt | None:
    """The completed section of a name, of ``{"name": ..., "reset": ..., options}``, or of ``adapt.key=value`` words.

    Raises:
        InputError: for an unknown method, an unknown option, a value of a wrong type, or a word for another section.
    """
    given = adapt.model_dump(mode="json") if isinstance(adapt, Adapt) else adapt
    for word in overrides:
        if word.partition("=")[0].partition(".")[0].strip() != "adapt":
            raise InputError(f"{word!r}: only adapt.key=value can be given here, such as adapt.name=source")
    nothing = {"network": {"run": "a network in memory"}, "data": {}}
    return from_values({**nothing, **({"adapt": given} if given else {})}, overrides, "arguments").adapt


def notes(adapt: Adapt | None) -> dict[str, Any]:
    """What a record says of the adaptation it was made with; nothing without one."""
    return {"adapt": adapt.model_dump(mode="json")} if adapt else {}


def adapted(network: Network, name: str, options: Mapping[str, Any], seed: int) -> TestTimeAdaptation:
    """The method ``name`` on a copy of ``network``, on its device; ``seed`` decides its draws.

    Raises:
        InputError: for an unknown method, an unknown option or a value of a wrong type.
    """
    with torch.inference_mode(False), seeded(seed, "adapt"):  # what is made in inference mode can never learn
        live: TestTimeAdaptation = ADAPTATIONS.build(name, {"network": network}, **options)
    live.seed = seed
    return live.to(next(network.buffers()).device)


class Adapting:
    """Images to logits by one method that learns from them, and forgets as declared.

    Args:
        network: what adapts; a copy of it learns.
        choice: the method and when it forgets.
        seed: decides the method's draws.
    """

    def __init__(self, network: Network, choice: Adapt, seed: int) -> None:
        self.method = adapted(network, choice.name, choice.options, seed)
        self._name = choice.name
        self._per_domain = choice.reset == "domain"
        self._most = choice.reset if isinstance(choice.reset, int) else None
        self._seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        """The logits of ``images`` (B, 3, H, W), which are the next of the stream.

        Raises:
            InputError: when they hold NaN: the method has diverged.
        """
        if self._most is not None and self._seen >= self._most:
            self._forget()
        logits: Tensor = self.method(images)
        if bool(torch.isnan(logits).any()):
            raise InputError(
                f"adapt: the logits of {self._name} hold NaN after {int(self.method.step)} batches; take options by "
                "which it changes less, or a smaller adapt.reset"
            )
        self._seen += len(images)
        return logits

    @contextmanager
    def domain(self) -> Iterator[None]:
        """Inside the block the images are those of one domain; an error leaves the method as it was before them."""
        if self._per_domain:
            self._forget()
        before, seen = self.method.state(), self._seen
        try:
            yield
        except BaseException:
            self.method.restore(before)
            self._seen = seen
            raise

    def _forget(self) -> None:
        self.method.reset()
        self._seen = 0
