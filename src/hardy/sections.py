"""The sections of a recipe: all settings of a run, with type, range and default.

No torch is imported here. `hardy.recipe` reads the sections from YAML and completes them.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)

from hardy.ranges import (
    MOST_IMAGES,
    MOST_THREADS,
    Count,
    Every,
    Factor,
    Images,
    Multiple,
    Reset,
    Share,
    Size,
    Steps,
    no_truth_as_number,
)

__all__ = [
    "Adapt",
    "Data",
    "Evaluate",
    "Floors",
    "Guard",
    "Kind",
    "Method",
    "NetworkChoice",
    "Optim",
    "Prune",
    "RunSection",
    "Scoring",
    "Search",
    "Section",
    "Stop",
    "Stream",
    "Teacher",
    "Teachers",
]


@dataclass(frozen=True)
class Kind:
    """Marks a field that names a method, with the kind of method as in ``hardy list``.

    On a `Method` it is the registry of the name and the options. On a mapping, the keys are methods and the values
    their options. On a tuple, each entry begins with a method's name and a slash. Completion, overrides, checks, digest
    and JSON schema follow from it (`hardy.choices`).
    """

    name: str


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values are finite and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    _truth = field_validator("*", mode="wrap")(no_truth_as_number)


class Method(BaseModel):
    """A chosen method: its name and its options, ``{name: ior, alpha: 1.0}``; a bare name has no options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    origins: ClassVar[tuple[str, ...]] = ("name",)
    """The keys that choose the method: an override of one of them replaces the others and the options."""
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
    """The network: a ``name`` with its options and ``classes``, or an earlier ``run`` to start from.

    The network of a run keeps its classes. Other ``classes`` give it a new last layer, in which classes with the same
    name keep their weights. The same is true for a file of ``weights`` for other classes. ``sha256`` is the checksum of
    the weights of the run or the file: other weights are refused. ``form`` is the same for the architecture, the
    classes and the changes of a network that was passed in memory from Python. ``merge`` first merges the tuner of a
    tuned run into its weights (`hardy.merge`).
    """

    origins: ClassVar[tuple[str, ...]] = ("name", "run")
    name: str = ""
    run: str | None = None
    classes: str | None = None
    weights: str | None = None
    sha256: str | None = None
    form: str | None = None
    merge: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if bool(self.name) == bool(self.run) or (self.run and (self.model_extra or self.weights)):
            raise ValueError("give either a network's name or the folder of a run, as run: runs/x (without options)")
        if self.merge and not self.run:
            raise ValueError("merge: only the network of a run can have a tuner to merge; give run: runs/x")
        return self

    @model_validator(mode="before")
    @classmethod
    def _usual_classes(cls, value: Any) -> Any:
        """The default classes of a named network are those of Cityscapes."""
        named = {"name": value} if isinstance(value, str) else value
        if isinstance(named, dict) and named.get("name") and named.get("classes") is None:
            return {**named, "classes": "cityscapes19"}
        return named


class Data(Section):
    """The domains, their splits and the transforms of training images. Sizes are (height, width).

    ``unseen_splits`` names the splits of unseen domains that are measured; by default all images are. ``check`` reads
    every label and decodes a sample of the images before the first step; ``full`` decodes all images. ``unlabelled``
    names folders of images without labels, searched at any depth, for algorithms that use such images. Each step uses
    ``unlabelled_batch`` of them in addition to ``optim.batch``; by default as many as of one domain.
    """

    sources: Annotated[tuple[str, ...], Kind("dataset")] = ()
    unseen: Annotated[tuple[str, ...], Kind("dataset")] = ()
    unseen_splits: tuple[str, ...] = ()
    unlabelled: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    unlabelled_batch: Images | None = None
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
    """The optimiser, the learning-rate schedule, the number of steps and the batch size.

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


class Teacher(Section):
    """The network that an algorithm such as ``distillation`` learns from.

    It is the network of an earlier ``run``, or an ``onnx`` file of ``hardy export --logits``, which has no features. It
    has its own ``precision``; ``auto`` measures once, before the first step, whether bf16 is faster, and stores the
    choice in the run's folder. It gets the images resized to ``size`` (height, width), by default the images of the
    network. With a ``cache_folder`` its logits are kept there, in at most ``cache_mb`` megabytes, for other runs with
    the same images. ``sha256`` is the checksum of the weights or the file: others are refused. ``form`` is the same for
    the architecture, the classes and the changes of a network that was passed in memory from Python.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [origin], "properties": {origin: {"type": "string"}}} for origin in ("run", "onnx")]
        }
    )
    run: Annotated[str, Field(min_length=1)] | None = None
    onnx: Annotated[str, Field(min_length=1)] | None = None
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    size: Size | None = None
    cache_folder: Annotated[str, Field(min_length=1)] | None = None
    cache_mb: Annotated[int, Field(gt=0, le=10**9)] = 10_000
    sha256: str | None = None
    form: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if bool(self.run) == bool(self.onnx):
            raise ValueError("give either the folder of a run, as run: runs/x, or a file, as onnx: x.onnx")
        if self.onnx and self.precision == "bf16":
            raise ValueError(f"precision {self.precision} has no effect on an ONNX file: it runs in fp32; leave it out")
        if not self.cache_folder and self.cache_mb != type(self).model_fields["cache_mb"].default:
            raise ValueError("cache_mb: has no effect without cache_folder; name one, or leave it out")
        return self


