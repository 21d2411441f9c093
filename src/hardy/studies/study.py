"""The YAML file of a study: recipes as stages, a grid of values over them, and the table to show.

Reading a study checks only this file; `hardy.studies.cells` makes its cells and checks their recipes.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from hardy import safe_yaml
from hardy.errors import InputError, nearest, quoted, worded
from hardy.files import expanded
from hardy.ranges import MOST_THREADS
from hardy.recipe import Recipe, parsed
from hardy.sections import Section

__all__ = [
    "Axis",
    "Compare",
    "Comparison",
    "Settings",
    "Show",
    "Stage",
    "Study",
    "against",
    "compared",
    "listed",
    "mapping",
    "paired",
    "read",
    "value_name",
]

Several = str | tuple[str, ...]
AxisValues = tuple[str | float | bool | None, ...]


class Settings(Section):
    """The folder of a study and the resources of one cell.

    ``cpus`` is the number of cores and threads of a cell, ``gpus`` its number of GPUs or its share of one, if the
    machine has GPUs. ``keep: records`` deletes the weights of a cell when no other cell needs them any more.
    """

    folder: str = ""
    cpus: Annotated[float, Field(gt=0, le=MOST_THREADS)] = 1
    gpus: Annotated[float, Field(ge=0, le=MOST_THREADS)] = 1
    keep: Literal["all", "records"] = "all"


class Stage(Section):
    """One recipe of the study: ``after`` names the stage whose network it continues from, ``set`` are overrides.

    With ``uses: teacher`` it does not continue from that network: the network is the recipe's ``teacher``.
    """

    verb: Literal["train", "prune"]
    recipe: str
    after: str | None = None
    uses: Literal["network", "teacher"] = "network"
    set: dict[str, Any] = Field(default_factory=dict)


class Axis(Section):
    """One axis of the grid: the values of one key of a recipe, of several keys at once, or the domain that is left out.

    Without ``stages`` it applies to all stages. ``values`` is a list, or a mapping from the name shown in tables to the
    value. Without a ``key`` each value is a mapping from keys to values. With ``leave_out`` each of the named domains,
    or each domain of a named data set, is the unseen domain once, with the others as sources.
    """

    stages: Several = ()
    key: str | None = None
    values: list[Any] | dict[str, Any] = Field(default_factory=list)
    leave_out: Several | None = None


class Compare(Section):
    """A paired sign test along ``axis``: the value ``of`` against one, several or (by default) all other values.

    The two cells of a pair have the same values on all other axes. For the axes in ``by`` there is one test per value.
    """

    axis: str
    of: str | float
    against: str | float | AxisValues = ()
    by: Several = ()


class Show(Section):
    """The table: its rows and columns, the recorded number, and the comparisons.

    Values are averaged over all other axes. ``value`` is the target of the records (``unseen``, ``worst``, ``intra``,
    ``camvid/0001TP``, ``cost``), ``metric`` their metric, by default the mean IoU or the accuracy. ``beside`` names
    further metrics, such as ``iou/vessel``, which get additional columns.
    """

    rows: Several | None = None
    columns: Several = ()
    value: str = "unseen"
    metric: str | None = None
    beside: Several = ()
    compare: Compare | tuple[Compare, ...] = ()


class Comparison(Section):
    """Every arm against ``control`` in one table: paired differences with an interval, a sign test, and costs.

    ``pairs`` are the axes along which cells are paired, by default those of seeds and of domains that are left out. The
    name of an arm is its stage and its labels on the remaining axes, such as ``pruned ior``. For the axes in ``by``
    there is one table per label. ``value`` is the score whose difference is shown; ``beside`` names further metrics.
    Costs are equal within the relative differences ``tolerance`` (GMACs) and ``tolerance_ms`` (milliseconds in
    ``runtime``). ``blocks`` is, for a data set or a domain whose images are frames of a drive, the number of
    consecutive frames that are resampled together.
    """

    control: str
    pairs: Several = ()
    by: Several = ()
    metric: str | None = None
    beside: Several = ()
    value: Literal["unseen", "worst", "intra"] = "unseen"
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    tolerance_ms: Annotated[float, Field(ge=0, lt=1)] = 0.1
    runtime: Literal["onnxruntime", "eager"] = "onnxruntime"
    blocks: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    seed: Annotated[int, Field(ge=0)] = 0


class Study(Section):
    """A study: settings, stages, grid, table and comparison."""

    study: Settings = Settings()
    stages: dict[str, Stage]
    grid: dict[str, Axis]
    skip: tuple[dict[str, Any], ...] = ()
    only: dict[str, Any] = Field(default_factory=dict)
    table: Show = Show()
    comparison: Comparison | None = None


def read(file: Path | str, overrides: Iterable[str] = ()) -> tuple[Study, tuple[str, ...]]:
    """The study in a YAML file, with overrides of its own keys such as ``study.gpus=0.5``, and the other overrides.

    An override that begins with a section of a recipe, such as ``optim.steps=100``, applies to every stage and is
    returned unchanged.

    Raises:
        InputError: for wrong values; the message names the file, the key, the value and the nearest valid name.
    """
    values = mapping(Path(file), f"a study is a mapping of sections: {', '.join(Study.model_fields)}")
    own: list[str] = []
    others: list[str] = []
    for text in overrides:
        (others if text.split(".", 1)[0] in Recipe.model_fields else own).append(text)
    for text in own:
        _override(values, text)
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        axes = values.get("grid")
        raise InputError(f"{file}: {_first(error, ['stage', *(axes if isinstance(axes, dict) else ())])}") from None
    _check(study, str(file))
    if not study.study.folder:
        settings = study.study.model_copy(update={"folder": f"runs/studies/{Path(file).stem}"})
        study = study.model_copy(update={"study": settings})
    return study, tuple(others)


def mapping(file: Path, meant: str) -> dict[str, Any]:
    """The mapping in a YAML file; keys that are not texts, such as 0.5, become texts.

    Raises:
        InputError: if the file does not hold a mapping; ``meant`` is the rest of the message.
    """
    values = safe_yaml.read(expanded(file))
    if not isinstance(values, dict):
        raise InputError(f"{file}: {meant}")
    return dict(json.loads(json.dumps(values, default=str)))


def listed(names: Several) -> tuple[str, ...]:
    """One name or several as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def _override(values: dict[str, Any], text: str) -> None:
    path, found = parsed(text, "study.gpus=0.5")
    *parents, last = path.split(".")
    for name in parents:
        below = values.get(name)
        values[name] = below if isinstance(below, dict) else {}
        values = values[name]
    values[last] = found


