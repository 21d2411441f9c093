"""Words that the shell completes after a command: settings of a recipe, methods, kinds, data sets. Imports no torch."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel

from hardy.choices import choices, models
from hardy.recipe import Recipe
from hardy.registry import KINDS
from hardy.sections import Method

__all__ = ["CHOICES", "adapting", "among", "datasets", "domains", "kinds", "overrides"]

CHOICES = {
    "runtime": ("eager", "onnxruntime", "openvino"),
    "dtype": ("float32", "bfloat16"),
    "upsample": ("full", "borders", "half", "none"),
    "statistics": ("fixed", "inputs", "observed"),
    "device": ("auto", "cpu", "cuda"),
}
"""The values of options that have a few. Their own modules import torch, which takes longer than one waits for Tab."""


def among(option: str) -> Callable[[str], list[str]]:
    """A function that completes the values of ``option``, one of `CHOICES`."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in CHOICES[option] if value.startswith(incomplete)]

    return complete


def kinds(incomplete: str) -> list[str]:
    """The kinds of methods that begin with ``incomplete``."""
    return [name for name in KINDS if name.startswith(incomplete)]


def overrides(context: typer.Context, incomplete: str) -> list[str]:
    """Overrides that begin with ``incomplete``: a setting and ``=``; after ``=``, the values of the setting."""
    return _overrides(context, incomplete, "")


def adapting(context: typer.Context, incomplete: str) -> list[str]:
    """As `overrides`, only for the section ``adapt``."""
    return _overrides(context, incomplete, "adapt.")


def datasets(incomplete: str) -> list[str]:
    """The data sets that begin with ``incomplete``."""
    return [name for name in KINDS["dataset"].names() if name.startswith(incomplete)]


def domains(context: typer.Context, incomplete: str) -> list[str]:
    """The words of `datasets` and `adapting`."""
    return [*datasets(incomplete), *adapting(context, incomplete)]


def _overrides(context: typer.Context, incomplete: str, below: str) -> list[str]:
    known = {path: values for path, values in _settings(Recipe) if path.startswith(below)}
    words = next((each for each in context.params.values() if isinstance(each, list | tuple)), [])
    before = next((str(word) for word in reversed(words) if word != "="), "")
    if words[-1:] == ["="] or before in known:  # bash splits PATH=VALUE into three words
        return [value for value in known.get(before, ()) if value.startswith(incomplete)]
    path, sign, begun = incomplete.partition("=")
    if sign:
        return [f"{path}={value}" for value in known.get(path, ()) if value.startswith(begun)]
    return [f"{each}=" for each in known if each.startswith(path)]


def _settings(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, list[str]]]:
    """The path of every setting in ``model`` and its possible values, if they are a fixed set."""
    methods = {choice.path: choice.registry for choice in choices(model)}
    for name, field in model.model_fields.items():
        here = f"{path}{name}"
        inner = [each for each in models(field.annotation) if not issubclass(each, Method)]
        if name in methods:
            yield f"{here}.name", methods[name].names()
        elif inner:
            for each in inner:
                yield from _settings(each, f"{here}.")
        else:
            yield here, _values(field.annotation)


def _values(annotation: Any) -> list[str]:
    if annotation is bool:
        return ["true", "false"]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [value for part in get_args(annotation) for value in _values(part)]
