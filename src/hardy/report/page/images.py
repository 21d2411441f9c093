"""The worst images of each domain, with a slider from the image over its truth to the prediction."""

from base64 import b64encode
from html import escape
from io import BytesIO

from PIL import Image

from hardy.pictures import PARTS, Picture
from hardy.report.page.markup import panels, section
from hardy.report.page.subject import Subject
from hardy.report.runs import Network

__all__ = ["images"]

_TYPES = {"image": "image/jpeg", "truth": "image/png", "prediction": "image/png"}

MOST_BYTES = 12 * 2**20
"""The largest size of all pictures in a page in bytes; pictures of further networks are left out."""


def images(subject: Subject) -> str:
    """The section with the worst images that the runs of the detailed networks kept."""
    choices, room = [], MOST_BYTES
    colours: dict[str, tuple[int, int, int]] = {}
    ordered = sorted(subject.detailed, key=lambda one: one not in subject.front)
    for one in ordered:
        kept = one.first.worst
        size = sum(len(data) for each in kept.domains.values() for picture in each for data in picture.files.values())
        if kept.domains and size <= room:
            room -= size
            colours |= kept.colours
            choices.append((one.name, _of(one)))
    if not choices and subject.networks[0].metric == "accuracy":
        return section("images", "Worst images", "These networks give one class per image: there are no masks.", "")
    if not choices:
        note = "No pictures were kept: <code>hardy evaluate RUN DOMAINS --worst 2</code> keeps them."
        return section("images", "Worst images", note, "")
    note = (
        "The images with the lowest mIoU in each domain. Move the slider, or use the buttons, from the image over its "
        "truth to the prediction. Black pixels have no label."
    )
    key = "".join(
        f'<li><i style="background:rgb({red} {green} {blue})" aria-hidden="true"></i>{escape(name)}</li>'
        for name, (red, green, blue) in colours.items()
    )
    legend = f'<ul class="legend" aria-label="Colours of the classes">{key}</ul>'
    return section("images", "Worst images", escape(note + subject.left_out()), panels("Network", choices) + legend)


def _of(network: Network) -> str:
    cards = ""
    for domain, kept in network.first.worst.domains.items():
        kind = "trained on" if domain in network.first.sources else "unseen"
        tag = f'<span class="tag {"seen" if kind == "trained on" else ""}">{kind}</span>'
        figures = "".join(_figure(network.name, domain, one) for one in kept)
        cards += f'<article class="card"><h3>{escape(domain)} {tag}</h3>{figures}</article>'
    return f'<div class="cards wide">{cards}</div>'


def _figure(network: str, domain: str, one: Picture) -> str:
    said = {"image": escape(f"{one.name} of {domain}")}
    shape = _shape(one.files["image"])
    layers = "".join(
        f'<img class="{part}" alt="{said.get(part, "")}"{shape} loading="lazy" '
        f'decoding="async" src="data:{_TYPES[part]};base64,{b64encode(one.files[part]).decode()}">'
        for part in PARTS
    )
    label = escape(f"{one.name} of {domain}, {network}: from the image over its truth to the prediction")
    buttons = "".join(
        f'<button type="button" data-to="{to}">{part}</button>' for part, to in zip(PARTS, (0, 50, 100), strict=True)
    )
    return (
        f'<figure class="compare"><div class="stack">{layers}<i class="edge" aria-hidden="true"></i></div>'
        f'<input type="range" min="0" max="100" value="75" step="1" aria-label="{label}">'
        f'<div class="stops">{buttons}</div>'
        f"<figcaption>{escape(one.name)} · {100 * one.score:.1f} %</figcaption></figure>"
    )


def _shape(image: bytes) -> str:
    """The size of ``image`` as attributes, which reserve its space until it is decoded; empty if it is not an image."""
    try:
        with Image.open(BytesIO(image)) as opened:
            return f' width="{opened.width}" height="{opened.height}"'
    except OSError:
        return ""