def _check(study: Study, file: str) -> None:
    """Raise `InputError` for a study with wrong, unknown or repeated names."""
    for section, first in {
        "stages": "dense: {verb: train, recipe: dense.yaml}",
        "grid": "seed: {key: run.seed, values: [0, 1, 2]}",
    }.items():
        names = list(getattr(study, section))
        if not names:
            raise InputError(f"{file}: {section}: it is empty; give one, such as {first}")
        for name in names:
            if not re.fullmatch(r"[\w-]+", name) or name == "stage":
                raise InputError(f"{file}: {section}: {name!r} is not a name; use letters, digits, _ and -")
    for name, stage in study.stages.items():
        _acyclic(study, name, file)
        if stage.after is None and stage.uses == "teacher":
            raise InputError(f"{file}: stages.{name}.uses: teacher needs a stage as after; name one, or leave uses out")
    for name, axis in study.grid.items():
        for stage_name in listed(axis.stages):
            _known(f"{file}: grid.{name}.stages", stage_name, "stage", study.stages)
        _check_axis(name, axis, file)
    _check_table(study.table, [*study.grid, "stage"], file)
    _check_comparison(study, file)


def _check_comparison(study: Study, file: str) -> None:
    if (asked := study.comparison) is None:
        return
    for where, names in {"pairs": listed(asked.pairs), "by": listed(asked.by)}.items():
        for name in names:
            _known(f"{file}: comparison.{where}", name, "axis", study.grid)
    if not (pairs := paired(study, asked)):
        have = ", ".join(study.grid)
        raise InputError(f"{file}: comparison.pairs: no axis sets run.seed or leaves domains out; name some of: {have}")
    if both := set(pairs) & set(listed(asked.by)):
        raise InputError(f"{file}: comparison: {min(both)!r} is both in pairs and in by; leave it out of one")


