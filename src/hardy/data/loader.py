"""Batches: endless and domain-balanced for training, one plain pass for evaluation.

The content of a training batch depends only on (seed, step, slot). A step takes equal shares of images from the
domains. Each domain is an endless stream of permutations of its items, one per epoch, keyed by (seed, domain, epoch).
Each sample is augmented with the key (seed, step, slot). Images without labels come after the others in additional
slots, from a stream of the same kind. So a run can stop after any step and resume with the same bits, with any number
of workers, and every rank of a parallel run knows its slots.
"""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hardy.data.base import Domain, DomainItems, Item
from hardy.data.label_spaces import LabelSpace, convert
from hardy.data.transforms import Size, Transform, at_size, evaluation
from hardy.errors import InputError
from hardy.seed import key, seeded
from hardy.types import Batch

__all__ = ["Unlabelled", "evaluation_batches", "label_map", "step_slots", "training_batches"]

T = TypeVar("T")


class Unlabelled(NamedTuple):
    """Training images without labels.

    Attributes:
        domain: reads them.
        items: the items of all of them.
        batch: their number in a step, over all processes; None for the number of images of one domain, rounded up to a
            multiple of the processes.
    """

    domain: Domain
    items: Sequence[Item]
    batch: int | None = None


_GRACE = 60  # seconds for which a worker continues after its first SIGTERM


def training_batches(
    data: Sequence[DomainItems],
    label_space: LabelSpace,
    transform: Transform,
    *,
    batch: int,
    seed: int,
    start: int = 0,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
    resize: Size | None = None,
    cache: bool = False,
    pin: bool = False,
    unlabelled: Unlabelled | None = None,
) -> Iterator[Batch]:
    """Endless domain-balanced batches.

    Args:
        data: domains with their training items.
        label_space: the label space of the batches; the labels of each dataset are mapped onto it.
        transform: makes a sample from an image and its label; all samples must have the same size.
        batch: images per step over all processes.
        seed: the run's seed.
        start: the first step; the batches are the same as in a run that began at step 0.
        workers: the number of processes that read and augment; it changes only the speed.
        rank: the index of this process; it gets the slots ``rank, rank + processes, ...`` of a step.
        processes: the number of processes that share a step.
        resize: (height, width) to which images and masks are resized before ``transform``.
        cache: read (and resize) everything once, before the first step, and keep it in memory.
        pin: put batches into page-locked memory, for copies to a GPU.
        unlabelled: additional images without labels; their domain in a batch is -1.

    Raises:
        InputError: for no data, a domain without items, a batch that is not a multiple of the processes, masks mixed
            with image-level labels, or a dataset without a map onto ``label_space``; later, for errors of reading.
    """
    _check(data, batch, processes)
    samples = _Samples(data, label_space, transform, resize, seed, unlabelled, fill=cache)
    slots = _slots(data, batch, seed, unlabelled, processes)
    loader = DataLoader(
        samples,
        batch_sampler=_Steps(slots(step)[rank::processes] for step in count(start)),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=_outlive_signals,
        generator=torch.Generator(),  # its own, so that starting workers draws nothing from the global one
    )
    return _endless(loader)


def evaluation_batches(
    data: Sequence[DomainItems],
    label_space: LabelSpace,
    *,
    batch: int = 1,
    workers: int = 0,
    resize: Size | None = None,
) -> Iterator[Batch]:
    """Each item once, in order; a batch holds consecutive items of the same size and domain.

    Args:
        data: domains with the items to evaluate.
        label_space: the label space of the batches.
        batch: the largest number of images per batch.
        workers: the number of processes that read.
        resize: (height, width) of the images; masks keep their own size. None keeps the size of both.

    Raises:
        InputError: as `training_batches`.
    """
    _check(data, batch)
    samples = _Samples(data, label_space, evaluation(resize), None, 0)
    slots = [_Slot(0, 0, d, i) for d, (_, items) in enumerate(data) for i in range(len(items))]
    loader = DataLoader(
        samples,
        batch_size=None,
        sampler=_Steps(iter(slots)),
        num_workers=workers,
        generator=torch.Generator(),
        worker_init_fn=_outlive_signals,
    )
    return _grouped((_accepted(sample) for sample in loader), batch)


