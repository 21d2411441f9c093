"""Which values of a student and its teacher are compared: features are matched by stride, classes by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hardy.data.label_spaces import LabelSpace
from hardy.distillation.base import FeaturePair, Tap
from hardy.errors import InputError, nearest, quoted
from hardy.networks.base import Network, resize
from hardy.networks.parts.stages import EMBEDDING, INPUT, places_of, watch
from hardy.types import Outputs

__all__ = ["DEEPEST", "STAGES", "Matching", "at_scale", "class_order", "in_order", "values_of"]

DEEPEST = "deepest"
"""The tap entry for the last stage of the encoder."""

STAGES = "stages"
"""The tap entry for every stage of the encoder."""


class Matching:
    """Finds the taps of a student and its teacher, and records their values while both networks run.

    An entry of an option ``taps`` is one of

    - ``deepest``: the encoder's last stage; ``stages``: all its stages;
    - ``embedding``: the input of the head;
    - the name of a feature or a module of the student; it is matched with the teacher's feature or module of the same
      name, or, if there is none, with the teacher's stage of the nearest stride;
    - a pair ``[student, teacher]`` of such names.

    The name of a module means its output; with ``.input`` at the end of the name, its input. If a module runs several
    times, the last run is used.

    Stages are matched by stride. If several stages of the teacher have the nearest stride, as in a plain vision
    transformer, the student's stages are matched with them in order and evenly spaced.

    Args:
        student: the network that learns.
        teacher: the network that it learns from, or None if the teacher gives only logits.
    """

    def __init__(self, student: Network, teacher: Network | None) -> None:
        self.student, self.teacher = student, teacher
        self._known: dict[int, dict[str, Tap]] = {}
        self._layers: tuple[dict[str, Tap], dict[str, Tap]] = ({}, {})
        self._modules: tuple[set[str], set[str]] = (set(), set())

    def pairs(self, taps: Sequence[Any], owner: str, *, vectors: bool = False) -> tuple[FeaturePair, ...]:
        """The pairs of taps that the entries ``taps`` name.

        Args:
            taps: the entries, see the class.
            owner: the option in messages, such as ``NFD.taps``.
            vectors: also compare values without positions, such as the embedding of a classifier. If False, an
                ``embedding`` that is a vector is dropped from several entries, and is an error as the only one. An
                ``embedding`` is also dropped from several entries if one of the networks has no embedding.

        Raises:
            InputError: for a teacher without features, no entry, an unknown name (the message names the nearest one),
                or a vector where a map is needed.
        """
        if self.teacher is None:
            raise InputError(
                f"{owner.partition('.')[0]} compares features, and the teacher gives only logits, as do an ONNX file, "
                "several teachers, a teacher with a cache, and mutual learning from the mean or the best of all; name "
                "one run as teacher.run (mutual: by: peers), or use losses of logits such as kl and cwd"
            )
        if isinstance(taps, str):
            raise InputError(f"{owner}: {quoted(taps)} is not a list; write [{taps}]")
        both = [EMBEDDING in self._taps(network) for network in (self.student, self.teacher)]
        named = [entry for entry in taps if entry != EMBEDDING or len(taps) == 1 or all(both)]
        self._trace([entry for entry in named if not isinstance(entry, str)])
        found = [pair for entry in named for pair in self._named(entry, owner)]
        kept = [pair for pair in dict.fromkeys(found) if vectors or (pair.student.stride and pair.teacher.stride)]
        dropped = [pair for pair in found if pair not in kept]
        if not kept or any(pair.student.name != EMBEDDING for pair in dropped):
            what = f"{dropped[0].student.name!r} is a vector without positions" if dropped else "it names nothing"
            raise InputError(f"{owner}: {what}; name a stage or a layer, such as {DEEPEST}")
        return tuple(kept)

    @contextmanager
    def recording(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Record, inside the block, the values of the modules that taps name: (student's, teacher's), by name.

        Each value is copied, because the layer that follows may overwrite it.
        """
        values: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
        handles = [
            watch(network, name, _keeper(kept, name))
            for network, names, kept in zip((self.student, self.teacher), self._modules, values, strict=True)
            if network is not None
            for name in sorted(names)
        ]
        try:
            yield values
        finally:
            for handle in handles:
                handle.remove()

    def _named(self, entry: Any, owner: str) -> list[FeaturePair]:
        """The pairs of one entry."""
        assert self.teacher is not None, "pairs checks it"
        if isinstance(entry, str):
            if entry in (STAGES, DEEPEST):
                pairs = _matched(self._stages(self.student, owner), self._stages(self.teacher, owner))
                return pairs if entry == STAGES else pairs[-1:]
            student = self._tap(0, entry, owner)
            here = entry == EMBEDDING or entry in self._taps(self.teacher) or _is_module(self.teacher, entry)
            if here:
                return [FeaturePair(student, self._tap(1, entry, owner))]
            return _matched([student], self._stages(self.teacher, owner))
        if isinstance(entry, Sequence) and len(entry) == 2 and all(isinstance(name, str) for name in entry):
            return [FeaturePair(self._tap(0, entry[0], owner), self._tap(1, entry[1], owner))]
        raise InputError(f"{owner}: {quoted(entry)} is neither a name nor a pair [student, teacher]")

    def _tap(self, side: int, name: str, owner: str) -> Tap:
        """The tap ``name`` of the student (``side`` 0) or the teacher (1)."""
        network = (self.student, self.teacher)[side]
        assert network is not None, "pairs checks it"
        taps = self._taps(network)
        if name in taps:
            return taps[name]
        full = _full_name(network, name)
        if full is None:
            whose = ("the student", "the teacher")[side]
            words = [*taps, DEEPEST, STAGES, *(network.known_as(key) for key, _ in network.named_modules() if key)]
            hint = nearest(name, words)
            raise InputError(f"{owner}: {whose}, {type(network).__name__}, has no {name!r}{hint}; {_have(taps)}")
        if full not in self._layers[side]:
            self._layers[side][full] = next(Tap(*place) for place in places_of(network, [full]) if place.name == full)
        self._modules[side].add(full)
        self._layers[side][name] = self._layers[side][full]
        return self._layers[side][full]

    def _trace(self, entries: Sequence[Any]) -> None:
        """Read all modules that pairs name in a single forward pass; `_tap` reports wrong names."""
        for side, network in enumerate((self.student, self.teacher)):
            names = {str(entry[side]) for entry in entries if isinstance(entry, Sequence) and len(entry) == 2}
            if network is not None and len(names) > 1:
                full = {key for name in names - self._taps(network).keys() if (key := _full_name(network, name))}
                places = places_of(network, sorted(full))
                self._layers[side].update({place.name: Tap(*place) for place in places if place.name in full})

    def _taps(self, network: Network) -> dict[str, Tap]:
        """The features and the embedding of ``network``, by name, in order."""
        if id(network) not in self._known:
            self._known[id(network)] = {place.name: Tap(*place) for place in places_of(network)}
        return self._known[id(network)]

    def _stages(self, network: Network, owner: str) -> list[Tap]:
        """The encoder's stages: the first features, up to the first that has a smaller stride than the one before."""
        found: list[Tap] = []
        for tap in self._taps(network).values():
            if tap.name == EMBEDDING or (found and tap.stride < found[-1].stride):
                break
            found.append(tap)
        if not found:
            raise InputError(f"{owner}: {type(network).__name__} lists no features; name a layer: [student, teacher]")
        return found


