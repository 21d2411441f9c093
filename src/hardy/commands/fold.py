"""``hardy fold``: fold the batch norms of a run's network into other layers, and save it in a new folder."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from hardy import records
from hardy.commands.output.printing import say, say_lineage
from hardy.data import loader, sources
from hardy.deployment.folding import Folding, fold
from hardy.deployment.proof import ProofError
from hardy.engine import artefact
from hardy.engine.provenance import provenance
from hardy.engine.run_folder import Origin, origin_of
from hardy.errors import InputError
from hardy.files import expanded, write_text
from hardy.networks.building.changes import refuse_folded
from hardy.ops.tensors import check_finite
from hardy.records import Record

__all__ = ["run"]

_SHOWN = 3
"""How many of the remaining batch norms are printed; the records name all of them."""


def run(
    folder: Path, to: Path, domains: Sequence[str], *, size: tuple[int, int], images: int | None, root: str | None
) -> Folding:
    """Fold the batch norms of the network in ``folder``, prove that the outputs are equal, and write it to ``to``.

    The proof uses the first ``images`` (20) images of each of ``domains``, or random images. ``to`` also gets the
    recipe of ``folder``, so that the network is measured as before.

    Raises:
        InputError: if ``to`` contains a network, nothing can be folded, or the outputs differ; then nothing is written.
    """
    folder, to = expanded(folder), expanded(to)
    if not domains and (images is not None or root is not None):
        raise InputError("fold: --images and --root belong to the domains that prove the network; name a domain")
    if to.is_file() or (to / "network.json").exists():
        reason = "it is a file" if to.is_file() else "it already contains a network"
        raise InputError(f"{to}: {reason}; give another folder")
    network = artefact.load(folder)
    check_finite(network, folder)
    refuse_folded(network.changes, "fold")
    origin = origin_of(folder)
    try:
        found = fold(network, size=size, images=_images(domains, origin, root, images or 20) or None)
    except ProofError as error:
        raise InputError(str(error)) from None
    artefact.save(found.network, to)
    if origin.recipe:
        write_text(to / "recipe.yaml", (folder / "recipe.yaml").read_text(encoding="utf-8"))
    records.append(to / "records.jsonl", _records(found, origin, folder, domains, size))
    _show(found, folder, to)
    return found


def _images(domains: Sequence[str], origin: Origin, root: str | None, count: int) -> list[Tensor]:
    """Up to ``count`` images of each domain, read as by the run."""
    place, options = sources.data_root(origin.root(root)), origin.options(domains)
    named = sources.domains(domains, root=place, options=options) if domains else []
    batches = (
        loader.evaluation_batches([(domain, domain.items()[:count])], domain.dataset.label_space) for domain in named
    )
    return [image for each in batches for batch in each for image in batch.images]


def _records(
    found: Folding, origin: Origin, folder: Path, domains: Sequence[str], size: tuple[int, int]
) -> list[Record]:
    """The records of the folded network."""
    notes = {"network": str(folder), "size": list(size), "images": found.images, "left": dict(found.left)}
    values = {
        "agreement": found.agreement,
        "logit_difference": found.difference,
        "folded": float(found.reparameterised + len(found.folded)),
    }
    where, versions = ",".join(domains), provenance()
    return [
        Record(origin.digest, "fold", origin.sources, where, origin.seed, name, value, {}, versions, notes)
        for name, value in values.items()
    ]


def _show(found: Folding, folder: Path, to: Path) -> None:
    say(f"{to}: {found}")
    reasons: dict[str, list[str]] = {}
    for name, why in found.left.items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        say(f"not folded {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}: {why}")
    say(f"to prune or adapt the network, use the unfolded one in {folder}")
    say_lineage(str(to), found.network)