def paired(study: Study, asked: Comparison, *, seeds: bool = False) -> tuple[str, ...]:
    """The axes along which the cells of a comparison are paired; with ``seeds`` only those that set the seed."""

    def sets_seed(axis: Axis) -> bool:
        values = axis.values.values() if isinstance(axis.values, dict) else axis.values
        return axis.key == "run.seed" or any(isinstance(one, dict) and "run.seed" in one for one in values)

    usual = [name for name, axis in study.grid.items() if sets_seed(axis) or axis.leave_out is not None]
    names = listed(asked.pairs) or tuple(usual)
    return tuple(name for name in names if sets_seed(study.grid[name])) if seeds else names


def _check_table(table: Show, axes: list[str], file: str) -> None:
    across = listed(table.columns)
    duels = [name for one in compared(table) for name in (one.axis, *listed(one.by))]
    for where, names in {"rows": listed(table.rows or ()), "columns": across, "compare": duels}.items():
        for name in names:
            _known(f"{file}: table.{where}", name, "axis", axes)
        if where == "rows" and (both := set(names) & set(across)):
            raise InputError(f"{file}: table: {min(both)!r} is both a row and a column")


def compared(table: Show) -> tuple[Compare, ...]:
    """The comparisons of ``table``."""
    return (table.compare,) if isinstance(table.compare, Compare) else table.compare


def value_name(value: Any) -> str:
    """The name of a plain value of an axis: its YAML text, with _ for characters that folder names cannot have."""
    text = yaml.safe_dump(value, default_flow_style=True).split("\n")[0] if not isinstance(value, str) else value
    return re.sub(r"[^\w.+-]", "_", text)


def against(one: Compare) -> tuple[str | float | bool | None, ...]:
    """The values to compare with; empty for all others."""
    return one.against if isinstance(one.against, tuple) else (one.against,)


def _check_axis(name: str, axis: Axis, file: str) -> None:
    here = f"{file}: grid.{name}"
    if axis.leave_out is not None:
        if axis.key is not None or axis.values:
            raise InputError(f"{here}: leave_out sets data.sources and data.unseen; give no key and no values")
        return
    if not axis.values:
        raise InputError(f"{here}: it has no values; give some, such as values: [0, 1, 2]")
    if axis.key is None:
        kept = axis.values.values() if isinstance(axis.values, dict) else [None]
        if not all(isinstance(value, dict) for value in kept):
            raise InputError(f"{here}: without a key each value is a mapping, such as values: {{a: {{optim.lr: 0.1}}}}")
    elif isinstance(axis.values, list) and any(isinstance(value, (list, dict)) for value in axis.values):
        raise InputError(f"{here}: values that are lists or mappings need names: values: {{small: [64, 64]}}")


def _known(where: str, name: str, kind: str, known: Iterable[str]) -> None:
    if name not in (names := list(known)):
        raise InputError(f"{where}: there is no {kind} {name!r}{nearest(name, names)}; there are: {', '.join(names)}")


def _acyclic(study: Study, name: str, file: str) -> None:
    chain = [name]
    while (before := study.stages[chain[-1]].after) is not None:
        if before in chain:
            raise InputError(
                f"{file}: stages: {' after '.join([*chain, before])} is a circle; a first stage has no after"
            )
        _known(f"{file}: stages.{chain[-1]}.after", before, "stage", study.stages)
        chain.append(before)


def _first(error: ValidationError, filters: Sequence[str]) -> str:
    """One line for the first problem pydantic found; ``filters`` are the names that ``--only`` takes."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    where = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = list(_section(path[:-1]).model_fields)
        if where in filters:
            return f"unknown key {quoted(where)}; to run a part of the cells, give each filter as --only {where}=..."
        return f"unknown key {quoted(where)}{nearest(path[-1], known)}; there are: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    return worded(where, problem)


def _section(path: list[str]) -> Any:
    """The section at ``path``."""
    if path[:1] == ["table"] and "compare" in path:
        return Compare
    known = {"study": Settings, "stages": Stage, "grid": Axis, "table": Show, "comparison": Comparison}
    return known[path[0]] if path else Study
