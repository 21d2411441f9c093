"""The protocol of a run: which images are trained on, which select, which judge; and the stages from data to table.

Sources are split into training and validation images (9:1 by seed, or as the data set gives them); the unseen
domains are measured whole and choose nothing, unless ``evaluate.select`` says ``oracle``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from hardy.algorithms.base import Algorithm
from hardy.data import check, loader, sources
from hardy.data.base import Domain, Item
from hardy.data.labels import LabelSpace, convert
from hardy.data.transforms import Size
from hardy.data.transforms import training as augmentation
from hardy.device import pick
from hardy.engine import evaluate
from hardy.engine.adapting import Adapting
from hardy.engine.checkpoint import load_tensors, write_tensors
from hardy.engine.evaluate import Predictor, Table
from hardy.engine.finished import BEST
from hardy.engine.fit import Batches, Fit, Log
from hardy.engine.judges import chosen, labelled, warn_of
from hardy.errors import InputError, nearest
from hardy.networks.base import Network
from hardy.ops import windows
from hardy.recipe import Adapt, Data, Evaluate, Optim, Recipe, RunSection
from hardy.seed import key
from hardy.types import Batch

__all__ = ["Settings", "Split", "checked", "fit", "measure", "predictor", "reading", "split", "training"]

Part = tuple[Domain, Sequence[Item]]

Stream = Callable[[Part, LabelSpace], Iterable[Batch]]
"""The batches of a part that is measured, their labels in a space."""


@dataclass(frozen=True)
class Settings:
    """How images are read, trained on and measured: four sections of a recipe as one value."""

    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    evaluate: Evaluate = field(default_factory=Evaluate)
    run: RunSection = field(default_factory=RunSection)

    @classmethod
    def of(cls, recipe: Recipe) -> "Settings":
        """Those of ``recipe``."""
        return cls(recipe.data, recipe.optim, recipe.evaluate, recipe.run)


@dataclass(frozen=True)
class Split:
    """The images of a run by what they are for.

    Attributes:
        train: per source domain the images trained on.
        val: per source domain the images held out for selection and the intra-domain score.
        unseen: domains never trained on, whole.
    """

    train: tuple[Part, ...]
    val: tuple[Part, ...]
    unseen: tuple[Part, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the domains trained on."""
        return tuple(domain.name for domain, _ in self.train)


def split(data: Data, seed: int) -> Split:
    """Find the domains of ``data`` and split them.

    Raises:
        InputError: for unknown domains, a domain both source and unseen, or one too small to split.
    """
    root = sources.data_root(data.root)
    home, away = (
        sources.domains(names, root=root, options=data.datasets) if names else []
        for names in (data.sources, data.unseen)
    )
    both = {domain.name for domain in home} & {domain.name for domain in away}
    if both:
        raise InputError(f"data.unseen: {min(both)!r} is also in data.sources; a domain is one or the other")
    halves = sources.sources(home, split=data.split, share=data.holdout, seed=seed)
    return Split(
        tuple((half.domain, half.train) for half in halves),
        tuple((half.domain, half.val) for half in halves),
        tuple((domain, _chosen(domain, data.unseen_splits)) for domain in away),
    )


def _chosen(domain: Domain, splits: Sequence[str]) -> tuple[Item, ...]:
    """The items of the named splits of ``domain``, or all."""
    for name in splits:
        if name not in domain.splits:
            have = ", ".join(domain.splits)
            raise InputError(
                f"data.unseen_splits: {domain.name} has no split {name!r}{nearest(name, domain.splits)}; it has: {have}"
            )
    return domain.items(*splits)


def checked(parts: Split, network: Network, data: Data) -> Split:
    """``parts``, after every label was read once and a sample of the images (``data.check: full``: all) decoded.

    Raises:
        InputError: naming a torn file, or file, id and count; or that every pixel is ignored, label spaces have no map,
            the network is for pictures and the data are scenes or the other way round, or a size is below its least.
    """
    _large_enough(network, {"data.size": data.size, "data.crop": data.crop})
    shared = [_shared(domain, network)[0] for domain, _ in parts.unseen]
    for domain, _ in parts.train:
        _shared(domain, network)
    if data.check:
        decode: check.Decode = "all" if data.check == "full" else "sample"
        for own in (parts.train, parts.val) if parts.train else ():
            check.check_labels(own, network.labels, decode=decode)
        for part, space in zip(parts.unseen, shared, strict=True):
            check.check_labels([part], space, decode=decode)
    return parts


