"""Folders of runs: what is torn, gone, swapped or no file at all, through ``runs``, ``evaluate`` and ``prune``."""

import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import yaml
from _harness import Case
from _mutations import damaged, perturbed
from _small import sections

from hardy import recipe
from hardy.commands import prune, train

SHORT = 10


def prepare(folder: Path) -> dict[str, Any]:
    """A trained run, and a run of pruning from it that was stopped before its recovery."""
    values = sections(folder)
    values["optim"]["steps"] = 2
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    train.run(recipe.read(file), show=False)
    cut = {"criterion": "l2", "schedule": "one_shot", "ratio": 0.4, "min_width": 2, "round_to": 1, "recovery": 2}
    stopped = {
        **values,
        "network": {"run": str(folder / "run")},
        "prune": cut,
        "evaluate": {"latency": False, "select": "last"},
        "run": {**values["run"], "folder": str(folder / "pruned")},
    }
    file.write_text(yaml.safe_dump(stopped), encoding="utf-8")
    with mock.patch.object(prune, "_recover", side_effect=KeyboardInterrupt):
        try:
            prune.run(recipe.read(file), show=False)
        except KeyboardInterrupt:
            assert (folder / "pruned" / "pruning.json").exists()
    return {"folder": folder, "sections": stopped}


def case(draw: Random, base: dict[str, Any], folder: Path) -> Case:
    """A copy of one of the two runs with one file changed, and a verb that reads it."""
    which = draw.choice(("run", "pruned"))
    run = folder / which
    shutil.copytree(base["folder"] / which, run)
    file = draw.choice(sorted(path for path in run.rglob("*") if path.is_file()))
    note = _changed(file, draw)
    values = {**base["sections"], "run": {**base["sections"]["run"], "folder": str(run)}}
    if which == "run":
        values["network"], values["run"]["folder"] = {"run": str(run)}, str(folder / "new")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    root = base["folder"] / "data"
    verbs: list[tuple[object, ...]] = [("prune", folder / "recipe.yaml")]
    if which == "run":
        verbs += [("runs", folder), ("evaluate", run, "folder/day", "--root", root), ("train", folder / "recipe.yaml")]
    return Case(draw.choice(verbs), f"{which}/{file.relative_to(run)}: {note}")


def _changed(file: Path, draw: Random) -> str:
    """Change ``file`` in place; what was done."""
    how = draw.choice(("bytes", "bytes", "values", "values", "values", "gone", "folder", "pipe", "loop", "binary"))
    data = file.read_bytes()
    if how == "values" and file.suffix in (".json", ".jsonl", ".yaml"):
        lines = data.decode().splitlines() if file.suffix == ".jsonl" else [data.decode()]
        place = draw.randrange(len(lines))
        read, write = (yaml.safe_load, yaml.safe_dump) if file.suffix == ".yaml" else (json.loads, json.dumps)
        value, note = perturbed(read(lines[place]), draw)
        lines[place] = write(value)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")
        return f"{how}: {note}"
    if how in ("bytes", "values"):
        changed, note = damaged(data, draw)
        file.write_bytes(changed)
        return f"{how}: {note}"
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "loop":
        file.symlink_to(file)
    elif how == "binary":
        file.write_bytes(draw.randbytes(3000))
    return how
