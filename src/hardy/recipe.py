"""The recipe of a run: one YAML file, which is read, overridden, checked and completed before any data is read.

No torch is imported here: the options of methods are checked through `hardy.registry`, which reads them from source.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from hardy import safe_yaml
from hardy.choices import Choice, choices, completed, keys, models, references
from hardy.errors import InputError, nearest, quoted, worded
from hardy.files import expanded, write_text
from hardy.sections import (
    Adapt,
    Data,
    Evaluate,
    Kind,
    Method,
    NetworkChoice,
    Optim,
    Prune,
    RunSection,
    Search,
    Section,
    Stream,
    Teacher,
    Teachers,
)
from hardy.trust import from_file, names_typed

__all__ = [
    "Adapt",
    "Data",
    "Evaluate",
    "Method",
    "NetworkChoice",
    "Optim",
    "Prune",
    "Recipe",
    "RunSection",
    "Search",
    "Stream",
    "Teacher",
    "first_of",
    "from_values",
    "parsed",
    "read",
]


class Recipe(Section):
    """The recipe of one run."""

    network: Annotated[NetworkChoice, Kind("network")]
    data: Data
    algorithm: Annotated[Method, Kind("algorithm")] = Method(name="erm")
    teacher: Teachers | None = None
    loss: Annotated[Method, Kind("loss")] = Method(name="cross_entropy")
    tuner: Annotated[Method | None, Kind("tuner")] = None
    optim: Optim = Optim()
    prune: Prune | None = None
    search: Search | None = None
    adapt: Annotated[Adapt | None, Kind("adaptation")] = None
    stream: Stream | None = None
    evaluate: Evaluate = Evaluate()
    run: RunSection = RunSection()

    @model_validator(mode="before")
    @classmethod
    def _without_data(cls, value: Any) -> Any:
        """Pruning is possible without data. Then nothing is trained, and the default schedule is ``one_shot``."""
        if not isinstance(value, dict) or not isinstance(prune := value.get("prune"), dict):
            return value
        data = value.get("data", {})
        if "schedule" not in prune and not (isinstance(data, dict) and data.get("sources")):
            prune = {"schedule": {"name": "one_shot"}, **prune}
        return {**value, "data": data, "prune": prune}

    @model_validator(mode="after")
    def _adapts_once(self) -> Self:
        if self.adapt:
            self.adapt.refuse_views(self.evaluate)
        return self

    @classmethod
    def of(cls, values: Mapping[str, Any], overrides: Iterable[str] = (), origin: str = "recipe") -> Self:
        """The completed recipe of nested ``values`` and ``key=value`` overrides; ``origin`` is its name in messages.

        Raises:
            InputError: for wrong values; the message names the key, the value and the nearest valid name.
        """
        merged: dict[str, Any] = json.loads(json.dumps(values, default=str))
        chosen = {choice.path: choice for choice in choices(cls)}
        for text in overrides:
            _override(merged, text, chosen)
        try:
            return cls.model_validate(merged).completed()
        except ValidationError as error:
            raise InputError(f"{origin}: {_first(error, cls)}") from None
        except InputError as error:
            raise InputError(f"{origin}: {error}") from None

    def completed(self) -> Self:
        """The same recipe with every option of every method and data set.

        Raises:
            InputError: for an unknown method, an unknown option or a value of a wrong type.
        """
        datasets = {name: self.data.datasets.get(name, {}) for name in references(self, "dataset")}
        data = self.data.model_copy(update={"datasets": {**self.data.datasets, **datasets}})
        values = completed(self.model_copy(update={"data": data}))
        return type(self).model_validate(json.loads(json.dumps(values)))

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """The teachers of the recipe; empty without the section."""
        found = self.teacher
        return found if isinstance(found, tuple) else (found,) if found else ()

    def digest(self) -> str:
        """Twelve hexadecimal digits that identify the recipe without seed, folder, device, workers and data folders."""
        values = self._named()
        values["run"].pop("seed")
        return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=6).hexdigest()

    def flat(self) -> dict[str, Any]:
        """Dotted key -> value of every setting."""
        return _flat(self.model_dump(mode="json"))

    def changes(self, earlier: "Recipe") -> list[str]:
        """``key was x, now y`` for each difference that makes this a different run than ``earlier``; see `digest`."""
        before, now = _flat(earlier._named()), _flat(self._named())
        keys = [key for key in dict.fromkeys([*before, *now]) if before.get(key, _ABSENT) != now.get(key, _ABSENT)]
        return [f"{key} was {_shown(before, key)}, now {_shown(now, key)}" for key in keys]

    def _named(self) -> dict[str, Any]:
        """The values that identify this run."""
        values = self.model_dump(mode="json")
        for name in type(self).model_fields:
            if values[name] is None and name != "prune":  # sections added later must not change old digests
                values.pop(name)
        if self.network.run:  # as in old digests for a network that keeps its classes
            values["network"]["classes"] = f"new {classes}" if (classes := self.network.classes) else "cityscapes19"
        _drop_unset(values["network"], "merge", "form")  # keys added later must not change old digests either
        _drop_unset(values["prune"] or {}, "keep")
        _drop_unset(values["evaluate"], "classes", "select_class", "keep_counts", "keep_worst")
        _drop_unset(values["data"], "unlabelled", "unlabelled_batch")
        if self.network.sha256:  # then the folder of the weights does not matter
            values["network"] = {k: v for k, v in values["network"].items() if k not in ("run", "weights")}
        else:
            values["network"].pop("sha256")
        if self.teacher:
            named = [_of_teacher(teacher.model_dump(mode="json")) for teacher in self.teachers]
            values["teacher"] = named if isinstance(self.teacher, tuple) else named[0]
        for key in _WITHOUT_EFFECT:
            values["run"].pop(key)
        for options in (values["data"], *values["data"]["datasets"].values()):
            for key in ("root", "cache_folder", "cache_mb"):
                options.pop(key, None)
        return values

    def write(self, file: Path, provenance: Mapping[str, str]) -> None:
        """Write the recipe to ``file`` atomically, with ``provenance`` as comments at the top."""
        head = "".join(f"# {name}: {value}\n" for name, value in provenance.items())
        body = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, head + body)


def _of_teacher(section: dict[str, Any]) -> dict[str, Any]:
    """The values of a teacher's section that identify a run; a cache does not change results."""
    unnamed = {"cache_folder", "cache_mb", *(("run", "onnx") if section["sha256"] else ("sha256",))}
    unnamed |= {key for key in ("size", "form") if not section[key]}
    return {key: value for key, value in section.items() if key not in unnamed}


