"""What modules inside a module of the user's give while it runs: the features that a wrapped module declares by name.

The modules are watched for one call only, so that nothing stays in a copy, a pruned module or an exported graph.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from hardy.errors import InputError, nearest

__all__ = ["check_map", "check_names", "watched"]

Hook = Callable[[nn.Module, Any, Any], None]


def check_names(module: nn.Module, declared: Mapping[str, str]) -> None:
    """Refuse names of modules that ``module`` does not have inside.

    Args:
        module: the whole.
        declared: what declares them, for messages -> the name of a module inside.

    Raises:
        InputError: naming what declares it and the nearest name.
    """
    names = [name for name, _ in module.named_modules(remove_duplicate=False) if name]
    for source, name in declared.items():
        if name not in names:
            hint = nearest(name, names)
            raise InputError(f"{source} is {name!r}, which {type(module).__name__} has no module of{hint}")


def watched(module: nn.Module, names: Mapping[str, str], run: Callable[[], Any]) -> tuple[Any, dict[str, Tensor]]:
    """The result of ``run``, and what modules inside ``module`` gave in it: the last time, if they ran several times.

    Args:
        module: the whole.
        names: what declares them, for messages -> the name of a module inside.
        run: calls ``module``.

    Returns:
        the result; the tensors by what declares them. Each is as its module gave it, whatever later layers overwrite.

    Raises:
        InputError: for a module that did not run, or that gave something else than a tensor.
    """
    seen: dict[str, Any] = {}

    def keeping(source: str) -> Hook:
        def keep(_module: nn.Module, _args: Any, result: Any) -> None:
            seen[source] = result.clone() if isinstance(result, Tensor) else result

        return keep

    handles = [module.get_submodule(name).register_forward_hook(keeping(source)) for source, name in names.items()]
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    for source, name in names.items():
        if source not in seen:
            raise InputError(f"{source} is {name!r}, which does not run; name a module that does")
        if not isinstance(seen[source], Tensor):
            kind = type(seen[source]).__name__
            raise InputError(f"{source} is {name!r}, which gives a {kind}; name a module that gives one tensor")
    return result, {source: seen[source] for source in names}


def check_map(source: str, value: Tensor, *, batch: int) -> Tensor:
    """``value``, which must be a map (B, C, h, w) of B = ``batch`` images.

    Raises:
        InputError: naming ``source`` and the shape.
    """
    if value.ndim != 4 or value.shape[0] != batch:
        raise InputError(f"{source} has the shape {tuple(value.shape)}; it must be a map ({batch}, C, h, w)")
    return value
