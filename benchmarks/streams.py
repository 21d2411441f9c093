"""Methods on streams, with and without a guard and its parts: points of mIoU less the source network's.

    python benchmarks/streams.py --networks runs/beds/streets/cells --list     # the groups of cells and what they cost
    python benchmarks/streams.py --networks runs/beds/streets/cells --only group=headline
    python benchmarks/streams.py --search runs/search                          # rates, on a network that is not shown
    python benchmarks/streams.py --quick                                       # the tables from the records
    python benchmarks/streams.py --quick --only group=guard                    # a short form, on an untrained network

Nine drawn domains come back in rounds, one frame at a time, without a reset. A stream is an order of domains and
frames: ``abrupt`` has domain after domain, in ``gradual`` neighbours cross-fade, in ``mixed`` the domain of each frame
is drawn. Each has six orders, and each order images and a network of its own: those drawn with that seed, and the run
of the bed with seed 0 to 5. The streams on real images are ``recipes/streams/camvid_*.yaml``. Rates are the method's
times a factor; its own is the default, or what ``--search`` chose on two other orders with another network. Cells go to
``benchmarks/records/streams.jsonl`` one by one, with what an interval over frames needs, so that a stopped run goes on.

The limits of the guard were chosen on TENT and on batch statistics, on another stream (``abrupt/0``) of other drawings
of the same domains, with another network.
"""

import argparse
import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from glob import escape, glob
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import _stream_tables as tables
import hardy
from _stream_cells import (
    ORDERS,
    RECIPES,
    SEARCHED,
    Cell,
    adapting,
    cells,
    chosen,
    default,
    rate,
    searched,
    streamed,
)
from hardy import records
from hardy.data import sources
from hardy.data.stream import Frame, order
from hardy.engine.image_counts import names_of
from hardy.engine.run_folder import origin_of
from hardy.engine.stream_table import StreamTable
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.tensors import checksum
from hardy.records import Record
from hardy.report.resample import images
from hardy.sections import Stream
from hardy.seed import seeded
from hardy.timing.hardware import fingerprint

STORE = Path(__file__).parent / "records" / "streams.jsonl"
SIZE = (192, 256)
"""(height, width) of CamVid's images for a network whose run does not say it."""


def text(found: Sequence[Record]) -> str:
    """All tables in Markdown, and whether the goal of the guard is met."""
    blocks = tables.blocks(found)
    last = blocks.pop("streams")
    return "\n\n".join([*(f"{name}\n\n{block}" for name, block in blocks.items()), last])


def networks(place: str, name: str) -> dict[int, Path]:
    """The runs of a glob, or of a folder of the bed's cells, by the order that has them: the run's seed plus 1.

    Raises:
        InputError: for a glob without a run, or two runs with one seed.
    """
    pattern = f"{escape(place)}/fast_scnn,seed=*" if Path(place).is_dir() else place
    found: dict[int, Path] = {}
    for path in sorted(map(Path, glob(pattern))):
        if not (path / "network.json").is_file():
            continue  # still being trained
        at = origin_of(path).seed + 1
        if at in found:
            raise InputError(f"{name}: {found[at].name} and {path.name} have the same seed; name one run of each seed")
        found[at] = path
    if not found:
        raise InputError(f"{name}: no finished run is at {pattern}; give a folder of cells, or a glob of runs")
    return found


def measured(network: Network, cell: Cell, rates: Mapping[str, float], size: Sequence[int], cache: str) -> Record:
    """The scores of one cell.

    Args:
        network: the source network.
        cell: what is measured.
        rates: the methods' learning rates, where they are not the defaults.
        size: (height, width) of real images.
        cache: folder of drawn images.

    Raises:
        InputError: for data that are missing, or whose classes are not the network's.
    """
    shown = streamed(cell, cache)
    start = time.process_time()
    given = {**shown, "size": list(size) if cell.kind in RECIPES else None}
    table = hardy.stream(network, **given, adapt=adapting(cell, rates), device="cpu", seed=cell.order)
    seconds = time.process_time() - start
    guarded = {key: int(value) for key, value in table.costs.items() if key.startswith(("alarms_", "guard_"))}
    own = ("kind", "order", "rounds", "images", "source", "method", "guard", "variant", "every")
    notes = {
        **{name: getattr(cell, name) for name in own},
        "lr": rate(cell, rates),
        "network": checksum(network.state_dict(), {})[:12],
        "cells": _scores(table),
        "worst_window": round(table.worst.score, 5),
        "known": _known(table),
        "alarms": guarded,
        **_frames(table, shown),
    }
    versions = {key: str(value) for key, value in fingerprint().to_json().items()}
    cost = {"seconds": seconds, "updates": table.costs["updates"], "frames": len(table.places)}
    return Record("", "stream", (), "stream", cell.order, "online_miou", table.online(), cost, versions, notes)


def _scores(table: StreamTable) -> list[list[float]]:
    """The mIoU of every domain (columns) in every round (rows)."""
    return [
        [round(table.online(domain, number), 5) for domain in table.domains] for number in range(1, table.rounds + 1)
    ]


