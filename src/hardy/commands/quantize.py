"""``hardy quantize``: an int8 ONNX file, calibrated on source domains, with the drop of every domain measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hardy.commands.output.printing import keep_records, percent, say, say_lineage, show_json, show_rows
from hardy.data import loader, sources
from hardy.data.base import Domain, Item
from hardy.data.labels import convert
from hardy.deployment.proof import ProofError
from hardy.deployment.quantisation import Quantised, quantise
from hardy.engine import artefact, protocol
from hardy.engine.provenance import provenance
from hardy.engine.run_folder import Origin, origin_of
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.records import Record

__all__ = ["run"]

Parts = list[tuple[Domain, Sequence[Item]]]


def run(
    folder: Path,
    file: Path,
    domains: Sequence[str],
    *,
    calibrate: Sequence[str],
    size: tuple[int, int],
    limit: float,
    images: int,
    logits: bool,
    root: str | None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None,
    json: bool = False,
) -> Quantised:
    """Quantise the network in ``folder`` to ``file``, show what each domain loses, record it.

    The ranges come from ``images`` images of each domain in ``calibrate``, by default the training images of the run's
    sources; the drop is measured on as many others of each of ``domains``, by default the run's held-out images and
    unseen domains.

    Raises:
        InputError: when a domain has too few images or no labels, or loses more than ``limit`` points; then no file is
            written.
    """
    network, origin = artefact.load(folder), origin_of(folder)
    ranges, judged = _parts(folder, origin, calibrate, domains, images, root, datasets)
    calibration = {domain.name: [image for image, _ in _read(network, domain, items)] for domain, items in ranges}
    measured = {domain.name: _read(network, domain, items) for domain, items in judged}
    try:
        made = quantise(
            network,
            file,
            size=size,
            calibration=calibration,
            measured=measured,
            limit=limit,
            output="logits" if logits else "classes",
        )
    except ProofError as error:
        raise InputError(str(error)) from None
    if json:
        show_json({**vars(made), "drops": [{**vars(drop), "points": drop.points} for drop in made.drops]})
    else:
        _show(made, file)
        say_lineage(str(file), network)
    _record(folder, origin, made, size)
    return made


def _parts(
    folder: Path,
    origin: Origin,
    calibrate: Sequence[str],
    domains: Sequence[str],
    images: int,
    root: str | None,
    datasets: Mapping[str, Mapping[str, Any]] | None,
) -> tuple[Parts, Parts]:
    """The images that give the ranges, and other images that are measured."""
    data = origin.recipe.data if origin.recipe else None
    if data is None and not (calibrate and domains):
        raise InputError(f"{folder}: has no recipe with sources; name domains, and --calibrate DOMAIN")
    ranges: Parts = []
    judged: Parts = []
    if data is not None and not (calibrate and domains):
        given = {"root": root or data.root, "datasets": datasets or data.datasets}
        parts = protocol.split(data.model_copy(update=given), origin.seed)
        ranges, judged = list(parts.train), [*parts.val, *parts.unseen]
    named = datasets or (data.datasets if data else None)
    place = sources.data_root(root or (data.root if data else None))
    if calibrate:
        ranges = [(each, each.items()) for each in sources.domains(calibrate, root=place, options=named)]
    if domains:
        judged = [(each, each.items()) for each in sources.domains(domains, root=place, options=named)]
    ranges = [(domain, items[:images]) for domain, items in ranges]
    used = {(domain.name, item) for domain, items in ranges for item in items}
    judged = [(each, [item for item in items if (each.name, item) not in used][:images]) for each, items in judged]
    for domain, items in (*ranges, *judged):
        if not items:
            raise InputError(
                f"{domain.name}: has no image left to measure beside those of the calibration; lower --images"
            )
    return ranges, judged


def _read(network: Network, domain: Domain, items: Sequence[Item]) -> list[tuple[Tensor, Tensor]]:
    """The images of a domain and their masks in the network's classes."""
    if convert(domain.dataset.labels, network.labels) is None:
        raise InputError(
            f"{domain.name}: its classes {domain.dataset.labels.name} have no map to {network.labels.name}, so no drop "
            "can be measured; name other domains"
        )
    batches = loader.evaluation_batches([(domain, items)], network.labels)
    return [(batch.images[0], batch.labels[0]) for batch in batches]


def _show(made: Quantised, file: Path) -> None:
    rows = [
        [drop.domain, str(drop.images), percent(drop.before), percent(drop.after), f"{drop.points:.1f}"]
        for drop in made.drops
    ]
    show_rows(f"{file}: int8", ["domain", "images", "mIoU %", "int8 %", "points lost"], rows)
    counts = ", ".join(f"{name} ({count})" for name, count in made.calibrated.items())
    say(f"calibrated on {counts}; {made.layers} layers in int8; {made.bytes_before:,} -> {made.bytes_after:,} bytes")


def _record(folder: Path, origin: Origin, made: Quantised, size: tuple[int, int]) -> None:
    notes = {"file": made.path, "size": list(size), "calibrated": dict(made.calibrated)}
    versions = provenance()
    new = [
        Record(
            origin.digest,
            "quantize",
            origin.sources,
            drop.domain,
            origin.seed,
            metric,
            value,
            {},
            versions,
            {**notes, "images": drop.images},
        )
        for drop in made.drops
        for metric, value in {"miou_int8": drop.after, "miou_float": drop.before, "agreement": drop.agreement}.items()
    ]
    keep_records(folder, new)
