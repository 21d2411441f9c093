"""A guard around any method: it keeps the predictions close to the source network, and undoes harmful updates.

z are the logits of the method and z_s those of the source network, p and p_s the class probabilities, and H = -sum p
log p. Two settings change the predictions:

    sure         an image with mean H(p_s) / log K below this gets z_s; if all images of a batch are such images, the
                 method does not run and does not learn
    source       other images get log((1 - source) p + source p_s)

On a watched batch that the method learns from, these values are compared with their limits:

    entropy      mean of H(p), divided by mean of H(p_s)
    agreement    mean over classes k of: share of the pixels with argmax p_s = k and p_s > 0.7 that have argmax p = k
    classes      running mean of: number of classes in argmax z, divided by that in argmax z_s
    prototypes   S_k = running mean of [argmax z = k] p, for each class k; half of sum |S - S_s|, in [0, 1]
    drift        ||theta - theta_0|| / ||theta_0||, over the parameters that the method trains

Without labels, neither gain nor harm can be proved. If the source network is confident there is little to gain, and the
mean of two predictions is rarely much worse than the better one. `hardy.stream` counts how many alarms are correct.

Source: Hardy's own. To keep the source's prediction where it is confident: Wang et al., "Continual test-time domain
adaptation", CVPR 2022. To return to the source when adaptation fails: Niu et al., "Towards stable test-time adaptation
in dynamic wild world", ICLR 2023, section 4; Press et al., "RDumb", NeurIPS 2023. To monitor the drift of class
prototypes: Hoang et al., "Persistent test-time adaptation in recurring testing scenarios", NeurIPS 2024.
"""

import copy
import logging
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from hardy.adaptation import _signs
from hardy.adaptation.base import State, TestTimeAdaptation
from hardy.networks.base import Network
from hardy.sections import Guard

__all__ = ["BUDGET", "SURE", "Guarded", "Watched"]

_log = logging.getLogger("hardy")

BUDGET = "budget"
"""The cause of an action: a batch was predicted without learning, because the time budget was used up."""

SURE = "sure"
"""The cause of an action: only the source network predicted, and nothing was learned."""

_GOOD = "good/"
"""The prefix of the names of the optimisers of the last good state."""

_RATE = 0.1
"""The weight of a batch in the running means."""

_LEAST = 1e-3
"""Added to entropies (as shares of log K) before one is divided by the other."""


class Watched(NamedTuple):
    """The values that a guard used for one batch; no labels.

    Attributes:
        logits: the logits that are returned if there is no alarm.
        source: the logits of the source network.
        alarm: whether the guard judged the method's logits to be harmful.
    """

    logits: Tensor
    source: Tensor
    alarm: bool