def _endless(loader: DataLoader[Any]) -> Iterator[Batch]:
    """The batches of ``loader``; its workers end when this iterator is deleted or fails.

    Without this, the garbage collector would first delete the queues that carry the stop signal to the workers, and
    then wait for the workers until a timeout."""
    columns = iter(loader)
    try:
        while True:
            yield Batch(*_accepted(next(columns)))
    finally:
        del columns


def _outlive_signals(worker: int) -> None:
    """Keep a worker alive when its process group gets a stop signal (Ctrl-C, the end of a job).

    Its run stops in an orderly way and may need one more batch. A worker ends at a second SIGTERM, or `_GRACE` seconds
    after the first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: _die_next_time(number))


def _die_next_time(number: int) -> None:
    if sys.platform == "win32":  # where SIGTERM ends a process at once
        return
    for each in (number, signal.SIGALRM):  # a worker ends on an alarm, whatever the run's own handler does
        signal.signal(each, signal.SIG_DFL)
    signal.alarm(_GRACE)


def label_map(domain: Domain, label_space: LabelSpace) -> np.ndarray | None:
    """The (256,) uint8 table from the ids of ``domain`` to those of ``label_space``; None if they are the same.

    Raises:
        InputError: if no map between the two spaces is declared; the message names both.
    """
    own = domain.dataset.label_space
    if own.classes == label_space.classes:
        return None
    table = convert(own, label_space)
    if table is None:
        raise InputError(f"{domain.name}: no map is declared from its classes {own.name!r} onto {label_space.name!r}")
    return table


@dataclass(frozen=True, slots=True)
class _Slot:
    """The position of a sample (step, slot) and its content (index of its domain, index of its item there)."""

    step: int
    slot: int
    domain: int
    item: int


def step_slots(sizes: Sequence[tuple[str, int]], batch: int, seed: int, step: int) -> list[_Slot]:
    """The samples of ``step``, slot by slot, given each domain's name and number of items.

    The batch is split evenly; the remainder is given to the domains in turn, continuing over the steps. Slots of a
    domain are adjacent, so that ``rank::processes`` gives every rank an equal share of each domain.
    """
    share, extra = divmod(batch, len(sizes))
    slots: list[_Slot] = []
    for domain, (name, size) in enumerate(sizes):
        before, after = (s * share + _turns(s * extra, domain, len(sizes)) for s in (step, step + 1))
        for drawn in range(before, after):
            epoch, position = divmod(drawn, size)
            item = int(_order(seed, name, epoch, size)[position])
            slots.append(_Slot(step, len(slots), domain, item))
    return slots


def _slots(
    data: Sequence[DomainItems], batch: int, seed: int, unlabelled: Unlabelled | None, processes: int
) -> Callable[[int], list[_Slot]]:
    """``slots(step)``: all samples of a step, those without labels last."""
    sizes = tuple((domain.name, len(items)) for domain, items in data)
    if unlabelled is None:
        return lambda step: step_slots(sizes, batch, seed, step)
    many, size = _more(unlabelled.batch, batch, len(data), processes), len(unlabelled.items)
    return lambda step: [
        *step_slots(sizes, batch, seed, step),
        *_unlabelled_slots(size, many, seed, step, batch, len(data)),
    ]


def _unlabelled_slots(size: int, many: int, seed: int, step: int, after: int, domain: int) -> Iterator[_Slot]:
    """The ``many`` samples of ``step`` from ``size`` images without labels, in the slots from ``after`` on.

    Their index ``domain`` is the one after the last labelled domain."""
    for place in range(many):
        epoch, position = divmod(step * many + place, size)
        yield _Slot(step, after + place, domain, int(_order(seed, "unlabelled", epoch, size)[position]))


def _more(given: int | None, batch: int, domains: int, processes: int) -> int:
    """The number of images without labels in a step.

    Raises:
        InputError: for a given number that is not a multiple of ``processes``.
    """
    if given is None:
        return -(-max(1, batch // domains) // processes) * processes
    if given % processes:
        raise InputError(f"data.unlabelled_batch: {given} is not a multiple of {processes} processes")
    return given


def _turns(given: int, domain: int, domains: int) -> int:
    """The number of turns of ``domain`` among the first ``given`` turns, which are taken in order over all domains."""
    return (given - domain + domains - 1) // domains


@lru_cache(maxsize=64)
def _order(seed: int, name: str, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng(key(seed, "order", name, epoch)).permutation(size)


class _Steps(Generic[T]):
    """An iterator as the sampler of a `DataLoader`, which only iterates over it."""

    def __init__(self, slots: Iterator[T]) -> None:
        self._slots = slots

    def __iter__(self) -> Iterator[T]:
        return self._slots


@dataclass(frozen=True)
class _Refused:
    """The message of an `InputError` from a worker, so that it is shown without the worker's traceback."""

    message: str