def _drop_unset(section: dict[str, Any], *keys: str) -> None:
    """Remove from ``section``, in place, those of ``keys`` that are not set."""
    for key in keys:
        if key in section and not section[key]:
            section.pop(key)


_ABSENT = object()

_WITHOUT_EFFECT = (
    "folder",
    "device",
    "workers",
    "threads",
    "trackers",
    "log_every",
    "checkpoint_every",
    "gradient_checkpointing",
    "sharding",
)
"""Keys of ``run`` that do not change the results by more than rounding."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, of nested mappings."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat


def first_of(changes: Sequence[str], most: int = 3) -> str:
    """The first of `Recipe.changes` in one line, and how many more there are."""
    more = f" and {len(changes) - most} more" if len(changes) > most else ""
    return f"{'; '.join(changes[:most])}{more}"


def _shown(values: Mapping[str, Any], key: str) -> str:
    return quoted(values[key]) if key in values else "not given"


def read(file: Path | str, overrides: Iterable[str] = (), *, trust: Iterable[str] = ()) -> Recipe:
    """The completed recipe of a YAML file with ``key=value`` overrides such as ``optim.lr=1e-3``.

    Raises:
        InputError: for wrong values (the message names the file, the key, the value and the nearest valid name), and if
            the file (not an override) names code outside Hardy that is in no module of ``trust``.
    """
    values = safe_yaml.read(expanded(file))
    if not isinstance(values, dict):
        raise InputError(f"{file}: a recipe is a mapping of sections: {', '.join(Recipe.model_fields)}")
    texts = list(overrides)
    with from_file((*trust, *names_typed(texts))):
        return from_values(values, texts, str(file))


def from_values(values: Mapping[str, Any], overrides: Iterable[str] = (), origin: str = "recipe") -> Recipe:
    """The completed recipe of nested ``values``, as `read` does for a file called ``origin``."""
    return Recipe.of(values, overrides, origin)


def parsed(text: str, such_as: str = "optim.lr=1e-3") -> tuple[str, Any]:
    """The dotted path and the YAML value of an override ``path=value``.

    Raises:
        InputError: when it does not have this form; ``such_as`` is the example in the message.
    """
    path, sign, value = text.partition("=")
    if not sign:
        raise InputError(f"override {quoted(text)} is not of the form key=value, such as {such_as}")
    if path.count(".") > _DEEPEST:
        raise InputError(f"override {quoted(text)}: no key is nested that deep; give one such as {such_as}")
    return path.strip(), safe_yaml.value(value, f"override {quoted(text)}")


_DEEPEST = 8
"""The most dots in the key of an override; a recipe's keys have three."""


