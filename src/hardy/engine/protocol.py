"""The protocol of a run: which images train, which select the weights and which are only measured; fit and measure.

Sources are split into training and validation images (9:1 by seed, or as the data set gives them). All images of the
unseen domains are measured. They do not select weights, unless ``evaluate.select`` is ``oracle``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hardy.algorithms.base import Algorithm
from hardy.data import check, loader, sources, unlabelled
from hardy.data.base import Domain, DomainItems, Item, names_of
from hardy.data.label_spaces import LabelSpace, convert
from hardy.data.transforms import Size
from hardy.data.transforms import training as augmentation
from hardy.data.unlabelled import Folders
from hardy.device import pick
from hardy.engine import evaluate
from hardy.engine.adapting import Adapting
from hardy.engine.evaluate import Predictor, ScoreTable, evaluating
from hardy.engine.fit import Batches, Fit, Log
from hardy.engine.image_counts import counted, pictured
from hardy.engine.judges import chosen, known_classes, labelled
from hardy.engine.run_files import BEST
from hardy.engine.selection import keep_best, scored, select
from hardy.engine.source_images import source_images as source_images_of
from hardy.engine.worst import Finder
from hardy.errors import InputError, nearest
from hardy.networks.base import Network
from hardy.ops import windows
from hardy.recipe import Adapt, Data, Evaluate, Optim, Recipe, RunSection
from hardy.seed import key
from hardy.types import Batch

__all__ = [
    "Settings",
    "Split",
    "check_classes",
    "checked",
    "fit",
    "large_enough",
    "measure",
    "one_space",
    "predictor",
    "reading",
    "shared",
    "split",
    "training",
]

Stream = Callable[[DomainItems, LabelSpace], Iterable[Batch]]
"""The batches of a part that is measured, with labels in the given space."""


@dataclass(frozen=True)
class Settings:
    """How images are read, trained on and measured: four sections of a recipe as one value."""

    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    evaluate: Evaluate = field(default_factory=Evaluate)
    run: RunSection = field(default_factory=RunSection)

    @classmethod
    def of(cls, recipe: Recipe) -> "Settings":
        """The settings of ``recipe``."""
        return cls(recipe.data, recipe.optim, recipe.evaluate, recipe.run)


@dataclass(frozen=True)
class Split:
    """The images of a run by purpose.

    Attributes:
        train: for each source domain the training images.
        val: for each source domain the images held out for selection and the intra-domain score.
        unseen: the domains never trained on, with all their images.
        unlabelled: folders of images without labels, for algorithms that use such images.
    """

    train: tuple[DomainItems, ...]
    val: tuple[DomainItems, ...]
    unseen: tuple[DomainItems, ...]
    unlabelled: Folders = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the source domains."""
        return tuple(domain.name for domain, _ in self.train)


def split(data: Data, seed: int) -> Split:
    """Find the domains of ``data`` and split them.

    Raises:
        InputError: for unknown domains, a domain both source and unseen, or one too small to split; for a folder of
            images without labels that is missing, empty, or holds an image of an unseen domain.
    """
    root = sources.data_root(data.root)
    source_domains, unseen_domains = (
        sources.domains(names, root=root, options=data.datasets) if names else []
        for names in (data.sources, data.unseen)
    )
    both = {domain.name for domain in source_domains} & {domain.name for domain in unseen_domains}
    if both:
        raise InputError(f"data.unseen: {min(both)!r} is also in data.sources; a domain is one or the other")
    halves = sources.sources(source_domains, split=data.split, share=data.holdout, seed=seed)
    folders = unlabelled.find(data.unlabelled, root)
    if folders:
        held = [item for half in halves for item in half.val]
        unseen = [(domain.name, item) for domain in unseen_domains for item in domain.items()]
        folders = unlabelled.without(folders, held, unseen)
    return Split(
        tuple((half.domain, half.train) for half in halves),
        tuple((half.domain, half.val) for half in halves),
        tuple((domain, _chosen(domain, data.unseen_splits)) for domain in unseen_domains),
        folders,
    )


