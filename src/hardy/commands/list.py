"""``hardy list``: every method, read from the source code; imports no torch."""

from rich.console import Console
from rich.text import Text

from hardy.commands.output.as_json import Shown, collector
from hardy.errors import InputError, nearest
from hardy.registry import KINDS, Method, Registry

__all__ = ["run"]


def run(kind: str | None) -> None:
    """Print the methods of ``kind``, or of every kind, each with purpose, source, options and defaults.

    Raises:
        InputError: for an unknown kind; the message names the nearest known one.
    """
    if kind is not None and kind not in KINDS:
        raise InputError(f"there is no kind {kind!r}{nearest(kind, KINDS)}; there are: {', '.join(KINDS)}")
    console, shown = Console(highlight=False), collector()
    for name, registry in KINDS.items():
        if kind in (None, name):
            if shown is not None:
                _add(shown, name, registry)
                continue
            console.print(name, style="bold", markup=False)
            for method in registry:
                _show(console, registry.describe(method))


def _add(shown: Shown, name: str, registry: Registry) -> None:
    """Add the methods of a kind to what is shown, as a table."""
    rows = [
        [
            each.name,
            each.purpose,
            each.source,
            "; ".join(f"{option.name}: {option.shown} = {option.default!r}" for option in each.options),
        ]
        for each in map(registry.describe, registry)
    ]
    shown.add(name, ["name", "purpose", "source", "options"], rows, "")


def _show(console: Console, method: Method) -> None:
    console.print(Text.assemble("  ", (method.name, "cyan"), f"  {method.purpose}"), soft_wrap=True)
    if method.source:
        console.print(f"      Source: {method.source}", style="dim", soft_wrap=True, markup=False)
    for option in method.options:
        text = f"      {option.name}: {option.shown} = {option.default!r}"
        console.print(text, markup=False, soft_wrap=True)