class Guarded(TestTimeAdaptation):
    """``method`` with a guard around it, which is again a method.

    Args:
        method: the method that adapts; only the guard may use it afterwards.
        network: the source network; a copy of it predicts.
        guard: the settings and limits.

    Attributes:
        method: the method that adapts.
        actions: (cause, action) of each action on the last batch.
        watched: the values of the last batch; None if it was not watched, or if only the source network predicted.
        forwards: number of forward passes of the source network so far, a buffer of shape ().
    """

    predicts: ClassVar[Literal["before", "after"]] = "after"
    forwards: Tensor
    good_since: Tensor
    failures: Tensor
    debt: Tensor
    held: Tensor
    classes: Tensor
    prototypes: Tensor

    def __init__(self, method: TestTimeAdaptation, network: Network, guard: Guard) -> None:
        super().__init__(network)
        self.network.requires_grad_(False)
        self.method, self.guard = method, guard
        self.predicts = method.predicts  # type: ignore[misc]  # a guard's answer is from when the method's is
        self.actions: tuple[tuple[str, str], ...] = ()
        self.watched: Watched | None = None
        self._first = method.state()
        self._anchors: dict[str, Tensor] = {}
        self._good_optimisers: dict[str, Any] = self._first["optimisers"]
        for place, value in enumerate(self._first["tensors"].values()):
            self.register_buffer(f"good_{place}", value.clone())
        for name in ("forwards", "good_since", "failures"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        self.register_buffer("held", torch.zeros((), dtype=torch.bool))
        self.register_buffer("debt", torch.zeros((), dtype=torch.float64))
        self.register_buffer("classes", torch.ones(()))
        self.register_buffer("prototypes", torch.zeros(2, len(network.label_space), len(network.label_space)))

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The optimisers of the method."""
        return self.method.optimisers()

    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`; with a fallback, an alarm returns the logits of the source network."""
        self.actions, self.watched = (), None
        start = time.perf_counter()
        self._hand_over()
        if self.debt > 0:
            self._note(BUDGET, "predicted without learning")
            self.forwards += self.compares
            logits = self.infer(images)
        else:
            logits = self._adapted(images)
        if self.guard.budget_ms is not None:
            spent = 1000 * (time.perf_counter() - start) - self.guard.budget_ms * len(images)
            self.debt.copy_((self.debt + spent).clamp(min=0))
        return logits

    def infer(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.infer`; as in `adapt`, but without alarms."""
        self._hand_over()
        if not self.compares:
            return self.method.predict(images)
        source = self._source(images)
        if self._all_sure(source):
            return source
        return self._answer(self.method.predict(images), source)

    def confusion(self) -> Mapping[str, Mapping[str, int]]:
        """See `TestTimeAdaptation.confusion`: that of the method."""
        return self.method.confusion()

    def table(self) -> dict[str, dict[str, Tensor]]:
        """The prototypes of a method that has a ``table``, such as ``bn_domains`` and ``dose``."""
        method: Any = self.method
        found: dict[str, dict[str, Tensor]] = method.table()
        return found

    def state(self) -> State:
        """See `TestTimeAdaptation.state`; it includes the last good state."""
        state = super().state()
        good = {f"{_GOOD}{name}": copy.deepcopy(one) for name, one in self._good_optimisers.items()}
        return {**state, "optimisers": {**state["optimisers"], **good}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `TestTimeAdaptation.restore`."""
        good = {name: one for name, one in state["optimisers"].items() if name.startswith(_GOOD)}
        own = {name: one for name, one in state["optimisers"].items() if name not in good}
        super().restore({**state, "optimisers": own})
        self._good_optimisers = {name.removeprefix(_GOOD): copy.deepcopy(one) for name, one in good.items()}
        self._hand_over()

    def _hand_over(self) -> None:
        """Pass the seed and the domain of the guard on to the method."""
        self.method.seed = self.seed
        self.method.enter(self.domain)

    def _adapted(self, images: Tensor) -> Tensor:
        """The logits of a batch that the method learns from, or those of the source network."""
        watches = int(self.step) % self.guard.every == 0
        source = self._source(images) if watches or self.held else None
        if source is not None:
            self.forwards += 1
            self.held.fill_(self._all_sure(source))
            if self.held:
                self._note(SURE, "the source network predicted, and nothing was learned")
                return source
        due = watches and int(self.good_since) + 1 >= self.guard.keep
        before = self.method.state() if due and self.method.predicts == "before" else None
        logits = self.method(images)
        finite = bool(logits.isfinite().all())
        if finite and not watches:
            return self._within_drift(logits if source is None else self._answer(logits, source))
        if source is None:
            source = self._source(images)
            self.forwards += 1
        cause = self._cause(logits, source) if finite else "nan in the logits"
        answer = self._answer(logits, source) if finite else logits
        self.watched = Watched(answer, source, bool(cause))
        if cause:
            does = self.guard.on_alarm if finite else "both"
            alarmed = source if does in ("both", "fallback") else answer
            if does in ("both", "rollback"):
                self._undo(cause)
                return alarmed
            self.good_since.zero_()
            self._note(cause, "what was learned is kept")
            return self._within_drift(alarmed)
        self.good_since += 1
        if due:
            self._keep(before or self.method.state())
        return self._within_drift(answer)

    @property
    def compares(self) -> bool:
        """Whether logits without an alarm also depend on the source network, which then runs on every batch."""
        return self.guard.sure > 0 or self.guard.source > 0

    def _source(self, images: Tensor) -> Tensor:
        """The logits of the source network."""
        with torch.no_grad():
            logits: Tensor = self.network(images)
        return logits

    def _all_sure(self, source: Tensor) -> bool:
        """Whether the logits ``source`` of the source network are confident for every image."""
        return bool((_signs.image_entropies(source) < self.guard.sure).all())

    def _answer(self, logits: Tensor, source: Tensor) -> Tensor:
        """The logits to return, from those of the method and of the source network."""
        return _signs.mixed(logits, source, self.guard.source, self.guard.sure)

    def _cause(self, logits: Tensor, source: Tensor) -> str:
        """The reason for an alarm on this batch, with the value and its limit; empty if there is none."""
        guard, mine, theirs = self.guard, _signs.pixels(logits), _signs.pixels(source)
        found, wanted = mine.argmax(1), theirs.argmax(1)
        ratio = (_signs.entropy(mine) + _LEAST) / (_signs.entropy(theirs) + _LEAST)
        agreement = _signs.agreement(found, theirs)
        kept = int(found.bincount().count_nonzero()) / int(wanted.bincount().count_nonzero())
        self.classes.lerp_(torch.full_like(self.classes, kept), _RATE)
        now = torch.stack([_signs.prototypes(mine, found), _signs.prototypes(theirs, wanted)])
        started = bool(self.prototypes.any())
        self.prototypes.lerp_(now, _RATE if started else 1.0)
        apart = float((self.prototypes[0] - self.prototypes[1]).abs().sum()) / 2
        if ratio < guard.entropy:
            return f"entropy {ratio:.3f} of the source's, below {guard.entropy}"
        if agreement < guard.agreement:
            return f"agreement {agreement:.3f}, below {guard.agreement}"
        if self.classes < guard.classes:
            return f"classes {float(self.classes):.3f} of the source's, below {guard.classes}"
        if guard.prototypes is not None and apart > guard.prototypes:
            return f"prototypes {apart:.3f} apart, above {guard.prototypes}"
        return ""

    def _undo(self, cause: str) -> None:
        """Return to the last good state, or to the start after too many alarms, in place."""
        self.failures += 1
        self.good_since.zero_()
        again = int(self.failures) >= self.guard.resets
        self._note(cause, "reset to the start" if again else "rolled back to the last good state")
        good = self._first if again else self._good()
        if again:
            self._keep(self._first)
        self.method.restore({**good, "seed": self.seed, "domain": self.domain})
        self.prototypes[0].copy_(self.prototypes[1])
        self.classes.fill_(1.0)

    def _within_drift(self, logits: Tensor) -> Tensor:
        """Return ``logits``; if the parameters drifted beyond the limit, move them back to it, in place."""
        moved = {name: value for name, value in self.method.network.named_parameters() if value.requires_grad}
        if not moved:
            return logits
        anchors = self._starts(moved)
        with torch.no_grad():
            lengths = [torch.linalg.vector_norm(value - anchors[name]) for name, value in moved.items()]
            total = torch.linalg.vector_norm(torch.stack(lengths))
            size = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in anchors.values()]))
            share = float(total / (size if size > 0 else 1.0))
            if not share < float("inf"):
                self._undo("nan in the parameters")
                return logits
            limit = self.guard.drift
            if limit is not None and share > limit:
                self._note(f"drift {share:.3f}, above {limit}", "parameters brought back to the limit")
                for name, value in moved.items():
                    value.copy_(torch.lerp(anchors[name], value, limit / share))
        return logits

    def _starts(self, moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values of ``moved`` at the start, on their device."""
        if self._anchors.keys() != moved.keys():
            known = self._first["tensors"]
            self._anchors = {name: known[f"network.{name}"].to(value.device) for name, value in moved.items()}
        return self._anchors

    def _keep(self, state: State) -> None:
        """Make ``state`` the last good state of the method, in place."""
        for place, value in enumerate(state["tensors"].values()):
            self.get_buffer(f"good_{place}").copy_(value)
        self._good_optimisers = copy.deepcopy(state["optimisers"])
        self.good_since.zero_()
        self.failures.zero_()

    def _good(self) -> State:
        """The last good state of the method."""
        names = self._first["tensors"]
        tensors = {name: self.get_buffer(f"good_{place}") for place, name in enumerate(names)}
        return {"tensors": tensors, "optimisers": self._good_optimisers}

    def _note(self, cause: str, action: str) -> None:
        """Record and log an action."""
        self.actions += ((cause, action),)
        _log.info("guard, batch %d: %s: %s", int(self.step), cause, action)
