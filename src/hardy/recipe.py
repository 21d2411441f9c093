"""A run as data: one YAML, read, overridden, checked and written out complete, before any data is touched.

No torch is imported here: the methods' options are checked through `hardy.registry`, which reads them from source.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from hardy import safe_yaml
from hardy.errors import InputError, nearest, quoted
from hardy.files import expanded, write_text
from hardy.registry import ALGORITHMS, CRITERIA, DATASETS, KINDS, LOSSES, NETWORKS, SCHEDULES, Registry
from hardy.sections import Data, Evaluate, Method, NetworkChoice, Optim, Prune, Run, Search, Section
from hardy.trust import from_file, names_typed, permit

__all__ = [
    "Data",
    "Evaluate",
    "Method",
    "NetworkChoice",
    "Optim",
    "Prune",
    "Recipe",
    "Run",
    "Search",
    "first_of",
    "from_values",
    "parsed",
    "read",
]


class Recipe(Section):
    """One whole run."""

    network: NetworkChoice
    data: Data
    algorithm: Method = Method(name="erm")
    loss: Method = Method(name="cross_entropy")
    optim: Optim = Optim()
    prune: Prune | None = None
    search: Search | None = None
    evaluate: Evaluate = Evaluate()
    run: Run = Run()

    @model_validator(mode="before")
    @classmethod
    def _without_data(cls, value: Any) -> Any:
        """Pruning may do without data; nothing is trained between rounds then: the usual schedule is ``one_shot``."""
        if not isinstance(value, dict) or not isinstance(prune := value.get("prune"), dict):
            return value
        data = value.get("data", {})
        if "schedule" not in prune and not (isinstance(data, dict) and data.get("sources")):
            prune = {"schedule": {"name": "one_shot"}, **prune}
        return {**value, "data": data, "prune": prune}

    def completed(self) -> "Recipe":
        """The same recipe with every option of every method and data set written out.

        Raises:
            InputError: for an unknown method, an unknown option or a value of a wrong type.
        """
        values = self.model_dump(mode="json")
        if self.network.name:
            values["network"].update(NETWORKS.describe(self.network.name).check(self.network.options))
            for key, name in self.network.options.items():  # such as a decoder
                if key in KINDS and isinstance(name, str) and ":" in name:
                    permit(key, name)
        values["algorithm"] = _complete(ALGORITHMS, self.algorithm)
        values["loss"] = _complete(LOSSES, self.loss)
        if self.prune:
            values["prune"]["criterion"] = _complete(CRITERIA, self.prune.criterion)
            values["prune"]["schedule"] = _complete(SCHEDULES, self.prune.schedule)
            if self.prune.recover_with:
                values["prune"]["recover_with"] = _complete(ALGORITHMS, self.prune.recover_with)
        watched = self.prune.stop.domains if self.prune and self.prune.stop else ()
        named = (reference.split("/", 1)[0] for reference in (*self.data.sources, *self.data.unseen, *watched))
        for name in (*self.data.datasets, *named):
            values["data"]["datasets"][name] = _complete_dataset(name, self.data.datasets.get(name, {}))
        return Recipe.model_validate(json.loads(json.dumps(values)))

    def digest(self) -> str:
        """Twelve hexadecimal digits that name the recipe less its seed, folder, device, workers and data's places."""
        values = self._named()
        if self.search is None:  # so named were recipes before there was this section
            values.pop("search")
        values["run"].pop("seed")
        return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=6).hexdigest()

    def changes(self, earlier: "Recipe") -> list[str]:
        """``key was x, now y`` of each key in which this recipe is another run than ``earlier``; see `digest`."""
        before, now = _flat(earlier._named()), _flat(self._named())
        keys = [key for key in dict.fromkeys([*before, *now]) if before.get(key, _ABSENT) != now.get(key, _ABSENT)]
        return [f"{key} was {_shown(before, key)}, now {_shown(now, key)}" for key in keys]

    def _named(self) -> dict[str, Any]:
        """What makes this run another one than a run with other values."""
        values = self.model_dump(mode="json")
        for key in ("folder", "device", "workers", "threads", "trackers", "log_every", "checkpoint_every"):
            values["run"].pop(key)
        for place in (values["data"], *values["data"]["datasets"].values()):
            place.pop("root", None)
        return values

    def write(self, file: Path, provenance: Mapping[str, str]) -> None:
        """Write the recipe to ``file`` whole or not at all, ``provenance`` as comments above it."""
        head = "".join(f"# {name}: {value}\n" for name, value in provenance.items())
        body = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, head + body)


_ABSENT = object()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, of nested mappings."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return found


