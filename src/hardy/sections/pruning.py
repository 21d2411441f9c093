"""Sections of a recipe for smaller networks: pruning with its floors, stop rule and scoring, and the search."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hardy.ranges import Count, Multiple, Share, Steps
from hardy.sections.base import Kind, Method, Section

__all__ = ["Floors", "Prune", "Scoring", "Search", "Stop"]


class Floors(Section):
    """Measured minimum widths: each of ``shares`` is removed from one unit at a time, or from all units of a stage.

    The minimum width of a unit is the smallest width at which, and at all larger ones, the score fell by at most
    ``tolerance``. The score is measured on ``images`` held-out images of the sources, in total. A criterion that needs
    data first reads ``batches`` batches.
    """

    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02
    shares: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.25, 0.5, 0.75)
    images: Count = 50
    by: Literal["unit", "stage"] = "unit"
    batches: Count = 30


class Stop(Section):
    """The stop rule: pruning ends before the mean score over ``domains`` falls by more than ``drop``.

    The score of the dense network is the reference. The domains must not be sources. They must not be unseen domains
    either, unless ``evaluate.select`` is oracle. ``images`` of them are measured.
    """

    domains: Annotated[tuple[str, ...], Field(min_length=1), Kind("dataset")]
    drop: Annotated[float, Field(ge=0, le=1)] = 0.02
    images: Count = 100


class Scoring(Section):
    """Scoring separate from training: after the steps of a round the criterion is scored in passes without updates.

    Each scoring reads ``batches`` batches: by default the number of the schedule ``one_shot``, else 30. They count as
    steps. They are training images of the sources or, with ``part: source-val``, held-out images, augmented as in
    training. With ``style``, the folder of a run of the algorithm ``style_vae``, ``copies`` restyled copies of each
    image are added. Batch norms use the statistics of the batch or their running statistics (``norms``). A domain's
    ``risk`` is the mean over all its labelled pixels, or the mean over its images of each image's mean.
    """

    part: Literal["train", "source-val"] = "train"
    batches: Count | None = None
    style: str = ""
    copies: Count = 1
    norms: Literal["batch", "running"] = "batch"
    risk: Literal["pixel", "image"] = "pixel"


class Prune(Section):
    """What is removed, when, and how the network recovers.

    One of three keys sets the goal: ``ratio``, the share of filters REMOVED (default 0.5), or ``target_gmacs`` or
    ``target_ms``, the upper limits for one image of ``data.size`` (else ``data.crop``). Milliseconds are measured in
    ``runtime``. Kept widths are multiples of ``round_to``, because runtimes are slow with odd widths; ``auto`` measures
    the best multiple, 1 ranks single filters as the papers do. ``kinds`` are the kinds of units that are pruned.
    ``floors`` measures the minimum width of each unit (``tolerance, shares, images, by, batches``). ``stop`` ends
    pruning early (``domains, drop, images``). After the cut, batch norms are re-estimated from ``reestimate`` batches
    of the sources, if there are sources. Layers named in ``keep``, and layers inside modules named there, keep every
    weight. Without ``data.sources`` the default schedule is ``one_shot``. The recovery uses the algorithm
    ``recover_with``, by default the recipe's algorithm. It takes ``recovery`` steps or, with ``total_steps``, the steps
    that the rounds did not use. ``scoring`` scores the criterion separately from training (``part, batches, style,
    copies, norms, risk``).
    """

    criterion: Annotated[Method, Kind("criterion")] = Method(name="ior")
    schedule: Annotated[Method, Kind("schedule")] = Method(name="iterative")
    ratio: Share | None = None
    target_ms: Annotated[float, Field(gt=0)] | None = None
    target_gmacs: Annotated[float, Field(gt=0)] | None = None
    runtime: Literal["eager", "onnxruntime"] = "eager"
    kinds: tuple[Literal["filters", "heads", "hidden", "embedding"], ...] = ("filters", "heads", "hidden", "embedding")
    keep: tuple[str, ...] = ()
    scope: Literal["global", "layer"] = "global"
    min_width: Count = 8
    round_to: Multiple = 8
    lr: Annotated[float, Field(gt=0)] = 0.001
    floors: Floors | None = None
    stop: Stop | None = None
    reestimate: Steps = 10
    scoring: Scoring | None = None
    recovery: Steps = 0
    total_steps: Count | None = None
    recovery_lr: Annotated[float, Field(gt=0)] = 0.01
    recover_with: Annotated[Method | None, Kind("algorithm")] = None

    @model_validator(mode="before")
    @classmethod
    def _one_goal(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given = [name for name in ("ratio", "target_ms", "target_gmacs") if value.get(name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given; give one of ratio, target_ms and target_gmacs")
        return value if given else {**value, "ratio": 0.5}

    @property
    def recovers(self) -> bool:
        """Whether training follows the cut."""
        return bool(self.recovery or self.total_steps)


class Search(Section):
    """A search for a network of fasterseg's space that takes at most ``budget_ms`` for one image.

    The image has ``data.size`` (else ``data.crop``), and milliseconds are measured in ``runtime``. Branches have at
    most ``layers`` layers, and ``filters`` is an eighth of the channels at stride 8 and full width (the format's Fch).
    One set of weights for all architectures is trained with the settings of ``optim``; smaller architectures learn from
    the predictions of the largest one at ``temperature``. Then ``evaluations`` architectures are evaluated: batch norms
    are re-estimated from ``reestimate`` batches, and the score is measured on ``images``, in total, of the images that
    ``evaluate.select`` uses. ``evolution`` mutates the best of ``sample`` random members of the last ``population``;
    ``random`` draws each architecture independently. With ``data.cache`` the images of an evaluation stay in memory.
    """

    budget_ms: Annotated[float, Field(gt=0)]
    runtime: Literal["eager", "onnxruntime"] = "eager"
    method: Literal["evolution", "random"] = "evolution"
    evaluations: Annotated[int, Field(gt=0, le=10**6)] = 100
    population: Annotated[int, Field(gt=0, le=10**6)] = 20
    sample: Annotated[int, Field(gt=0, le=10**6)] = 5
    filters: Annotated[int, Field(gt=0, le=256)] = 12
    layers: Annotated[int, Field(ge=3, le=32)] = 10
    branches: Annotated[int, Field(ge=1, le=3)] = 2
    temperature: Annotated[float, Field(gt=0)] = 1.0
    reestimate: Count = 10
    images: Count = 50

    @model_validator(mode="after")
    def _enough_evaluations(self) -> Self:
        if self.method == "evolution" and self.population >= self.evaluations:
            raise ValueError(
                f"a population of {self.population} needs more than {self.population} evaluations, and there are "
                f"{self.evaluations}; give more evaluations, or method: random"
            )
        return self
