"""``hardy quantize``: write an int8 ONNX file, calibrated on source domains, and measure the drop of every domain."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from hardy.commands.input.in_memory import references
from hardy.commands.output.printing import keep_records, percent, say, say_lineage, show_json, show_rows
from hardy.data import sources
from hardy.data.base import DomainItems
from hardy.deployment.calibration import quantise_on
from hardy.deployment.graph import Output
from hardy.deployment.proof import ProofError
from hardy.deployment.quantisation import LIMIT, Quantised
from hardy.engine import artefact, protocol
from hardy.engine.provenance import provenance
from hardy.engine.run_folder import Origin, origin_of
from hardy.errors import InputError, quoted, within
from hardy.files import expanded
from hardy.networks.base import Network, refuse_plain
from hardy.records import Record

__all__ = ["quantize", "run"]


def quantize(
    network: Network | str | Path,
    path: str | Path,
    data: str | Sequence[str] = (),
    *,
    calibrate: str | Sequence[str] = (),
    size: Sequence[int] = (512, 1024),
    limit: float = LIMIT,
    images: int = 32,
    output: Output = "classes",
    root: str | Path | None = None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Quantised:
    """Write an int8 ONNX file, and measure the loss of every domain; no file is written if one is over the limit.

    The ranges of the activations come from ``images`` images of each domain in ``calibrate``. The network and the file
    are compared on as many other images of each domain in ``data``.

    Args:
        network: a network that predicts a class per pixel, which does not change; or the folder of a run, whose records
            then get the numbers.
        path: the ONNX file; an existing file is replaced only at the end. A README is written next to it.
        data: domains to measure; for a run the default is its held-out images and unseen domains.
        calibrate: domains that give the ranges; for a run the default is the training images of its sources.
        size: (height, width) to which images are resized.
        limit: points of mean IoU that a domain may lose, at least 0.
        images: the number of images of each domain, to calibrate and to measure, at least 1.
        output: what the file returns: ``classes`` or ``logits``.
        root: folder of the data sets; for a run the default is its own.
        datasets: options per data set, such as ``{"streets": {"test": 20}}``; for a run the others are its own.

    Returns:
        The loss of each domain, the number of images that gave the ranges, and the sizes of the files.

    Raises:
        InputError: for an argument, a network or a domain that cannot be used, a domain with too few images or without
            labels, or a missing package.
        ProofError: if a domain loses more than ``limit`` points; no file is written.
    """
    folder = None
    if isinstance(network, str | Path):
        folder = expanded(network)
        network = artefact.load(folder)
    refuse_plain(network)
    given: dict[str, Any] = {"calibrate": references(calibrate), "root": None if root is None else str(root)}
    given |= {"size": size, "limit": limit, "images": images, "output": output, "datasets": datasets}
    return _made(network, folder, path, references(data), **given)


def _made(
    network: Network,
    folder: Path | None,
    path: str | Path,
    domains: Sequence[str],
    *,
    calibrate: Sequence[str],
    root: str | None,
    datasets: Mapping[str, Mapping[str, Any]] | None,
    images: int,
    limit: float,
    output: Output,
    size: Sequence[int],
) -> Quantised:
    """See `quantize`; ``folder`` is the folder of the network's run, if it has one."""
    within("images", images, 1)
    within("limit", limit, 0)
    if output not in get_args(Output):
        raise InputError(f"output {quoted(output)}: it must be {' or '.join(get_args(Output))}")
    origin = origin_of(folder) if folder else Origin()
    ranges, judged = _parts(folder, origin, calibrate, domains, root, datasets)
    made = quantise_on(network, path, ranges, judged, images=images, size=size, limit=limit, output=output)
    if folder:
        keep_records(folder, _records(origin, made, size))
    return made


def _parts(
    folder: Path | None,
    origin: Origin,
    calibrate: Sequence[str],
    domains: Sequence[str],
    root: str | None,
    datasets: Mapping[str, Mapping[str, Any]] | None,
) -> tuple[list[DomainItems], list[DomainItems]]:
    """The images that can give the ranges, and the images that can be measured."""
    data = origin.recipe.data if origin.recipe else None
    if data is None and not (calibrate and domains):
        raise InputError(
            f"{folder or 'the network'}: it has no recipe with sources; name domains, and --calibrate DOMAIN"
        )
    ranges: list[DomainItems] = []
    judged: list[DomainItems] = []
    if data is not None and not (calibrate and domains):
        given = {"root": origin.root(root), "datasets": origin.options([*data.sources, *data.unseen], datasets)}
        parts = protocol.split(data.model_copy(update=given), origin.seed)
        ranges, judged = list(parts.train), [*parts.val, *parts.unseen]
    named = origin.options([*calibrate, *domains], datasets)
    place = sources.data_root(origin.root(root))
    if calibrate:
        ranges = [(each, each.items()) for each in sources.domains(calibrate, root=place, options=named)]
    if domains:
        judged = [(each, each.items()) for each in sources.domains(domains, root=place, options=named)]
    return ranges, judged


def _records(origin: Origin, made: Quantised, size: Sequence[int]) -> list[Record]:
    notes = {"file": made.path, "size": list(size), "calibrated": dict(made.calibrated)}
    versions = provenance()
    return [
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


def run(folder: Path, file: Path, domains: Sequence[str], *, json: bool = False, **options: Any) -> Quantised:
    """`quantize` the network in ``folder`` to ``file``, and show the loss of each domain.

    Raises:
        InputError: as `quantize`, and if a domain loses too much; then no file is written.
    """
    network = artefact.load(folder)
    try:
        made = _made(network, folder, file, domains, **options)
    except ProofError as error:
        raise InputError(str(error)) from None
    if json:
        show_json({**vars(made), "drops": [{**vars(drop), "points": drop.points} for drop in made.drops]})
    else:
        _show(made, file)
        say_lineage(str(file), network)
    return made


def _show(made: Quantised, file: Path) -> None:
    rows = [
        [drop.domain, str(drop.images), percent(drop.before), percent(drop.after), f"{drop.points:z.1f}"]
        for drop in made.drops
    ]
    show_rows(f"{file}: int8", ["domain", "images", "mIoU %", "int8 %", "points lost"], rows)
    counts = ", ".join(f"{name} ({count})" for name, count in made.calibrated.items())
    say(f"calibrated on {counts}; {made.layers} layers in int8; {made.bytes_before:,} -> {made.bytes_after:,} bytes")
