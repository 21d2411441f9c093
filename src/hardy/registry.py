"""The registries of methods: a method's name is its file's name, its options are its constructor's keywords.

`Registry` finds the methods of one kind: the modules of a package except ``base`` and those with a leading underscore.
The purpose, the source and the options of a method are read from its file with `ast`. So listing, completing and
checking a recipe import neither the method nor torch.
"""

import ast
import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, create_model, field_validator

from hardy.errors import InputError, nearest, worded
from hardy.ranges import no_truth_as_number
from hardy.sections import Kind
from hardy.trust import permit

__all__ = ["KINDS", "SUPPLIES", "Method", "Option", "Registry"]

ANNOTATIONS: dict[str, Any] = {
    "Annotated": Annotated,
    "Any": Any,
    "Kind": Kind,
    "Literal": Literal,
    "Mapping": Mapping,
    "Path": Path,
    "Sequence": Sequence,
}
"""The names that an option's annotation may use in addition to the builtins."""

SUPPLIES = {
    "network": "the network that is trained, pruned, tuned or adapted",
    "label_space": "the label space of a network",
    "source_images": "clean images of the source domain: of the run's data.sources, or source_images=... in Python",
    "pixel_loss": "the loss of one head",
    "class_count": "the number of classes K",
    "teacher": "the frozen network to learn from; name one as teacher: {run: runs/x}",
    "steps": "the number of optimiser steps",
    "matching": "the features of student and teacher that belong together",
    "units": "the coupled channels of the network",
    "channels": "the channels of an encoder's maps, finest first",
    "strides": "the strides of these maps",
    "root": "the folder of a dataset",
    "name": "the size of an encoder, by name",
}
"""What the program can supply to a constructor: the name of the argument before the ``*``, and its meaning."""

FORMER_SUPPLIES = {"labels": "label_space"}
"""Former names of arguments before the ``*``; deprecated, but still supplied."""


@dataclass(frozen=True)
class Option:
    """One option of a method: its name, the text of its type, and its default."""

    name: str
    type: str
    default: Any

    def annotation(self) -> Any:
        """The type itself."""
        return eval(self.type, dict(ANNOTATIONS))  # noqa: S307 - text of Hardy's or the user's own source file

    @property
    def shown(self) -> str:
        """The type for users: its text, or ``{kind: {option: value}}`` if the keys are methods of this kind."""
        return f"{{{self.kind}: {{option: value}}}}" if self.kind else self.type

    @property
    def kind(self) -> str | None:
        """The kind of methods if the value is ``{method: options}``; None for any other option."""
        if "Kind(" not in self.type:
            return None
        return next(mark.name for mark in get_args(self.annotation())[1:] if isinstance(mark, Kind))


