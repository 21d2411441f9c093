"""``hardy import``: convert published weights to a run's folder, which every other command accepts."""

import shlex
from pathlib import Path

from hardy import records
from hardy.commands.output.printing import say
from hardy.engine import artefact
from hardy.engine.provenance import provenance
from hardy.errors import InputError
from hardy.networks.building.importing import Imported, imported
from hardy.ops.cost import parameters
from hardy.records import Record

__all__ = ["run"]

_SHOWN = 3
"""How many dropped tensors are printed for each reason; the records name all of them."""

_BASES = {
    "files": "the published files",
    "code": "the released code with random weights, not on a file",
    "names": "published names and shapes, not on a file",
}


def run(file: Path, *, classes: str, to: Path, network: str | None, source: str | None) -> None:
    """Write the network of ``file`` to the folder ``to``, and print which tensors were used and which were dropped.

    Raises:
        InputError: if ``to`` already contains a network, or for a file that cannot be imported.
    """
    if (to / "network.json").exists():
        raise InputError(f"{to}: it already contains a network; give another folder")
    found = imported(file, classes, network=network, source=source)
    count = parameters(found.network)
    artefact.save(found.network, to)
    notes = {"file": str(file), "publication": found.publication, "dropped": dict(found.dropped)}
    line = Record("", "import", (), "all", 0, "parameters", float(count), {}, provenance(), notes)
    records.append(to / "records.jsonl", [line])
    for text in _account(found, file, count):
        say(text)
    say(f"wrote {to}; measure it: hardy evaluate {shlex.quote(str(to))} DOMAINS")


def _account(found: Imported, file: Path, count: int) -> list[str]:
    network = found.network
    options = ", ".join(f"{name}={value}" for name, value in network.architecture["options"].items())
    basis = _BASES[found.checked]
    mean, std = (
        ", ".join(f"{value:.4g}" for value in values.flatten().tolist()) for values in (network.mean, network.std)
    )
    turned = "" if found.channels == "RGB" else f" (the weights were permuted from the file's {found.channels})"
    lines = [
        f"{file}: {network.architecture['name']} of {found.repository}, {count:,} parameters ({options})",
        f"images in [0, 1], RGB{turned}, minus ({mean}), divided by ({std})",
        f"this mapping was checked on {basis}",
        f"{found.used} of its tensors used",
    ]
    reasons: dict[str, list[str]] = {}
    for name, why in found.dropped.items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        lines.append(f"dropped {shown}: {why}")
    return lines