def _how_many(value: object) -> str:
    return "several" if isinstance(value, (list, tuple)) else "one"


Teachers = Annotated[
    Annotated[Teacher, Tag("one")] | Annotated[tuple[Teacher, ...], Field(min_length=1, max_length=16), Tag("several")],
    Discriminator(_how_many),
]
"""One teacher, or a list of teachers whose class probabilities are averaged."""


class Evaluate(Section):
    """How networks are measured and which weights are selected.

    The IoU of each of ``classes``, and its means, are shown with the mIoU in tables and records. With ``select_class``,
    weights are selected by the IoU of that class instead of the mIoU. ``keep_counts`` keeps the confusion counts of
    every image (`hardy.counts`). ``keep_worst`` is the number of worst images of each domain that are kept as pictures
    (`hardy.pictures`) for ``hardy report``. Pruning measures milliseconds before and after, unless ``latency`` is
    false, as in a study whose cells share cores.
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
    keep_worst: Annotated[int, Field(ge=0, le=20)] = 0


class Guard(Section):
    """Compares a method that adapts with the source network, and undoes updates that look harmful.

    On every ``every``-th batch the source network predicts too. If its mean entropy on an image, as a share of log K,
    is below ``sure``, its prediction is used; if that is so for the whole batch, nothing is learned. Otherwise its
    probabilities have the weight ``source`` in the prediction. There is an alarm

    - if the mean entropy is below ``entropy`` times the source's;
    - if the ``agreement`` with confident predictions of the source is below this share (a mean over classes);
    - if there are fewer than ``classes`` times as many predicted classes as in the source (a running mean);
    - if class prototypes are further than ``prototypes`` from the source's; or
    - for NaN.

    On an alarm the source's prediction is used (fallback), and the method returns to its last good state (rollback),
    which is saved after ``keep`` good batches in a row. After ``resets`` alarms without a new good state it returns to
    its start. ``on_alarm`` selects both, one or nothing; NaN always causes both. Parameters move from their start by at
    most ``drift`` times its norm. While the average time per image is above ``budget_ms``, batches are predicted
    without learning. To turn a limit off, set sure, source, entropy, agreement and classes to 0, and the others to
    null.
    """

    every: Count = 1
    sure: Annotated[float, Field(ge=0, lt=1)] = 0.3
    source: Annotated[float, Field(ge=0, lt=1)] = 0.5
    entropy: Annotated[float, Field(ge=0, lt=1)] = 0.2
    agreement: Annotated[float, Field(ge=0, lt=1)] = 0.6
    classes: Annotated[float, Field(ge=0, lt=1)] = 0.75
    prototypes: Annotated[float, Field(gt=0, le=1)] | None = 0.5
    drift: Annotated[float, Field(gt=0)] | None = 0.05
    keep: Count = 10
    resets: Count = 3
    budget_ms: Annotated[float, Field(gt=0)] | None = None
    on_alarm: Literal["both", "fallback", "rollback", "nothing"] = "both"


def _guard(value: object) -> object:
    return ({} if value else None) if isinstance(value, bool) else value


class Adapt(Method):
    """A test-time method by ``name`` with its options: the network learns while it is measured or predicts.

    ``reset`` is when it returns to its start: before each ``domain``, ``never``, or, with a number, before the next
    batch after so many images. A ``guard`` watches it; ``true`` is a guard with its defaults. Networks do not adapt
    during training and the selection of weights.
    """

    reset: Reset = "domain"
    guard: Annotated[Guard | None, BeforeValidator(_guard)] = None

    @model_serializer(mode="wrap")
    def _without_guard(self, inner: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write no ``guard`` and no ``on_alarm`` if they are not set, so that older sections keep their digests."""
        values: dict[str, Any] = inner(self)
        guard = {name: value for name, value in (values.pop("guard") or {}).items() if value != "both"}
        return {**values, "guard": guard} if self.guard else values

    def refuse_views(self, choice: Evaluate) -> None:
        """Refuse settings with which the network would learn more than once from an image.

        Raises:
            ValueError: for a window, flip or scales; the message names them.
        """
        usual = Evaluate()
        views = [name for name in ("window", "flip", "scales") if getattr(choice, name) != getattr(usual, name)]
        if views:
            raise ValueError(
                f"adapt: {self.name} would learn more than once from an image by {' and '.join(views)}; "
                f"leave {'it' if len(views) == 1 else 'them'} out, or do not adapt"
            )


