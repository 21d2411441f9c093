"""The first sections: which network to ship, accuracy against milliseconds, and the table of all networks."""

import json
import math
from html import escape

from hardy.report.advice import Advice, advise, usual_budget
from hardy.report.page.drawing import Mark, scatter
from hardy.report.page.markup import Cell, number, percent, section, table
from hardy.report.page.subject import Subject
from hardy.report.runs import Network

__all__ = ["everything", "ship", "tradeoff"]

_TITLE = "Which network to ship"


def ship(subject: Subject, budget: float | None) -> str:
    """The advice on which network to ship, with an input field for the budget."""
    said = advise(subject.networks, subject.among)
    if not said:
        best = max(subject.networks, key=lambda one: one.headline or 0.0)
        text = (
            f"<strong>{escape(best.name)}</strong> has the highest {subject.metric} over {subject.among}, "
            f"{percent(best.headline).html} %. No network has milliseconds yet, so there is no advice for a budget: "
            "<code>hardy bench RUN</code> measures them."
        )
        return section("ship", _TITLE, "", f'<p class="advice">{text}</p>')
    chosen = budget or rounded_up(usual_budget(subject.networks) or said[-1].milliseconds)
    fitting = [one for one in said if one.milliseconds <= chosen]
    data = [[one.milliseconds, one.name, one.reason] for one in said]
    name, reason = (fitting[-1].name, fitting[-1].reason) if fitting else ("none", too_fast(said[0]))
    usual = "" if budget else " The first budget is the time of the fastest network within one point of the best."
    field = (
        '<label><span class="hidden">Budget in milliseconds</span><input id="budget" type="number" min="0" step="any" '
        f'inputmode="decimal" value="{chosen:g}"></label>'
    )
    text = f"<strong>{escape(name)}</strong>: {escape(reason)}"
    answer = f'<output id="advice" for="budget" aria-live="polite">{text}</output>'
    how = "".join(f" {words}" for words in (subject.how_timed(), subject.busy()) if words)
    note = (
        f"Milliseconds: median of one image in {escape(subject.runtime)}.{how} Change the budget for another "
        f"answer.{usual}"
    )
    return section(
        "ship",
        _TITLE,
        "",
        f'<p class="advice">For a budget of {field} ms, ship {answer}</p><p class="note">{note}</p>'
        f'<script type="application/json" id="advices">{safe_json(data)}</script>',
    )


def too_fast(fastest: Advice) -> str:
    """The advice for a budget below the time of the ``fastest`` network."""
    return f"no network is that fast; the fastest, {fastest.name}, takes {fastest.milliseconds:.3g} ms."


def rounded_up(value: float) -> float:
    """``value`` above 0, rounded up to three digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.6g}")


def safe_json(value: object) -> str:
    """JSON that is safe inside a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def tradeoff(subject: Subject) -> str:
    """Accuracy against milliseconds with the Pareto front."""
    timed = [one for one in subject.networks if one.milliseconds is not None and one.headline is not None]
    if not timed:
        return ""
    marks = [
        Mark(
            one.milliseconds or 0.0,
            100 * (one.headline or 0.0),
            one.name,
            _tip(one, subject),
            subject.colour(one),
            one in subject.front,
            subject.apart(one),
        )
        for one in timed
    ]
    line = [(one.milliseconds or 0.0, 100 * (one.headline or 0.0)) for one in subject.front]
    about = f"{len(timed)} networks; on the Pareto front, fastest first: " + "; ".join(
        _tip(one, subject) for one in subject.front
    )
    missing = len(subject.networks) - len(timed)
    note = (
        f"Each point is a network; up and left is better. The line is the Pareto front: no network is both as fast and "
        f"as accurate as one on it. {subject.metric} is the mean over {subject.among}."
    )
    if any(map(subject.apart, timed)):
        note += " Hollow points were timed separately."
    note += f" {missing} networks without milliseconds are not shown; hardy bench measures them." if missing else ""
    axes = (f"{subject.metric} %, mean over {subject.among}", f"milliseconds per image, {subject.runtime}, logarithmic")
    return section("tradeoff", "Accuracy against milliseconds", note, scatter(marks, line, axes, about))


def everything(subject: Subject) -> str:
    """The table of all networks."""
    columns = [
        "network",
        "step",
        "parameters",
        "GMACs",
        "ms",
        "time",
        "seen %",
        "unseen %",
        "worst %",
        "worst domain",
        "gap",
    ]
    rows = []
    for one in subject.networks:
        colour = subject.colour(one)
        dot = "" if colour is None else f'<i class="dot c{colour}" aria-hidden="true"></i>'
        star = ' <span class="tag">front</span>' if one in subject.front else ""
        seen, away = one.mean(seen=True), one.mean()
        gap = None if seen is None or away is None else seen - away
        seeds = f' <span class="tag">{len(one.runs)} seeds</span>' if len(one.runs) > 1 else ""
        rows.append(
            [
                Cell(f"{dot}{escape(one.name)}{star}{seeds}", head=True),
                Cell(one.step),
                number(one.parameters, ",.0f"),
                number(one.gmacs),
                number(one.milliseconds),
                _share(one, subject),
                percent(seen),
                percent(away),
                percent(one.worst[0] if one.worst else None),
                Cell(escape(one.worst[1]) if one.worst else "–"),
                percent(gap),
            ]
        )
    said = "seen: held-out images of the domains trained on; gap: seen minus unseen, in points"
    if subject.reference:
        said += f"; time: ms as a share of that of {subject.reference.name}, from timing in turns"
    if any(map(subject.apart, subject.timed)):
        said += "; separate: not timed in turns with the others"
    note = escape(f"{subject.metric} in percent; {said}.")
    return section("networks", "All networks", note, table("All networks", columns, rows, filtered=True))


def _share(one: Network, subject: Subject) -> Cell:
    """Its time as a share of that of the reference, or that it was timed separately."""
    if subject.apart(one) and one.milliseconds is not None:
        return Cell('<span class="tag">separate</span>')
    return Cell("–") if one.ratio is None else Cell(f"× {one.ratio:.2f}", one.ratio)


def _tip(one: Network, subject: Subject) -> str:
    worst = f", worst {100 * one.worst[0]:.1f} % on {one.worst[1]}" if one.worst else ""
    size = f", {one.parameters:,.0f} parameters" if one.parameters else ""
    apart = ", timed separately" if subject.apart(one) else ""
    ratio = f" (× {one.ratio:.2f} of {one.reference.name})" if one.reference not in (None, one) and not apart else ""
    time = f"{one.milliseconds:.3g} ms{ratio}{apart}"
    return f"{one.name}: {100 * (one.headline or 0):.1f} % {subject.metric} at {time}{worst}{size}"
