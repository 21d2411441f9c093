"""Methods on streams of drawn streets, with and without a guard, at three learning rates: mIoU less the source's.

    python benchmarks/streams.py --networks runs/beds/streets/cells    # measure what is missing
    python benchmarks/streams.py --quick                               # the tables from the records

Nine drawn domains come back in rounds, one frame at a time, each once a round, without a reset. A stream is an order of
domains and frames: ``abrupt`` has domain after domain, ``mixed`` a domain drawn for each frame; each has six orders,
1 to 6, and each order a network of its own: the one of the bed with seed 0 to 5. The learning rates are the method's
default times a factor. Cells go to ``benchmarks/records/streams.jsonl`` one by one, so that a stopped run continues.

The limits of the guard were chosen on TENT and on batch statistics, on another stream (``abrupt/0``) of other drawings
of the same domains, with another network.
"""

import argparse
import inspect
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import hardy
from hardy import records
from hardy.engine.stream_table import StreamTable
from hardy.networks.base import Network
from hardy.records import Record
from hardy.registry import ADAPTATIONS
from hardy.timing.hardware import fingerprint

STORE = Path(__file__).parent / "records" / "streams.jsonl"
NAMES = ("sim", "day", "dusk", "night", "fog", "rain", "snow", "city_b", "camera_b")
METHODS = {
    "bn_stats": {},
    "tent": {},
    "eta": {},
    "sar": {},
    "roid": {},
    "cotta": {"views": "light"},
    "dose": {"form": "light"},
}
"""What is compared, with the options that make it light. ``rdumb`` is ``eta`` on streams of under 1000 frames."""
STREAMS = tuple((kind, seed) for kind in ("abrupt", "mixed") for seed in range(1, 7))
FACTORS = (0.1, 1.0, 10.0)
GUARDED = (1.0, 10.0)
ALLOWED = 0.5
"""By how many points a round may be below the source network under a guard."""


def cells() -> Iterator[tuple[str, int, str, float, bool]]:
    """Kind and seed of the stream, method, factor of its learning rate, whether it has a guard; what matters first."""
    usual = [("source", 1.0, False), *((name, 1.0, guarded) for guarded in (False, True) for name in METHODS)]
    fast = [(name, 10.0, guarded) for guarded in (True, False) for name in METHODS if rate(name)]
    slow = [(name, 0.1, False) for name in METHODS if rate(name)]
    for kind, plan in [*product(("abrupt", "mixed"), (usual, fast)), ("abrupt", slow), ("mixed", slow)]:
        yield from ((kind, seed, *one) for each, seed in STREAMS if each == kind for one in plan)


def rate(name: str) -> float | None:
    """The default learning rate of a method for pixels; None if it has none."""
    if name == "cotta":
        return 7.5e-6
    options = inspect.signature(ADAPTATIONS.get(name)).parameters
    return float(options["lr"].default) if "lr" in options else None


def network_of(folder: Path, seed: int) -> Path:
    """The run of the network that the orders with ``seed`` have."""
    return folder / f"fast_scnn,seed={seed - 1}"


def measured(network: Network, cell: tuple[str, int, str, float, bool], images: int, rounds: int, cache: str) -> Record:
    """The scores of one cell."""
    kind, seed, name, factor, guarded = cell
    options = dict(METHODS.get(name, {}))
    if factor != 1.0:
        options["lr"] = factor * (rate(name) or 0.0)
    start = time.process_time()
    table = hardy.stream(
        network,
        [f"streets/{domain}" for domain in NAMES],
        splits=["test"],
        datasets={"streets": {"size": [96, 192], "test": images, "seed": 1, "cache_folder": cache}},
        stream={
            "kind": kind,
            "rounds": rounds,
            "domain_order": "drawn",
            "image_order": "drawn",
            "seed": seed,
            "probe": 0,
            "window": min(50, images * len(NAMES)),
        },
        adapt={"name": name, "reset": "never", "guard": guarded, **options},
        device="cpu",
    )
    notes = {
        "stream": f"{kind}/{seed}",
        "method": name,
        "factor": factor,
        "guard": guarded,
        "images": images,
        "cells": _scores(table),
        "alarms": {key: int(value) for key, value in table.costs.items() if key.startswith(("alarms_", "guard_"))},
    }
    versions = {key: str(value) for key, value in fingerprint().to_json().items()}
    cost = {"seconds": time.process_time() - start, "updates": table.costs["updates"]}
    return Record("", "stream", (), "stream", seed, "online_miou", table.online(), cost, versions, notes)


def _scores(table: StreamTable) -> list[list[float]]:
    """The mIoU of every domain (columns) in every round (rows)."""
    return [
        [round(table.online(domain, number), 5) for domain in table.domains] for number in range(1, table.rounds + 1)
    ]