def _known(table: StreamTable) -> list[float]:
    """The mean score on domains that the network knows, before the stream and after it; empty without a probe."""
    known = table.sources or table.domains[:2]
    ends = [[table.probe(moment, name) for name in known] for moment in ("source", "final")]
    return [round(float(np.mean(one)), 5) for one in ends] if table.probes else []


def _frames(table: StreamTable, shown: Mapping[str, Any]) -> dict[str, Any]:
    """What an interval over frames needs: of each image the sums over its rounds, domain by domain.

    Raises:
        InputError: where a frame was skipped.
    """
    if table.skipped:
        raise InputError(f"{table.skipped[0][1]}: {table.skipped[0][2]}; every frame of a stream is needed")
    parts = sources.domains(shown["data"], root=sources.data_root(), options=shown["datasets"])
    items = [domain.items(*shown["splits"]) for domain in parts]
    sizes = [(domain.name, len(own)) for domain, own in zip(parts, items, strict=True)]
    frames: list[Frame] = order(sizes, Stream(**shown["stream"]))
    assert [(frame.round, frame.domain) for frame in frames] == [tuple(place) for place in table.places]
    said, sums, classes = [str(sorted(shown["datasets"].items()))], [], len(table.classes)
    for place, (domain, own) in enumerate(zip(parts, items, strict=True)):
        seen = sorted({frame.item for frame in frames if frame.domain == place})
        names = names_of(domain.dataset, [own[item] for item in seen])
        at = [[n for n, frame in enumerate(frames) if frame[1:] == (place, item)] for item in seen]
        counts = np.stack([table.counts[one].sum(0).numpy() for one in at])
        sums.append(images(names, counts[:, :classes, :classes], counts[:, :classes, classes]).sums)
        said += [domain.name, *names]
    digest = hashlib.sha256("\n".join(part for part in said if "cache" not in part).encode()).hexdigest()[:12]
    return {"shown": digest, "frames": list(map(len, sums)), "classes": classes, "sums": tables.packed(sums)}


def seconds_of(cell: Cell, found: Iterable[Record]) -> float:
    """About how many seconds of one core a cell takes, by the cells that are recorded."""
    known: dict[tuple[str, ...], list[float]] = {}
    for one in found:
        if one.metric != "lr":
            note, real = one.notes, one.notes["kind"] in RECIPES
            each = one.cost["seconds"] / one.cost.get("frames", 162)
            for at in ((note["method"], note["variant"], str(bool(note["guard"]))), (note["method"],)):
                known.setdefault((str(real), *at), []).append(each)
    real = cell.kind in RECIPES
    for kind, factor in ((real, 1.0), (not real, SIZE[0] * SIZE[1] / (96 * 192) if real else 1.0)):
        for at in ((cell.method, cell.variant, str(bool(cell.guard))), (cell.method,), ("source",)):
            if times := known.get((str(kind), *at)):
                return cell.frames * factor * median(times)
    return 0.05 * cell.frames


def listed(made: Sequence[Cell], missing: Sequence[Cell], absent: Sequence[Cell], found: Sequence[Record]) -> str:
    """A line for each group: cells, those left, of these those without a network, and seconds of one core for them."""
    lines = ["group              cells   left   no network   CPU s of those left"]
    for group in dict.fromkeys(cell.group for cell in made):
        own = [[cell for cell in part if cell.group == group] for part in (made, missing, absent)]
        cost = sum(seconds_of(cell, found) for cell in own[1])
        lines.append(f"{group:<18} {len(own[0]):>5}  {len(own[1]):>5}  {len(own[2]):>11}  {cost:>20,.0f}")
    return "\n".join(lines)


def run(
    left: Sequence[Cell],
    runs: Mapping[tuple[str, int], Path],
    store: Path,
    rates: Mapping[str, float],
    minutes: float | None,
) -> None:
    """Measure the cells that have a network, one by one; none starts after ``minutes``."""
    start = time.monotonic()
    with TemporaryDirectory() as drawn:
        for cell in left:
            if minutes is not None and time.monotonic() - start > 60 * minutes:
                break
            folder = runs.get((cell.source, cell.order))
            if folder is None:
                continue
            network, made = hardy.load(folder), origin_of(folder).recipe
            one = measured(network, cell, rates, (made.data.size if made else None) or SIZE, drawn)
            records.append(store, [one])
            said = " ".join(f"{axis}={value}" for axis, value in cell.axes().items() if value not in ("none", "bed"))
            print(f"{said}: {100 * (one.value or 0):.2f}, {one.cost['seconds']:.0f} s", flush=True)


def freeze(store: Path) -> None:
    """Record for each method the rate with which it scored best, where all of its cells are measured."""
    for name, own in tables.searches(records.read(store)).items():
        usual, factor = default(name), tables.best(own)
        if usual is None or factor is None:
            print(f"{name}: not all of its cells are measured yet; no rate is recorded")
            continue
        lr = float(f"{factor * usual:.6g}")
        records.append(store, [Record("", "stream", (), name, 0, "lr", lr, notes={"source": "search"})])
        print(f"{name}: {lr:g}, {'its default' if factor == 1 else f'{factor:g} times its default'}")


