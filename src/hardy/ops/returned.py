"""The output of a module: its logits, and all its tensors."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from hardy.errors import InputError

__all__ = ["logits_in", "logits_of", "tensors_in"]


@runtime_checkable
class _HasLogits(Protocol):
    logits: Any


def logits_in(result: Any) -> Tensor | None:
    """The logits in the output of a module; None if there are none.

    A tensor is the logits. In a mapping they are ``"out"``, else ``"logits"``, else the first value; in a list or tuple
    the first entry; in any other object the attribute ``logits``. If the value found is not a tensor, it is searched in
    the same way.
    """
    if isinstance(result, Tensor):
        return result
    if isinstance(result, Mapping):
        first = next(iter(result.values()), None)
        return logits_in(result.get("out", result.get("logits", first)))
    if isinstance(result, (list, tuple)):
        return logits_in(result[0]) if result else None
    return logits_in(result.logits) if isinstance(result, _HasLogits) else None


def logits_of(result: Any, what: str) -> Tensor:
    """As `logits_in`; ``what`` names the module in the message.

    Raises:
        InputError: if there are none.
    """
    found = logits_in(result)
    if found is None:
        raise InputError(
            f"{what} must return logits: a tensor, a list that begins with it, a mapping with 'out' or 'logits', or an "
            f"object with .logits; this one returned {type(result).__name__}"
        )
    return found


def tensors_in(result: Any) -> list[Tensor]:
    """All tensors in the output of a module, in order: those in (nested) mappings and lists, else the logits."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, Mapping):
        result = list(result.values())
    if isinstance(result, (list, tuple)):
        return [tensor for part in result for tensor in tensors_in(part)]
    found = logits_in(result)
    return [] if found is None else [found]
