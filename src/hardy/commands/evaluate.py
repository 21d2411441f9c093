"""``hardy evaluate``: measure a network on domains, its own label space or another's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hardy.commands._memory import from_sections
from hardy.commands._print import keep_records, show_table
from hardy.commands._scores import refuse_unmeasured
from hardy.commands._words import adapt_apart, adapt_words
from hardy.counts import write
from hardy.engine import artefact, protocol
from hardy.engine.adapting import chosen, notes
from hardy.engine.evaluate import Table
from hardy.engine.protocol import Settings
from hardy.engine.provenance import provenance
from hardy.engine.run_folder import origin_of
from hardy.errors import InputError
from hardy.files import expanded
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
    adapt: str | Mapping[str, Any] | None = None,
    seed: int = 0,
    classes: Sequence[str] = (),
    keep_counts: bool = False,
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
        adapt: a method of ``hardy list adaptation`` by which a copy of the network learns from the images while it is
            measured, or ``{"name": ..., "reset": ..., options}``. It takes no window, flip or scales.
        seed: decides the method's draws.
        classes: those whose IoU stands beside the mIoU in the table.
        keep_counts: keep the confusion counts of every image in the table's ``counts``.

    Raises:
        InputError: for no or unknown domains, missing data, weights that are not finite, label spaces without a map, or
            a method, option or ``reset`` that is not there.
    """
    return _table(
        network, data, root=root, datasets=datasets, splits=splits, size=size, window=window, flip=flip, scales=scales,
        batch=batch, device=device, adapt=adapt, seed=seed, classes=classes, keep_counts=keep_counts,
    )  # fmt: skip


def _table(
    network: Network, data: Sequence[str], *, root: str | Path | None = None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None, splits: Sequence[str] = (),
    size: Sequence[int] | None = None, window: Sequence[int] | None = None, flip: bool = False,
    scales: Sequence[float] = (1.0,), batch: int = 1, device: str = "auto", tolerant: bool = False,
    adapt: str | Mapping[str, Any] | None = None, seed: int = 0, classes: Sequence[str] = (),
    keep_counts: bool = False,
) -> Table:  # fmt: skip
    """See `evaluate`; a ``tolerant`` table names a domain that cannot be read and has the others."""
    if not data:
        raise InputError("no data named; give domains such as camvid/0001TP")
    check_finite(network)
    where = {"root": root, "datasets": dict(datasets or {}), "size": size}
    recipe = from_sections(
        {"run": "a network in memory"},
        data={"unseen": list(data), "unseen_splits": list(splits), **where},
        evaluate={
            "window": window,
            "flip": flip,
            "scales": list(scales),
            "batch": batch,
            "classes": list(classes),
            "keep_counts": keep_counts,
        },
        run={"device": device, "workers": 0, "seed": seed},
        adapt=adapt,
    )
    parts = protocol.split(recipe.data, seed=0)
    unseen = [("unseen", part) for part in parts.unseen]
    return protocol.measure(network, unseen, Settings.of(recipe), tolerant=tolerant, adapt=recipe.adapt)


def run(
    folder: Path,
    words: Sequence[str],
    *,
    size: Sequence[int] | None,
    per_class: bool,
    counts: Path | None = None,
    **options: Any,
) -> None:
    """Measure the network in ``folder``, print the table and append it to the folder's records.

    Confusion counts of every image go to the folder ``counts``, if there is one.

    Without ``size`` the images are resized as in the run's own recipe. The network adapts where words such as
    ``adapt.name=source`` among the domains ask for it, whatever the recipe says; the run's seed decides its draws.

    Raises:
        InputError: what `evaluate` raises; for a domain that cannot be read once the others are shown.
    """
    domains, asked = adapt_apart(words)
    adapt = chosen(None, asked)
    network = artefact.load(folder)
    if per_class and network.image_level:
        raise InputError(
            f"--per-class: {type(network).__name__} predicts one class per image, of which there is no IoU"
        )
    made = origin_of(folder)
    size = size or (made.recipe.data.size if made.recipe else None)
    method = adapt.model_dump(mode="json") if adapt else None
    keep = counts is not None
    table = _table(
        network, domains, size=size, tolerant=True, adapt=method, seed=made.seed, keep_counts=keep, **options
    )
    if counts is not None:
        write(expanded(counts), table.counts)
    here = {"size": list(size) if size else None, "domains": list(domains), **notes(adapt)}
    versions = provenance()
    lines = [
        Record(made.digest, "evaluate", made.sources, target, made.seed, metric, value, {}, versions, here)
        for target, metric, value in table.values()
    ]
    show_table(f"{folder} on {', '.join(domains)}{adapt_words(adapt)}", table, per_class=per_class)
    keep_records(folder, lines)
    refuse_unmeasured(table, folder, adapt)