def tried(only: Sequence[str], *, search: bool) -> None:
    """The short form: the first order, one image a domain, an untrained network; the records are thrown away."""
    made = list(searched(1, 1)) if search else [*cells(1, 1, ["other"])]
    kept = chosen(made, only)
    if not search:
        kept = [replace(cell, images=1) for cell in kept if cell.order == kept[0].order]
        source = [replace(cell, group="", method="source", factor=1.0, guard="", variant="", every=1) for cell in kept]
        kept = [*dict.fromkeys(source), *(cell for cell in kept if cell.method != "source")]
    with TemporaryDirectory() as folder:
        store = Path(folder) / "streams.jsonl"
        for space in dict.fromkeys(_space(cell) for cell in kept):
            with seeded(0, "network"):
                hardy.save(hardy.create("tiny", space, width=8), Path(folder) / space)
            fits = [cell for cell in kept if _space(cell) == space]
            run(fits, {(cell.source, cell.order): Path(folder) / space for cell in fits}, store, {}, None)
        if search:
            freeze(store)
        print(text(records.read(store)))


def _space(cell: Cell) -> str:
    """The classes of an untrained network for a cell."""
    return "camvid11" if cell.kind in RECIPES else "cityscapes19"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", metavar="DIR", help="the cells of the bed, or a glob of runs, one of each seed")
    parser.add_argument("--source", metavar="NAME=GLOB", action="append", default=[], help="further source networks")
    parser.add_argument(
        "--search", metavar="RUN", nargs="?", const="", help="search rates with the network of this run"
    )
    parser.add_argument("--only", metavar="AXIS=VALUE", action="append", default=[], help="such as method=tent,dose")
    parser.add_argument("--images", type=int, default=6, help="of each drawn domain in a round")
    parser.add_argument("--rounds", type=int, default=3, help="of the drawn streams")
    parser.add_argument("--minutes", type=float, default=None, help="start no cell after this time")
    parser.add_argument("--list", action="store_true", help="only what there is to measure, and what it costs")
    parser.add_argument(
        "--quick", action="store_true", help="the tables; with --only or --search a short form of these"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if given.quick and (given.only or given.search is not None):
            tried(given.only, search=given.search is not None)
        else:
            measure(given)
    except InputError as error:
        parser.exit(2, f"streams.py: {error}\n")


def measure(given: argparse.Namespace) -> None:
    """List or measure what the command line asks for, then print the tables.

    Raises:
        InputError: for words that do not fit, or data and networks that do not.
    """
    found = records.read(STORE) if STORE.exists() else []
    further = dict(_named(word) for word in given.source)
    places = {"": given.networks, **further}
    runs = {
        (name, at): folder
        for name, place in places.items()
        if place
        for at, folder in networks(place, f"--source {name}" if name else "--networks").items()
    }
    if given.search is not None:
        runs = {("search", at): _not_shown(given.search, runs.values()) for at in SEARCHED}
    made = list(
        searched(given.rounds, given.images)
        if given.search is not None
        else cells(given.rounds, given.images, [*further])
    )
    made, known = chosen(made, given.only), {} if given.search is not None else tables.rates(found)
    done = {tables.key(one.notes) for one in found if one.metric != "lr" and one.notes["sums"]}
    left = [cell for cell in made if _key(cell, known) not in done]
    if given.list:
        print(listed(made, left, [cell for cell in left if (cell.source, cell.order) not in runs], found))
        return
    if runs and not given.quick:
        run(left, runs, STORE, known, given.minutes)
        if given.search is not None:
            freeze(STORE)
    print(text(records.read(STORE)))


def _named(word: str) -> tuple[str, str]:
    """The name and the glob of a further source network.

    Raises:
        InputError: for a word without a name, or a name that has a meaning.
    """
    name, _, place = word.partition("=")
    if not name or not place or name in ("bed", "search"):
        raise InputError(f"--source {word!r}: give NAME=GLOB, such as pruned='runs/pruned/cells/*'; not bed or search")
    return name, place


def _not_shown(run: str, shown: Iterable[Path]) -> Path:
    """The folder of the network for the search.

    Raises:
        InputError: for none, or one that is shown.
    """
    folder = Path(run)
    if not (folder / "network.json").is_file():
        raise InputError(f"--search {run}: no network is there; give the folder of a run")
    made = origin_of(folder)
    bed = made.recipe is not None and made.recipe.network.name == "fast_scnn" and made.seed + 1 in ORDERS
    if bed or folder.resolve() in [path.resolve() for path in shown]:
        raise InputError(
            f"--search {run}: it is one of the networks shown (Fast-SCNN, seeds 0 to 5); train another seed"
        )
    return folder


def _key(cell: Cell, known: Mapping[str, float]) -> tuple[Any, ...]:
    return tables.key({**vars(cell), "lr": rate(cell, known)})


if __name__ == "__main__":
    main()
