"""The origin of the numbers: training curves, the cost and gain of each step, environment, commands."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import replace
from html import escape
from statistics import fmean

from hardy.report.page.drawing import lines
from hardy.report.page.markup import Cell, number, percent, section, table
from hardy.report.page.overview import safe_json
from hardy.report.page.subject import Subject
from hardy.report.runs import Network

__all__ = ["commands", "curves", "environment", "steps"]

POINTS = 300
"""The largest number of points of a curve."""

_STATE = ("folder", "checkpoint_every")
"""The keys of a stream that do not change its frames."""


def curves(subject: Subject) -> str:
    """A figure for each stage and term, with a line for each detailed network."""
    found: dict[tuple[str, str], dict[str, tuple[int, list[tuple[float, float]]]]] = {}
    for place, one in enumerate(subject.detailed):
        for stage, terms in one.first.curves.items():
            for term, curve in terms.items():
                points = [(float(step), value) for step, value in curve]
                if len(points) > 1 and term != "lr":  # the learning rate is in the recipe
                    found.setdefault((stage, term), {})[one.name] = place, points[:: -(-len(points) // POINTS)]
    if not found:
        return section(
            "curves",
            "Training curves",
            "No run here has two points in its curves.jsonl; training writes one every run.log_every steps.",
            "",
        )
    cards = ""
    for (stage, term), drawn in found.items():
        about = f"{term} by step while {stage} of {', '.join(drawn)}"
        title, figure = escape(f"{stage}: {term}"), lines(drawn, (term, "step"), about)
        cards += f'<article class="card"><h3>{title}</h3>{figure}</article>'
    note = "By step, of the first seed." + subject.left_out()
    return section(
        "curves", "Training curves", escape(note), f'{subject.legend()}<div class="cards wide">{cards}</div>'
    )


def steps(subject: Subject) -> str:
    """The cost and the gain of each step, compared with the network that it started from."""
    columns = ["network", "step", "from", "took", "parameters", "ms", "seen", "unseen", "worst"]
    rows = [_step(one) for one in subject.networks]
    rows += [row for one in subject.networks for row in [*_exports(one), *_quantised(one), *_streams(one)]]
    note = (
        "Took: seconds and training steps of this step only. If a step starts from another network, or learns from a "
        "teacher, parameters and ms are shares of that network's, and scores are differences in points. For a first "
        "step they are the numbers themselves. Separate: the two were not timed in turns. For an int8 file, scores are "
        "compared with its network's; unseen is the mean, and worst the domain that loses most. For a stream, ms is a "
        "share of the network's without adaptation, and scores are compared with the method source on the same stream: "
        "unseen is the score of all frames, and worst that of the worst window."
    )
    return section("steps", "What each step cost and gained", note, table("Steps", columns, rows))


def _step(one: Network) -> list[Cell]:
    before = one.parent
    said = Cell(escape(before.name)) if before else Cell("–")
    head = [Cell(escape(one.name), head=True), Cell(one.step), said, _took(one)]
    if before is None:
        scores = [one.mean(seen=True), one.mean(), one.worst[0] if one.worst else None]
        return [*head, number(one.parameters, ",.0f"), number(one.milliseconds), *map(percent, scores)]
    gains = [_less(one.mean(seen=True), before.mean(seen=True)), _less(one.mean(), before.mean())]
    gains.append(_less(*(each.worst[0] if each.worst else None for each in (one, before))))
    time = _ratio(one.milliseconds, before.milliseconds)
    if time.sort is not None and not one.in_turns(before):
        time = replace(time, html=f'{time.html} <span class="tag">separate</span>')
    shares = [_ratio(one.parameters, before.parameters), time]
    return [*head, *shares, *(percent(gain, signed=True) for gain in gains)]


def _exports(one: Network) -> list[list[Cell]]:
    """A row for the latest export of each file: its mIoU compared with the network's on the images of the proof."""
    latest: dict[str, dict[str, float | None]] = {}
    for line in one.first.lines:
        if line.stage == "export":
            latest.setdefault(str(line.notes.get("file", "")), {})[line.metric] = line.value
    rows = []
    for file, values in latest.items():
        agree, kept = values.get("agreement"), _less(values.get("miou_onnx"), values.get("miou_torch"))
        title, proof = _file(one, file), _agreeing(agree)
        gain = Cell("–" if kept is None else f"{percent(kept, signed=True).html} on the proof", kept)
        rows.append(
            [title, Cell("export"), Cell(escape(one.name)), proof, Cell("–"), Cell("–"), Cell("–"), gain, Cell("–")]
        )
    return rows


