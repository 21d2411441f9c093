"""The accuracy of the networks: bars per domain with intervals, the table per class, the confusion matrix."""

from html import escape
from statistics import fmean

import numpy as np

from hardy.report.intervals import confusion, interval
from hardy.report.page.drawing import bar, heat
from hardy.report.page.markup import Cell, panels, percent, section, table
from hardy.report.page.subject import Subject
from hardy.report.runs import Network

__all__ = ["classes", "confusions", "domains"]


def domains(subject: Subject) -> str:
    """Bars per domain, with intervals if counts or seeds give them."""
    names = dict.fromkeys(name for one in subject.detailed for name in one.domains)
    found = {(one.name, name): interval(one, name) for one in subject.detailed for name in names}
    scores = {(one.name, name): one.score(name) for one in subject.detailed for name in names}
    highest = [*(one.high for one in found.values() if one), *(value for value in scores.values() if value is not None)]
    most = max(max(highest, default=1.0) * 1.04, 0.01)
    cards = []
    for name in names:
        rows = ""
        for place, one in enumerate(subject.detailed):
            value, around = scores[one.name, name], found[one.name, name]
            if value is None:
                continue
            within = f"; {100 * around.low:.1f} to {100 * around.high:.1f} over {around.of}" if around else ""
            tip = f"{one.name} on {name}: {100 * value:.1f} %{within}"
            low, high = (around.low, around.high) if around else (None, None)
            rows += (
                f'<li data-tip="{escape(tip)}"><span class="who">{escape(one.name)}</span>'
                f"{bar(value, low, high, most, place)}<b>{100 * value:.1f}</b>"
                f'<span class="hidden">{escape(within)}</span></li>'
            )
        seen = [one.name for one in subject.detailed if name in one.first.sources]
        kind = "trained on" if len(seen) == len(subject.detailed) else "unseen" if not seen else "trained on by some"
        cards.append(
            f'<article class="card"><h3>{escape(name)} <span class="tag {"seen" if seen else ""}">{kind}</span></h3>'
            f'<ul class="bars">{rows}</ul></article>'
        )
    known = sorted({one.of.split(" ")[1] for one in found.values() if one})
    ways = {"images": "95 % intervals over resampled images", "seeds": "the lowest and highest seed"}
    note = f"{subject.metric} in percent; all bars have one scale. " + (
        f"Whiskers: {' or '.join(ways[one] for one in known)}."
        if known
        else "No intervals: evaluate.keep_counts: true keeps what they need."
    )
    body = f'{subject.legend()}<div class="cards">{"".join(cards)}</div>'
    return section("domains", "Domains", escape(note + subject.left_out()), body)


def classes(subject: Subject) -> str:
    """The IoU of every class: for all detailed networks, and for each network by domain."""
    shown = [one for one in subject.detailed if one.classes]
    if not shown:
        return ""
    names = shown[0].classes
    groups = [(True, "mean over the domains trained on"), (False, "mean over unseen domains")]
    choices = []
    for seen, title in reversed(groups):
        kept = [one for one in shown if one.group(seen=seen)]
        if kept:
            cells = {(one.name, name): _mean_iou(one, name, one.group(seen=seen)) for one in kept for name in names}
            choices.append((f"all networks, {title}", _class_table(names, [one.name for one in kept], cells)))
    for one in shown:
        cells = {(domain, name): one.score(domain, f"iou/{name}") for domain in one.domains for name in names}
        choices.append((f"{one.name}, by domain", _class_table(names, one.domains, cells)))
    note = "IoU in percent; a dash: the class occurs neither in labels nor in predictions." + subject.left_out()
    return section("classes", "Classes", escape(note), panels("Show", choices))


def _mean_iou(network: Network, name: str, over: list[str]) -> float | None:
    known = [value for domain in over if (value := network.score(domain, f"iou/{name}")) is not None]
    return fmean(known) if known else None


def _class_table(names: list[str], columns: list[str], cells: dict[tuple[str, str], float | None]) -> str:
    rows = []
    for name in names:
        row = [Cell(escape(name), head=True)]
        for column in columns:
            value = cells[column, name]
            row.append(Cell(percent(value).html, value, value))
        rows.append(row)
    return table("IoU per class", ["class", *columns], rows)


def confusions(subject: Subject) -> str:
    """The confusion matrix of each detailed network whose counts were kept, over its unseen domains.

    If it has no unseen domains, over all its domains."""
    choices = []
    for one in subject.detailed:
        over = one.group(seen=False) or one.domains
        if found := confusion(one, over):
            choices.append((one.name, _matrix(one.name, *found)))
    if not choices:
        note = "No counts were kept: <code>evaluate.keep_counts: true</code> in a recipe keeps them."
        return section("confusion", "Confusions", note, "")
    note = f"The share of the pixels of a class (row) that is predicted as each class (column), over {subject.among}."
    return section("confusion", "Confusions", escape(note + subject.left_out()), panels("Network", choices))


def _matrix(name: str, names: tuple[str, ...], pixels: np.ndarray) -> str:
    totals = pixels.sum(axis=1)
    shares = [[pixels[t, p] / totals[t] if totals[t] else None for p in range(len(names))] for t in range(len(names))]
    wrong = sorted(
        ((share, t, p) for t, row in enumerate(shares) for p, share in enumerate(row) if share and t != p), reverse=True
    )[:8]
    worst = "".join(
        f"<li>{escape(names[t])} is called {escape(names[p])}: <b>{100 * share:.0f} %</b></li>" for share, t, p in wrong
    )
    about = f"Confusion matrix of {name}, {len(names)} classes; the largest confusions are listed beside it"
    side = f"<div><h3>The largest confusions</h3><ol>{worst}</ol></div>" if worst else ""
    return f'<div class="matrix">{heat(names, shares, about)}{side}</div>'
