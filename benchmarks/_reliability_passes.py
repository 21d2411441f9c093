"""What `reliability.py` scores: passes over the same images, and the variants of a criterion of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

ALONE = 1e12
"""A weight with which only the variance counts."""

ALPHAS = (0.0, 0.1, 1.0, 10.0, 100.0, ALONE)
"""Weights of the variance; 0 is Taylor."""


@dataclass(frozen=True)
class Variant:
    """Options of a criterion that a pass scores.

    Attributes:
        name: of its rows.
        how: the options in words.
        criterion: a recipe's ``prune.criterion``.
        alphas: IoR's weights, each of which gives a row; none for another criterion.
    """

    name: str
    how: str
    criterion: Mapping[str, Any]
    alphas: Sequence[float] = ()

    @property
    def accumulate(self) -> int:
        """The number of batches whose gradients are averaged before they are squared."""
        return int(self.criterion.get("accumulate", 1))

    @property
    def rows(self) -> list[tuple[str, float | None]]:
        """The name and the weight of each row."""
        return [(f"{self.name}/{alpha:g}", alpha) for alpha in self.alphas] or [(self.name, None)]


@dataclass(frozen=True)
class Pass:
    """The batches that are read once, for one variant or for several variants of IoR with the same gradients.

    Attributes:
        variants: what is scored.
        scoring: a recipe's ``prune.scoring``.
        batch: images of a batch; None takes the recipe's.
    """

    variants: tuple[Variant, ...]
    scoring: Mapping[str, Any] = field(default_factory=dict)
    batch: int | None = 16

    @property
    def name(self) -> str:
        """For ``--only``: the name of the first variant."""
        return self.variants[0].name

    def fitting(self, images: int) -> "Pass | None":
        """The pass with the variants whose halves each get a square at least; None without one."""
        few = [one for one in self.variants if 2 * (self.batch or 1) * one.accumulate <= images]
        return replace(self, variants=tuple(few)) if few else None

    @property
    def rows(self) -> list[str]:
        """The names of all rows."""
        return [row for variant in self.variants for row, _ in variant.rows]


def _ior(name: str, how: str, alphas: Sequence[float] = ALPHAS, **options: Any) -> Variant:
    return Variant(name, how, {"name": "ior", "gates": "paper", **options}, alphas)


def _other(name: str, how: str = "", **options: Any) -> Pass:
    return Pass((Variant(name, how, {"name": name.removesuffix("_unit"), **options}),))


_FEW = (0.0, 1.0, 100.0, ALONE)
PASSES = (
    Pass(
        (
            _ior("images_8", "8 images a domain"),
            _ior("scaled_8", "8 images, `scale: risk`", (1.0, 10.0, 100.0), scale="risk"),
            _ior("images_32", "32 images, `accumulate: 4`", (0.0, 1.0, ALONE), accumulate=4),
            _ior("images_128", "128 images, `accumulate: 16`", (0.0, 1.0, 10.0, 100.0, ALONE), accumulate=16),
            _ior("scaled_128", "128 images, `scale: risk`", (1.0, 100.0), accumulate=16, scale="risk"),
            _ior("after", "`square: after`", (0.0, 1.0, ALONE), square="after"),
        )
    ),
    _other("taylor_unit", "a gate for each channel"),
    _other("l2"),
    _other("fpgm"),
    _other("slimming", "without sparse training"),
    _other("random"),
    _other("taylor_activation"),
    _other("per_gmac", "of Taylor", of={"taylor": {}}),
    _other("activation_variance"),
    Pass((_ior("images_6", "batches of the recipe", _FEW),), batch=None),
    Pass((_ior("running", "8 images, `norms: running`", _FEW),), {"norms": "running"}),
    Pass((_ior("image_risk", "8 images, `risk: image`", _FEW),), {"risk": "image"}),
    Pass((_ior("per_domain", "8 images, `passes: per_domain`", _FEW, passes="per_domain"),)),
)
BY_NAME = {one.name: one for one in PASSES}
WEIGHTS = ("l2", "fpgm", "slimming", "random")
"""The passes that read no images."""

QUICK = ("images_8", "taylor_unit", "l2", "taylor_activation")
"""The passes of the short form."""
