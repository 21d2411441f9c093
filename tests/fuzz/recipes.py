"""Recipes, overrides, studies and classes.yaml: YAML that is damaged, hostile or says what cannot be."""

from pathlib import Path
from random import Random
from typing import Any

import yaml
from _harness import Case
from _mutations import damaged, perturbed
from _small import sections

HOSTILE = (
    "&a [*a]",
    "{<<: *a}",
    "&a {<<: *a}",
    "[" * 1000,
    "{a: " * 300,
    "- " * 500,
    "!!binary aGk=",
    "!!int abc",
    "!!set {a, b}",
    "!!python/object/apply:os.abort []",
    "9" * 5000,
    "-" + "9" * 40,
    "0x" + "f" * 500,
    ":".join(["59"] * 30),
    "2020-01-31",
    "2020-99-99",
    ".inf",
    ".nan",
    "1.0e+999",
    "? [a]\n: 1",
    "a: 1\na: 2",
    "\x00",
    "\u202e",
    "'",
    "%YAML 9.9",
    "--- a\n--- b",
    "=",
    "<<",
    "~",
    "",
    "*nowhere",
    "[1, [2, [3]]]",
    "{1: a, '1': b}",
    "100000",
    "-1",
    "0",
    "1e400",
    "~/x",
    "~nobody/x",
)
"""What stands in place of a value."""

KEYS = (
    "network.name",
    "network.width",
    "network.classes",
    "network.run",
    "network.weights",
    "data.sources",
    "data.crop",
    "data.scale",
    "data.datasets.folder.root",
    "data.split",
    "optim.name",
    "optim.lr",
    "optim.ema",
    "algorithm.name",
    "algorithm",
    "loss.name",
    "prune.ratio",
    "prune.criterion.name",
    "evaluate.scales",
    "evaluate.window",
    "run.threads",
    "run.seed",
    "run.device",
    "run.trackers",
    "optim",
    "",
    ".",
    "optim..lr",
    "a." * 50 + "b",
    "optim.lr.x",
    "run.folder.x",
)

SMALL = ("optim.steps=2", "optim.batch=2", "optim.accumulate=1", "run.workers=0", "run.threads=1")


def prepare(folder: Path) -> dict[str, Any]:
    """A recipe and a study that can run."""
    values = sections(folder)
    study = {
        "study": {"folder": str(folder / "out"), "cpus": 1},
        "stages": {"dense": {"verb": "train", "recipe": str(folder / "sound.yaml"), "set": {"optim.steps": 2}}},
        "grid": {"seed": {"key": "run.seed", "values": [0, 1]}, "rate": {"key": "optim.lr", "values": {"a": 0.1}}},
        "table": {"rows": ["seed"], "columns": ["rate"], "compare": {"axis": "seed", "of": 0}},
    }
    (folder / "sound.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return {"recipe": values, "study": study, "classes": [{"name": "road", "id": 0}, {"name": "sky", "ids": [1, 7]}]}


def case(draw: Random, base: dict[str, Any], folder: Path) -> Case:
    """One file changed, or one override, through the verb that reads it."""
    what = draw.choice(("recipe", "recipe", "override", "override", "study", "classes"))
    values = dict(base["recipe"])
    values["run"] = {**values["run"], "folder": str(folder / "run")}
    file = folder / "file.yaml"
    if what == "override":
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        text = f"{draw.choice(KEYS)}{draw.choice(('=', '=', '=', '==', ''))}{draw.choice(HOSTILE)}"
        return Case(("train", file, *SMALL, text), f"override {text[:80]!r}", seconds=40)
    data, note = _changed(base[what] if what != "recipe" else values, draw)
    if what == "classes":
        (folder / "classes.yaml").write_bytes(data)
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        text = f"network.classes={folder}/classes.yaml"
        return Case(("train", file, *SMALL, text), f"classes.yaml: {note}", seconds=40)
    file.write_bytes(data)
    words = ("study", file, "--dry-run") if what == "study" else ("train", file, *SMALL, f"run.folder={folder}/run")
    return Case(words, f"{what}: {note}", seconds=40)


def _changed(value: Any, draw: Random) -> tuple[bytes, str]:
    """The YAML of ``value`` with an entry or with bytes changed; what was done."""
    how = draw.choice(("values", "values", "bytes", "hostile", "hostile"))
    if how == "values":
        value, note = perturbed(value, draw)
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass"), note
    text = yaml.safe_dump(value, default_flow_style=draw.choice((None, True, False)))
    if how == "bytes":
        return damaged(text.encode(), draw)
    places = [place for place, sign in enumerate(text) if sign in ": "]
    place = draw.choice(places)
    rubbish = draw.choice(HOSTILE)
    changed = text[: place + 1] + rubbish + text[place + 1 :]
    return changed.encode("utf-8", "surrogatepass"), f"{rubbish[:40]!r} at character {place}"