def _large_enough(network: Network, sizes: Mapping[str, Size | None]) -> None:
    """Refuse a (height, width) below the least that ``network`` takes, by the name of its key."""
    for name, size in sizes.items():
        if size is not None and min(size) < network.least_size:
            least = f"{type(network).__name__} needs at least {network.least_size} on each side"
            raise InputError(f"{name}: {size[0]}x{size[1]} pixels, but {least}")


def _shared(domain: Domain, network: Network) -> tuple[LabelSpace, np.ndarray | None]:
    """The space in which ``domain`` and ``network`` are compared, and the map of predictions onto it, if any.

    That is the network's space, or where only the other direction is declared the domain's.

    Raises:
        InputError: without a map, or for pictures and a network for scenes, or the other way round.
    """
    if domain.dataset.image_level != network.image_level:
        kinds = ("a class per pixel", "one class per image")
        has, wants = kinds[domain.dataset.image_level], kinds[network.image_level]
        raise InputError(f"{domain.name}: has {has}, but {type(network).__name__} predicts {wants}")
    own = domain.dataset.labels
    if convert(own, network.labels) is not None:
        return network.labels, None
    onto = convert(network.labels, own)
    if onto is None:
        raise InputError(
            f"{domain.name}: no map is declared between its labels ({own.name}) and the network's "
            f"({network.labels.name})"
        )
    return own, onto


def training(parts: Sequence[Part], labels: LabelSpace, settings: Settings, *, stage: str = "train") -> Batches:
    """``batches(start, rank, processes)``: the endless domain-balanced training batches from step ``start`` on.

    Args:
        parts: the domains and the images trained on.
        labels: the space that labels are mapped onto.
        settings: how images are transformed, how many make a batch, and the seed.
        stage: its random draws are its own.

    Raises:
        InputError: when there is no domain to train on.
    """
    if not parts:
        raise InputError("data.sources: no domain is named to train on; name some, such as [streets/sim]")
    data, run = settings.data, settings.run
    image_level = parts[0][0].dataset.image_level
    transform = augmentation(
        data.crop, image_level=image_level, scale=data.scale, flip=data.flip, photometric=data.photometric
    )

    def batches(start: int, rank: int, processes: int) -> Iterator[Batch]:
        return loader.training_batches(
            parts,
            labels,
            transform,
            batch=settings.optim.batch,
            seed=key(run.seed, stage),
            start=start,
            workers=run.workers,
            rank=rank,
            processes=processes,
            resize=None if image_level else data.size,
            cache=data.cache,
        )

    return batches


def predictor(network: Predictor, choice: Evaluate) -> Predictor:
    """``network`` with the sliding window, scales and mirror image of ``choice``."""
    return windows.views(network, window=choice.window, scales=choice.scales, flip=choice.flip)


def reading(settings: Settings) -> Stream:
    """A stream that reads every image each time it is measured."""
    choice, workers, size = settings.evaluate, settings.run.workers, settings.data.size

    def stream(part: Part, space: LabelSpace) -> Iterator[Batch]:
        return loader.evaluation_batches([part], space, batch=choice.batch, workers=workers, resize=size)

    return stream


def measure(
    network: Network,
    parts: Sequence[tuple[str, Part]],
    settings: Settings,
    stream: Stream | None = None,
    *,
    tolerant: bool = False,
    adapt: Adapt | None = None,
) -> Table:
    """The table of ``network`` over (group, part) pairs; groups are ``source-val`` and ``unseen``.

    Without a ``stream`` the images are read as `reading` does. A ``tolerant`` measurement leaves a domain out whose
    images cannot be read, and names it in the table's ``failed``.

    The labels are mapped onto the network's space; where only the other direction is declared (a network of 19
    classes on data of 11), its predictions are mapped onto the labels' space instead.

    With ``adapt`` one copy of the network learns from the images of all parts, in their order and batch by batch, and
    forgets as declared; ``network`` stays as it is. A domain that is left out leaves what was learned as it was.

    Raises:
        InputError: when no map between the spaces is declared, domains of one table have different classes, an image
            cannot be read, or a window, flip or scales would show it more than once to a network that adapts.
    """
    device = pick(settings.run.device)
    network.to(device)
    was_training = network.training
    network.eval()  # `count` does not see a network through its windows and views
    live = _adapting(network, adapt, settings) if adapt else None
    predict = live or predictor(network, settings.evaluate)
    rows, spaces, failed = [], set(), {}
    for group, (domain, items) in parts:
        space, onto = _shared(domain, network)
        batches = (stream or reading(settings))((domain, items), space)
        try:
            with live.domain() if live else nullcontext():
                counts, images = evaluate.count(predict, batches, len(space), device=device, onto=onto)
        except (InputError, OSError) as error:
            if not tolerant:
                raise
            failed[domain.name] = " ".join(str(error).split())
            continue
        rows.append((domain.name, group, counts, images))
        spaces.add(space.classes)
    network.train(was_training)
    if len(spaces) > 1:
        raise InputError("the domains of one table must share their classes; measure them in two runs")
    partial = any(domain.dataset.never for _, (domain, _) in parts)
    classes = next(iter(spaces), ())
    return evaluate.table(rows, classes, image_level=network.image_level, partial=partial, failed=failed)


