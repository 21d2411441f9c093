"""Test-time adaptation: a network that learns while it is measured or predicts.

The method sees the images in the order of the data, each image once. The section ``adapt`` of the recipe says when it
is reset: before each domain, never, or before the next batch after a number of images. It gets the name of each
domain that is measured. When a domain fails, the method returns to the state that it had before that domain.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hardy.adaptation._guard import Guarded
from hardy.adaptation.base import TestTimeAdaptation
from hardy.engine.guard_log import GuardLog
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.changes import refuse_folded
from hardy.recipe import Adapt, from_values
from hardy.registry import ADAPTATIONS
from hardy.sections import Guard
from hardy.seed import seeded

__all__ = ["Adapting", "adapted", "chosen", "notes"]


def chosen(adapt: str | Mapping[str, Any] | Adapt | None, overrides: Sequence[str] = ()) -> Adapt | None:
    """The completed section ``adapt``, from a name, ``{"name": ..., "reset": ..., options}`` or ``adapt.key=value``.

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
    """The notes of a record that was measured with ``adapt``; empty without it."""
    return {"adapt": adapt.model_dump(mode="json")} if adapt else {}


def adapted(
    network: Network,
    name: str,
    options: Mapping[str, Any],
    seed: int,
    source_images: Iterable[Tensor] | Tensor | None = None,
    *,
    guard: Guard | None = None,
) -> TestTimeAdaptation:
    """The method ``name`` on a copy of ``network``, on its device; ``seed`` decides its random draws.

    With a ``guard`` it is a `Guarded`.

    Raises:
        InputError: for an unknown method, an unknown option or a value of a wrong type; for a network in half
            precision; for a method that is not source-free without ``source_images``; for a network with folded
            batch norms.
    """
    refuse_folded(network.changes, "adapt")
    kind = network.mean.dtype
    if kind in (torch.float16, torch.bfloat16):
        raise InputError(f"the network is in {kind}; small updates would be lost in rounding; adapt network.float()")
    supply = {"network": network, "source_images": source_images}
    if source_images is None and "source_images" in (ADAPTATIONS.describe(name).supplied or ()):
        raise InputError(
            f"adapt: {name} is not source-free: it needs clean images of the source domain, and none are given; "
            "use a run whose recipe has data.sources, or give source_images=... in Python; eta learns without them"
        )
    with torch.inference_mode(False), seeded(seed, "adapt"):  # tensors made in inference mode cannot be trained
        live: TestTimeAdaptation = ADAPTATIONS.build(name, supply, **options)
        live = Guarded(live, network, guard) if guard else live
    live.seed = seed
    return live.to(next(network.buffers()).device)


class Adapting:
    """Maps images to logits by a method that learns from them and is reset as declared.

    Args:
        network: a copy of it adapts.
        choice: the method and when it is reset.
        seed: decides the method's random draws.
        source_images: for a method that is not source-free.

    Attributes:
        method: the copy.
        seen: how many images it has seen since it was reset.
        guard: what the guard did, over all images; None without a guard.
    """

    def __init__(
        self,
        network: Network,
        choice: Adapt,
        seed: int,
        source_images: Iterable[Tensor] | Tensor | None = None,
    ) -> None:
        self.method = adapted(network, choice.name, choice.options, seed, source_images, guard=choice.guard)
        self._name = choice.name
        self._per_domain = choice.reset == "domain"
        self._most = choice.reset if isinstance(choice.reset, int) else None
        self.seen = 0
        self.guard = GuardLog() if choice.guard else None
        self._images = 0

    def __call__(self, images: Tensor) -> Tensor:
        """The logits of the next ``images`` (B, 3, H, W).

        Raises:
            InputError: when they hold NaN: the method has diverged.
        """
        if self._most is not None and self.seen >= self._most:
            self._reset()
        logits: Tensor = self._guarded(self.method, images) if isinstance(self.method, Guarded) else self.method(images)
        if bool(torch.isnan(logits).any()):
            raise InputError(
                f"adapt: the logits of {self._name} hold NaN after {int(self.method.step)} batches; give options by "
                "which it changes less, or a smaller adapt.reset"
            )
        self.seen += len(images)
        return logits

    @contextmanager
    def domain(self, name: str | None = None) -> Iterator[None]:
        """Inside the block the images are of the domain ``name``, which the method gets; None: an unknown domain.

        At the end it gets the previous name again. After an error it has the state that it had before the block.

        Raises:
            InputError: for a name that is too long.
        """
        if self._per_domain:
            self._reset()
        before, seen = self.method.state(), self.seen
        self.method.enter(name)
        try:
            yield
        except BaseException:
            self.method.restore(before)
            self.seen = seen
            raise
        self.method.enter(before["domain"])

    def _guarded(self, guarded: Guarded, images: Tensor) -> Tensor:
        """The logits of ``images``; what the guard did is noted."""
        assert self.guard is not None
        known = int(guarded.forwards)
        logits: Tensor = guarded(images)
        self.guard.forwards += int(guarded.forwards) - known
        self.guard.add(self._images, guarded.actions)
        self._images += len(images)
        return logits

    def _reset(self) -> None:
        self.method.reset()
        self.seen = 0
