"""The one training loop: next batch, loss terms, sum, backward, step.

All training in Hardy uses `Fit.run`. The random draws of a step depend only on the seed and the step. So a run that was
stopped and resumed ends with exactly the same weights as one that was not stopped.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hardy.algorithms.base import Algorithm
from hardy.device import accelerator
from hardy.engine import checkpoint, optimiser, sharding
from hardy.engine.changes import untrained
from hardy.engine.gradient_checkpointing import blocks_of, checkpointed
from hardy.engine.stop import Stopped, stop_signal
from hardy.errors import InputError
from hardy.ops.average import average_into
from hardy.ops.kept_memory import kept_memory
from hardy.ops.tensors import check_kinds, checksum, load_strictly
from hardy.recipe import Optim, RunSection
from hardy.seed import seed_all
from hardy.types import Batch, Terms

__all__ = ["Batches", "Fit", "Log", "Progress"]

Log = Callable[[int, dict[str, float]], None]
"""``log(step, values)``: the only callback."""

Batches = Callable[[int, int, int], Iterator[Batch]]
"""``batches(start, rank, processes)``: the endless batches from step ``start + 1`` on, this process's share of them."""

Validate = Callable[[int], float | None]

logger = logging.getLogger("hardy")

_PATIENCE = 600.0
"""Seconds after which a checkpoint is written even if ``checkpoint_every`` steps are not made yet."""


@dataclass
class Progress:
    """The progress of a run: the steps made, and the best validation score with its step."""

    step: int = 0
    best: tuple[float, int] | None = None

    def beaten_by(self, score: float) -> bool:
        """Whether ``score`` is above the best so far; of equal scores the first is kept."""
        return self.best is None or score > self.best[0]