def first_of(changes: Sequence[str], most: int = 3) -> str:
    """The first of `Recipe.changes` in one line, and how many more there are."""
    more = f" and {len(changes) - most} more" if len(changes) > most else ""
    return f"{'; '.join(changes[:most])}{more}"


def _shown(values: Mapping[str, Any], key: str) -> str:
    return quoted(values[key]) if key in values else "not given"


def _complete(registry: Registry, method: Method) -> dict[str, Any]:
    return {"name": method.name, **registry.describe(method.name).check(method.options)}


def _complete_dataset(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of data set ``name``, and its ``root`` where one is given: a place is no option of its own."""
    place = {key: value for key, value in options.items() if key == "root"}
    return {**place, **DATASETS.describe(name).check({key: options[key] for key in options if key not in place})}


def read(file: Path | str, overrides: Iterable[str] = (), *, trust: Iterable[str] = ()) -> Recipe:
    """The completed recipe of a YAML file with ``key=value`` overrides such as ``optim.lr=1e-3``.

    Raises:
        InputError: one line naming the file, the key, the value and the nearest right name; also where the file, not an
            override, names code outside Hardy of no module in ``trust``.
    """
    values = safe_yaml.read(expanded(file))
    if not isinstance(values, dict):
        raise InputError(f"{file}: a recipe is a mapping of sections: {', '.join(Recipe.model_fields)}")
    texts = list(overrides)
    with from_file((*trust, *names_typed(texts))):
        return from_values(values, texts, str(file))


def from_values(values: Mapping[str, Any], overrides: Iterable[str] = (), origin: str = "recipe") -> Recipe:
    """The completed recipe of nested ``values``, as `read` does for a file called ``origin``."""
    merged: dict[str, Any] = json.loads(json.dumps(values, default=str))
    for text in overrides:
        _override(merged, text)
    try:
        return Recipe.model_validate(merged).completed()
    except (ValidationError, InputError) as error:
        raise InputError(f"{origin}: {_first(error) if isinstance(error, ValidationError) else error}") from None


def parsed(text: str, such_as: str = "optim.lr=1e-3") -> tuple[str, Any]:
    """The dotted path and the YAML value of an override ``path=value``.

    Raises:
        InputError: when it is not of that form, naming one that is: ``such_as``.
    """
    path, sign, value = text.partition("=")
    if not sign:
        raise InputError(f"override {quoted(text)} is not of the form key=value, such as {such_as}")
    if path.count(".") > _DEEPEST:
        raise InputError(f"override {quoted(text)}: no key lies that deep; give one such as {such_as}")
    return path.strip(), safe_yaml.value(value, f"override {quoted(text)}")


_DEEPEST = 8
"""The most dots in the key of an override; a recipe's keys have three."""


def _override(values: dict[str, Any], text: str) -> None:
    path, found = parsed(text)
    *parents, last = path.split(".")
    for depth, name in enumerate(parents, 1):
        below = values.get(name)
        usual = _USUAL.get(".".join(parents[:depth])) if below is None else below
        values[name] = below if isinstance(below, dict) else {"name": usual} if isinstance(usual, str) else {}
        values = values[name]
    if path in _CHOICES and values.get(last) != found:
        # The options written there are another method's, or those of a network that is not built.
        for key in set(values) - (set() if last == "run" else {"classes", "weights"}):
            del values[key]
    values[last] = found


_CHOICES = {
    "network.name", "network.run", "algorithm.name", "loss.name", "prune.criterion.name", "prune.schedule.name",
    "prune.recover_with.name",
}  # fmt: skip
"""Keys that choose a method: overridden, they take the place of the whole choice."""

_USUAL = {
    "algorithm": Recipe.model_fields["algorithm"].default.name,
    "loss": Recipe.model_fields["loss"].default.name,
    "prune.criterion": Prune.model_fields["criterion"].default.name,
    "prune.schedule": Prune.model_fields["schedule"].default.name,
}
"""The method meant by an override of an option where no method is chosen."""


def _first(error: ValidationError) -> str:
    """One line for the first problem pydantic found: key, what is wrong, what is right."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    where = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _keys(path[:-1])
        return f"unknown key {quoted(where)}{nearest(path[-1], known)}; there are: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    message = problem["msg"].removeprefix("Value error, ").split(" or instance of")[0]
    message = message.replace("tuple", "list").replace("Tuple", "List")
    got = "" if isinstance(problem["input"], dict) else f" (got {quoted(problem['input'])})"
    return f"{where}: {message[0].lower() + message[1:]}{got}"


def _keys(path: list[str]) -> list[str]:
    """The keys of the section at ``path``."""
    model: Any = Recipe
    for name in path:
        annotation = model.model_fields[name].annotation
        kinds = (kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
        model = next((kind for kind in kinds if issubclass(kind, BaseModel)), model)
    return list(model.model_fields)
