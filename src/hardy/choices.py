"""Fields of a recipe that are marked with a `Kind` of method: their completion and their paths.

Neither torch nor a method is imported here: options are read from source (`hardy.registry`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from hardy.registry import KINDS, Registry
from hardy.sections import Kind, Method
from hardy.trust import permit

__all__ = ["Choice", "choices", "completed", "keys", "models", "references"]


@dataclass(frozen=True)
class Choice:
    """A field of a recipe that chooses a method.

    Attributes:
        path: its dotted path, such as ``prune.criterion``.
        registry: the methods that it chooses from.
        model: the class of its value, `Method` or a subclass.
        usual: the default method; None if there is none.
        optional: whether the field may be null.
    """

    path: str
    registry: Registry
    model: type[Method]
    usual: str | None
    optional: bool


def kind_of(annotations: tuple[Any, ...]) -> str | None:
    """The name of the kind that a field is marked with; None if it is not marked."""
    return next((mark.name for mark in annotations if isinstance(mark, Kind)), None)


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections among the types of ``annotation``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation)[: 1 if get_origin(annotation) is Annotated else None]:
        yield from models(part)


def choices(model: type[BaseModel], path: str = "") -> Iterator[Choice]:
    """Every field of ``model``, and of the sections in it, that chooses a method."""
    for name, field in model.model_fields.items():
        kind = kind_of(tuple(field.metadata))
        for inner in models(field.annotation):
            if kind and issubclass(inner, Method):
                usual = field.default.name if isinstance(field.default, Method) else None
                yield Choice(f"{path}{name}", KINDS[kind], inner, usual, field.default is None)
            elif not issubclass(inner, Method):
                yield from choices(inner, f"{path}{name}.")


def keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The dotted path of every key of ``model`` and of the sections in it; some more than once."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}"
        for inner in models(field.annotation):
            yield from keys(inner, f"{path}{name}.")


def completed(section: BaseModel) -> dict[str, Any]:
    """The values of ``section`` as JSON, with every option of every method that it chooses.

    Raises:
        InputError: for an unknown method, an unknown option or a value of a wrong type.
    """
    values = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value, kind = getattr(section, name), kind_of(tuple(field.metadata))
        if isinstance(value, Method) and kind:
            if value.name:
                values[name].update(_permitted(KINDS[kind].describe(value.name).check(value.options)))
        elif isinstance(value, Mapping) and kind:
            values[name] = {each: _options(KINDS[kind], each, options) for each, options in value.items()}
        elif isinstance(value, BaseModel):
            values[name] = completed(value)
    return values


def references(section: BaseModel, kind: str) -> Iterator[str]:
    """The methods of ``kind`` that the lists in ``section`` name, as in ``streets/night``; some more than once."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, tuple) and kind_of(tuple(field.metadata)) == kind:
            yield from (entry.split("/", 1)[0] for entry in value)
        elif isinstance(value, BaseModel):
            yield from references(value, kind)


def _permitted(options: dict[str, Any]) -> dict[str, Any]:
    """``options``, after a check that the methods of other kinds in them, such as a decoder, may run."""
    for key, name in options.items():
        if key in KINDS and isinstance(name, str) and ":" in name:
            permit(key, name)
    return options


def _options(registry: Registry, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``name``, and its ``root`` if one is given, which is not an option of the method."""
    root = {key: value for key, value in options.items() if key == "root"}
    return {**root, **registry.describe(name).check({key: options[key] for key in options if key not in root})}