_Sample = tuple[Tensor, Tensor, Tensor]


class _Samples(Dataset[_Sample | _Refused]):
    """Reads, maps, resizes and transforms the sample of a `_Slot`; with ``fill`` all items are read now and kept."""

    def __init__(
        self,
        data: Sequence[DomainItems],
        label_space: LabelSpace,
        transform: Transform,
        resize: Size | None,
        seed: int,
        unlabelled: Unlabelled | None = None,
        *,
        fill: bool = False,
    ) -> None:
        self._labelled = len(data)
        data = [*data, (unlabelled.domain, unlabelled.items)] if unlabelled else data
        self._data = data
        self._maps = [label_map(domain, label_space) for domain, _ in data]
        self._transform = transform
        self._resize = resize
        self._seed = seed
        self._kept: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        for domain, (_, items) in enumerate(data if fill else ()):
            for item in range(len(items)):
                self._kept[domain, item] = self._read(domain, item)

    def __getitem__(self, place: _Slot) -> _Sample | _Refused:
        try:
            found = self._kept.get((place.domain, place.item)) or self._read(place.domain, place.item)
        except InputError as error:
            return _Refused(str(error))
        with seeded(self._seed, "sample", place.step, place.slot):
            image, label = self._transform(*found)
        return image, label, torch.tensor(place.domain if place.domain < self._labelled else -1)

    def _read(self, domain: int, item: int) -> tuple[np.ndarray, np.ndarray]:
        source, items = self._data[domain]
        image, label = source.dataset.read(items[item])
        table = self._maps[domain]
        if table is not None:
            label = table[label] if label.ndim else label.dtype.type(table[label])
        return (image, label) if self._resize is None else at_size(image, np.asarray(label), self._resize)


def _collate(samples: list[_Sample | _Refused]) -> tuple[Tensor, ...] | _Refused:
    accepted: list[_Sample] = []
    for sample in samples:
        if isinstance(sample, _Refused):
            return sample
        accepted.append(sample)
    return tuple(torch.stack(column) for column in zip(*accepted, strict=True))


def _accepted(sample: _Sample | _Refused) -> _Sample:
    if isinstance(sample, _Refused):
        raise InputError(sample.message)
    image, label, domain = sample
    return image, label, domain


def _grouped(samples: Iterator[_Sample], batch: int) -> Iterator[Batch]:
    waiting: list[_Sample] = []
    for sample in samples:
        if waiting and (len(waiting) == batch or not _alike(waiting[0], sample)):
            yield Batch(*(torch.stack(column) for column in zip(*waiting, strict=True)))
            waiting = []
        waiting.append(sample)
    if waiting:
        yield Batch(*(torch.stack(column) for column in zip(*waiting, strict=True)))


def _alike(one: _Sample, other: _Sample) -> bool:
    return one[0].shape == other[0].shape and one[1].shape == other[1].shape and bool(one[2] == other[2])


def _check(data: Sequence[DomainItems], batch: int, processes: int = 1) -> None:
    if not data:
        raise InputError("no data: name at least one domain")
    if batch < 1:
        raise InputError(f"batch is {batch}; it must be at least 1")
    if batch % processes:
        raise InputError(f"batch {batch} is not a multiple of {processes} processes")
    for domain, items in data:
        if not items:
            raise InputError(f"{domain.name}: it has no images to use")
    kinds = {domain.dataset.image_level for domain, _ in data}
    if len(kinds) > 1:
        raise InputError("domains with masks and domains with one class per image cannot share a run")
