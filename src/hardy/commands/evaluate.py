"""``hardy evaluate``: measure a network on domains, its own label space or another's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hardy.commands._memory import from_sections
from hardy.commands._print import keep_records, show_table
from hardy.commands._scores import refuse_unmeasured
from hardy.engine import artefact, protocol
from hardy.engine.evaluate import Table
from hardy.engine.protocol import Settings
from hardy.engine.provenance import provenance
from hardy.engine.run_folder import origin_of
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.tensors import check_finite
from hardy.records import Record

__all__ = ["evaluate", "run"]


def evaluate(
    network: Network,
    data: Sequence[str],
    *,
    root: str | Path | None = None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None,
    splits: Sequence[str] = (),
    size: Sequence[int] | None = None,
    window: Sequence[int] | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    batch: int = 1,
    device: str = "auto",
) -> Table:
    """Measure ``network`` on the domains ``data``; each counts as unseen.

    Where the label spaces differ, labels are mapped onto the network's space by the declared many-to-one map, or
    predictions onto the labels' space where the map goes that way.

    Args:
        network: any network, wrapped ones too.
        data: domains such as ``["camvid/0001TP"]`` or ``["streets"]`` for all of one data set.
        root: folder of the data sets.
        datasets: options per data set, such as ``{"streets": {"test": 20}, "folder": {"root": "photos"}}``.
        splits: the splits measured, such as ``["val"]``; all images without any.
        size: (height, width) that images are resized to; scores are at the masks' own size. None keeps the images.
        window: (height, width) of a sliding window.
        flip: average with the mirror image.
        scales: average over these factors on the image's size.
        batch: images at a time.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: for no or unknown domains, missing data, weights that are not finite, or label spaces without a map.
    """
    return _table(
        network, data, root=root, datasets=datasets, splits=splits, size=size, window=window, flip=flip, scales=scales,
        batch=batch, device=device,
    )  # fmt: skip


def _table(
    network: Network, data: Sequence[str], *, root: str | Path | None = None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None, splits: Sequence[str] = (),
    size: Sequence[int] | None = None, window: Sequence[int] | None = None, flip: bool = False,
    scales: Sequence[float] = (1.0,), batch: int = 1, device: str = "auto", tolerant: bool = False,
) -> Table:  # fmt: skip
    """See `evaluate`; a ``tolerant`` table names a domain that cannot be read and has the others."""
    if not data:
        raise InputError("no data named; give domains such as camvid/0001TP")
    check_finite(network)
    where = {"root": root, "datasets": dict(datasets or {}), "size": size}
    recipe = from_sections(
        {"run": "a network in memory"},
        data={"unseen": list(data), "unseen_splits": list(splits), **where},
        evaluate={"window": window, "flip": flip, "scales": list(scales), "batch": batch},
        run={"device": device, "workers": 0},
    )
    parts = protocol.split(recipe.data, seed=0)
    unseen = [("unseen", part) for part in parts.unseen]
    return protocol.measure(network, unseen, Settings.of(recipe), tolerant=tolerant)


def run(folder: Path, domains: Sequence[str], *, size: Sequence[int] | None, per_class: bool, **options: Any) -> None:
    """Measure the network in ``folder``, print the table and append it to the folder's records.

    Without ``size`` the images are resized as in the run's own recipe.

    Raises:
        InputError: what `evaluate` raises; for a domain that cannot be read once the others are shown.
    """
    network = artefact.load(folder)
    if per_class and network.image_level:
        raise InputError(
            f"--per-class: {type(network).__name__} predicts one class per image, of which there is no IoU"
        )
    made = origin_of(folder)
    size = size or (made.recipe.data.size if made.recipe else None)
    table = _table(network, domains, size=size, tolerant=True, **options)
    here = {"size": list(size) if size else None, "domains": list(domains)}
    versions = provenance()
    lines = [
        Record(made.digest, "evaluate", made.sources, target, made.seed, metric, value, {}, versions, here)
        for target, metric, value in table.values()
    ]
    show_table(f"{folder} on {', '.join(domains)}", table, per_class=per_class)
    keep_records(folder, lines)
    refuse_unmeasured(table, folder)
