"""The cells of ``streams.py``: which method, with which options, meets which stream and which network.

Nothing is measured here; `streams` measures, `_stream_tables` shows.
"""

import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardy import safe_yaml
from hardy.errors import InputError, nearest
from hardy.registry import ADAPTATIONS
from hardy.sections import Guard
from hardy.studies.cells import filters

ROOT = Path(__file__).parents[1]
NAMES = ("sim", "day", "dusk", "night", "fog", "rain", "snow", "city_b", "camera_b")
"""The drawn domains; the networks of the bed know the first two."""

METHODS: dict[str, dict[str, Any]] = {
    "bn_stats": {},
    "bn_domains": {},
    "tent": {},
    "eta": {},
    "sar": {},
    "roid": {},
    "cotta": {"views": "light"},
    "dose": {"form": "light"},
}
"""What is compared, with the options that make it light. ``rdumb`` is ``eta`` on streams of under 1000 frames."""

ORDERS = range(1, 7)
SEARCHED = range(7, 9)
"""Orders of the search of rates: their domains, images and networks are others than those shown."""

FACTORS = (0.1, 1.0, 10.0)
TRIED = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Factors of the default rate that the search tries."""

OFF = {"sure": 0, "source": 0, "entropy": 0, "agreement": 0, "classes": 0, "prototypes": None, "drift": None}
_SIGNS = ("entropy", "agreement", "classes", "prototypes")


def _only(*parts: str, **more: Any) -> dict[str, Any]:
    """A guard of which these parts alone act, at their default limits."""
    usual = Guard()
    return {**OFF, **{part: getattr(usual, part) for part in parts}, **more}


GUARDS: dict[str, dict[str, Any]] = {
    "all": {},
    "sure": _only("sure"),
    "share": _only("source"),
    "sure+share": _only("sure", "source"),
    "drift": _only("drift"),
    **{sign: _only(sign) for sign in _SIGNS},
    "signs": _only(*_SIGNS),
    "fallback": _only(*_SIGNS, on_alarm="fallback"),
    "rollback": _only(*_SIGNS, on_alarm="rollback"),
    "watch": _only(*_SIGNS, on_alarm="nothing"),
}
"""A guard whole, and its parts alone: that the source answers where it is sure; its share in the other answers; the
limit of drift; each sign of an alarm, with both that an alarm does; all signs; of what an alarm does, only that the
source answers, only that the method goes back, or nothing."""

VARIANTS: dict[str, dict[str, Any]] = {
    "no_restore": {"restore": 0.0},
    "no_layer": {"parts": {"layer": 0.0}},
    "no_domain": {"parts": {"domain": 0.0}},
    "no_vog": {"memory": {"vog": "random"}},
    "no_replay": {"memory": {"capacity": 0}},
    "no_prototypes": {"parts": {"domain": 0.0, "prediction": "batch"}},
    "batch_prediction": {"parts": {"prediction": "batch"}},
    "no_learning": {"lr": 0.0},
    "norms": {"learned": "norms"},
    "detected": {"domains": "detected"},
    "full": {"form": "full"},
}
"""DoSe without each of its parts, and in other forms. ``no_prototypes`` has neither their term nor their prediction."""

RECIPES = {name: ROOT / "recipes" / "streams" / f"{name}.yaml" for name in ("camvid_day_dusk", "camvid_corrupted")}
FRAMES = {"camvid_day_dusk": 590, "camvid_corrupted": 600}
"""Frames of the streams on real images, for the estimate of their cost."""

GROUPS = ("headline", "guard", "dose", "frame_rate", "rates", "mixed", "gradual", *RECIPES, "further", "search")
COSTS = ROOT / "benchmarks" / "records" / "adapt.txt"


@dataclass(frozen=True)
class Cell:
    """One stream that one method meets.

    Attributes:
        group: of `GROUPS`; not part of what identifies a cell.
        kind: ``abrupt``, ``mixed``, ``gradual``, or the recipe of a stream on real images.
        order: from 1; decides the order of domains and images, the drawn images, and the network.
        method: of `METHODS`, or ``source``.
        factor: of the method's rate.
        guard: of `GUARDS`; empty without one.
        variant: of `VARIANTS`; empty for the method as it is.
        source: a further source network's name; empty for the network of the bed.
        rounds: of the stream, 0 for those of the recipe.
        images: of each domain in a round, 0 likewise.
        every: it adapts on every so many frames.
    """

    group: str
    kind: str
    order: int
    method: str
    factor: float = 1.0
    guard: str = ""
    variant: str = ""
    source: str = ""
    rounds: int = 3
    images: int = 6
    every: int = 1

    @property
    def frames(self) -> int:
        """How many frames its stream has, about."""
        return FRAMES.get(self.kind) or self.rounds * self.images * len(NAMES)

    def axes(self) -> dict[str, str]:
        """What ``--only`` can name."""
        rate = f"{self.factor:g}"
        own = {"group": self.group, "kind": self.kind, "order": str(self.order), "method": self.method, "rate": rate}
        own |= {"guard": self.guard or "none", "variant": self.variant or "none", "source": self.source or "bed"}
        return {**own, "every": str(self.every)}


def default(name: str) -> float | None:
    """The default learning rate of a method for pixels; None if it has none."""
    if name == "cotta":
        return 7.5e-6
    if name == "source":
        return None
    options = inspect.signature(ADAPTATIONS.get(name)).parameters
    return float(options["lr"].default) if "lr" in options else None


def paced() -> dict[str, int]:
    """On every how many frames a method can adapt if each comes when the source network is done with the last.

    By the times that ``benchmarks/adapt.py`` measured on Fast-SCNN; methods that it did not measure are left out.
    """
    lines = re.findall(r"^fast_scnn +(\S+)( light)? +[\d.]+ +([\d.]+)", COSTS.read_text(encoding="utf-8"), re.MULTILINE)
    times = {name + light: math.ceil(float(ratio)) for name, light, ratio in lines}
    named = {name: name + " light" * ("light" in options.values()) for name, options in METHODS.items()}
    return {name: times[own] for name, own in named.items() if own in times}


def cells(rounds: int, images: int, sources: Sequence[str] = ()) -> Iterator[Cell]:
    """All cells of the groups that show something, what matters first.

    Args:
        rounds: of the drawn streams.
        images: of each drawn domain in a round.
        sources: names of further source networks.
    """

    def made(group: str, kind: str, plan: Sequence[Mapping[str, Any]], **same: Any) -> Iterator[Cell]:
        size = {} if kind in RECIPES else {"rounds": rounds, "images": images}
        size = size or {"rounds": 0, "images": 0}
        yield from (Cell(group, kind, order, **{**size, **same, **one}) for order in ORDERS for one in plan)

    learning = [name for name in METHODS if default(name)]
    usual = [{"method": name, "guard": guard} for guard in ("", "all") for name in METHODS]
    usual = [{"method": "source"}, *usual]
    fast = [{"method": name, "factor": 10.0, "guard": guard} for guard in ("all", "") for name in learning]
    slow = [{"method": name, "factor": 0.1} for name in learning]
    yield from made("headline", "abrupt", usual)
    parts = [
        {"method": name, "factor": factor, "guard": guard}
        for name in ("tent", "dose")
        for factor in (1.0, 10.0)
        for guard in GUARDS
        if guard != "all"
    ]
    yield from made("guard", "abrupt", parts)
    yield from made("dose", "abrupt", [{"method": "dose", "variant": variant} for variant in VARIANTS])
    slowed = [{"method": name, "every": every} for name, every in paced().items() if every > 1]
    yield from made("frame_rate", "abrupt", slowed)
    yield from made("rates", "abrupt", [*fast, *slow])
    for kind in ("mixed", "gradual"):
        yield from made(kind, kind, [*usual, *fast, *slow])
    for kind in RECIPES:
        yield from made(kind, kind, usual)
    for source in sources:
        yield from made("further", "abrupt", usual, source=source)


def searched(rounds: int, images: int) -> Iterator[Cell]:
    """The cells of the search of rates, whose network is none of those shown."""
    size = {"rounds": rounds, "images": images}
    for order in SEARCHED:
        yield from (
            Cell("search", "abrupt", order, name, factor, source="search", **size)
            for name in METHODS
            if default(name)
            for factor in TRIED
        )


def chosen(made: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """Those of ``made`` that fit ``axis=value`` words; values of one axis are alternatives.

    Raises:
        InputError: for an axis or a value that no cell has.
    """
    wanted = filters(only)
    for axis, values in wanted.items():
        known = list(Cell("", "", 0, "").axes())
        if axis not in known:
            raise InputError(f"--only {axis}: no such axis{nearest(axis, known)}; there are {', '.join(known)}")
        have = dict.fromkeys(cell.axes()[axis] for cell in made)
        for value in values:
            if value not in have:
                raise InputError(f"--only {axis}={value}: no cell has it{nearest(value, have)}; {', '.join(have)}")
    return [cell for cell in made if all(cell.axes()[axis] in values for axis, values in wanted.items())]


def adapting(cell: Cell, rates: Mapping[str, float]) -> dict[str, Any]:
    """The section ``adapt`` of a cell, with the method's rate of ``rates``."""
    options = {**METHODS.get(cell.method, {})}
    if (lr := rate(cell, rates)) is not None:
        options["lr"] = lr
    options |= VARIANTS.get(cell.variant, {})
    return {
        "name": cell.method,
        "reset": "never",
        "guard": GUARDS.get(cell.guard, False) or bool(cell.guard),
        **options,
    }


