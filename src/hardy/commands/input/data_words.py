"""The commands of ``hardy data``: check, show and convert. Only domains mean the strict check that training makes."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hardy.commands.input.arguments import DatasetOptions, Domains, Root, typed
from hardy.commands.input.words import nested

__all__ = ["data"]

_STRICT = "domains"


class _Words(TyperGroup):
    """A group of commands; words that do not begin with a command are arguments of ``domains``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``domains`` before words that do not begin with a command."""
        own = not args or args[0] in self.commands or args[0] in ("--help", "-h")
        found: list[str] = super().parse_args(ctx, args if own else [_STRICT, *args])
        return found


data = typer.Typer(
    cls=_Words,
    no_args_is_help=True,
    help="Find mistakes in data, look at data, convert data. With only domains (hardy data camvid) it stops at the "
    "first mistake, as training does.",
)

DataWords = Annotated[
    list[str],
    typer.Argument(help="Folders with a known layout, or domains such as camvid/0001TP or camvid.", callback=typed),
]


@data.command("check")
def check(
    words: DataWords,
    root: Root = None,
    dataset: DatasetOptions = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Read everything; show counts, pixels per class, and every problem with its fix. Exit code 1 for mistakes."""
    from hardy.commands import data as command

    return command.doctor(words, root=root, datasets=nested(dataset), as_json=json)


@data.command("show")
def show(
    words: DataWords,
    to: Annotated[Path, typer.Option(help="The sheet: a .png or .html file.")] = Path("data.html"),
    images: Annotated[int, typer.Option(help="Images of each domain.")] = 12,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; repeat for several.")] = None,
    only: Annotated[str, typer.Option(help="Only images whose names contain this text.")] = "",
    root: Root = None,
    dataset: DatasetOptions = None,
) -> None:
    """Write a contact sheet of each domain: images beside their coloured masks."""
    from hardy.commands import data as command

    command.show(words, to, root=root, datasets=nested(dataset), images=images, splits=tuple(split or ()), only=only)


@data.command("convert")
def convert(
    words: DataWords,
    to: Annotated[Path, typer.Option(help="The folder to write; it must not exist.")],
    classes: Annotated[str | None, typer.Option(help="Another label space: idd7, or a classes.yaml.")] = None,
    root: Root = None,
    dataset: DatasetOptions = None,
) -> None:
    """Write data as images/, masks/ and classes.yaml, in their own classes or in another label space."""
    from hardy.commands import data as command

    command.convert(words, to, root=root, datasets=nested(dataset), classes=classes)


@data.command(_STRICT, hidden=True)
def domains(domains: Domains, root: Root = None, dataset: DatasetOptions = None) -> None:
    """Decode data as training does: images per split, pixels per class; stop at the first mistake."""
    from hardy.commands import data as command

    command.run(domains, root=root, datasets=nested(dataset))
