"""The sections of a recipe: what a run can be told, each value with its type, its range and its default.

No torch is imported here. `hardy.recipe` reads them from YAML and completes them.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

__all__ = [
    "Adapt",
    "Data",
    "Evaluate",
    "Floors",
    "Kind",
    "Method",
    "NetworkChoice",
    "Optim",
    "Prune",
    "RunSection",
    "Search",
    "Section",
    "Stop",
    "Teacher",
]

MOST_PIXELS = 2**27
"""The largest image that a size may name, 134 megapixels."""

MOST_THREADS = 1024
"""More threads than this end the process on most machines."""


MOST_IMAGES = 2**16
"""The most images that are in memory at once."""


def _area(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"is (height, width) of {size[0] * size[1]:,} pixels; give at most {MOST_PIXELS:,}")
    return size


Side = Annotated[int, Field(gt=0, le=2**16)]
Size = Annotated[tuple[Side, Side], AfterValidator(_area)]
Share = Annotated[float, Field(gt=0, lt=1)]
Steps = Annotated[int, Field(ge=0, le=10**9)]
Count = Annotated[int, Field(gt=0, le=10**9)]
"""A number of steps, images or channels."""
Images = Annotated[int, Field(gt=0, le=MOST_IMAGES)]
Factor = Annotated[float, Field(gt=0, le=16)]
"""A factor on the size of an image."""


def _multiple(value: int | str) -> int | str:
    if value != "auto" and (isinstance(value, str) or not 1 <= value <= 10**9):
        raise ValueError("give a whole number from 1 up, or auto")
    return value


Multiple = Annotated[
    int | str,
    AfterValidator(_multiple),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}),
]


def _forgets(value: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**9
    if value not in ("domain", "never") and not whole:
        raise ValueError("give domain, never, or a whole number of images from 1 up")
    return value


Reset = Annotated[
    int | str,
    BeforeValidator(_forgets),
    WithJsonSchema({"anyOf": [{"enum": ["domain", "never"]}, {"type": "integer", "minimum": 1}]}),
]


@dataclass(frozen=True)
class Kind:
    """Marks a value that names a method: the kind of method that it is one of, as in ``hardy list``.

    On a `Method` it says which registry the name and the options belong to; on a mapping, that its keys are methods and
    its values their options; on a tuple, that each entry begins with a method's name and a slash. Completion,
    overrides, the checks, the digest and the JSON schema follow from it (`hardy.choices`).
    """

    name: str


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values are finite and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Method(BaseModel):
    """A chosen method: its name and its options, ``{name: ior, alpha: 1.0}``; a bare name has no options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    origins: ClassVar[tuple[str, ...]] = ("name",)
    """The keys that choose: an override of one of them replaces the others and the options."""
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
    """Which network: by ``name`` with its options and ``classes``, or an earlier ``run`` to go on from.

    A run's network keeps its classes. Other ``classes`` give it a new last layer, by the names of the classes where
    they agree; so do ``weights`` of a file for other classes. ``sha256`` is the checksum of the weights, those of the
    run or of the file: others are refused.
    """

    origins: ClassVar[tuple[str, ...]] = ("name", "run")
    name: str = ""
    run: str | None = None
    classes: str | None = None
    weights: str | None = None
    sha256: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if bool(self.name) == bool(self.run) or (self.run and (self.model_extra or self.weights)):
            raise ValueError("give either a network's name or the folder of a run, as run: runs/x (without options)")
        return self

    @model_validator(mode="before")
    @classmethod
    def _usual_classes(cls, value: Any) -> Any:
        """A network that is named predicts those of Cityscapes where nothing is said."""
        named = {"name": value} if isinstance(value, str) else value
        if isinstance(named, dict) and named.get("name") and named.get("classes") is None:
            return {**named, "classes": "cityscapes19"}
        return named


class Data(Section):
    """Which domains, how they are split and how training images are transformed. Sizes are (height, width).

    ``unseen_splits`` names the splits that unseen domains are measured on; without any, all their images count.
    ``check`` reads every label and decodes a sample of the images before the first step; ``full`` decodes all images.
    """

    sources: Annotated[tuple[str, ...], Kind("dataset")] = ()
    unseen: Annotated[tuple[str, ...], Kind("dataset")] = ()
    unseen_splits: tuple[str, ...] = ()
    root: str | None = None
    datasets: Annotated[dict[str, dict[str, Any]], Kind("dataset")] = {}
    split: Literal["holdout", "given"] = "holdout"
    holdout: Share = 0.1
    size: Size | None = None
    crop: Size = (512, 1024)
    scale: tuple[Factor, Factor] | None = None
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    photometric: Annotated[float, Field(ge=0)] = 1.0
    cache: bool = False
    check: bool | Literal["full"] = True


class Optim(Section):
    """The optimiser, its rate over time, and how many steps of how many images.

    ``momentum`` is the first beta of ``adam`` and ``adamw``.
    """

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    steps: Count = 120_000
    batch: Images = 12
    lr: Annotated[float, Field(gt=0)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    encoder_rate: Annotated[float, Field(ge=0)] = 1.0
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    power: Annotated[float, Field(gt=0)] = 0.9
    warm_up: Steps = 0
    accumulate: Images = 1
    clip: Annotated[float, Field(gt=0)] | None = None
    ema: Share | None = None


class Floors(Section):
    """Least widths that are measured: each unit alone, or all of a stage, is pruned to each of ``shares`` removed.

    A unit keeps the least width tried up to which the score on ``images`` of the sources' held-out images, in all, fell
    by ``tolerance`` at most. A criterion that needs data looks at ``batches`` first.
    """

    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02
    shares: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.25, 0.5, 0.75)
    images: Count = 50
    by: Literal["unit", "stage"] = "unit"
    batches: Count = 30