def _quantised(one: Network) -> list[list[Cell]]:
    """A row for the latest int8 file of each name: points that seen, unseen and the worst domains gained by it."""
    latest: dict[str, dict[tuple[str, str], float | None]] = {}
    for line in one.first.lines:
        if line.stage == "quantize":
            latest.setdefault(str(line.notes.get("file", "")), {})[line.target, line.metric] = line.value
    rows = []
    for file, values in latest.items():
        each = {name: _less(values.get((name, "miou_int8")), values.get((name, "miou_float"))) for name, _ in values}
        gains = {name: gain for name, gain in each.items() if gain is not None}
        agree = _mean(value for (_, metric), value in values.items() if metric == "agreement")
        sources = one.first.sources
        shown = [_mean(gain for name, gain in gains.items() if (name in sources) == seen) for seen in (True, False)]
        shown.append(min(gains.values(), default=None))
        cells = [percent(gain, signed=True) for gain in shown]
        head = [_file(one, file), Cell("quantize"), Cell(escape(one.name)), _agreeing(agree)]
        rows.append([*head, Cell("–"), Cell("–"), *cells])
    return rows


def _streams(one: Network) -> list[list[Cell]]:
    """A row for the latest stream of each method, compared with that of ``source`` on the same frames, if there is one.

    Without one, the scores are the method's own.
    """
    latest: dict[str, dict[str, dict[str, float | None]]] = {}
    for line in one.first.lines:
        if line.stage == "stream" and line.target == "stream" and "round" not in line.notes:
            stream = {name: value for name, value in line.notes.get("stream", {}).items() if name not in _STATE}
            shown = [line.notes.get(name) for name in ("domains", "size", "options")]
            frames = json.dumps([*shown, stream, line.seed], sort_keys=True)
            adapt = json.dumps({**line.notes.get("adapt", {}), "kind": stream.get("kind", "")}, sort_keys=True)
            latest.setdefault(frames, {}).setdefault(adapt, {})[line.metric] = line.value
    rows = []
    for methods in latest.values():
        named = {text: json.loads(text) for text in methods}
        source = next((methods[text] for text, each in named.items() if each.get("name") == "source"), {})
        for text, values in methods.items():
            own = values is source or not source
            tag = f"{named[text].get('name', '')}, {named[text]['kind']}"
            title = Cell(f'{escape(one.name)} <span class="tag">{escape(tag)}</span>', head=True)
            took = number(values.get("frames"), ",.0f")
            ratio = _ratio(values.get("ms_per_frame"), values.get("source_ms_per_frame"))
            scores = []
            for metric in (f"online_{one.metric}", f"worst_window_{one.metric}"):
                value = values.get(metric)
                scores.append(percent(value if own else _less(value, source.get(metric)), signed=not own))
            head = [title, Cell("stream"), Cell(escape(one.name)), Cell(f"{took.html} frames", took.sort)]
            rows.append([*head, Cell("–"), ratio, Cell("–"), *scores])
    return rows


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _file(one: Network, file: str) -> Cell:
    return Cell(f'{escape(one.name)} <span class="tag">{escape(file.rsplit("/", 1)[-1])}</span>', head=True)