@dataclass(frozen=True)
class Method:
    """The description of a method, read without importing it.

    Attributes:
        name: as in a recipe.
        class_name: its class.
        purpose: first line of the module docstring.
        source: the ``Source:`` paragraph of the module docstring (authors, venue, year), or ``""``.
        options: its options in order.
        supplied: the arguments before the ``*``, which the program must supply; None for a class without a constructor
            (its registry then uses those of the interface).
    """

    name: str
    class_name: str
    purpose: str
    source: str
    options: tuple[Option, ...]
    supplied: tuple[str, ...] | None = ()

    @cached_property
    def model(self) -> type[BaseModel]:
        """A strict pydantic model of the options."""
        fields: dict[str, Any] = {option.name: (option.annotation(), option.default) for option in self.options}
        return create_model(
            self.class_name,
            __config__=ConfigDict(extra="forbid", allow_inf_nan=False),
            __validators__={"truth": field_validator("*", mode="wrap")(no_truth_as_number)},
            **fields,
        )

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Every option with its given or default value.

        Raises:
            InputError: for an unknown option (the message names the nearest known one) or a value of a wrong type.
        """
        known = [option.name for option in self.options]
        for name in options:
            if name not in known:
                have = ", ".join(known) or "none"
                hint = self._inside(name) or nearest(name, known)
                raise InputError(f"{self.class_name} has no option {name!r}{hint}; it has: {have}")
        try:
            values = dict(self.model(**options))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join([self.class_name, *(str(part) for part in first["loc"])])
            raise InputError(worded(where, first)) from None
        for option in self.options:
            if option.kind:
                registry = KINDS[option.kind]
                values[option.name] = {
                    name: registry.describe(name).check(inner) for name, inner in values[option.name].items()
                }
        return values

    def _inside(self, name: str) -> str:
        """A hint for the message if the methods in one of the options have an option ``name``; otherwise empty."""
        for option in self.options:
            inner = KINDS.get(option.kind or "")
            if inner and any(name == each.name for method in inner for each in inner.describe(method).options):
                return f", but each of its {option.name} may: {option.name}: {{NAME: {{{name}: ...}}}}"
        return ""


class Registry:
    """The methods of one kind, found by file name.

    Args:
        kind: the name of the kind, in the singular.
        package: the package whose modules are the methods.
        interface: the name of the interface's class.
        home: the module of the interface; by default ``package.base``.
    """

    def __init__(self, kind: str, package: str, interface: str, home: str | None = None) -> None:
        self.kind = kind
        self.package = package
        self.interface_name = interface
        self.home = home or f"{package}.base"

    @property
    def interface(self) -> type:
        """The class that every method of this kind implements (imports it)."""
        return getattr(importlib.import_module(self.home), self.interface_name)  # type: ignore[no-any-return]

    def folders(self) -> list[str]:
        """The folders with the methods, including folders appended to the package's ``__path__``."""
        module = importlib.import_module(self.package)
        return list(module.__path__)

    def names(self) -> list[str]:
        """The names of all methods, sorted."""
        return sorted(
            info.name
            for info in pkgutil.iter_modules(self.folders())
            if not info.ispkg and info.name != "base" and not info.name.startswith("_")
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def describe(self, name: str) -> Method:
        """The description of ``name``, which is not imported, also when it is an outside ``module:Class``.

        Raises:
            InputError: for an unknown name (the message names the nearest known one), or for an outside name that comes
                from a file and is not trusted, because finding it imports its parent packages.
        """
        if ":" in name:
            permit(self.kind, name)
            module, class_name = name.split(":", 1)
            return self._described(_describe(name, self._source_of(module, name), class_name))
        return self._described(_describe(name, self._file(name), None))

    def _described(self, method: Method) -> Method:
        """``method``; without a constructor it gets the supplied arguments of the interface."""
        return method if method.supplied is not None else replace(method, supplied=self._inherited)

    @cached_property
    def _inherited(self) -> tuple[str, ...]:
        return _describe("base", self._source_of(self.home, "base"), self.interface_name).supplied or ()

    def get(self, name: str) -> type:
        """The class of method ``name``, or of an outside ``"module:Class"``.

        Raises:
            InputError: when it is not of this kind, and what `describe` raises.
        """
        method = self.describe(name)
        module_name = name.split(":", maxsplit=1)[0] if ":" in name else f"{self.package}.{name}"
        cls = getattr(importlib.import_module(module_name), method.class_name)
        if not (inspect.isclass(cls) and issubclass(cls, self.interface)):
            raise InputError(f"{name!r} is not a {self.kind}: {cls!r} does not implement {self.interface_name}")
        return cls

    def build(self, name: str, supply: Mapping[str, Any] | None = None, /, **options: Any) -> Any:
        """An instance of ``name``.

        Args:
            name: the method.
            supply: values by the names of `SUPPLIES`. The constructor gets the ones that it names before its ``*``, as
                pytest passes fixtures; the others are not used.
            options: the method's options; they are checked.

        Raises:
            InputError: for wrong options, or a constructor with an argument that is not supplied here.
        """
        method = self.describe(name)
        supplied = {argument: self._supplied(method, argument, supply or {}) for argument in method.supplied or ()}
        return self.get(name)(**supplied, **method.check(options))

    def _supplied(self, method: Method, argument: str, supply: Mapping[str, Any]) -> Any:
        known = FORMER_SUPPLIES.get(argument, argument)
        value = supply.get(known)
        if value is not None:
            return value
        if known not in SUPPLIES:
            have = ", ".join(SUPPLIES)
            raise InputError(
                f"{self.kind} {method.name!r}: its constructor has the argument {argument!r}"
                f"{nearest(argument, SUPPLIES)}; the arguments before its * can be: {have}"
            )
        raise InputError(f"{self.kind}: {method.name} needs {argument!r}, which is missing: {SUPPLIES[known]}")

    def _file(self, name: str) -> Path:
        if name.isidentifier() and name != "base" and not name.startswith("_"):
            for folder in self.folders():
                if (path := Path(folder) / f"{name}.py").exists() and _spelled(path):
                    return path
        have = ", ".join(known := self.names())
        raise InputError(f"there is no {self.kind} {name!r}{nearest(name, known)}; there are: {have}")

    def _source_of(self, module: str, name: str) -> Path:
        try:
            spec = find_spec(module)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None or not Path(spec.origin).is_file():
            raise InputError(f"{self.kind} {name!r}: no module {module!r} can be imported from here")
        return Path(spec.origin)


@cache
def _spelled(file: Path) -> bool:
    """Whether the existing ``file`` has exactly this name, also on a file system that ignores case."""
    return file.name in os.listdir(file.parent)


def _describe(name: str, file: Path, class_name: str | None) -> Method:
    written = file.stat()
    return _read(name, file, class_name, written.st_mtime_ns, written.st_size)


@cache
def _read(name: str, file: Path, class_name: str | None, changed: int, size: int) -> Method:
    """The method in ``file``; the cache is keyed by its modification time ``changed`` and its ``size`` in bytes."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    if class_name is not None:
        classes = [node for node in classes if node.name == class_name]
    if len(classes) != 1:
        names = ", ".join(node.name for node in classes) or "none"
        raise InputError(f"{file}: a method's file holds exactly one public class; found {names}")
    doc = inspect.cleandoc(ast.get_docstring(tree) or "")
    purpose = doc.split("\n", 1)[0].strip()
    source = next((" ".join(p.split())[7:].strip() for p in doc.split("\n\n") if p.startswith("Source:")), "")
    options = tuple(_options(classes[0], file))
    return Method(name, classes[0].name, purpose, source, options, _supplied(classes[0]))


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), None)


def _supplied(node: ast.ClassDef) -> tuple[str, ...] | None:
    init = _constructor(node)
    return None if init is None else tuple(argument.arg for argument in init.args.args[1:])


def _options(node: ast.ClassDef, file: Path) -> Iterator[Option]:
    init = _constructor(node)
    if init is None:
        return
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        if argument.annotation is None or default is None:
            raise InputError(f"{file}: option {argument.arg!r} of {node.name} needs a type and a default")
        yield Option(argument.arg, ast.unparse(argument.annotation), ast.literal_eval(default))


KINDS = {
    registry.kind: registry
    for registry in (
        Registry("adaptation", "hardy.adaptation", "TestTimeAdaptation"),
        Registry("algorithm", "hardy.algorithms", "Algorithm"),
        Registry("criterion", "hardy.pruning.criteria", "Criterion"),
        Registry("dataset", "hardy.data.datasets", "Dataset", "hardy.data.base"),
        Registry("decoder", "hardy.networks.decoders", "Decoder"),
        Registry("distillation", "hardy.distillation", "DistillationLoss"),
        Registry("encoder", "hardy.networks.encoders", "Encoder"),
        Registry("loss", "hardy.losses", "Loss"),
        Registry("network", "hardy.networks", "Network"),
        Registry("publication", "hardy.networks.published", "Publication"),
        Registry("schedule", "hardy.pruning.schedules", "Schedule"),
        Registry("tuner", "hardy.tuning", "Tuner"),
        Registry("weights", "hardy.networks.shipped", "ShippedWeights"),
    )
}
"""All kinds of methods, by name."""

ADAPTATIONS = KINDS["adaptation"]
ALGORITHMS = KINDS["algorithm"]
CRITERIA = KINDS["criterion"]
DATASETS = KINDS["dataset"]
DECODERS = KINDS["decoder"]
DISTILLATIONS = KINDS["distillation"]
ENCODERS = KINDS["encoder"]
LOSSES = KINDS["loss"]
NETWORKS = KINDS["network"]
PUBLICATIONS = KINDS["publication"]
SCHEDULES = KINDS["schedule"]
TUNERS = KINDS["tuner"]
WEIGHTS = KINDS["weights"]
