"""``hardy list``: every method, read from source; imports no torch."""

from rich.console import Console
from rich.text import Text

from hardy.errors import InputError, nearest
from hardy.registry import KINDS, Method

__all__ = ["run"]


def run(kind: str | None) -> None:
    """Print the methods of ``kind``, or of every kind, each with purpose, source, options and defaults.

    Raises:
        InputError: for a kind that is not there, with the nearest that is.
    """
    if kind is not None and kind not in KINDS:
        raise InputError(f"there is no kind {kind!r}{nearest(kind, KINDS)}; there are: {', '.join(KINDS)}")
    console = Console(highlight=False)
    for name, registry in KINDS.items():
        if kind in (None, name):
            console.print(name, style="bold", markup=False)
            for method in registry:
                _show(console, registry.describe(method))


def _show(console: Console, method: Method) -> None:
    console.print(Text.assemble("  ", (method.name, "cyan"), f"  {method.purpose}"), soft_wrap=True)
    if method.source:
        console.print(f"      Source: {method.source}", style="dim", soft_wrap=True, markup=False)
    for option in method.options:
        text = f"      {option.name}: {option.shown} = {option.default!r}"
        console.print(text, markup=False, soft_wrap=True)
