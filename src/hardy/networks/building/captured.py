"""The outputs of submodules of a wrapped module during one call: the features that it declares by module name.

The hooks exist for one call only, so that copies, pruned modules and exported graphs have none.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from hardy.errors import InputError, nearest

__all__ = ["captured", "check_map", "check_names"]

Hook = Callable[[nn.Module, Any, Any], None]


def check_names(module: nn.Module, declared: Mapping[str, str]) -> None:
    """Check that ``module`` has all declared submodules.

    Args:
        module: the module that contains them.
        declared: the declaring option, used in messages -> the name of a submodule.

    Raises:
        InputError: if it lacks one; the message names the declaring option and the nearest name.
    """
    names = [name for name, _ in module.named_modules(remove_duplicate=False) if name]
    for source, name in declared.items():
        if name not in names:
            hint = nearest(name, names)
            raise InputError(f"{source} is {name!r}, but {type(module).__name__} has no such module{hint}")


def captured(module: nn.Module, names: Mapping[str, str], run: Callable[[], Any]) -> tuple[Any, dict[str, Tensor]]:
    """The result of ``run``, and the outputs of submodules of ``module`` during it; if a submodule runs several times,
    that of its last call.

    Args:
        module: the module that contains them.
        names: the declaring option, used in messages -> the name of a submodule.
        run: calls ``module``.

    Returns:
        the result, and the tensors by declaring option. They are copies, which later in-place layers do not change.

    Raises:
        InputError: for a submodule that did not run or did not return a tensor.
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
            raise InputError(f"{source} is {name!r}, which returns a {kind}; name a module that returns one tensor")
    return result, {source: seen[source] for source in names}


def check_map(source: str, value: Tensor, *, batch: int) -> Tensor:
    """``value``, checked to be a map (B, C, h, w) of B = ``batch`` images.

    Raises:
        InputError: if it is not; the message names ``source`` and the shape.
    """
    if value.ndim != 4 or value.shape[0] != batch:
        raise InputError(f"{source} has the shape {tuple(value.shape)}; it must be a map ({batch}, C, h, w)")
    return value
