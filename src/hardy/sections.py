"""The sections of a recipe: what a run can be told, each value with its type, its range and its default.

No torch is imported here. `hardy.recipe` reads them from YAML and completes them.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Data", "Evaluate", "Method", "NetworkChoice", "Optim", "Prune", "Run", "Section"]

Size = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
Share = Annotated[float, Field(gt=0, lt=1)]
Steps = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values are finite and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Method(BaseModel):
    """A chosen method: its name and its options, ``{name: ior, alpha: 1.0}``; a bare name has no options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """The options without the name."""
        return dict(self.model_extra or {})


class NetworkChoice(Method):
    """Which network: by ``name`` with its options and ``classes``, or an earlier ``run`` to go on from."""

    name: str = ""
    run: str | None = None
    classes: str = "cityscapes19"
    weights: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if bool(self.name) == bool(self.run) or (self.run and (self.model_extra or self.weights)):
            raise ValueError("give either a network's name or the folder of a run, as run: runs/x (without options)")
        return self


class Data(Section):
    """Which domains, how they are split and how training images are transformed. Sizes are (height, width).

    ``unseen_splits`` names the splits that unseen domains are measured on; without any, all their images count.
    """

    sources: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    unseen_splits: tuple[str, ...] = ()
    root: str | None = None
    datasets: dict[str, dict[str, Any]] = {}
    split: Literal["holdout", "given"] = "holdout"
    holdout: Share = 0.1
    size: Size | None = None
    crop: Size = (512, 1024)
    scale: tuple[float, float] | None = None
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    photometric: Annotated[float, Field(ge=0)] = 1.0
    cache: bool = False
    check: bool = True


class Optim(Section):
    """The optimiser, its rate over time, and how many steps of how many images."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    steps: Annotated[int, Field(gt=0)] = 120_000
    batch: Annotated[int, Field(gt=0)] = 12
    lr: Annotated[float, Field(gt=0)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    encoder_rate: Annotated[float, Field(ge=0)] = 1.0
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    power: Annotated[float, Field(gt=0)] = 0.9
    warm_up: Steps = 0
    accumulate: Annotated[int, Field(gt=0)] = 1
    clip: Annotated[float, Field(gt=0)] | None = None
    ema: Share | None = None


class Prune(Section):
    """What is removed, when, and how the network recovers. ``ratio`` is the share of filters REMOVED.

    Kept widths are multiples of ``round_to``: runtimes are slow on odd widths. The papers rank single filters, 1.
    ``kinds`` are the units that take part.
    """

    criterion: Method = Method(name="ior")
    schedule: Method = Method(name="iterative")
    ratio: Share = 0.5
    kinds: tuple[Literal["filters", "heads", "hidden", "embedding"], ...] = ("filters", "heads", "hidden", "embedding")
    scope: Literal["global", "layer"] = "global"
    min_width: Annotated[int, Field(gt=0)] = 8
    round_to: Annotated[int, Field(gt=0)] = 8
    lr: Annotated[float, Field(gt=0)] = 0.001
    recovery: Steps = 0
    recovery_lr: Annotated[float, Field(gt=0)] = 0.01


class Evaluate(Section):
    """How networks are measured and which checkpoint is kept."""

    select: Literal["source-val", "last", "oracle"] = "source-val"
    every: Steps = 0
    batch: Annotated[int, Field(gt=0)] = 1
    flip: bool = False
    scales: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)
    window: Size | None = None


class Run(Section):
    """Where and on what a run happens."""

    folder: str = ""
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    workers: Annotated[int, Field(ge=0)] = 2
    threads: Annotated[int, Field(gt=0)] | None = None
    channels_last: bool = False
    checkpoint_every: Annotated[int, Field(gt=0)] = 500
    log_every: Annotated[int, Field(gt=0)] = 20
    trackers: tuple[str, ...] = ()