def _adapting(network: Network, adapt: Adapt, settings: Settings) -> Adapting:
    """``network`` as it adapts while it is measured.

    Raises:
        InputError: for a window, flip or scales.
    """
    try:
        adapt.refuse_views(settings.evaluate)
    except ValueError as error:
        raise InputError(str(error)) from None
    return Adapting(network, adapt, settings.run.seed)


def fit(
    algorithm: Algorithm,
    parts: Split,
    settings: Settings,
    *,
    folder: Path,
    owner: str,
    stage: str = "train",
    log: Log | None = None,
    validated: Callable[[int, float], None] | None = None,
) -> int:
    """Train the network of ``algorithm`` in place, going on from a checkpoint in ``folder``; it keeps the weights that
    were selected.

    Args:
        algorithm: what is trained.
        parts: the images trained on, and those that select.
        settings: how.
        folder: where the checkpoint and the best weights lie meanwhile.
        owner: what the checkpoint belongs to.
        stage: names the stage; its random draws are its own.
        log: see `Fit`.
        validated: called with step and score after each validation.

    Returns:
        the step whose weights were selected.

    Raises:
        InputError: without sources, without labelled images to select by, or what training meets.
    """
    network, optim, choice = algorithm.network, settings.optim, settings.evaluate
    _large_enough(network, {"evaluate.window": choice.window})
    batches = training(parts.train, network.labels, settings, stage=stage)
    judges = labelled(chosen(parts.val, parts.unseen, choice), lambda domain: _shared(domain, network)[0])
    loop = Fit(algorithm, batches, optim, settings.run, folder=folder, owner=owner, stage=stage, log=log)
    algorithm.check(len(parts.train), optim.batch // loop.accelerator.num_processes // optim.accumulate)
    loop.resume()

    def validate(step: int) -> float | None:
        score = _score(loop, network, lambda: measure(network, judges, settings, tolerant=True))
        if score is not None and loop.accelerator.is_main_process and loop.progress.beaten_by(score):
            write_tensors(folder / BEST, _trained(network, loop), {"step": str(step), "owner": owner})
        if score is not None and validated:
            validated(step, score)
        return score

    loop.run(validate=validate if judges else None, every=choice.every)
    _select(network, loop, folder / BEST)
    return loop.progress.best[1] if loop.progress.best else loop.progress.step


def _select(network: Network, loop: Fit, best: Path) -> None:
    """Load the best weights into ``network``, in place and on the CPU; the last ones where nothing was measured."""
    loop.accelerator.wait_for_everyone()
    network.to("cpu")
    if loop.progress.best:
        rest = {name: value for name, value in network.state_dict().items() if f"network.{name}" in loop.untrained}
        load_tensors(best, network, rest)
    else:
        network.load_state_dict(_selected(network, loop))
    loop.accelerator.wait_for_everyone()  # the main process removes the file once all have read it


def _score(loop: Fit, network: Network, judge: Callable[[], Table]) -> float | None:
    """The intra-domain mean of the weights that would be kept, the moving average if there is one; None where nothing
    could be measured. A domain that could not be read is named in the log."""
    live = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(_selected(network, loop))
    table = judge()
    network.load_state_dict(live)
    warn_of(table, f"{loop.stage} step {loop.progress.step}")
    return table.intra


def _selected(network: Network, loop: Fit) -> dict[str, Tensor]:
    """The network's weights to measure and keep."""
    prefix = "network."
    state = loop.averaged()
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _trained(network: Network, loop: Fit) -> dict[str, Tensor]:
    """Of the weights to keep those that training changes."""
    return {name: value for name, value in _selected(network, loop).items() if f"network.{name}" not in loop.untrained}
