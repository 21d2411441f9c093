"""The cells of a study: every combination of the values of a stage's axes, with its recipe.

A stage has its own axes and those of the stage that it continues from: a pruned network continues from the dense
network with the same values on the axes of the dense stage. Every recipe is checked before any cell starts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import yaml

from hardy.errors import InputError, nearest
from hardy.files import expanded
from hardy.recipe import Recipe, from_values
from hardy.studies.study import Axis, Stage, Study, against, compared, listed, mapping, value_name

__all__ = ["Cell", "Cells", "filters", "make_cells"]

MOST_CELLS = 20_000
"""The largest number of cells of a study."""

_AFTER = "{after}"
"""A placeholder in values of a recipe: the folder of the cell that this cell continues from."""

Setting = Mapping[str, Any]
"""The keys of a recipe that a value of an axis sets, with their values."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        name: ``stage,axis=value,...`` with the axes sorted; also the name of its folder in ``cells``.
        stage: the stage's name.
        verb: ``train`` or ``prune``.
        axes: axis -> name of its value, in the grid's order.
        recipe: the complete recipe.
        after: name of the cell whose network it continues from.
    """

    name: str
    stage: str
    verb: str
    axes: Mapping[str, str]
    recipe: Recipe
    after: str | None = None


@dataclass(frozen=True)
class Cells:
    """All cells of a study, each after the cell it continues from, and the value names of each axis and ``stage``."""

    cells: tuple[Cell, ...]
    value_names: Mapping[str, Sequence[str]]

    def chosen(self, *filters: Mapping[str, Any]) -> tuple[Cell, ...]:
        """The cells that match every filter (axis -> one or several values) on the axes that they have.

        The cells that they continue from are included.

        Raises:
            InputError: for an unknown axis or value, or if no cell is left.
        """
        self.check(*filters)
        kept: set[str] = set()
        for cell in reversed(self.cells):
            here = {**cell.axes, "stage": cell.stage}
            if cell.name in kept or all(
                here[name] in _names(wanted) for one in filters for name, wanted in one.items() if name in here
            ):
                kept |= {cell.name, cell.after or cell.name}
        if not kept:
            raise InputError("skip and only exclude every cell; change them so that some are left")
        return tuple(cell for cell in self.cells if cell.name in kept)

    def check(self, *filters: Mapping[str, Any]) -> None:
        """Raise `InputError` for filters with an unknown axis or value."""
        for one in filters:
            for name, wanted in one.items():
                if name not in self.value_names:
                    have = ", ".join(self.value_names)
                    raise InputError(f"there is no axis {name!r}{nearest(name, self.value_names)}; there are: {have}")
                known = self.value_names[name]
                for text in sorted(_names(wanted) - set(known)):
                    hint = nearest(text, known)
                    raise InputError(f"{name} has no value {text!r}{hint}; it has: {', '.join(known)}")


def make_cells(study: Study, file: Path, overrides: Sequence[str] = ()) -> Cells:
    """The cells of ``study``, which was read from ``file``, with ``key=value`` overrides for the recipes of all stages.

    Raises:
        InputError: for an invalid recipe (the message names the cell), or for an unknown axis or value.
    """
    _refuse_overridden(study, overrides)
    values = {name: _settings(name, axis, study, file, overrides) for name, axis in study.grid.items()}
    axes = {name: tuple(axis for axis in study.grid if axis in _axes(study, name)) for name in study.stages}
    _refuse_endless(study, values, axes)
    made: dict[str, Cell] = {}
    for name in _in_order(study):
        stage = study.stages[name]
        more = [text for text in overrides if stage.verb == "prune" or text[:6] != "prune."]
        written = mapping(
            file.parent / expanded(stage.recipe), f"a recipe is a mapping of sections: {', '.join(Recipe.model_fields)}"
        )
        for combination in product(*(values[axis] for axis in axes[name])):
            chosen = dict(zip(axes[name], combination, strict=True))
            before = _name(stage.after, chosen, axes) if stage.after else None
            if _skipped(study, name, chosen) or (before and before not in made):
                continue
            cell = _name(name, chosen, axes)
            own = [values[axis][text] for axis, text in chosen.items() if name in _stages(study, axis)]
            folder = str(_folder(study) / before) if before else None
            set_by_stage, *set_by_axes = [_texts(_continued(setting, folder, cell)) for setting in (stage.set, *own)]
            texts = [
                *set_by_stage,
                *more,
                *(text for texts in set_by_axes for text in texts),
                *_run_keys(study, cell, before, stage.uses),
            ]
            recipe = from_values(written, texts, f"{file}: cell {cell}")
            _refuse_no_prune(stage, recipe, file.parent / expanded(stage.recipe))
            made[cell] = Cell(cell, name, stage.verb, chosen, recipe, before)
    cells = Cells(tuple(made.values()), {**{name: list(named) for name, named in values.items()}, "stage": [*axes]})
    cells.check(*study.skip, *({one.axis: [one.of, *against(one)]} for one in compared(study.table)))
    return cells


def _refuse_endless(
    study: Study, values: Mapping[str, Mapping[str, Setting]], axes: Mapping[str, Sequence[str]]
) -> None:
    """Raise `InputError` for a grid with too many cells, before any cell is made."""
    count = sum(prod(len(values[axis]) for axis in axes[name]) for name in study.stages)
    if count > MOST_CELLS:
        raise InputError(f"grid: it has {count:,} cells; a study has at most {MOST_CELLS:,}: use fewer values")


def filters(texts: Sequence[str]) -> dict[str, list[str]]:
    """The texts ``axis=value`` and ``axis=value,value`` as a single filter.

    Raises:
        InputError: for a text that does not have this form.
    """
    given: dict[str, list[str]] = {}
    for text in texts:
        name, sign, wanted = text.partition("=")
        if not sign:
            raise InputError(f"--only {text!r} is not of the form axis=value, such as seed=0 or stage=dense")
        given.setdefault(name, []).extend(wanted.split(","))
    return given


def _stages(study: Study, axis: str) -> tuple[str, ...]:
    """The stages whose recipes ``axis`` sets."""
    return listed(study.grid[axis].stages) or tuple(study.stages)


def _axes(study: Study, stage: str) -> set[str]:
    """The axes of the cells of ``stage``."""
    before = study.stages[stage].after
    return {axis for axis in study.grid if stage in _stages(study, axis)} | (_axes(study, before) if before else set())


def _in_order(study: Study) -> Iterator[str]:
    """The stages, each after the one it depends on."""
    left = list(study.stages)
    while left:
        name = next(name for name in left if study.stages[name].after not in left)
        left.remove(name)
        yield name


def _name(stage: str, chosen: Mapping[str, str], axes: Mapping[str, Sequence[str]]) -> str:
    """The name of a cell, which does not depend on the order of the axes in the file."""
    return ",".join([stage, *(f"{axis}={chosen[axis]}" for axis in sorted(axes[stage]))])


def _settings(name: str, axis: Axis, study: Study, file: Path, overrides: Sequence[str]) -> dict[str, Setting]:
    """Value name -> setting, for every value of an axis."""
    if axis.leave_out is not None:
        return _left_out(name, axis, study, file, overrides)
    named = (
        axis.values.items() if isinstance(axis.values, dict) else [(value_name(value), value) for value in axis.values]
    )
    settings: dict[str, Setting] = {}
    for text, value in named:
        if value_name(text) in settings:
            raise InputError(
                f"{file}: grid.{name}: two values are called {value_name(text)!r}; give them different names"
            )
        settings[value_name(text)] = value if axis.key is None else {axis.key: value}
    return settings


def _left_out(name: str, axis: Axis, study: Study, file: Path, overrides: Sequence[str]) -> dict[str, Setting]:
    """Domain name -> setting with this domain as the unseen one and the others as sources; ``overrides`` may change the
    root and the options of data sets."""
    from hardy.data import sources  # which imports torch

    references = listed(axis.leave_out or ())
    if any("/" not in reference or reference.endswith("/*") for reference in references):
        stage = study.stages[_stages(study, name)[0]]
        written = mapping(file.parent / expanded(stage.recipe), "a recipe is a mapping of sections").get("data", {})
        texts = [text for text in (*_texts(stage.set), *overrides) if text.startswith("data.")]
        data = from_values({"network": {"run": "any"}, "data": written}, texts, stage.recipe).data
        domains = sources.domains(references, root=sources.data_root(data.root), options=data.datasets)
        references = tuple(domain.name for domain in domains)
    if len(set(references)) < max(2, len(references)):
        raise InputError(
            f"{file}: grid.{name}.leave_out: it needs two or more different domains, got {list(references)}"
        )
    short = [value_name(reference.split("/", 1)[1]) for reference in references]
    names = short if len(set(short)) == len(short) else [value_name(reference) for reference in references]
    return {
        text: {"data.unseen": [unseen], "data.sources": [other for other in references if other != unseen]}
        for text, unseen in zip(names, references, strict=True)
    }


def _texts(setting: Setting) -> list[str]:
    """``setting`` as overrides of a recipe."""
    return [f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10**9)}" for key, value in setting.items()]


def _continued(value: Any, folder: str | None, cell: str) -> Any:
    """``value`` with `_AFTER` replaced by ``folder``, the folder of the cell that this cell continues from.

    Raises:
        InputError: if the stage of this cell does not continue from another stage.
    """
    if isinstance(value, Mapping):
        return {key: _continued(one, folder, cell) for key, one in value.items()}
    if isinstance(value, list):
        return [_continued(one, folder, cell) for one in value]
    if not isinstance(value, str) or _AFTER not in value:
        return value
    if folder is None:
        raise InputError(
            f"cell {cell}: {value!r} needs the stage that this one continues from; name that stage as after"
        )
    return value.replace(_AFTER, folder)


def _folder(study: Study) -> Path:
    return Path(expanded(study.study.folder)) / "cells"


def _run_keys(study: Study, cell: str, before: str | None, uses: str) -> list[str]:
    """Overrides for a cell's folder, its threads, and the network that it continues from or its teacher."""
    folder = _folder(study)
    keys: dict[str, Any] = {"run.folder": str(folder / cell), "run.threads": max(1, int(study.study.cpus))}
    return _texts({**keys, **({f"{uses}.run": str(folder / before)} if before else {})})


def _skipped(study: Study, stage: str, chosen: Mapping[str, str]) -> bool:
    """Whether one of the study's ``skip`` filters matches this cell on all axes that it names."""
    here = {**chosen, "stage": stage}
    return any(all(name in here and here[name] in _names(wanted) for name, wanted in one.items()) for one in study.skip)


def _names(wanted: Any) -> set[str]:
    return {value_name(value) for value in (wanted if isinstance(wanted, list) else [wanted])}


def _refuse_overridden(study: Study, overrides: Sequence[str]) -> None:
    """Raise `InputError` for an override of a key that the grid sets."""
    for name, axis in study.grid.items():
        for text in overrides:
            if axis.key and text.split("=", 1)[0].strip() == axis.key:
                raise InputError(f"override {text!r}: grid.{name} sets that key; override grid.{name}.values")


def _refuse_no_prune(stage: Stage, recipe: Recipe, file: Path) -> None:
    if stage.verb == "prune" and recipe.prune is None:
        raise InputError(f"{file}: verb prune needs a prune section, such as prune: {{criterion: ior, ratio: 0.5}}")
