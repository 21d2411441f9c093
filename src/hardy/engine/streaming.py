"""A stream: frames reach a method batch by batch, which adapts on some and predicts all; everything is measured.

The order of the frames is that of `hardy.data.stream`. A slow method skips adaptation, never frames: it adapts on every
k-th batch and predicts the others without adapting. It gets the domain of a batch, unless there are several. A frame
that cannot be used is skipped with one line, and the stream goes on. A stream that was stopped, also by Ctrl-C or
SIGTERM, continues with the same bits (`hardy.engine.stream_state`).

Source: adaptation on every k-th frame: Alfarra et al., "Evaluation of test-time adaptation under computational time
constraints", ICML 2024 (arXiv:2304.04795); there the slow method skips the frames themselves.
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from hardy.adaptation._guard import BUDGET, SURE, Guarded
from hardy.adaptation.base import TestTimeAdaptation
from hardy.data.base import DomainItems
from hardy.data.loader import label_map
from hardy.data.stream import Frame, order
from hardy.data.transforms import evaluation
from hardy.engine import evaluate, protocol, stream_state
from hardy.engine.evaluate import Predictor
from hardy.engine.stop import Stop, Stopped, stop_signal
from hardy.engine.stream_progress import Progress
from hardy.engine.stream_table import Action, StreamTable, harmful, stacked
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.kept_memory import kept_memory
from hardy.sections import Stream
from hardy.timing import memory
from hardy.types import Batch

__all__ = ["Over", "Streaming"]

_log = logging.getLogger("hardy")

Over = Callable[[Iterable[int]], Iterable[int]]
"""Iterates over the places of frames."""

_TIMED = 3
"""Batches whose median time decides how often a method can adapt."""


class Streaming:
    """A method on a stream.

    Args:
        live: the method, on its device.
        network: the network that it started from, in evaluation mode on the same device.
        parts: the domains with their images.
        sources: domains for probes only.
        choice: the section ``stream``.
        reset: see `hardy.sections.Adapt`; ``domain`` resets before the first frame of another domain than the last.
        size: (height, width) that images are resized to.
        owner: what identifies the stream, for the state in ``choice.folder``.

    Raises:
        InputError: for domains of different classes, an empty stream, or a folder with the state of another stream.
    """

    def __init__(
        self,
        live: TestTimeAdaptation,
        network: Network,
        parts: Sequence[DomainItems],
        sources: Sequence[DomainItems] = (),
        *,
        choice: Stream,
        reset: int | str = "never",
        size: tuple[int, int] | None = None,
        owner: str = "",
    ) -> None:
        self.live, self.network, self.choice = live, network, choice
        self._parts, self._sources, self._reset, self._owner = tuple(parts), tuple(sources), reset, owner
        self._transform = evaluation(size)
        everything = [domain for domain, _ in (*parts, *sources)]
        self.classes = protocol.one_space(everything, network)
        self._device = next(network.buffers()).device
        sizes = [(domain.name, len(items)) for domain, items in parts]
        self._frames = order(sizes, choice, self._name_of)
        if not self._frames:
            raise InputError("the stream is empty: none of its domains has an image; name others")
        self._first = {frame.domain: place for place, frame in reversed(list(enumerate(self._frames)))}
        self._final = {frame.domain: place for place, frame in enumerate(self._frames)}
        self.progress = Progress()
        if choice.folder:
            self.progress = stream_state.load(live, Path(choice.folder), owner) or self.progress

    def _name_of(self, frame: Frame) -> str:
        domain, items = self._parts[frame.domain]
        return domain.dataset.name_of(items[frame.item])

    @kept_memory()
    def run(self, until: int | None = None, over: Over = lambda places: places) -> StreamTable:
        """Go on to the end of the stream, or until ``until`` frames have passed, and return what was measured.

        ``over`` iterates over the places of the frames, as a progress bar does. A batch that is not full before
        ``until`` is left for the next call.

        Raises:
            InputError: when no frame could be used.
            Stopped: with a folder, after Ctrl-C or SIGTERM, when the state after the current batch has been saved.
        """
        end = len(self._frames) if until is None else min(until, len(self._frames))
        if not self.progress.batches and self.choice.probe:
            for part in (*self._parts, *self._sources):
                self._probe("source", self.network, part)
        saved = self.progress.position
        with stop_signal() if self.choice.folder else nullcontext(Stop()) as stop:
            for frames, batch in self._batches(end, over):
                self._step(frames, batch)
                due = stop.asked or self.progress.position - saved >= self.choice.checkpoint_every
                if self.choice.folder and due:
                    saved = self.progress.position
                    self.save()
                if stop.asked:
                    raise Stopped(saved, stop.asked, "frame")
        if self.choice.folder and self.progress.position > saved:
            self.save()
        if self.progress.position == len(self._frames):
            self._end()
        return self.table()

    def save(self) -> None:
        """Save the state in the stream's folder."""
        assert self.choice.folder is not None
        stream_state.save(self.live, self.progress, Path(self.choice.folder), self._owner)

    def table(self) -> StreamTable:
        """What was measured so far."""
        now = self.progress
        costs = {**now.costs, "updates": now.updates, "every": now.every, "nan_frames": now.nans}
        costs["ms_per_frame"] = 1000 * now.seconds / max(len(now.places), 1)
        if isinstance(self.live, Guarded):
            costs["guard_forwards"] = now.guard_forwards
            costs |= {f"alarms_{name}": count for name, count in now.alarms._asdict().items()}
        return StreamTable(
            tuple(domain.name for domain, _ in self._parts),
            tuple(domain.name for domain, _ in self._sources),
            self.classes,
            tuple(now.places),
            stacked(now.counts, len(self.classes)),
            now.probes,
            costs,
            tuple(now.skipped),
            tuple(now.actions),
            self.choice.window,
            self.network.image_level,
            self.live.confusion(),
        )

    def _batches(self, end: int, over: Over) -> Iterator[tuple[list[tuple[int, Frame]], Batch]]:
        """The frames up to ``end`` that can be used, in batches of neighbours of one size."""
        waiting: list[tuple[int, Frame]] = []
        samples: list[tuple[Tensor, Tensor]] = []
        for place in over(range(self.progress.position, end)):
            frame = self._frames[place]
            try:
                sample = self._read(self._parts[frame.domain], frame.item)
            except (InputError, OSError) as error:
                self._skip(place, frame, error)
                continue
            if samples and not _fits(sample, samples, self.choice.batch):
                yield waiting, _batch(waiting, samples)
                waiting, samples = [], []
            waiting.append((place, frame))
            samples.append(sample)
        if samples and len(samples) < self.choice.batch and end < len(self._frames):
            self.progress.position = waiting[0][0]
            return
        if samples:
            yield waiting, _batch(waiting, samples)
        self.progress.position = end

    def _read(self, part: DomainItems, item: int) -> tuple[Tensor, Tensor]:
        """The image (3, H, W) and the label of one frame.

        Raises:
            InputError: for a frame that cannot be decoded, or is too small for the network.
        """
        domain, items = part
        image, label = domain.dataset.read(items[item])
        table = label_map(domain, protocol.shared(domain, self.network)[0])
        if table is not None:
            label = table[label] if label.ndim else label.dtype.type(table[label])
        pixels, truth = self._transform(image, np.asarray(label))
        if min(pixels.shape[-2:]) < self.network.least_size:
            height, width = pixels.shape[-2:]
            raise InputError(f"{height}x{width} pixels; the network needs {self.network.least_size} on each side")
        return pixels, truth

    def _skip(self, place: int, frame: Frame, error: Exception) -> None:
        """Note a frame that cannot be used."""
        if any(one[0] == place for one in self.progress.skipped):
            return  # it was read ahead before the state was saved from which this process started
        domain, items = self._parts[frame.domain]
        name, reason = domain.dataset.name_of(items[frame.item]), " ".join(str(error).split())
        _log.warning("frame %d, %s: skipped: %s", place, name, reason)
        self.progress.skipped.append((place, name, reason))

    def _step(self, frames: list[tuple[int, Frame]], batch: Batch) -> None:
        """Predict one batch, adapt on it if it is the k-th, and count."""
        now = self.progress
        domains = [frame.domain for _, frame in frames]
        places = [place for place, _ in frames]
        for domain in dict.fromkeys(domains):
            if self.choice.probe and self._first[domain] in places:
                self._probe_method("before", [self._parts[domain]])
        images = batch.images.to(self._device)
        self.live.enter(self._parts[domains[0]][0].name if len(set(domains)) == 1 else None)
        if not now.every:
            self._measure_costs(images)
        changed = now.last not in (-1, domains[0])
        if (self._reset == "domain" and changed) or (self._reset != "domain" and self._due()):
            self.live.reset()
            now.since_reset = 0
        adapts = now.batches % now.every == 0
        known = int(self.live.forwards) if isinstance(self.live, Guarded) else 0
        logits = self._timed(self.live if adapts else self.live.predict, images)
        if isinstance(self.live, Guarded):
            now.guard_forwards += int(self.live.forwards) - known if adapts else self.live.compares
        now.updates += adapts
        now.nans += sum(bool(one.isnan().any()) for one in logits)
        now.counts += (each := self._counts(logits, batch, domains))
        if adapts and isinstance(self.live, Guarded):
            self._note_guard(self.live, places[0], each, batch, domains)
        now.places += [(frame.round, frame.domain) for _, frame in frames]
        now.batches += 1
        now.since_reset += len(frames)
        now.last, now.position = domains[-1], places[-1] + 1
        for domain in dict.fromkeys(domains):
            if self.choice.probe and self._final[domain] in places:
                self._probe_method("left", [self._parts[domain]])

    def _due(self) -> bool:
        return isinstance(self._reset, int) and self.progress.since_reset >= self._reset

    def _timed(self, predict: Predictor, images: Tensor) -> Tensor:
        """The logits of ``images``; the time counts."""
        seconds, logits = _seconds(predict, images)
        self.progress.seconds += seconds
        return logits

    def _note_guard(
        self, guarded: Guarded, place: int, each: Sequence[Tensor], batch: Batch, domains: Sequence[int]
    ) -> None:
        """Note what the guard did on this batch, and whether it was right, by labels that it does not see."""
        now, seen = self.progress, guarded.watched
        now.actions += [Action(place, cause, action) for cause, action in guarded.actions]
        now.updates -= any(cause in (BUDGET, SURE) for cause, _ in guarded.actions)
        if seen is None:
            return
        source = torch.stack(self._counts(seen.source, batch, domains)).sum(0)
        mine = torch.stack(self._counts(seen.logits, batch, domains) if seen.alarm else list(each)).sum(0)
        harm = harmful(mine, source, image_level=self.network.image_level)
        if harm is not None:
            name = ("true" if harm else "false") if seen.alarm else ("missed" if harm else "quiet")
            now.alarms = now.alarms._replace(**{name: getattr(now.alarms, name) + 1})

    def _counts(self, logits: Tensor, batch: Batch, domains: Sequence[int]) -> list[Tensor]:
        """The confusion counts of each image of a batch."""
        found: list[Tensor] = []
        for place, domain in enumerate(domains):
            space, onto = protocol.shared(self._parts[domain][0], self.network)
            one = slice(place, place + 1)
            alone = Batch(batch.images[one], batch.labels[one], batch.domains[one])
            predicted = _Given(logits[one])
            evaluate.count(predicted, [alone], len(space), device=self._device, onto=onto, each=found)
        return found

    def _probe_method(self, moment: str, parts: Sequence[DomainItems]) -> None:
        """Measure what the method predicts on each of ``parts`` without learning; the method gets the domain."""
        before = self.live.domain
        for part in parts:
            self.live.enter(part[0].name)
            self._probe(moment, self.live.predict, part)
        self.live.enter(before)

    def _probe(self, moment: str, predict: Predictor, part: DomainItems) -> None:
        """Measure evenly spaced images of a domain without learning; frames that cannot be used are left out."""
        domain, items = part
        count = min(self.choice.probe, len(items))
        space, onto = protocol.shared(domain, self.network)
        total = torch.zeros(len(space) + 1, len(space) + 1, dtype=torch.int64)
        for item in ((place * len(items)) // count for place in range(count)):
            try:
                image, label = self._read(part, item)
            except (InputError, OSError):
                continue
            alone = Batch(image[None], label[None], torch.zeros(1, dtype=torch.int64))
            total += evaluate.count(predict, [alone], len(space), device=self._device, onto=onto)[0]
        self.progress.probes.setdefault(moment, {})[domain.name] = total

    def _end(self) -> None:
        """Measure what is left of every domain, once."""
        if not self.progress.places:
            reasons = self.progress.skipped[0][2] if self.progress.skipped else "nothing was read"
            raise InputError(f"no frame of the stream could be used; the first: {reasons}")
        if self.choice.probe and "final" not in self.progress.probes:
            self._probe_method("final", (*self._parts, *self._sources))

    def _measure_costs(self, images: Tensor) -> None:
        """Time and memory of the method on its first batch, on a copy that is thrown away, and what follows from it."""
        now, choice = self.progress, self.choice
        with torch.no_grad():
            source = median(_seconds(self.network, images)[0] for _ in range(_TIMED))
        now.costs["source_ms_per_frame"] = 1000 * source / len(images)
        copied = copy.deepcopy(self.live)
        now.costs["memory_mib"] = memory.tensors(lambda: copied(images), copied, images)
        if isinstance(choice.every, int):
            now.every = choice.every
            return
        own = median(_seconds(copied, images)[0] for _ in range(_TIMED))
        period = choice.frame_ms * len(images) / 1000 if choice.frame_ms else source
        now.every = max(1, math.ceil(own / period))


@dataclass(frozen=True)
class _Given:
    """Predicts these logits, whatever the images."""

    logits: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        return self.logits


def _seconds(predict: Callable[[Tensor], Tensor], images: Tensor) -> tuple[float, Tensor]:
    """How long a call takes on the device of ``images``, and what it returns."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    start = time.perf_counter()
    logits = predict(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start, logits


def _fits(sample: tuple[Tensor, Tensor], samples: Sequence[tuple[Tensor, Tensor]], most: int) -> bool:
    """Whether a sample can join a batch of at most ``most``."""
    alike = all(one.shape == other.shape for one, other in zip(sample, samples[0], strict=True))
    return len(samples) < most and alike


def _batch(frames: Sequence[tuple[int, Frame]], samples: Sequence[tuple[Tensor, Tensor]]) -> Batch:
    images, labels = (torch.stack(column) for column in zip(*samples, strict=True))
    return Batch(images, labels, torch.tensor([frame.domain for _, frame in frames]))
