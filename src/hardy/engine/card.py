"""The model card of a network: what it is, where it was measured, what it learned from, under which licences.

The card is the ``README.md`` of a pushed folder, in the form of the Hugging Face hub (Mitchell et al., "Model Cards for
Model Reporting", FAT* 2019): it begins with metadata in YAML.
"""

import shlex
from collections.abc import Iterator, Sequence
from itertools import groupby

import yaml

from hardy.networks.base import Network
from hardy.networks.building import lineage
from hardy.records import Record
from hardy.sections import Data

__all__ = ["card", "measured"]

_MEANS = ("intra", "unseen", "worst")
_COSTS = {"parameters": "parameters", "gmacs": "GMACs", "gmacs_after": "GMACs", "removed": "share of filters removed"}


def card(
    network: Network,
    name: str,
    records: Sequence[Record],
    *,
    sha256: str,
    licence: str | None,
    address: str,
    data: Data | None = None,
) -> str:
    """The card of ``network`` as Markdown.

    Args:
        network: what is described.
        name: the title.
        records: those of its run, oldest first.
        sha256: of its weights.
        licence: of the network, as its owner states it; None when that is not stated.
        address: where `hardy pull` finds it.
        data: the section of its run's recipe; None if there is no recipe.
    """
    word = shlex.quote(name)
    size = f" --size {_sides(data.size)}" if data and data.size else ""
    head: dict[str, object] = {
        "license": licence or "unknown",
        "library_name": "hardy",
        "pipeline_tag": "image-segmentation",
    }
    head["tags"] = ["hardy", "semantic-segmentation", "domain-generalization"]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n# {name}",
        "\n".join(_what(network, data)),
        f"## Use\n\n```sh\nhardy pull {address} {word}\nhardy predict {word} photos/ masks/{size}\n```\n\n"
        f'```python\nimport hardy\n\nnet = hardy.load("{name}")  # images (B, 3, H, W) RGB in [0, 1] -> logits\n```',
        "## Domains and numbers\n\n" + "\n".join(_numbers(records)),
        "## Lineage\n\n" + "\n".join(_lineage(network)),
        "## Licence\n\n" + "\n".join(_licences(network, licence)),
        f"## Integrity\n\nThe weights are `network.safetensors` (sha256 `{sha256}`), the architecture is "
        "`network.json`. Neither holds code or a pickle, and `hardy.load` checks both.",
    ]
    return "\n\n".join(parts) + "\n"


def measured(records: Sequence[Record], metric: str | None = None) -> list[Record]:
    """The scores, or the values of ``metric``, of the latest measurement of each domain, latest last.

    Those with adaptation and those of peers are left out. A measurement with options, such as flips, another size or
    one split, does not replace one without. A mean replaces an earlier one if it is over the same domains or more.
    """
    latest: dict[str, Record] = {}
    over: dict[str, set[str]] = {}
    plain = (one for one in records if not one.notes.get("adapt") and not one.notes.get("peer"))
    kept = (one for one in plain if "stream" not in one.notes)
    for _, group in groupby(kept, key=lambda one: (one.stage, one.notes)):
        rows = [one for one in group if one.metric in ((metric,) if metric else ("miou", "accuracy"))]
        domains = {one.target for one in rows if "/" in one.target and one.target not in one.sources}
        for record in (one for one in rows if one.value is not None):
            before, name = latest.get(record.target), record.target
            less = "/" not in name and not domains >= over.get(name, set())
            if before and (less or (record.notes.get("options") and not before.notes.get("options"))):
                continue
            latest.pop(name, None)
            latest[name], over[name] = record, domains
    return list(latest.values())


def _what(network: Network, data: Data | None) -> Iterator[str]:
    kind = network.architecture.get("name") or type(network).__name__
    count = sum(weight.numel() for weight in network.parameters())
    yield f"A segmentation network of Hardy: `{kind}`, {count:,} parameters."
    yield f"Classes (`{network.label_space.name}`): {', '.join(network.label_space.classes)}."
    if data and data.size:
        yield f"Its images were resized to {_sides(data.size)} (height x width) and cropped to {_sides(data.crop)}."
    elif data:
        yield f"It was trained at the images' own size, on crops of {_sides(data.crop)} (height x width)."
    if network.changes:
        yield f"Changed since it was built: {', '.join(str(each['change']) for each in network.changes)}."


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _numbers(records: Sequence[Record]) -> Iterator[str]:
    found = measured(records)
    if not found:
        yield "No measurement was recorded."
        return
    sources = list(dict.fromkeys(name for record in found for name in record.sources))
    yield f"Trained on: {', '.join(sources) or 'not recorded'}. Scores in percent; other domains were never trained on."
    yield ""
    yield "| domain | metric | % | measured in |"
    yield "|---|---|---|---|"
    names = {
        "intra": "mean over held-out source images",
        "unseen": "mean over unseen",
        "worst": "worst unseen",
        "gap": "gap: source minus unseen, in points",
    }
    for record in sorted(found, key=lambda each: each.target in names):
        shown = "mIoU" if record.metric == "miou" else record.metric
        score = f"{100 * (record.value or 0):.1f}"
        yield f"| {names.get(record.target, record.target)} | {shown} | {score} | {record.stage} |"
    costs = {record.metric: record.value for record in records if record.target == "cost"}
    known = {text: value for key, text in _COSTS.items() if (value := costs.get(key)) is not None}
    lines = [f"- {text}: {format(value, ',.0f' if value >= 1000 else '.4g')}" for text, value in known.items()]
    yield from ["", *lines] if lines else []


def _lineage(network: Network) -> Iterator[str]:
    lines = [f"- {line}" for line in lineage.lines(network.lineage)]
    yield from lines or ["- no teacher and no images without labels are recorded"]


def _licences(network: Network, licence: str | None) -> Iterator[str]:
    yield f"This network: {licence or 'not stated; ask its owner before use'}."
    weights = network.architecture.get("pretrained") or {}
    if weights:
        origin = f", {weights['origin']}" if weights.get("origin") else ""
        terms = weights.get("licence", "licence unknown")
        yield f"Its encoder started from {weights.get('name', 'weights')}: {terms}{origin}."
    for teacher in lineage.teachers(network.lineage):
        yield f"Teacher {teacher['name']}: weights under {teacher.get('licence', 'a licence that is not known')}."
    yield "The licences of the data sets also apply."
