"""``hardy evaluate``: measure a network on domains in its own label space or in another one."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hardy import pictures
from hardy.commands import stream
from hardy.commands.input.in_memory import from_sections, references
from hardy.commands.input.words import adapt_apart, adapt_words, stream_apart
from hardy.commands.output.printing import bar, keep_records, say_lineage, show_table
from hardy.commands.output.unmeasured import refuse_unmeasured
from hardy.counts import write
from hardy.data.base import DomainItems
from hardy.data.label_spaces import LabelSpace
from hardy.engine import artefact, protocol
from hardy.engine.adapting import chosen, notes
from hardy.engine.evaluate import ScoreTable
from hardy.engine.protocol import Settings
from hardy.engine.provenance import provenance
from hardy.engine.run_folder import Origin, origin_of
from hardy.engine.source_images import of_run
from hardy.errors import InputError
from hardy.files import expanded
from hardy.networks.base import Network, refuse_plain
from hardy.ops.tensors import check_finite
from hardy.records import Record
from hardy.sections import Adapt
from hardy.types import Batch

__all__ = ["evaluate", "run"]


def evaluate(
    network: Network,
    data: str | Sequence[str],
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
    source_images: Iterable[Tensor] | Tensor | None = None,
) -> ScoreTable:
    """Measure ``network`` on the domains ``data``; each counts as unseen.

    If the label spaces differ, the declared many-to-one map maps the labels to the network's label space. If only the
    opposite map is declared, it maps the predictions to the label space of the data.

    Args:
        network: any network, also a wrapped one.
        data: domains such as ``["camvid/0001TP"]``, or ``["streets"]`` for all domains of a data set.
        root: folder of the data sets.
        datasets: options per data set, such as ``{"streets": {"test": 20}, "folder": {"root": "photos"}}``.
        splits: the splits to measure, such as ``["val"]``; without any, all images.
        size: (height, width) to which images are resized; scores are at the masks' own size. None does not resize.
        window: (height, width) of a sliding window.
        flip: average with the prediction of the horizontally flipped image.
        scales: average over these factors of the image's size.
        batch: images per batch.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        adapt: a method of ``hardy list adaptation``, or ``{"name": ..., "reset": ..., options}``. With it a copy of the
            network learns from the images while it is measured; window, flip and scales are refused.
        seed: seeds the method's random draws.
        classes: the classes whose IoU the table shows beside the mIoU.
        keep_counts: keep the confusion counts of every image in the table's ``counts``.
        source_images: see `hardy.adapt`.

    Raises:
        InputError: for no or unknown domains, missing data, weights that are not finite, label spaces without a map, an
            unknown method or option, or a wrong ``reset``.
    """
    reading = _reading(root, datasets, size, splits)
    views = {**_views(window, scales, classes, flip=flip), "batch": batch, "keep_counts": keep_counts}
    return _measure(network, data, reading, views, {"device": device, "seed": seed}, adapt, source_images=source_images)


def _reading(
    root: str | Path | None,
    datasets: Mapping[str, Mapping[str, Any]] | None,
    size: Sequence[int] | None,
    splits: Sequence[str],
) -> dict[str, Any]:
    return {"root": root, "datasets": dict(datasets or {}), "size": size, "unseen_splits": list(splits)}


def _views(
    window: Sequence[int] | None, scales: Sequence[float], classes: Sequence[str], *, flip: bool
) -> dict[str, Any]:
    return {"window": window, "flip": flip, "scales": list(scales), "classes": list(classes)}


def _records(origin: Origin, table: ScoreTable, here: Mapping[str, Any], cost: Mapping[str, float]) -> list[Record]:
    """The records of ``table``, with the notes ``here``."""
    versions = provenance()
    return [
        Record(origin.digest, "evaluate", origin.sources, target, origin.seed, metric, value, cost, versions, here)
        for target, metric, value in table.values()
    ]


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The note ``options``: those of ``options`` that change what is measured; empty without any."""
    kept = {
        name: value for name, value in options.items() if value and not (name == "scales" and tuple(value) == (1.0,))
    }
    return {"options": kept} if kept else {}


def _refuse_views(given: Mapping[str, Any]) -> None:
    """Refuse options that have no effect on a stream.

    Raises:
        InputError: for the first such option.
    """
    for name, value in given.items():
        if value:
            raise InputError(f"--{name}: it has no effect on a stream; leave it out")


def _loaded(folder: Path, *, per_class: bool) -> Network:
    """The network in ``folder``; with ``per_class`` it must predict a class for each pixel."""
    network = artefact.load(folder)
    check_finite(network, folder)
    if per_class and network.image_level:
        name = type(network).__name__
        raise InputError(f"--per-class: {name} predicts one class per image, so there is no IoU; leave it out")
    return network


