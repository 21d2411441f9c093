"""The words of the verbs that ship a network: push, pull."""

from pathlib import Path
from typing import Annotated

import typer

from hardy.commands.input.arguments import RunFolder, Trust

__all__ = ["pull", "push"]


def push(
    run: RunFolder,
    to: Annotated[str, typer.Argument(help="A folder, or hf-hub:OWNER/NAME.")],
    licence: Annotated[str | None, typer.Option(help="Licence of the network, such as apache-2.0.")] = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository of the hub can be read by all.")] = False,
    trust: Trust = None,
) -> None:
    """Push a network with its card: domains, numbers, lineage, licence."""
    from hardy.commands import hub

    hub.push(run, to, licence=licence, public=public)


def pull(
    source: Annotated[str, typer.Argument(help="A pushed folder, or hf-hub:OWNER/NAME[@REVISION].")],
    folder: Annotated[Path, typer.Argument(help="A new folder for the network.")],
    trust: Trust = None,
) -> None:
    """Pull a network: it is checked, runs no code, and is kept only when it is whole."""
    from hardy.commands import hub

    hub.pull(source, folder, trust=trust or ())