def _matched(student: Sequence[Tap], teacher: Sequence[Tap]) -> list[FeaturePair]:
    """Each tap of ``student`` with the tap of ``teacher`` whose stride is nearest by ratio; on a tie, the coarser."""
    pairs = []
    nearest_strides = [_nearest(tap.stride, [other.stride for other in teacher]) for tap in student]
    for place, (tap, stride) in enumerate(zip(student, nearest_strides, strict=True)):
        same = [other for other in teacher if other.stride == stride]
        rank, among = nearest_strides[:place].count(stride) + 1, nearest_strides.count(stride)
        pairs.append(FeaturePair(tap, same[max(1, round(rank * len(same) / among)) - 1]))
    return pairs


def _nearest(stride: int, strides: Sequence[int]) -> int:
    return min(strides, key=lambda other: (max(other, stride) / max(1, min(other, stride)), -other))


def _full_name(network: Network, name: str) -> str | None:
    """The name in ``named_modules`` of the module that users know as ``name``, which may end with `INPUT`."""
    found = next((key for key, _ in network.named_modules() if key and name in (key, network.known_as(key))), None)
    if found is None and name.endswith(INPUT):
        module = _full_name(network, name.removesuffix(INPUT))
        return module and f"{module}{INPUT}"
    return found


def _is_module(network: Network, name: str) -> bool:
    return _full_name(network, name) is not None


def _have(taps: Mapping[str, Tap]) -> str:
    return f"there are: {', '.join(taps)}, and the names of modules"


def _keeper(kept: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    def keep(value: Tensor) -> None:
        kept[name] = value.clone()

    return keep


def values_of(outputs: Outputs, modules: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values of all taps by name: the features and the embedding of ``outputs``, and the recorded ``modules``."""
    embedding = {} if outputs.embedding is None else {EMBEDDING: outputs.embedding}
    return {**outputs.features, **embedding, **modules}


def at_scale(values: Mapping[str, Tensor], seen: Sequence[int], size: Sequence[int]) -> dict[str, Tensor]:
    """``values``, the maps (B, C, h, w) among them resized from images of size ``seen`` (H, W) to those of ``size``."""

    def scaled(value: Tensor) -> Tensor:
        if value.ndim != 4 or tuple(seen) == tuple(size):
            return value
        cells = zip(value.shape[-2:], seen, size, strict=True)
        return resize(value, [max(1, round(own * wanted / given)) for own, given, wanted in cells])

    return {name: scaled(value) for name, value in values.items()}


def class_order(student: LabelSpace, teacher: LabelSpace) -> list[int] | None:
    """The teacher's class index of each of the student's classes, matched by name; None if the classes are the same.

    Raises:
        InputError: if the teacher lacks classes; the message lists them.
    """
    if student.classes == teacher.classes:
        return None
    missing = [name for name in student.classes if name not in teacher.classes]
    if missing:
        names = ", ".join(missing)
        raise InputError(
            f"teacher: it predicts {teacher.name} and lacks {len(missing)} of the {len(student)} classes of "
            f"{student.name}: {names}; name a teacher that predicts them, or train for the teacher's classes"
        )
    return [teacher.classes.index(name) for name in student.classes]


def in_order(logits: Tensor, order: Sequence[int] | None) -> Tensor:
    """``logits`` (B, K', ...) with the classes of ``order``."""
    return logits if order is None else logits[:, torch.tensor(order, device=logits.device)]
