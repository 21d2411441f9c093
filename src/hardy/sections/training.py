"""Sections of a recipe for training and measuring: network, data, optimiser, teacher, evaluation, run."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from hardy.ranges import MOST_THREADS, Count, Factor, Images, Share, Size, Steps
from hardy.sections.base import Kind, Method, Section

__all__ = ["Data", "Evaluate", "NetworkChoice", "Optim", "RunSection", "Teacher", "Teachers"]


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

    @property
    def noted(self) -> str:
        """What records call it: its name, or its run as a path with a folder, ``./dense`` for ``dense``."""
        run = self.run or ""
        return self.name or (run if "/" in run.replace("\\", "/") else f"./{run}")


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
    datasets: Annotated[dict[str, dict[str, Any]], Kind("dataset")] = Field(default={})
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


class RunSection(Section):
    """The folder, the seed and the machine's settings of a run.

    With ``gradient_checkpointing`` the blocks of the encoder keep only their inputs for the backward pass, which
    recomputes the rest: less memory, more time, the same bits. With ``sharding: full`` each of several processes holds
    its share of all weights, gradients and optimiser states, and a block of the encoder is complete only while it
    computes.

    A checkpoint is written every ``checkpoint_every`` steps, and also when the last one is ten minutes old (not with
    ``sharding: full``).
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
