"""`hardy.adapt`: a network that learns from the images it predicts."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from hardy.adaptation.base import TestTimeAdaptation
from hardy.engine.adapting import adapted, chosen
from hardy.networks.base import Network, refuse_plain
from hardy.ops.tensors import check_finite

__all__ = ["adapt"]


def adapt(
    network: Network,
    name: str,
    *,
    seed: int = 0,
    source_images: Iterable[Tensor] | Tensor | None = None,
    guard: bool | Mapping[str, Any] = False,
    **options: Any,
) -> TestTimeAdaptation:
    """A copy ``live`` of ``network`` that learns from each batch it predicts: ``live(images) -> logits``.

    ``live.reset()`` restores the initial state exactly. ``live.state()`` returns a copy of the current state, and
    ``live.restore(state)`` restores it. The mode of the network and ``torch.no_grad`` around a call have no effect.

    Args:
        network: from `hardy.create`, `hardy.load` or `hardy.wrap`; it does not change. The copy is on the same device.
        name: a method of ``hardy list adaptation``, or ``"their.module:Class"``.
        seed: seeds the method's random draws, together with the number of the batch.
        source_images: for a method that is not source-free, such as ``eata``: batches (B, 3, H, W) of clean images of
            the source domain, RGB in [0, 1]. Other methods do not use them.
        guard: whether a guard watches the method and undoes changes that look harmful. True, or the guard's options,
            such as ``{"agreement": 0.6}``.
        options: the method's options.

    Raises:
        InputError: for an unknown method or option, a value of a wrong type, weights that are not finite, or missing
            ``source_images`` for a method that needs them.
    """
    refuse_plain(network)
    check_finite(network)
    choice = chosen({"name": name, "guard": guard, **options})
    assert choice is not None
    return adapted(network, name, options, seed, source_images, guard=choice.guard)