class Fit:
    """A run of the training loop that can be advanced, stopped and resumed.

    Args:
        algorithm: what is trained, in place.
        batches: where the batches come from.
        optim: optimiser, learning-rate schedule and number of steps.
        run_section: seed, device, precision and how often to write and log.
        folder: for checkpoints; None writes none.
        owner: what a checkpoint belongs to; a checkpoint of another owner is refused.
        stage: the name of the stage in messages and in the keys of its random draws.
        log: called every ``run_section.log_every`` steps with the step, the loss terms and the learning rate.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        batches: Batches,
        optim: Optim,
        run_section: RunSection,
        *,
        folder: Path | None = None,
        owner: str = "",
        stage: str = "train",
        log: Log | None = None,
    ) -> None:
        self.batches = batches
        self.optim = optim
        self.run_section = run_section
        self.file = folder / "checkpoint.safetensors" if folder else None
        self.owner = owner
        self.stage = stage
        self.log = log
        self.progress = Progress()
        self.accelerator = accelerator(run_section.device, run_section.precision)
        self.sharded = run_section.sharding == "full"
        self._refuse_processes(algorithm)
        self.untrained = frozenset(f"network.{name}" for name in untrained(algorithm.network))
        self._rest = ""
        if self.untrained and self.file:
            self._rest = checksum({name: algorithm.state_dict()[name] for name in self.untrained}, {})
        blocks: Sequence[nn.Module] = ()
        if self.sharded:
            algorithm, blocks = sharding.sharded(algorithm, self.accelerator.device)
        else:
            algorithm.to(self.accelerator.device)
        self.algorithm = algorithm
        self.layout = torch.channels_last if run_section.channels_last else torch.contiguous_format
        networks = (algorithm.network, *algorithm.peers().values())
        for network in networks:
            network.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.checkpointed = (blocks or blocks_of(networks)) if run_section.gradient_checkpointing else []
        self.optimiser = self.accelerator.prepare(optimiser.build(algorithm, optim))
        self.model = algorithm if self.sharded else self.accelerator.prepare(algorithm)
        self.average: dict[str, Tensor] = {}
        if optim.ema:
            self.average = {name: value.clone() for name, value in algorithm.state_dict().items()}
        self._stream: Iterator[Batch] | None = None
        self._saved_at = time.monotonic()

    def resume(self) -> bool:
        """Load the state of the checkpoint, if there is one; returns whether there was.

        Raises:
            InputError: when the checkpoint is damaged, or of another version, run or network.
        """
        if self.file is None or not self.file.exists():
            return False
        saved = checkpoint.read(self.file, self.owner)
        try:
            self._refuse_other(saved)
            state, steps = self.algorithm.state_dict(), self.optimiser.optimizer
            load_strictly(self.algorithm, {**self._untrained(state), **sharding.spread(saved.algorithm, state)})
            checkpoint.restore_optimiser(steps, sharding.spread_optimiser(saved.optimiser, steps))
            for name, own in self.algorithm.optimisers().items():
                checkpoint.restore_optimiser(own, saved.optimisers[name])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self.file}: is of another network or optimiser ({reason}); use another folder"
            ) from None
        for name, value in sharding.spread(saved.average, self.average).items():
            self.average[name].copy_(value)
        self.progress = Progress(saved.step, saved.best)
        return True

    def _refuse_processes(self, algorithm: Algorithm) -> None:
        """Refuse, in a parallel run, an algorithm with its own optimisers, whose gradients would not be averaged, or
        one that leaves parameters without gradient, for which the other processes would wait; and what cannot be
        sharded."""
        if self.sharded:
            sharding.check(algorithm, self.run_section, self.accelerator.num_processes)
        if self.accelerator.num_processes == 1:
            return
        name = type(algorithm).__name__
        if own := ", ".join(algorithm.optimisers()):
            raise InputError(f"algorithm: {name} has an optimiser of its own ({own}); train it in one process")
        if not algorithm.reaches_all:
            raise InputError(f"algorithm: {name} does not train all weights in each step; train it in one process")

    def _refuse_other(self, saved: checkpoint.Checkpoint) -> None:
        """Raise `ValueError` for untrained weights, an average, optimisers or a step that do not fit this run."""
        if saved.rest != self._rest:
            raise ValueError("the weights that are not trained differ")
        if saved.optimisers.keys() != (own := self.algorithm.optimisers()).keys():
            there, here = (", ".join(names) or "none" for names in (saved.optimisers, own))
            raise ValueError(f"the optimisers of its algorithm are {there}, here {here}")
        averages = (saved.average, self._trained(self.average))
        shapes = [{name: value.shape for name, value in of.items()} for of in averages]
        if shapes[0] != shapes[1]:
            raise ValueError("its moving average has other tensors")
        check_kinds(self.average, saved.average)
        if max(saved.step, saved.best[1] if saved.best else 0) > self.optim.steps:
            raise ValueError(f"it is at step {saved.step} of {self.optim.steps}")

    @kept_memory()
    def run(self, steps: int | None = None, *, validate: Validate | None = None, every: int = 0) -> Progress:
        """Train for at most ``steps`` more steps, up to ``optim.steps`` in total.

        Args:
            steps: the number of steps; all remaining steps by default.
            validate: ``validate(step) -> score``, higher is better, or None when there is no score; called every
                ``every`` steps and after the last step.
            every: see ``validate``; 0 calls it after the last step only.

        Raises:
            InputError: when a loss term is not finite, naming step, term and the domains of the images; when a weight
                is not finite, before it is written.
            Stopped: after Ctrl-C or SIGTERM, when the checkpoint has been written.
        """
        last = self.optim.steps if steps is None else min(self.progress.step + steps, self.optim.steps)
        self.model.train()
        with stop_signal() as stop, self._reading(), checkpointed(self.checkpointed):
            while self.progress.step < last and not stop.asked:
                self._step(self._next())
                done = self.progress.step
                if validate and (done == self.optim.steps or (every and done % every == 0)):
                    self._validate(validate, done)
                if self._is_due(done):
                    self.save()
            if stop.asked:  # at any time since the last step began, also while its checkpoint was written
                self.save()
                raise Stopped(self.progress.step, stop.asked)
        return self.progress

    def _is_due(self, step: int) -> bool:
        """Whether to write a checkpoint after ``step`` steps. The processes of a sharded run write it together, so
        there the clock of one of them does not count."""
        late = not self.sharded and time.monotonic() - self._saved_at >= _PATIENCE
        return late or step % self.run_section.checkpoint_every == 0 or step == self.optim.steps

    def close(self) -> None:
        """Stop the processes that read images; the next `run` starts new ones."""
        self._stream = None

    def save(self) -> None:
        """Write the checkpoint if there is a folder; only the main process writes.

        Raises:
            InputError: when a weight is not finite; the previous checkpoint is kept.
        """
        self._saved_at = time.monotonic()
        if self.file is None or not (self.sharded or self.accelerator.is_main_process):
            return
        taken = self.optimiser.optimizer.state_dict()
        algorithm, average = (
            sharding.gathered(self._trained(state)) for state in (self.algorithm.state_dict(), self.average)
        )
        taken["state"] = sharding.gathered(taken["state"])
        if not self.accelerator.is_main_process:
            return
        bad = [name for name, value in [*algorithm.items(), *average.items()] if not torch.isfinite(value).all()]
        if bad:
            raise InputError(
                f"{self.stage} step {self.progress.step}: {bad[0]} is no longer finite; {self._kept()}; "
                "lower optim.lr or set optim.clip"
            )
        state = checkpoint.Checkpoint(
            self.owner,
            self.progress.step,
            self.progress.best,
            algorithm,
            taken,
            average,
            {name: own.state_dict() for name, own in self.algorithm.optimisers().items()},
            self._rest,
        )
        checkpoint.write(self.file, state)

    def averaged(self) -> dict[str, Tensor]:
        """The weights to measure and keep: the moving average if there is one, else the weights themselves. Those of a
        sharded run are shared out."""
        return self.average or self.algorithm.state_dict()

    def _trained(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The part of the algorithm's ``state`` that training changes: without the weights that a tuner freezes."""
        return {name: value for name, value in state.items() if name not in self.untrained}

    def _untrained(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in state.items() if name in self.untrained}

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Stop the processes that read images after the last step of the run, and when the block fails."""
        try:
            yield
        except BaseException:
            self.close()
            raise
        if self.progress.step == self.optim.steps:
            self.close()

    def _next(self) -> Batch:
        if self._stream is None:
            machine = self.accelerator
            self._stream = self.batches(self.progress.step, machine.process_index, machine.num_processes)
        return next(self._stream).to(self.accelerator.device, self.layout)

    def _validate(self, validate: Validate, step: int) -> None:
        score = validate(step)
        if score is not None and self.progress.beaten_by(score):
            self.progress.best = (score, step)
        self.model.train()

    def _step(self, batch: Batch) -> None:
        step = self.progress.step
        seed_all(self.run_section.seed, self.stage, step, self.accelerator.process_index)
        factor = optimiser.rate(self.optim, step) * self.algorithm.rate_factor(step + 1)
        optimiser.set_rate(self.optimiser.optimizer, factor)
        self.optimiser.zero_grad(set_to_none=True)
        if self.algorithm.restarts(step + 1):
            self.optimiser.optimizer.state.clear()
        logged: dict[str, Tensor] = {}
        parts = _split(batch, self.optim.accumulate)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            if self.sharded:
                sharding.same_buffers(self.algorithm)
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with self.accelerator.autocast():
                    terms = self._terms(part)
                self.accelerator.backward(torch.stack(list(terms.values())).sum() / len(parts))
            for name, value in terms.items():
                logged[name] = logged.get(name, torch.zeros_like(value.detach())) + value.detach() / len(parts)
        self.algorithm.after_backward()
        if self.optim.clip:
            self.accelerator.clip_grad_norm_(optimiser.trained(self.algorithm), self.optim.clip)
        self.optimiser.step()
        self.progress.step = step + 1
        self.algorithm.after_step(step + 1)
        if self.optim.ema:
            average_into(self.average, self.algorithm, self.optim.ema, step + 1)
        if self.log and (step + 1) % self.run_section.log_every == 0:
            self.log(step + 1, {name: float(v) for name, v in logged.items()} | {"lr": self.optim.lr * factor})

    def _terms(self, part: Batch) -> Terms:
        try:
            terms: Terms = self.model(part)
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                raise InputError(
                    f"optim.batch: {len(part)} image at a time is too few for the batch norm of "
                    f"{type(self.algorithm.network).__name__}'s 1x1 map; use 2 or more per process and part"
                ) from None
            raise
        bad = [name for name, value in terms.items() if not torch.isfinite(value)]
        if bad:
            values = ", ".join(f"{name} = {float(terms[name].detach())}" for name in bad)
            where = f"{self.stage} step {self.progress.step + 1}"
            raise InputError(
                f"{where}: {values} on a batch of domains {part.domains.tolist()}; {self._kept()}; "
                "lower optim.lr, set optim.clip, or look at these images"
            )
        return terms

    def _kept(self) -> str:
        if self.file is None:
            return "checkpoints are off"
        if not self.file.exists():
            return f"no checkpoint was written yet (run.checkpoint_every is {self.run_section.checkpoint_every})"
        return f"the last good state is in {self.file}"


def _split(batch: Batch, parts: int) -> list[Batch]:
    """``batch`` in ``parts`` parts of nearly equal size; each keeps the balance of domains."""
    order = torch.arange(len(batch), device=batch.images.device)
    return [batch.where(order % parts == index) for index in range(min(parts, len(batch)))]