def _override(values: dict[str, Any], text: str, choices: Mapping[str, Choice]) -> None:
    """Apply the override ``text`` to ``values``, in place; ``choices`` are the fields that choose a method, by path."""
    path, given = parsed(text)
    *parents, last = path.split(".")
    for depth, name in enumerate(parents, 1):
        below = values.get(name)
        chosen = choices.get(".".join(parents[:depth]))
        usual = chosen.usual if chosen and below is None else below
        values[name] = below if isinstance(below, dict) else {"name": usual} if isinstance(usual, str) else {}
        values = values[name]
    chosen = choices.get(path.rpartition(".")[0])
    if chosen and last in chosen.model.origins and values.get(last) != given:
        # The other options belong to another method, or to a network that is not built.
        kept = set(chosen.model.model_fields) - set(chosen.model.origins) if last == "name" else set()
        for key in set(values) - kept:
            del values[key]
    values[last] = given


_TAGS = ("one", "several")
"""Parts of the paths of pydantic's errors that are not keys: the alternatives of `hardy.sections.Teachers`."""


def _first(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for pydantic's first error: the key, the problem and the fix."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"] if part not in _TAGS]
    where = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _keys(path[:-1], model)
        hint = _elsewhere(path[-1], known, model) or nearest(path[-1], known)
        return f"unknown key {quoted(where)}{hint}; there are: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    return worded(where, problem)


def _elsewhere(word: str, known: Sequence[str], model: type[BaseModel]) -> str:
    """The hint that another section has the key ``word``, or nearly that.

    It is empty if a key of ``known`` is as close, or if more than three sections have it.
    """

    def likeness(name: str) -> float:
        return SequenceMatcher(a=name, b=word).ratio()

    close = max(map(likeness, known), default=0.0)
    found = {path: likeness(path.rpartition(".")[2]) for path in keys(model)}
    best = max(found.values())
    if best <= max(close, _ALIKE):
        return ""
    paths = [path for path, each in found.items() if each == best]
    return f"; did you mean {' or '.join(map(repr, paths))}?" if len(paths) <= _MOST_HINTS else ""


_ALIKE = 0.8
"""How alike a wrong key and one of another section must at least be for a hint, from 0 to 1."""

_MOST_HINTS = 3
"""The largest number of keys that a hint names."""


def _keys(path: list[str], model: type[BaseModel]) -> list[str]:
    """The keys of the section at ``path``."""
    for name in (name for name in path if not name.isdecimal()):
        model = next(models(model.model_fields[name].annotation), model)
    return list(model.model_fields)
