"""The page: one self-contained HTML file from the records of runs, with its style and its script inside it."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from hardy.errors import InputError
from hardy.files import write_text
from hardy.report.page import images, overview, quality, story
from hardy.report.page.subject import Subject
from hardy.report.prices import price
from hardy.report.runs import networks

__all__ = ["TITLES", "render", "write"]

TITLES = {
    "ship": "Ship",
    "tradeoff": "Trade-off",
    "networks": "Networks",
    "domains": "Domains",
    "images": "Images",
    "classes": "Classes",
    "confusion": "Confusions",
    "curves": "Curves",
    "steps": "Steps",
    "environment": "Environment",
    "commands": "Commands",
}


def write(
    paths: Sequence[Path], file: Path, *, budget: float | None = None, title: str = "Hardy report"
) -> tuple[Subject, list[str]]:
    """Write the page of the runs at or below ``paths`` to ``file``; returns its content, and messages for the user.

    Args:
        paths: folders of runs or studies, folders that contain such folders, or files of records.
        file: the page.
        budget: milliseconds for one image, for the advice.
        title: of the page.

    Raises:
        InputError: for a path without records, records that cannot be read, runs of different label spaces, a budget
            that is not above 0, or a file that cannot be written.
    """
    if budget is not None and not 0 < budget < 1e9:
        raise InputError(f"budget {budget:g}: it must be above 0 milliseconds")
    torn: list[str] = []
    made = networks(paths, torn=torn)
    subject = Subject(made, price(made))
    text = render(subject, budget=budget, title=title)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    except OSError as error:
        raise InputError(f"{file}: it cannot be written: {error.strerror or error}") from None
    return subject, torn


def render(subject: Subject, *, budget: float | None = None, title: str = "Hardy report") -> str:
    """The HTML of the page."""
    sections = {
        "ship": overview.ship(subject, budget),
        "tradeoff": overview.tradeoff(subject),
        "networks": overview.everything(subject),
        "domains": quality.domains(subject),
        "images": images.images(subject),
        "classes": quality.classes(subject),
        "confusion": quality.confusions(subject),
        "curves": story.curves(subject),
        "steps": story.steps(subject),
        "environment": story.environment(subject),
        "commands": story.commands(subject),
    }
    links = "".join(f'<li><a href="#{name}">{TITLES[name]}</a></li>' for name, body in sections.items() if body)
    style, script = (files("hardy.report.page").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    count = len(subject.networks)
    domains = len(dict.fromkeys(name for one in subject.networks for name in one.domains))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    shown = "\n".join(body for body in sections.values() if body)
    said = f"{count} network{'s' * (count != 1)} on {domains} domain{'s' * (domains != 1)}"
    head = (
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n"
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}</head>\n<body>\n'
        '<a class="skip" href="#ship">Skip to the content</a>\n'
        f"<header><div><h1>{escape(title)}</h1><p>{said}</p></div>"
        '<button type="button" id="theme" aria-pressed="false">Dark</button></header>\n'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n{shown}\n</main>\n'
        "<footer>Made by <code>hardy report</code> from records.</footer>\n"
        f'<div id="tip" role="tooltip" hidden></div>\n<script>\n{script}</script>\n</body>\n</html>\n'
    )