class Stop(Section):
    """Pruning ends before the mean score over ``domains`` falls by more than ``drop`` below the dense network's.

    The domains are neither sources nor, unless ``evaluate.select`` is oracle, unseen; ``images`` of them are measured.
    """

    domains: Annotated[tuple[str, ...], Field(min_length=1), Kind("dataset")]
    drop: Annotated[float, Field(ge=0, le=1)] = 0.02
    images: Count = 100


class Prune(Section):
    """What is removed, when, and how the network recovers.

    One of three says how much: ``ratio``, the share of filters REMOVED (half when nothing is said), ``target_gmacs``
    or ``target_ms``, the most that one image of ``data.size`` (else ``data.crop``) may cost; milliseconds are measured
    in ``runtime``. Kept widths are multiples of ``round_to``: runtimes are slow on odd widths; ``auto`` finds out by
    measuring. The papers rank single filters, 1. ``kinds`` are the units that take part. ``floors`` measures how narrow
    each unit may get (``tolerance, shares, images, by, batches``), ``stop`` ends pruning early (``domains, drop,
    images``). After the cut the statistics of batch norms are re-estimated from ``reestimate`` batches of the sources,
    if there are any. Layers that ``keep`` names, and those inside modules that it names, keep every weight. Where
    ``data.sources`` names none, the usual schedule is ``one_shot``. The recovery trains by
    ``recover_with``, else by the recipe's algorithm.
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
    recovery: Steps = 0
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


class Search(Section):
    """A network of fasterseg's space is searched for that takes at most ``budget_ms`` for one image.

    The image has ``data.size`` (else ``data.crop``), and milliseconds are measured in ``runtime``. Branches have
    ``layers`` layers at most, and ``filters`` is an eighth of the channels at stride 8 and full width (the format's
    Fch). One set of weights for all architectures is trained as ``optim`` says, the smaller ones on what the largest
    predicts at ``temperature``. Then ``evaluations`` of them are tried: batch norms are counted anew from
    ``reestimate`` batches, and the score is that on ``images``, in all, of those by which ``evaluate.select`` selects.
    In an ``evolution`` the best of ``sample`` drawn from the last ``population`` is changed; ``random`` draws each
    anew. With ``data.cache`` the images that an evaluation needs stay in memory.
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
    def _room_to_breed(self) -> Self:
        if self.method == "evolution" and self.population >= self.evaluations:
            raise ValueError(
                f"a population of {self.population} breeds only after as many evaluations, and there are "
                f"{self.evaluations}; give more evaluations, or method: random"
            )
        return self


class Teacher(Section):
    """The network that an algorithm learns from, where it asks for one, as ``self_distillation`` does.

    It is that of an earlier ``run``, or an ``onnx`` file of ``hardy export --logits``, which has no features. It
    computes in its own ``precision``. ``sha256`` is the checksum of the weights or of the file: others are refused.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [origin], "properties": {origin: {"type": "string"}}} for origin in ("run", "onnx")]
        }
    )
    run: Annotated[str, Field(min_length=1)] | None = None
    onnx: Annotated[str, Field(min_length=1)] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    sha256: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if bool(self.run) == bool(self.onnx):
            raise ValueError("give either the folder of a run, as run: runs/x, or a file, as onnx: x.onnx")
        if self.onnx and self.precision != "fp32":
            raise ValueError(
                f"precision {self.precision} has no effect on an ONNX file, which runs in fp32; leave it out"
            )
        return self


class Evaluate(Section):
    """How networks are measured and which checkpoint is kept.

    The IoU of each of ``classes`` stands beside the mIoU in tables and records, with its means; ``select_class`` names
    the class by whose IoU, in place of the mIoU, weights are chosen. ``keep_counts`` keeps the confusion counts of
    every image (`hardy.counts`). Pruning measures milliseconds before and after unless ``latency`` is false, as for a
    study whose cells share cores.
    """

    select: Literal["source-val", "last", "oracle"] = "source-val"
    every: Steps = 0
    batch: Images = 1
    flip: bool = False
    scales: Annotated[tuple[Factor, ...], Field(max_length=32)] = (1.0,)
    window: Size | None = None
    latency: bool = True
    classes: tuple[str, ...] = ()
    select_class: str | None = None
    keep_counts: bool = False


class Adapt(Method):
    """A test-time method by ``name`` with its options: the network learns while it is measured or predicts.

    It forgets what it learned before each ``domain``, ``never``, or with a number before the next batch once it has
    seen so many images. Nothing adapts during training, nor where weights are selected.
    """

    reset: Reset = "domain"

    def refuse_views(self, choice: Evaluate) -> None:
        """Refuse what would let the network learn more than once from an image.

        Raises:
            ValueError: for a window, flip or scales, naming them.
        """
        usual = Evaluate()
        views = [name for name in ("window", "flip", "scales") if getattr(choice, name) != getattr(usual, name)]
        if views:
            raise ValueError(
                f"adapt: {self.name} would learn more than once from an image by {' and '.join(views)}; "
                f"leave {'it' if len(views) == 1 else 'them'} out, or do not adapt"
            )


class RunSection(Section):
    """Where and on what a run happens."""

    folder: str = ""
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] | None = None
    channels_last: bool = False
    checkpoint_every: Count = 500
    log_every: Count = 20
    trackers: tuple[str, ...] = ()
