"""``hardy push`` and ``hardy pull``: copy a network with its card to or from a folder or the Hugging Face hub."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from hardy.commands.output.printing import say, say_lineage
from hardy.engine import hub

__all__ = ["pull", "push"]


def push(folder: Path, to: str, *, licence: str | None, public: bool) -> None:
    """Push the network in ``folder`` to ``to``; see `hardy.engine.hub.push`."""
    place = hub.push(folder, to, licence=licence, public=public)
    say(f"{place}: the network, its records and its card README.md; hardy pull {shlex.quote(to)} DIR fetches it")
    if licence is None:
        say("the card states no licence; give one, such as --licence apache-2.0")


def pull(source: str, folder: Path, *, trust: Iterable[str]) -> None:
    """Fetch the network at ``source`` into ``folder``; see `hardy.engine.hub.pull`."""
    network = hub.pull(source, folder, trust=trust)
    kind = network.architecture.get("name") or type(network).__name__
    say(f"{folder}: {kind}, {network.label_space.name}; checksums match. Its card: {folder / 'README.md'}")
    say_lineage(str(folder), network)