def _agreeing(agree: float | None) -> Cell:
    return Cell("–" if agree is None else f"{100 * agree:.2f} % of pixels agree", agree)


def _took(one: Network) -> Cell:
    cost: dict[str, float] = {}
    for line in one.first.own:
        for name, value in line.cost.items():
            cost[name] = max(value, cost.get(name, value))
    seconds = sum(value for name, value in cost.items() if name.endswith("_seconds"))
    count = sum(value for name, value in cost.items() if name.endswith("_steps"))
    if not cost:
        return Cell("–")
    steps = f", {count:,.0f} steps" if count else ""
    return Cell(f"{seconds:,.0f} s{steps}", seconds)


def _less(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base


def _ratio(value: float | None, base: float | None) -> Cell:
    return Cell("–") if value is None or not base else Cell(f"× {value / base:.2f}", value / base)


def environment(subject: Subject) -> str:
    """The versions and machines on which the numbers were made."""
    seen: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for network in subject.networks:
        for run in network.runs:
            for one in run.lines:
                key = tuple(sorted((k, v) for k, v in one.versions.items() if k not in ("command", "load")))
                names = seen.setdefault(key, [])
                if network.name not in names:
                    names.append(network.name)
    titles = ["what", *(_whose(names, len(subject.networks)) for names in seen.values())]
    keys = dict.fromkeys(name for key in seen for name, _ in key)
    rows = [
        [Cell(escape(name), head=True), *(Cell(escape(dict(key).get(name, "–"))) for key in seen)]
        for name in sorted(keys)
    ]
    return section("environment", "Environment", "", table("Environment", titles, rows) if rows else "")


def _whose(names: list[str], of: int) -> str:
    if len(names) == of:
        return "all networks"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def commands(subject: Subject) -> str:
    """The numbered commands, and every number with the number of its command."""
    rows = []
    for (folder, stage, command, commit), place in subject.commands.items():
        recipe = shlex.join(["hardy", stage, f"{folder}/recipe.yaml"]) if stage in ("train", "prune") else ""
        repeat = "" if recipe in ("", command) else f"<br><small>its run alone: <code>{escape(recipe)}</code></small>"
        line = f"<code>{escape(command)}</code>{repeat}"
        rows.append([Cell(str(place), place, head=True), Cell(escape(stage)), Cell(line), Cell(escape(commit) or "–")])
    columns = ["no.", "step", "command", "commit"]
    listed = table("Commands", columns, rows)
    note = "The exact command of every number, and the commit of Hardy that ran it."
    return section("commands", "Commands and numbers", note, listed + _numbers(subject))


def _numbers(subject: Subject) -> str:
    """Every number as data, which the page shows on request."""
    texts: dict[str, int] = {}

    def place(text: str) -> int:
        return texts.setdefault(text, len(texts))

    values = []
    for network in subject.networks:
        for run in network.runs:
            for one in run.lines:
                value = None if one.value is None else float(f"{one.value:.6g}")
                by = subject.commands[subject.command(run.folder, one)]
                values.append(
                    [place(network.name), place(one.stage), place(one.target), place(one.metric), one.seed, value, by]
                )
    data = safe_json({"texts": list(texts), "rows": values})
    return (
        f'<details id="numbers"><summary>Every number ({len(values):,}) with its command</summary>'
        '<p class="filter"><label>Filter <input type="search" placeholder="such as: ior night iou/road"></label> '
        '<output aria-live="polite"></output></p><div class="scroll" tabindex="0" role="region" '
        'aria-label="Every number"><table><thead><tr><th scope="col">network</th><th scope="col">step</th>'
        '<th scope="col">of</th><th scope="col">metric</th><th scope="col">seed</th><th scope="col">value</th>'
        '<th scope="col">command no.</th></tr></thead><tbody></tbody></table></div>'
        f'<script type="application/json">{data}</script></details>'
    )
