"""`hardy.stream`, and ``hardy evaluate`` with ``stream.kind=...`` or the recipe of a stream."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from hardy import safe_yaml
from hardy.commands.input.in_memory import references
from hardy.commands.output.printing import bar, keep_records, percent, say, say_lineage, show_rows
from hardy.data import sources, unlabelled
from hardy.data.base import DomainItems
from hardy.device import pick
from hardy.engine import artefact, protocol
from hardy.engine.adapting import adapted, notes
from hardy.engine.evaluate import evaluating
from hardy.engine.guard_log import GuardLog
from hardy.engine.provenance import provenance
from hardy.engine.run_folder import Origin, origin_of
from hardy.engine.source_images import of_run
from hardy.engine.source_images import source_images as images_of
from hardy.engine.stream_table import Alarms, StreamTable
from hardy.engine.streaming import Over, Streaming
from hardy.engine.video_domain import video_of, video_part
from hardy.errors import InputError
from hardy.files import expanded
from hardy.networks.base import Network, refuse_plain
from hardy.ops.tensors import check_finite, checksum
from hardy.recipe import Recipe, from_values
from hardy.records import Record
from hardy.sections import Stream
from hardy.trust import from_file, names_typed

__all__ = ["run", "stream"]

_SECTIONS = ("data", "stream", "adapt")
"""The sections that the recipe of a stream may have."""


def stream(
    network: Network,
    data: str | Sequence[str] = (),
    *,
    stream: str | Mapping[str, Any] = "abrupt",
    adapt: str | Mapping[str, Any] = "source",
    root: str | Path | None = None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None,
    splits: Sequence[str] = (),
    size: Sequence[int] | None = None,
    device: str = "auto",
    seed: int = 0,
    source_images: Iterable[Tensor] | Tensor | None = None,
) -> StreamTable:
    """Show a stream of the domains ``data`` to a copy of ``network`` that adapts, and measure it.

    Args:
        network: any network; it does not change.
        data: domains such as ``["streets/day", "streets/night"]``, in the order of the stream.
        stream: ``abrupt``, ``gradual``, ``mixed``, ``recurring``, ``correlated``, ``recorded``, or a recipe's section
            ``stream``, such as ``{"kind": "recurring", "rounds": 20, "every": 3}``.
        adapt: a method of ``hardy list adaptation``, or ``{"name": ..., "reset": ..., options}``.
        root: folder of the data sets.
        datasets: options per data set, such as ``{"streets": {"test": 20}}``.
        splits: the splits to show, such as ``["val"]``; without any, all images.
        size: (height, width) to which images are resized; scores are at the masks' own size.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: seeds the method's random draws; the section's own ``seed`` seeds the order of the stream.
        source_images: see `hardy.adapt`.

    Raises:
        InputError: as `hardy.evaluate`, and for an empty stream.
        Stopped: with ``folder`` in ``stream``, after Ctrl-C or SIGTERM, when the state has been saved.
    """
    values = {
        "data": {
            "unseen": references(data),
            "root": root,
            "datasets": dict(datasets or {}),
            "unseen_splits": list(splits),
            "size": size,
        },
        "stream": {"kind": stream} if isinstance(stream, str) else dict(stream),
        "adapt": adapt,
        "run": {"device": device, "seed": seed},
    }
    recipe = from_values({"network": {"run": "a network in memory"}, **values}, origin="arguments")
    return _shown(network, recipe, source_images)


def _shown(
    network: Network,
    recipe: Recipe,
    source_images: Iterable[Tensor] | Tensor | None = None,
    over: Over = lambda places: places,
) -> StreamTable:
    """The table of the stream of ``recipe``; ``over`` iterates over the places of its frames."""
    assert recipe.stream is not None
    assert recipe.adapt is not None
    refuse_plain(network)
    check_finite(network)
    data, choice = recipe.data, recipe.stream
    if not data.unseen and not choice.unlabelled:
        raise InputError("no data named; give domains such as camvid/0001TP, or stream.unlabelled=[photos]")
    protocol.large_enough(network, {"size": data.size})
    parts = [*protocol.split(data, seed=0).unseen]
    root = sources.data_root(data.root)
    parts += _without_labels(network, choice, root)
    known = sources.domains(choice.sources, root=root, options=data.datasets) if choice.sources else []
    network.to(pick(recipe.run.device))
    with evaluating(network):
        adapt, seed = recipe.adapt, recipe.run.seed
        images = images_of(data, seed) if source_images is None else source_images
        live = adapted(network, adapt.name, adapt.options, seed, images, guard=adapt.guard)
        made = Streaming(
            live,
            network,
            parts,
            [(domain, domain.items()) for domain in known],
            choice=choice,
            reset=recipe.adapt.reset,
            size=data.size,
            owner=_owner(network, recipe),
        )
        return made.run(over=over)


def _without_labels(network: Network, choice: Stream, root: Path) -> list[DomainItems]:
    """The folders and videos ``unlabelled`` of ``choice``, each as a domain, in order.

    Raises:
        InputError: for one that cannot be read, or a random order of the frames of a video.
    """
    found = {name: video_of(name, root) for name in choice.unlabelled}
    folders = unlabelled.find([name for name in found if found[name] is None], root, "stream.unlabelled")
    parts, space, whole = dict[str, DomainItems](), network.label_space, network.image_level
    for folder in folders:
        parts[folder[0]] = unlabelled.source([folder], space, image_level=whole, name=folder[0])
    for name, video in found.items():
        if video is None:
            continue
        if choice.image_order == "drawn":
            raise InputError(
                f"stream.image_order: drawn: the frames of {name} can be decoded only in order; write them to a folder "
                "with ffmpeg and name that, or leave image_order out"
            )
        parts[name] = video_part(name, video, space, image_level=whole)
    return [parts[name] for name in found]


def _owner(network: Network, recipe: Recipe) -> str:
    """An identifier of a stream with a network: a hash of everything that affects its result."""
    values = recipe.model_dump(mode="json", include={"data", "stream", "adapt"})
    for key in ("folder", "checkpoint_every"):
        values["stream"].pop(key)
    text = json.dumps({**values, "seed": recipe.run.seed}, sort_keys=True)
    return hashlib.blake2b((text + checksum(network.state_dict(), {})).encode(), digest_size=16).hexdigest()


def run(
    folder: Path,
    words: Sequence[str],
    *,
    domains: Sequence[str] = (),
    root: str | None = None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None,
    splits: Sequence[str] = (),
    size: Sequence[int] | None = None,
    device: str = "auto",
) -> None:
    """Show a stream to the network in ``folder``, print the scores and append them to the folder's records.

    Args:
        folder: the run's folder; its seed seeds the method's random draws.
        words: ``stream.key=value`` and ``adapt.key=value``, and at most one file with the sections ``data``,
            ``stream`` and ``adapt``.
        domains: replace the file's ``data.unseen``.
        root: folder of the data sets; by default the run's own.
        datasets: options per data set; without a file of a stream the others are the run's own.
        splits: the splits to show.
        size: (height, width); without it, as in the run's recipe.
        device: where it runs.

    Raises:
        InputError: as `stream`; after the table, for frames that could not be used.
    """
    network = artefact.load(folder)
    check_finite(network, folder)
    origin = origin_of(folder)
    given = {"root": root, "datasets": datasets, "unseen_splits": list(splits), "size": size or origin.size}
    recipe = _recipe(words, domains, given, {"device": device, "seed": origin.seed}, origin)
    images = None if recipe.data.sources else of_run(origin, root)
    table = _shown(network, recipe, images and bar(images, "source images"), partial(bar, name="frames"))
    assert recipe.adapt is not None
    assert recipe.stream is not None
    _show(f"{folder} on {', '.join(table.domains)}: {recipe.stream.kind}, {recipe.adapt.name}", table)
    say_lineage(str(folder), network)
    keep_records(folder, _records(origin, table, _noted(recipe, table)))
    if table.skipped:
        place, name, reason = table.skipped[0]
        many = f"{len(table.skipped)} of {len(table.skipped) + len(table.places)} frames were skipped"
        raise InputError(f"{folder}: {many}; the first, frame {place}, {name}: {reason}")


def _noted(recipe: Recipe, table: StreamTable) -> dict[str, Any]:
    """The notes of the records of a stream: what it showed, and the method."""
    assert recipe.stream is not None
    data = recipe.data
    options = {"splits": list(data.unseen_splits), "datasets": data.datasets}
    shown = {"size": data.size, "options": options, "domains": list(table.domains)}
    return {**shown, "stream": recipe.stream.model_dump(mode="json"), **notes(recipe.adapt)}


def _records(origin: Origin, table: StreamTable, here: Mapping[str, Any]) -> list[Record]:
    """The records of ``table``, with the notes ``here`` and the round of numbers that have one."""
    known, versions, made = (origin.digest, "stream", origin.sources), provenance(), []
    for target, metric, value, number in table.numbers():
        own = {**here, "round": number} if number else here
        made.append(Record(*known, target, origin.seed, metric, value, {}, versions, own))
    return made


def _recipe(
    words: Sequence[str],
    domains: Sequence[str],
    given: Mapping[str, Any],
    machine: Mapping[str, Any],
    origin: Origin,
) -> Recipe:
    """The recipe from the words of the command line; values of ``given`` that are not empty override those of a file.

    The root, and without a file the options of data sets, are those of the run, unless they are given.

    Raises:
        InputError: for two files, a file with other sections, or a word for another section.
    """
    files = [word for word in words if "=" not in word]
    texts = [word for word in words if "=" in word]
    if len(files) > 1:
        raise InputError(f"{files[1]}: {files[0]} is also a recipe of a stream; give only one")
    values: dict[str, Any] = {}
    for file in files:
        values = safe_yaml.read(expanded(file)) or {}
        if not isinstance(values, dict) or set(values) - set(_SECTIONS):
            raise InputError(f"{file}: the recipe of a stream has only the sections {', '.join(_SECTIONS)}")
    data = {**(values.get("data") or {}), **{name: value for name, value in given.items() if value}}
    if domains:
        data["unseen"] = list(domains)
    whole = {
        "network": {"run": "a network in memory"},
        **values,
        "data": data,
        "stream": values.get("stream") or {},
        "adapt": values.get("adapt") or {"name": "source"},
        "run": machine,
    }
    data["root"] = origin.root(data.get("root"))
    if not files:
        data["datasets"] = origin.options([*domains, *origin.sources], data.get("datasets"))
        return from_values(whole, texts, "arguments")
    with from_file(names_typed(texts)):
        return from_values(whole, texts, files[0])


def _show(title: str, table: StreamTable) -> None:
    """Print a row per domain with a column per round, then the costs and the skipped frames."""
    rounds = range(1, table.rounds + 1) if table.rounds <= 10 else (1, table.rounds)
    probed = bool(table.probes)
    metric = "accuracy %" if table.image_level else "mIoU %"
    columns = ["domain", *(f"round {number}" for number in rounds), metric]
    columns += ["source", "before", "left", "final"] if probed else []
    rows = []
    for name in table.domains:
        own = [percent(table.online(name, number)) for number in rounds]
        ends = [percent(table.probe(moment, name)) for moment in ("source", "before", "left", "final")]
        rows.append([name, *own, percent(table.online(name)), *(ends if probed else [])])
    for name in table.sources:
        ends = [percent(table.probe(moment, name)) for moment in ("source", "before", "left", "final")]
        rows.append([name, *[""] * len(rounds), "", *ends])
    means = [percent(table.online(round=number)) for number in rounds]
    rows.append(["mean", *means, percent(table.online()), *[""] * (4 if probed else 0)])
    show_rows(title, columns, rows)
    worst, width, costs = table.worst, min(table.window, len(table.places)), table.costs
    say(f"worst window of {width} frames: {percent(worst.score)}, from frame {worst.start}")
    say(
        f"{len(table.places)} frames, {costs['updates']:.0f} batches adapted on (every {costs['every']:.0f}), "
        f"{costs['ms_per_frame']:.1f} ms per frame (source {costs.get('source_ms_per_frame', 0):.1f}), "
        f"{costs.get('memory_mib', 0):.0f} MiB"
    )
    if costs["nan_frames"]:
        say(f"{costs['nan_frames']:.0f} frames with NaN in their logits: the method has diverged")
    if "guard_forwards" in costs:
        _show_guard(table)
    for domain, found in table.detected.items():
        say(f"batches of {domain} by detected domain: {', '.join(f'{name} {n}' for name, n in found.items())}")
    for place, name, reason in table.skipped:
        say(f"frame {place}, {name}: SKIPPED: {reason}")


def _show_guard(table: StreamTable) -> None:
    """Print the actions of the guard by cause, and how often they were right."""
    log = GuardLog()
    for frame, cause, action in table.actions:
        log.add(frame, [(cause, action)])
    for line in log.lines("frame"):
        say(line)
    true, false, missed, _ = (f"{table.costs[f'alarms_{name}']:.0f}" for name in Alarms._fields)
    say(
        f"guard: {true} alarms while the source was better, {false} while it was not; {missed} batches without an "
        f"alarm while the source was better; {table.costs['guard_forwards']:.0f} forward passes"
    )
