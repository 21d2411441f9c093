"""Methods on streams of drawn streets, with and without a guard, at three learning rates: mIoU less the source's.

    python benchmarks/streams.py --network runs/beds/streets/cells/fast_scnn,seed=0    # measure what is missing
    python benchmarks/streams.py --quick                                               # the tables from the records

Nine drawn domains come back in rounds, one frame at a time, each once a round, without a reset. A stream is an order of
domains and frames: ``abrupt/1`` has domain after domain, ``mixed/2`` a domain drawn for each frame; the number is the
seed of the order. The learning rates are the method's default times a factor. Cells go to
``benchmarks/records/streams.jsonl`` one by one, so that a stopped run continues.

The limits of the guard were chosen on TENT and on batch statistics, on another stream (``abrupt/0``) of other drawings
of the same domains. One network and as many orders as are listed: an illustration, no test.
"""

import argparse
import inspect
import os
import time
from collections.abc import Iterator, Sequence
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
STREAMS = (("abrupt", 1), ("mixed", 2))
FACTORS = (0.1, 1.0, 10.0)
GUARDED = (1.0, 10.0)
ALLOWED = 0.5
"""By how many points a round may be below the source network under a guard."""


def cells() -> Iterator[tuple[str, int, str, float, bool]]:
    """Kind and seed of the stream, method, factor of its learning rate, whether it has a guard; what matters first."""
    for kind, seed in STREAMS:
        yield kind, seed, "source", 1.0, False
        for guarded in (True, False):
            for name in METHODS:
                factors = (1.0,) if rate(name) is None else GUARDED if guarded else FACTORS
                yield from ((kind, seed, name, factor, guarded) for factor in factors)


def rate(name: str) -> float | None:
    """The default learning rate of a method for pixels; None if it has none."""
    if name == "cotta":
        return 7.5e-6
    options = inspect.signature(ADAPTATIONS.get(name)).parameters
    return float(options["lr"].default) if "lr" in options else None


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
    """The two tables in Markdown, and whether the goal of the guard is met; ``docs/benchmarks/streams.md`` has this."""
    apart, streams = less_source(found), list(dict.fromkeys(one.notes["stream"] for one in found))
    alarms = {
        (one.notes["method"], one.notes["factor"], one.notes["stream"]): one for one in found if one.notes["guard"]
    }
    head = (
        "method | rate | stream | without: mean | worst round | worst domain | with: mean | worst round | worst domain"
    )
    lines = [f"| {head} | alarms true, false | missed |", "|---|---:|---|" + "---:|" * 8]
    for (name, factor, guarded), each in apart.items():
        for stream in each if guarded else ():
            bare = apart.get((name, factor, False), {}).get(stream)
            counts = alarms[name, factor, stream].notes["alarms"]
            row = [name, f"x{factor:g}", stream, *_three(bare), *_three(each[stream])]
            row += [f"{counts['alarms_true']}, {counts['alarms_false']}", str(counts["alarms_missed"])]
            lines.append(f"| {' | '.join(row)} |")
    lines += ["", "| method, no guard | default rate | " + " | ".join(f"x{one:g}" for one in FACTORS) + " | streams |"]
    lines.append("|---|---:|" + "---:|" * (len(FACTORS) + 1))
    for name in METHODS:
        rows = [apart.get((name, factor, False), {}) for factor in FACTORS]
        known = [stream for stream in streams if any(stream in row for row in rows)]
        if rate(name) is not None and known:
            means = [f"{fmean(float(each.mean()) for each in row.values()):+.2f}" if row else "–" for row in rows]
            lines.append(f"| {name} | {rate(name):g} | {' | '.join(means)} | {', '.join(known)} |")
    source = [one for one in found if one.notes["method"] == "source"]
    scores = ", ".join(f"{100 * (one.value or 0):.1f} on {one.notes['stream']}" for one in source)
    lines += ["", f"The source network: {scores}."]
    kept = [points for (_, _, guarded), each in apart.items() if guarded for points in each.values()]
    worst = min((float(points.mean(1).min()) for points in kept), default=0.0)
    return "\n".join([*lines, "", f"figure guarded_worst_round_points {worst:.2f} goal >={-ALLOWED}"])


def _three(points: torch.Tensor | None) -> list[str]:
    """The mean, the worst round, and the worst domain in a round."""
    if points is None:
        return ["–"] * 3
    return [f"{float(value):+.2f}" for value in (points.mean(), points.mean(1).min(), points.min())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", help="the run of a network trained on streets/sim and streets/day")
    parser.add_argument("--images", type=int, default=6, help="of each domain in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=None, help="start no cell after this time")
    parser.add_argument("--quick", action="store_true", help="only the tables from the records")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = records.read(STORE) if STORE.exists() else []
    done = {tuple(one.notes[key] for key in ("stream", "method", "factor", "guard")) for one in found}
    network, start = hardy.load(given.network) if given.network else None, time.monotonic()
    drawn = TemporaryDirectory()
    for cell in cells() if network is not None and not given.quick else ():
        if (f"{cell[0]}/{cell[1]}", *cell[2:]) in done:
            continue
        if given.minutes is not None and time.monotonic() - start > 60 * given.minutes:
            break
        one = measured(network, cell, given.images, given.rounds, drawn.name)
        records.append(STORE, [one])
        found.append(one)
        print(f"{cell}: {100 * one.value:.2f}, {one.cost['seconds']:.0f} s", flush=True)
    drawn.cleanup()
    print(text(found))


if __name__ == "__main__":
    main()