def _chosen(domain: Domain, splits: Sequence[str]) -> tuple[Item, ...]:
    """The items of the named splits of ``domain``; all without any."""
    for name in splits:
        if name not in domain.splits:
            have = ", ".join(domain.splits)
            raise InputError(
                f"data.unseen_splits: {domain.name} has no split {name!r}{nearest(name, domain.splits)}; it has: {have}"
            )
    return domain.items(*splits)


def checked(parts: Split, network: Network, data: Data) -> Split:
    """``parts``, after all labels and a sample of the images (``data.check: full``: all of them) were decoded once.

    Raises:
        InputError: for a torn file, an unknown class id (naming file, id and count), labels that are all ignored, label
            spaces without a map, pixel labels for a network that predicts one class per image (or the other way round),
            or a size below the network's minimum.
    """
    large_enough(network, {"data.size": data.size, "data.crop": data.crop})
    spaces = [shared(domain, network)[0] for domain, _ in parts.unseen]
    for domain, _ in parts.train:
        shared(domain, network)
    if data.check:
        decode: check.Decode = "all" if data.check == "full" else "sample"
        for own, part in ((parts.train, "training images"), (parts.val, "validation images")) if parts.train else ():
            check.check_labels(own, network.label_space, decode=decode, part=part)
        for one, space in zip(parts.unseen, spaces, strict=True):
            check.check_labels([one], space, decode=decode, part="unseen images")
        unlabelled.check_images(parts.unlabelled, every=decode == "all")
    return parts


def check_classes(parts: Iterable[DomainItems], network: Network, choice: Evaluate) -> None:
    """Refuse classes of ``choice`` that are not among those in which each of ``parts`` is measured.

    Raises:
        InputError: naming key and class, or for an image-level network, whose classes have no IoU.
    """
    for domain, _ in parts if choice.classes or choice.select_class else ():
        known_classes(choice, shared(domain, network)[0], image_level=network.image_level)


def large_enough(network: Network, sizes: Mapping[str, Size | None]) -> None:
    """Refuse a (height, width) below the minimum size of ``network``; the message names the key."""
    for name, size in sizes.items():
        if size is not None and min(size) < network.least_size:
            least = f"{type(network).__name__} needs at least {network.least_size} on each side"
            raise InputError(f"{name}: {size[0]}x{size[1]} pixels, but {least}")


def shared(domain: Domain, network: Network) -> tuple[LabelSpace, np.ndarray | None]:
    """The label space in which ``domain`` and ``network`` are compared, and the map of predictions onto it, if any.

    It is the network's space, or the domain's where only a map from the network's space to the domain's is declared.

    Raises:
        InputError: without a map, or when one has a class per pixel and the other a class per image.
    """
    if domain.dataset.image_level != network.image_level:
        kinds = ("a class per pixel", "one class per image")
        has, wants = kinds[domain.dataset.image_level], kinds[network.image_level]
        raise InputError(f"{domain.name}: has {has}, but {type(network).__name__} predicts {wants}")
    own = domain.dataset.label_space
    if convert(own, network.label_space) is not None:
        return network.label_space, None
    onto = convert(network.label_space, own)
    if onto is None:
        raise InputError(
            f"{domain.name}: no map is declared between its labels ({own.name}) and the network's "
            f"({network.label_space.name})"
        )
    return own, onto


