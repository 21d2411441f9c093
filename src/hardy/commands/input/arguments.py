"""Arguments that several commands share, and trust in code that is named on the command line."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hardy import trust
from hardy.commands.input import completion
from hardy.errors import InputError

__all__ = [
    "Adapting",
    "DatasetOptions",
    "Device",
    "Domains",
    "DomainsAdapting",
    "Overrides",
    "RecipeFile",
    "Root",
    "RunFolder",
    "SizeText",
    "StatisticsText",
    "Trust",
    "UpsampleText",
    "typed",
]


def _allow(names: set[str] | list[str]) -> None:
    """Allow the modules that the user typed; they may also be in the current folder, after all installed packages."""
    if names:
        trust.allow(names)
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.append(here)


def _trusted(modules: list[str] | None) -> list[str] | None:
    for module in modules or ():
        if not all(part.isidentifier() for part in module.replace(":", ".", 1).split(".")):
            raise InputError(f"--trust {module!r}: it is not the name of a module; give a name such as their.module")
    _allow(modules or [])
    return modules


def typed(words: list[str] | None) -> list[str] | None:
    """Return ``words``, and allow the modules named in them: what the user types as a domain or override is trusted."""
    _allow(trust.names_typed(words or ()))
    return words


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Overrides such as optim.lr=1e-3 run.folder=runs/x.", callback=typed, autocompletion=completion.overrides
    ),
]
RecipeFile = Annotated[Path, typer.Argument(help="A recipe (YAML).")]
RunFolder = Annotated[Path, typer.Argument(help="A run's folder: what train, prune or hardy.save wrote.")]
Domains = Annotated[
    list[str],
    typer.Argument(
        help="Domains such as camvid/0001TP, streets/night, or camvid for all.",
        callback=typed,
        autocompletion=completion.datasets,
    ),
]
DomainsAdapting = Annotated[
    list[str],
    typer.Argument(
        help="Domains such as camvid/0001TP or camvid for all; adapt.name=source adapt.reset=never to adapt on them; "
        "stream.kind=mixed or a recipe of a stream to show them as a stream.",
        callback=typed,
        autocompletion=completion.domains,
    ),
]
Adapting = Annotated[
    list[str] | None,
    typer.Argument(
        help="Options such as adapt.name=source adapt.reset=never, to adapt on the images.",
        callback=typed,
        autocompletion=completion.adapting,
    ),
]
DatasetOptions = Annotated[
    list[str] | None,
    typer.Option(help="Option of a data set: folder.root=photos streets.test=20.", callback=typed),
]
Root = Annotated[str | None, typer.Option(help="Folder of the data sets (else the run's, HARDY_DATA).")]
SizeText = Annotated[str | None, typer.Option(help="HEIGHTxWIDTH in pixels.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=completion.among("device"))]
UpsampleText = Annotated[
    str,
    typer.Option(
        help="full; borders: the same, faster; half: half-size classes, enlarged; none: own stride.",
        autocompletion=completion.among("upsample"),
    ),
]
StatisticsText = Annotated[
    str,
    typer.Option(
        help="Of batch norms: fixed; inputs: inputs of the file; observed: also outputs.",
        autocompletion=completion.among("statistics"),
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(help="Allow code of this module to run when a file names it; repeat for several.", callback=_trusted),
]