def rate(cell: Cell, rates: Mapping[str, float]) -> float | None:
    """The learning rate of a cell, before its variant sets another."""
    usual = rates.get(cell.method, default(cell.method))
    return None if usual is None else float(f"{cell.factor * usual:.6g}")


def streamed(cell: Cell, cache: str) -> dict[str, Any]:
    """The domains, data sets and section ``stream`` of a cell.

    Args:
        cell: what is shown.
        cache: folder of drawn images.
    """
    if cell.kind in RECIPES:
        values = safe_yaml.read(RECIPES[cell.kind])
        assert isinstance(values, dict)
        data, stream = values["data"], {**values["stream"], "seed": cell.order}
        if cell.images:
            stream |= {"images": cell.images, "rounds": 1, "probe": 1}
        return {"data": data["unseen"], "datasets": data.get("datasets", {}), "splits": [], "stream": stream}
    drawn = {"size": [96, 192], "test": cell.images, "seed": cell.order, "cache_folder": cache}
    stream = {
        "kind": cell.kind,
        "rounds": cell.rounds,
        "domain_order": "drawn",
        "image_order": "drawn",
        "seed": cell.order,
        "every": cell.every,
        "probe": cell.images if cell.group == "headline" else 0,
        "window": min(50, cell.images * len(NAMES)),
    }
    return {
        "data": [f"streets/{domain}" for domain in NAMES],
        "datasets": {"streets": drawn},
        "splits": ["test"],
        "stream": stream,
    }