class Stream(Section):
    """A stream: the order in which frames of the domains reach a network that adapts, and what is measured.

    Each of ``rounds`` has the same frames: all, or ``images`` evenly spaced ones of each domain. The order (``kind``)
    is one of

    - ``abrupt``: domain after domain;
    - ``gradual``: neighbouring domains are mixed over ``block`` frames on either side of the change;
    - ``mixed``: a random domain for each frame;
    - ``recurring``: blocks of ``block`` frames, the domains in turn;
    - ``correlated``: blocks of random domains with random lengths, ``block`` on average;
    - ``recorded``: the frames of all domains in the order of their files.

    The order of domains and of images is as given, or ``drawn`` with ``seed``. The method adapts on every ``every``-th
    batch and predicts the others with its current state. With ``every: measured`` it skips as many batches as its own
    time requires, in periods of ``frame_ms`` or of the source network's time. The worst window has ``window`` frames.
    ``probe`` images of each domain, and of the ``sources``, are predicted without learning: before its first frame,
    after its last frame and at the end. Each folder of images in ``unlabelled`` is a domain. With ``folder`` the state
    is saved every ``checkpoint_every`` frames, and a stopped stream can continue.
    """

    kind: Literal["abrupt", "gradual", "mixed", "recurring", "correlated", "recorded"] = "abrupt"
    rounds: Images = 1
    images: Images | None = None
    domain_order: Literal["given", "drawn"] = "given"
    image_order: Literal["given", "drawn"] = "given"
    block: Images = 10
    batch: Images = 1
    every: Every = 1
    frame_ms: Annotated[float, Field(gt=0)] | None = None
    window: Images = 50
    probe: Annotated[int, Field(ge=0, le=MOST_IMAGES)] = 20
    sources: Annotated[tuple[str, ...], Kind("dataset")] = ()
    unlabelled: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    seed: int = 0
    folder: str | None = None
    checkpoint_every: Count = 500

    @model_validator(mode="after")
    def _without_effect(self) -> Self:
        if self.frame_ms and self.every != "measured":
            raise ValueError("frame_ms: it has no effect unless every is measured; leave it out")
        drawn = [name for name in ("domain_order", "image_order") if getattr(self, name) == "drawn"]
        if self.kind == "recorded" and drawn:
            raise ValueError(f"{drawn[0]}: drawn has no effect in a recorded stream; leave it out")
        return self


class RunSection(Section):
    """The folder, the seed and the machine's settings of a run.

    With ``gradient_checkpointing`` the blocks of the encoder keep only their inputs for the backward pass, which
    recomputes the rest: less memory, more time, the same bits. With ``sharding: full`` each of several processes holds
    its share of all weights, gradients and optimiser states, and a block of the encoder is complete only while it
    computes.
    """

    folder: str = ""
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] | None = None
    channels_last: bool = False
    gradient_checkpointing: bool = False
    sharding: Literal["none", "full"] = "none"
    checkpoint_every: Count = 500
    log_every: Count = 20
    trackers: tuple[str, ...] = ()
