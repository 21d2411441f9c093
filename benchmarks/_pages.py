"""Writes what the benchmarks recorded into ``docs/benchmarks/`` and ``README.md``, between their markers.

    python benchmarks/_pages.py

A study or benchmark has a page of its own in ``docs/benchmarks/``. Tables come from the records; the printed output of
the short benchmarks is kept as it was, with the machine's line. ``tests/test_benchmarks.py`` fails when a page differs.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, median

import bed_latency
import camvid_dusk
import camvid_latency
import light_networks
import reliability
import search
import streams
from hardy import records
from hardy.commands.output.summary import Summary
from hardy.records import Record
from hardy.report.pivot import coordinates, spread
from hardy.studies.study import read

ROOT = Path(__file__).parents[1]
TEXTS = tuple(sorted(file.stem for file in (ROOT / "benchmarks" / "records").glob("*.txt")))
STUDIES = (
    "camvid_gmacs",
    "ior_pacs",
    "ior_pacs_resnet18",
    "npdg_ablation",
    "streets_criteria",
    "streets_options",
    "streets_swiftnet",
)
MARKS = {
    ("pacs", "dense"): ("accuracy", 0.93),
    ("retina", "dense"): ("iou/vessel", 0.60),
    ("camvid", "lite0"): ("miou", 0.60),
    ("camvid", "fast_scnn"): ("miou", 0.45),
    ("streets", "fast_scnn"): ("miou", 0.40),
    ("streets", "mobilenetv2_035"): ("miou", 0.40),
}
"""The score on known domains that the dense networks of a bed must reach before methods are compared on it."""
PAGES = (*sorted((ROOT / "docs" / "benchmarks").glob("*.md")), ROOT / "README.md")


def blocks() -> dict[str, str]:
    """The text between the markers of each name."""
    store = ROOT / "benchmarks" / "records"
    found = {name: f"```text\n{(store / f'{name}.txt').read_text().strip()}\n```" for name in TEXTS}
    cells = records.read(camvid_dusk.STORE)
    found["camvid_dusk"] = camvid_dusk.text(cells)
    found["beds"] = "\n".join(beds(records.read(store / "beds.jsonl")))
    found["beds_compared"] = (store / "beds.txt").read_text().strip()
    found["bed_latency"] = bed_latency.text(records.read(bed_latency.STORE))
    found["latency"] = camvid_latency.text(records.read(camvid_latency.STORE))
    found["light_networks"] = light_networks.text(records.read(light_networks.STORE))
    found["reliability"] = reliability.text(records.read(reliability.STORE))
    found["search"] = f"```text\n{search.text(records.read(search.STORE))}\n```"
    found |= streams.tables.blocks(records.read(streams.STORE))
    pruning = records.read(store / "pruning_beds.jsonl")
    found["pruned_camvid"] = "\n".join(
        pruned(pruning, records.read(bed_latency.STORE), "camvid", "fast_scnn", "360x480")
    )
    found["pruning_scores"] = "\n".join(pruning_scores(pruning))
    for name in STUDIES:
        found[name] = "\n".join(study(name))
    found["streets_criteria_worst"] = "\n".join(study("streets_criteria", value="worst"))
    found["streets_options_worst"] = "\n".join(study("streets_options", value="worst"))
    found["streets_swiftnet_worst"] = "\n".join(study("streets_swiftnet", value="worst"))
    left = study("streets_criteria", value="cost", metric="parameters_after")
    found["streets_criteria_left"] = "\n".join(line for line in left if line.startswith("|"))
    for name in ("streets_criteria", "streets_options", "streets_swiftnet"):
        found[f"{name}_apart"] = "\n".join(apart(name, "streets/night"))
    found["camvid_gmacs_steps"] = "\n".join(apart("camvid_gmacs"))
    found["ior_pacs_intra"] = "\n".join(study("ior_pacs", value="intra"))
    return found


def pruning_scores(lines: Sequence[Record]) -> list[str]:
    """What is known about the scores of the pruned cells: the median over cells, with the least and the most."""
    readings = ("variance_share", "taylor_rank", "taylor_kept", "reliability")
    rows = ["| network | method | reading | first round | last round |", "|---|---|---|---:|---:|"]
    stages = dict.fromkeys(line.notes["of"] for line in lines)
    for stage, method, reading in product(stages, ("ior", "taylor"), readings):
        found = {}
        for place in ("scores_first", "scores_last"):
            mine = [line for line in lines if (line.notes["of"], line.target, line.metric) == (stage, place, reading)]
            found[place] = sorted(line.value for line in mine if line.notes["axes"]["method"] == method)
        if found["scores_first"]:
            texts = [f"{median(values):.4f} ({values[0]:.4f} to {values[-1]:.4f})" for values in found.values()]
            rows.append(f"| {stage.removeprefix('pruned_')} | {method} | `{reading}` | {' | '.join(texts)} |")
    return rows


def study(name: str, **shown: str) -> list[str]:
    """The table of a study: a row for all that its records name, less the rows and pairs of which nothing was run.

    Args:
        name: of the study and of its records.
        shown: in place of what the study's ``table`` says.
    """
    asked, _ = read(ROOT / "studies" / f"{name}.yaml", [f"table.{key}={value}" for key, value in shown.items()])
    cells = records.read(ROOT / "benchmarks" / "records" / f"{name}.jsonl")
    labels: dict[str, dict[str, dict[str, None]]] = {}
    for cell in cells:
        axes = labels.setdefault(cell.notes["of"], {})
        for axis, label in cell.notes["axes"].items():
            axes.setdefault(axis, {})[label] = None
    places = [
        coordinates(stage, dict(zip(labels[stage], combination, strict=True)))
        for stage in asked.stages
        if stage in labels
        for combination in product(*labels[stage].values())
    ]
    lines = Summary(asked, name, places, cells).markdown()
    return [line for line in lines if not line.endswith(("no pair is measured", "| – | – |", "| – |"))]


def beds(cells: Sequence[Record]) -> list[str]:
    """For each bed and its network the score on known domains against its mark, and on the unseen ones.

    Args:
        cells: the records of the studies in ``studies/beds``.

    Returns:
        The lines of a Markdown table; networks of which nothing was trained are listed too.
    """
    lines = ["| bed | network | cells | known % | mark % | unseen % | worst % |", "|---|---|---:|---:|---:|---:|---:|"]
    for (bed, network), (metric, mark) in MARKS.items():
        own = [one for one in cells if (one.notes["study"], one.notes["of"], one.metric) == (bed, network, metric)]
        scores = [[one.value for one in own if one.target == target] for target in ("intra", "unseen", "worst")]
        known, unseen, worst = ("–" if not values else _spread(values) for values in scores)
        lines.append(f"| {bed} | {network} | {len(scores[0])} | {known} | {100 * mark:.0f} | {unseen} | {worst} |")
    return lines


def pruned(cells: Sequence[Record], times: Sequence[Record], bed: str, network: str, size: str) -> list[str]:
    """The README's table of a bed: scores, work and time of the dense network and of what is left at half of its GMACs.

    Args:
        cells: the records of the studies in ``studies/pruning_beds``.
        times: the records of `bed_latency`.
        bed: the name of the bed.
        network: of its networks one, as in the names of the stages.
        size: of the images that were timed.

    Returns:
        The lines of a Markdown table, the method with the best unseen mean first. Work and time are the medians of the
        shares of the dense network's.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    for one in cells:
        axes = one.notes["axes"]
        wanted = one.notes["of"] in (network, f"pruned_{network}") and axes.get("removed", "0.5") == "0.5"
        if one.notes["study"] == f"{bed}_{network}" and wanted and (one.metric == "miou" or one.target == "cost"):
            own = scores.setdefault(axes.get("method", "dense"), {})
            own.setdefault(one.target if one.metric == "miou" else one.metric, []).append(one.value)
    shares: dict[str, list[float]] = {}
    for one in times:
        mine = (one.notes["bed"], one.notes["stage"], one.notes["removed"], one.notes["size"])
        if one.metric == "ms_ratio" and mine == (bed, f"pruned_{network}", "0.5", size):
            shares.setdefault(one.notes["method"], []).append(one.value)
    lines = [
        "| pruned by | known % | unseen % | seeds | share of GMACs | share of time |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for method in sorted(scores, key=lambda name: (name != "dense", -fmean(scores[name]["unseen"]))):
        own = scores[method]
        pairs = zip(own.get("gmacs_before", []), own.get("gmacs_after", []), strict=True)
        work = [after / before for before, after in pairs]
        texts = [f"{median(values):.2f}" if values else "–" for values in (work, shares.get(method))]
        spreads = [_spread(own["intra"]), _spread(own["unseen"]), str(len(own["unseen"]))]
        lines.append(f"| {' | '.join([method, *spreads, *texts])} |")
    return lines


def apart(name: str, hardest: str | None = None) -> list[str]:
    """The steps for which each network was trained while its filters were scored, and mIoU on a domain and the others.

    Args:
        name: of a study and of its records.
        hardest: the unseen domain whose score stands beside the mean over the others.
    """
    axes = [axis for axis in read(ROOT / "studies" / f"{name}.yaml")[0].grid if axis != "seed"]
    seeds: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
    steps: dict[tuple[str, ...], set[float]] = {}
    for record in records.read(ROOT / "benchmarks" / "records" / f"{name}.jsonl"):
        row = (record.notes["of"], *(record.notes["axes"].get(axis, "–") for axis in axes))
        steps.setdefault(row, set()).update(n for key, n in record.cost.items() if key == "score_steps")
        if record.metric == "miou" and "/" in record.target and record.target not in record.sources:
            seeds.setdefault(row, {}).setdefault(record.notes["axes"]["seed"], {})[record.target] = record.value
    shown = [f"{hardest} %", "mean of the other unseen %"] if hardest else []
    lines = [f"| {' | '.join(['stage', *axes, *shown, 'steps while scoring'])} |"]
    lines.append("|" + "---|" * (1 + len(axes)) + "---:|" * (1 + len(shown)))
    for row, found in seeds.items():
        others = [fmean(value for key, value in one.items() if key != hardest) for one in found.values()]
        numbers = [_spread([one[hardest] for one in found.values()]), _spread(others)] if hardest else []
        many = " to ".join(f"{n:g}" for n in sorted({min(steps[row]), max(steps[row])})) if steps[row] else "–"
        lines.append(f"| {' | '.join([*row, *numbers, many])} |")
    return lines


def _spread(values: list[float]) -> str:
    return spread(values, len(values))


def filled(page: str, texts: Mapping[str, str]) -> str:
    """``page`` with every marked block replaced by its text in ``texts``, as `blocks` gives them."""
    for name, block in texts.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        page = re.sub(pattern, lambda match, block=block: f"{match[1]}\n{block}\n\n{match[2]}", page, flags=re.DOTALL)
    return page


def main() -> None:
    """Fill every page."""
    texts = blocks()
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8"), texts), encoding="utf-8")


if __name__ == "__main__":
    main()