def less_source(found: Sequence[Record]) -> dict[tuple[str, int | float, bool], dict[str, torch.Tensor]]:
    """For each method, factor and guard, and each stream: points (rounds, domains) less the source network's."""
    source = {one.notes["stream"]: torch.tensor(one.notes["cells"]) for one in found if one.notes["method"] == "source"}
    apart: dict[tuple[str, int | float, bool], dict[str, torch.Tensor]] = {}
    for one in found:
        note = one.notes
        if note["method"] != "source":
            key = note["method"], note["factor"], note["guard"]
            points = 100 * (torch.tensor(note["cells"]) - source[note["stream"]])
            apart.setdefault(key, {})[note["stream"]] = points
    return apart


def text(found: Sequence[Record]) -> str:
    """The tables in Markdown, and whether the goal of the guard is met; ``docs/benchmarks/streams.md`` has this."""
    apart = less_source(found)
    lines = [
        "| method | rate | kind | orders | mean | won | worst round | guarded: orders | mean | won | worst round "
        "| alarms true, false | missed |",
        "|---|---:|---|" + "---:|" * 10,
    ]
    for name, factor in dict.fromkeys((name, factor) for name, factor, _ in apart):
        for kind in dict.fromkeys(kind for kind, _ in STREAMS):
            rows = [_of_kind(apart.get((name, factor, guarded), {}), kind) for guarded in (False, True)]
            if any(rows):
                counts = [sum(_alarms(found, name, factor, kind, what)) for what in ("true", "false", "missed")]
                alarms = [f"{counts[0]}, {counts[1]}", str(counts[2])] if rows[1] else ["–", "–"]
                row = [name, f"x{factor:g}", kind, *_four(rows[0]), *_four(rows[1]), *alarms]
                lines.append(f"| {' | '.join(row)} |")
    lines += ["", "| method, no guard | default rate | " + " | ".join(f"x{one:g}" for one in FACTORS) + " |"]
    lines.append("|---|---:|" + "---:|" * len(FACTORS))
    for name in METHODS:
        rows = [list(apart.get((name, factor, False), {}).values()) for factor in FACTORS]
        if rate(name) is not None and any(rows):
            means = [f"{fmean(float(each.mean()) for each in row):+.2f} ({len(row)})" if row else "–" for row in rows]
            lines.append(f"| {name} | {rate(name):g} | {' | '.join(means)} |")
    source = [100 * (one.value or 0) for one in found if one.notes["method"] == "source"]
    if source:
        lines += ["", f"The source networks: {min(source):.1f} to {max(source):.1f} on {len(source)} orders."]
    kept = [points for (_, _, guarded), each in apart.items() if guarded for points in each.values()]
    worst = min((float(points.mean(1).min()) for points in kept), default=0.0)
    return "\n".join([*lines, "", f"figure guarded_worst_round_points {worst:.2f} goal >={-ALLOWED}"])


def _of_kind(each: Mapping[str, torch.Tensor], kind: str) -> list[torch.Tensor]:
    """The points of the streams of a kind."""
    return [points for stream, points in each.items() if stream.startswith(f"{kind}/")]


def _alarms(found: Sequence[Record], name: str, factor: float, kind: str, what: str) -> list[int]:
    """The alarms of a guarded method that were ``what``, order by order."""
    notes = [one.notes for one in found if one.notes["guard"] and one.notes["stream"].startswith(f"{kind}/")]
    return [one["alarms"][f"alarms_{what}"] for one in notes if (one["method"], one["factor"]) == (name, factor)]


def _four(orders: Sequence[torch.Tensor]) -> list[str]:
    """How many orders, the mean over them, in how many it is above 0, and the worst round of any."""
    if not orders:
        return ["–"] * 4
    means = [float(points.mean()) for points in orders]
    worst = min(float(points.mean(1).min()) for points in orders)
    won = sum(mean > 0 for mean in means)
    return [str(len(means)), f"{fmean(means):+.2f}", f"{won}/{len(means)}", f"{worst:+.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=Path, help="the folder of the cells of the bed streets")
    parser.add_argument("--images", type=int, default=6, help="of each domain in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=None, help="start no cell after this time")
    parser.add_argument("--quick", action="store_true", help="only the tables from the records")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = records.read(STORE) if STORE.exists() else []
    done = {tuple(one.notes[key] for key in ("stream", "method", "factor", "guard")) for one in found}
    start, drawn = time.monotonic(), TemporaryDirectory()
    for cell in cells() if given.networks and not given.quick else ():
        if (f"{cell[0]}/{cell[1]}", *cell[2:]) in done or not (
            network_of(given.networks, cell[1]) / "network.json"
        ).is_file():
            continue
        if given.minutes is not None and time.monotonic() - start > 60 * given.minutes:
            break
        network = hardy.load(network_of(given.networks, cell[1]))
        one = measured(network, cell, given.images, given.rounds, drawn.name)
        records.append(STORE, [one])
        found.append(one)
        print(f"{cell}: {100 * one.value:.2f}, {one.cost['seconds']:.0f} s", flush=True)
    drawn.cleanup()
    print(text(found))


if __name__ == "__main__":
    main()