def _measure(
    network: Network,
    domains: Sequence[str],
    reading: Mapping[str, Any],
    views: Mapping[str, Any],
    machine: Mapping[str, Any],
    adapt: str | Mapping[str, Any] | None,
    *,
    typed: bool = False,
    source_images: Iterable[Tensor] | Tensor | None = None,
) -> ScoreTable:
    """See `evaluate`; ``typed`` on a terminal it shows progress, and names what cannot be read beside the other scores.

    Args:
        network: any network.
        domains: the domains to measure it on.
        reading: the rest of a recipe's ``data`` section.
        views: a recipe's ``evaluate`` section.
        machine: the keys ``device`` and ``seed`` of a recipe's ``run`` section.
        adapt: a test-time method.
        typed: if a domain cannot be read, measure the others; show progress bars on a terminal.
        source_images: for a test-time method that is not source-free.
    """
    domains = references(domains)
    if not domains:
        raise InputError("no data named; give domains such as camvid/0001TP")
    refuse_plain(network)
    check_finite(network)
    recipe = from_sections(
        {"run": "a network in memory"},
        data={"unseen": list(domains), **reading},
        evaluate=views,
        run={**machine, "workers": 0},
        adapt=adapt,
    )
    protocol.large_enough(network, {"size": recipe.data.size, "window": recipe.evaluate.window})
    parts = protocol.split(recipe.data, seed=0)
    unseen = [("unseen", part) for part in parts.unseen]
    settings = Settings.of(recipe)
    ways: dict[str, Any] = {"tolerant": typed, "source_images": source_images, "adapt": recipe.adapt}
    return protocol.measure(network, unseen, settings, _with_bars(settings) if typed else None, **ways)


def _with_bars(settings: Settings) -> protocol.Stream:
    """`hardy.engine.protocol.reading` with a progress bar for each domain."""
    read = protocol.reading(settings)

    def stream(part: DomainItems, space: LabelSpace) -> Iterable[Batch]:
        domain, items = part
        return bar(read(part, space), domain.name, -(-len(items) // settings.evaluate.batch))

    return stream


def _adapting(adapt: Adapt | None, origin: Origin, root: str | None) -> dict[str, Any]:
    """The arguments of `_measure` on the command line for ``adapt`` and the run ``origin``."""
    images = of_run(origin, root) if adapt else None
    method = adapt.model_dump(mode="json") if adapt else None
    return {"adapt": method, "source_images": images and bar(images, "source images"), "typed": True}


def _keep(table: ScoreTable, counts: Path | None, worst: Path) -> None:
    """Write the counts of ``table`` to the folder ``counts``, if there is one, and its pictures to ``worst``."""
    if counts is not None:
        write(expanded(counts), table.counts)
    if table.pictures.domains:
        pictures.write(worst, table.pictures)


def run(
    folder: Path,
    words: Sequence[str],
    *,
    root: str | None = None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None,
    splits: Sequence[str] = (),
    size: Sequence[int] | None,
    window: Sequence[int] | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    per_class: bool,
    device: str = "auto",
    classes: Sequence[str] = (),
    counts: Path | None = None,
    worst: int = 0,
) -> None:
    """Measure the network in ``folder``, print the table and append it to the folder's records.

    ``root``, ``size`` and options of data sets are by default those of the run's recipe. ``adapt.name=source`` makes
    the network adapt. Counts of every image go to the folder ``counts``, pictures of the ``worst`` to the run's.

    Raises:
        InputError: as `evaluate`; for a domain that cannot be read, after the others are shown.
    """
    words, streaming = stream_apart(words)
    domains, adapting = adapt_apart(words)
    if streaming:
        views = {"window": window, "scale": tuple(scales) != (1.0,), "class": classes, "flip": flip, "worst": worst}
        _refuse_views({**views, "per-class": per_class, "counts": counts})
        places: dict[str, Any] = {"root": root, "datasets": datasets, "splits": splits, "size": size, "device": device}
        stream.run(folder, [*streaming, *adapting], domains=domains, **places)
        return
    adapt, network = chosen(None, adapting), _loaded(folder, per_class=per_class)
    origin = origin_of(folder)
    asked = {"size": size, "splits": splits, "datasets": datasets, "window": window, "flip": flip, "scales": scales}
    sides = size or origin.size
    reading = _reading(origin.root(root), origin.options(domains, datasets), sides, splits)
    shown = {**_views(window, scales, classes, flip=flip), "keep_counts": counts is not None, "keep_worst": worst}
    began = time.perf_counter()
    machine = {"device": device, "seed": origin.seed}
    table = _measure(network, domains, reading, shown, machine, **_adapting(adapt, origin, root))
    cost = {"adapt_seconds": round(time.perf_counter() - began, 2)} if adapt else {}
    cost |= table.guard.costs() if table.guard else {}
    _keep(table, counts, pictures.place(folder, adapt.name if adapt else ""))
    show_table(f"{folder} on {', '.join(domains)}{adapt_words(adapt)}", table, per_class=per_class)
    say_lineage(str(folder), network)
    here = {"size": list(sides) if sides else None, "domains": list(domains), **_given(asked), **notes(adapt)}
    keep_records(folder, _records(origin, table, here, cost))
    refuse_unmeasured(table, folder, adapt)
