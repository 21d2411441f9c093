"""Sections of a recipe for a network that adapts while it runs: the method, its guard, and the stream."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from hardy.ranges import MOST_IMAGES, Count, Every, Images, Reset
from hardy.sections.base import Kind, Method, Section
from hardy.sections.training import Evaluate

__all__ = ["Adapt", "Guard", "Stream"]


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
    after its last frame and at the end. Each folder of images, or video, in ``unlabelled`` is a domain. With
    ``folder`` the state is saved every ``checkpoint_every`` frames, and a stopped stream can continue.
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