def training(
    parts: Sequence[DomainItems],
    label_space: LabelSpace,
    settings: Settings,
    *,
    stage: str = "train",
    folders: Folders = (),
) -> Batches:
    """``batches(start, rank, processes)``: the endless domain-balanced training batches from step ``start`` on.

    Args:
        parts: the domains and their training images.
        label_space: the space that labels are mapped onto.
        settings: the transforms, the batch size and the seed.
        stage: the name of the stage; each stage has its own random draws.
        folders: of images without labels.

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

    domain, items = unlabelled.source(folders, label_space, image_level=image_level)
    others = loader.Unlabelled(domain, items, data.unlabelled_batch) if items else None

    def batches(start: int, rank: int, processes: int) -> Iterator[Batch]:
        return loader.training_batches(
            parts,
            label_space,
            transform,
            batch=settings.optim.batch,
            seed=key(run.seed, stage),
            start=start,
            workers=run.workers,
            rank=rank,
            processes=processes,
            resize=None if image_level else data.size,
            cache=data.cache,
            unlabelled=others,
        )

    return batches


def predictor(network: Predictor, choice: Evaluate) -> Predictor:
    """``network`` with the sliding window, scales and horizontal flip of ``choice``."""
    return windows.views(network, window=choice.window, scales=choice.scales, flip=choice.flip)


def reading(settings: Settings) -> Stream:
    """A stream that reads every image again at each measurement."""
    choice, workers, size = settings.evaluate, settings.run.workers, settings.data.size

    def stream(part: DomainItems, space: LabelSpace) -> Iterator[Batch]:
        return loader.evaluation_batches([part], space, batch=choice.batch, workers=workers, resize=size)

    return stream


def measure(
    network: Network,
    parts: Sequence[tuple[str, DomainItems]],
    settings: Settings,
    stream: Stream | None = None,
    *,
    tolerant: bool = False,
    adapt: Adapt | None = None,
    source_images: Iterable[Tensor] | Tensor | None = None,
) -> ScoreTable:
    """The table of ``network`` over (group, part) pairs; groups are ``source-val`` and ``unseen``.

    Without a ``stream`` images are read by `reading`. A ``tolerant`` table names what cannot be read in ``failed``.
    Labels are mapped onto the network's space. Where only the other direction is declared (a network of 19 classes,
    data of 11), the predictions are mapped onto the space of the labels.

    With ``adapt`` a copy of the network learns from the images of all parts, batch by batch in their order, and is
    reset as declared; ``network`` does not change. After a domain that failed, the copy has the state from before it.

    Raises:
        InputError: when no map between the spaces is declared, domains of one table have different classes, an image
            cannot be read, or a window, flip or scales would show an image more than once to a network that adapts.
    """
    check_classes([part for _, part in parts], network, settings.evaluate)
    network.to(pick(settings.run.device))
    with evaluating(network):  # `count` cannot do it: with windows and views it is given a function, not a module
        live = _adapting(network, adapt, settings, source_images) if adapt else None
        return _measured(network, parts, settings, stream or reading(settings), live, tolerant=tolerant)


def _measured(
    network: Network,
    parts: Sequence[tuple[str, DomainItems]],
    settings: Settings,
    stream: Stream,
    live: Adapting | None,
    *,
    tolerant: bool,
) -> ScoreTable:
    """See `measure`; ``live`` predicts instead of ``network``."""
    choice, device = settings.evaluate, pick(settings.run.device)
    predict, rows, failed, kept, found = live or predictor(network, choice), [], {}, {}, {}
    for group, (domain, items) in parts:
        batches = stream((domain, items), shared(domain, network)[0])
        each: list[Tensor] | None = [] if choice.keep_counts else None
        finder = Finder(shared(domain, network)[0], choice.keep_worst)
        try:
            with live.domain(domain.name) if live else nullcontext():
                rows.append((domain.name, group, *_count(predict, network, domain, batches, device, each, finder)))
        except (InputError, OSError) as error:
            if not tolerant:
                raise
            failed[domain.name] = " ".join(str(error).split())
            continue
        if each is not None:
            kept[domain.name] = counted(domain.dataset, items, each, shared(domain, network)[0].classes, group)
        found[domain.name] = (finder, names_of(domain.dataset, items))
    classes = one_space([domain for _, (domain, _) in parts if domain.name not in failed], network)
    known: dict[str, Any] = {"image_level": network.image_level, "named": choice.classes, "failed": failed}
    known |= {"partial": any(domain.dataset.never for _, (domain, _) in parts), "guard": live and live.guard}
    return evaluate.build_table(rows, classes, counts=kept, pictures=pictured(found), **known)


def _count(
    predict: Predictor,
    network: Network,
    domain: Domain,
    batches: Iterable[Batch],
    device: torch.device,
    each: list[Tensor] | None,
    finder: Finder,
) -> tuple[Tensor, int]:
    """The confusion counts of ``predict``, a view of ``network``, over ``batches`` of ``domain``; see `count`."""
    space, onto = shared(domain, network)
    return evaluate.count(predict, batches, len(space), device=device, onto=onto, each=each, finder=finder)


def one_space(measured: Iterable[Domain], network: Network) -> tuple[str, ...]:
    """The classes in which all of the domains are compared with ``network``.

    Raises:
        InputError: when they differ.
    """
    spaces = {shared(domain, network)[0].classes for domain in measured}
    if len(spaces) > 1:
        raise InputError("the domains of one table must share their classes; measure them in two runs")
    return next(iter(spaces), ())


def _adapting(network: Network, adapt: Adapt, settings: Settings, given: Iterable[Tensor] | Tensor | None) -> Adapting:
    """A copy of ``network`` that adapts while it is measured; a method that is not source-free gets the images that are
    ``given``, else those of ``data.sources``.

    Raises:
        InputError: for a window, flip or scales.
    """
    try:
        adapt.refuse_views(settings.evaluate)
    except ValueError as error:
        raise InputError(str(error)) from None
    seed = settings.run.seed
    return Adapting(network, adapt, seed, source_images_of(settings.data, seed) if given is None else given)


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
    """Train the network of ``algorithm`` in place, resuming from ``folder``; it ends with the selected weights.

    Args:
        algorithm: what is trained.
        parts: the training images, and those that select the weights.
        settings: of data, optimiser, selection and run.
        folder: for the checkpoint and the best weights.
        owner: what the checkpoint belongs to.
        stage: the name of the stage; each stage has its own random draws.
        log: see `Fit`.
        validated: called with step and score after each validation.

    Returns:
        the step whose weights were selected.

    Raises:
        InputError: without sources, without labelled images for the selection, and what training raises.
    """
    network, optim, choice = algorithm.network, settings.optim, settings.evaluate
    large_enough(network, {"evaluate.window": choice.window})
    folders = _usable(algorithm, parts.unlabelled)
    batches = training(parts.train, network.label_space, settings, stage=stage, folders=folders)
    judges = labelled(chosen(parts.val, parts.unseen, choice), lambda domain: shared(domain, network)[0])
    loop = Fit(algorithm, batches, optim, settings.run, folder=folder, owner=owner, stage=stage, log=log)
    algorithm.check(len(parts.train), optim.batch // loop.accelerator.num_processes // optim.accumulate)
    loop.resume()
    on_the_way = replace(settings, evaluate=choice.model_copy(update={"keep_counts": False, "keep_worst": 0}))

    def validate(step: int) -> float | None:
        score = scored(loop, lambda live: measure(live, judges, on_the_way, tolerant=True), choice.select_class)
        if score is not None and loop.progress.beaten_by(score):
            keep_best(loop, folder / BEST, {"step": str(step), "owner": owner})
        if score is not None and validated:
            validated(step, score)
        return score

    loop.run(validate=validate if judges else None, every=choice.every)
    select(algorithm, loop, folder / BEST)
    return loop.progress.best[1] if loop.progress.best else loop.progress.step


def _usable(algorithm: Algorithm, folders: Folders) -> Folders:
    """``folders`` if ``algorithm`` learns from images without labels.

    Raises:
        InputError: when it does with other options only.
    """
    if folders and type(algorithm).uses_unlabelled and not algorithm.uses_unlabelled:
        name = type(algorithm).__name__
        raise InputError(
            f"data.unlabelled: each loss of {name} reads labels; add one that does not, such as kl, or leave it out"
        )
    return folders if algorithm.uses_unlabelled else ()
