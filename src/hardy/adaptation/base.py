"""The interface of test-time adaptation: a network learns while it predicts and can be reset exactly."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from hardy.errors import InputError, quoted
from hardy.networks.base import Network
from hardy.ops.norms import statistics_kept
from hardy.seed import seeded

__all__ = ["LONGEST_DOMAIN", "State", "TestTimeAdaptation"]

State = dict[str, Any]
"""The value of `TestTimeAdaptation.state`: the seed, the entered domain, and copies of the tensors and of the states of
the optimisers, by name."""

LONGEST_DOMAIN = 256
"""The largest length of the name of a domain, in bytes of UTF-8, so that a table of names has a fixed size."""


class TestTimeAdaptation(nn.Module, ABC):
    """A copy of ``network`` that may change with every batch that it predicts.

    A subclass implements `adapt`, and also `infer` if the method does not predict as its plain network does. Its
    constructor takes ``network`` before the ``*`` and its options after it. The constructor configures
    ``self.network`` once: what is frozen, and the modes of norm layers. All state that changes from batch to batch must
    be in parameters and buffers of the method or the network, which keep their names, shapes and types, or in the state
    of `optimisers`. Otherwise `reset` would not be exact. Gradients are cleared before each batch. Options cannot be
    named ``reset``, ``seed`` or ``guard``, because the recipe section ``adapt`` and `hardy.adapt` use these names.

    Contract, checked by ``tests/contracts/test_adaptations.py`` for every method:

    - the network that was passed in does not change;
    - `reset` and `restore` are bit-exact;
    - `predict` changes nothing;
    - neither `train` nor ``torch.no_grad`` around a call changes the result;
    - the same seed and images give the same bits;
    - a batch of one image and image-level networks work.

    Attributes:
        network: the copy, in evaluation mode unless the subclass changes the mode of some modules.
        predicts: whether the logits of a batch are computed ``before`` or ``after`` the update on that batch.
        seed: seeds all random draws, together with the number of the batch; set it before the first batch.
        domain: the name of the domain of the next images, None if it is not known; `enter` sets it.
        step: number of batches since the start, a buffer of shape ().
    """

    __test__ = False  # or pytest would collect the class, because its name begins with "Test"
    predicts: ClassVar[Literal["before", "after"]]
    step: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        self.seed = 0
        self.domain: str | None = None
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._start: State | None = None

    @abstractmethod
    def adapt(self, images: Tensor) -> Tensor:
        """Return the logits (B, K, H, W), or (B, K), of ``images`` (B, 3, H, W), RGB in [0, 1], and update in place.

        Gradients are enabled. Use torch's CPU generator for random draws; it is seeded for each batch. A method that
        uses the domain reads ``self.domain``. If it is None, the method detects the domain or works without it.
        """

    def infer(self, images: Tensor) -> Tensor:
        """Return the logits of ``images`` with the current state, and change nothing; used by `predict`.

        Gradients are disabled, and running statistics of torch's batch norms do not change.
        """
        logits: Tensor = self.network(images)
        return logits

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The optimisers that `adapt` steps, by names that the method chooses; none by default."""
        return {}

    def confusion(self) -> Mapping[str, Mapping[str, int]]:
        """For each domain that was entered, how many batches of it were detected as which domain since the last
        `reset`; empty for a method that was not told to detect domains."""
        return {}

    def enter(self, domain: str | None) -> None:
        """Set the domain of all following images, until the next call. The state of the method does not change.

        Most methods ignore the domain. A new name is a new domain; a name that was entered before is the same domain.

        Args:
            domain: its name, such as ``acdc/fog``; None, as at the start, if it is not known.

        Raises:
            InputError: for a value that is neither None nor a name of 1 to 256 bytes.
        """
        if domain is not None and not (isinstance(domain, str) and 0 < len(domain.encode()) <= LONGEST_DOMAIN):
            raise InputError(f"domain {quoted(domain)} is not a name of 1 to {LONGEST_DOMAIN} bytes, nor None")
        self.domain = domain

    def forward(self, images: Tensor) -> Tensor:
        """Return the detached logits (B, K, H, W), or (B, K), of ``images``, and adapt the network to them.

        Raises:
            InputError: for images that are not a floating-point batch (B, 3, H, W) of one image or more, or that hold
                NaN or infinity, before anything changes.
        """
        _refuse_no_images(images)
        self._keep_start()
        self.zero_grad(set_to_none=True)
        with torch.inference_mode(False), torch.enable_grad(), seeded(self.seed, "adapt", int(self.step)):
            logits = self.adapt(self._given(images)).detach()
        self.step += 1
        return logits

    def predict(self, images: Tensor) -> Tensor:
        """Return the detached logits of ``images`` with the current state; learn nothing and change nothing.

        Raises:
            InputError: as `forward`.
        """
        _refuse_no_images(images)
        place = seeded(self.seed, "predict", int(self.step))
        with torch.inference_mode(False), torch.no_grad(), statistics_kept(self.network), place:
            return self.infer(self._given(images)).detach()

    def reset(self) -> None:
        """Undo everything learned since the start, in place and bit-exact. The entered domain is kept."""
        if self._start is not None:
            self.restore({**self._start, "domain": self.domain})

    def state(self) -> State:
        """A copy of everything learned, for `restore`."""
        optimisers = {name: copy.deepcopy(one.state_dict()) for name, one in self.optimisers().items()}
        tensors = {name: value.detach().clone() for name, value in self._tensors()}
        return {"seed": self.seed, "domain": self.domain, "tensors": tensors, "optimisers": optimisers}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Return to ``state``, in place and bit-exact; a later `reset` still returns to the start.

        Args:
            state: the result of `state`, from a method with the same options on the same network.

        Raises:
            InputError: for the state of another method or network; then nothing is changed.
        """
        self._refuse_other(state)
        self._keep_start()
        self.seed, self.domain = state["seed"], state["domain"]
        with torch.no_grad():
            for name, value in self._tensors():
                value.copy_(state["tensors"][name])
        for name, optimiser in self.optimisers().items():
            optimiser.load_state_dict(copy.deepcopy(state["optimisers"][name]))

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the method sets the modes of its modules itself."""
        return self

    def _given(self, images: Tensor) -> Tensor:
        """``images`` without a graph, in the network's floating-point type."""
        kind = self.network.mean.dtype
        return images.clone().to(kind) if images.is_inference() else images.detach().to(kind)

    def _keep_start(self) -> None:
        """Save the start state before the first change, after the constructor of the subclass."""
        if self._start is None:
            self._start = self.state()

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter and buffer, including those that the state dict leaves out."""
        yield from self.named_parameters()
        yield from self.named_buffers()

    def _refuse_other(self, state: Mapping[str, Any]) -> None:
        """Raise `InputError` for a ``state`` whose tensors or optimisers are not those of this method."""
        own = {name: (tuple(value.shape), value.dtype) for name, value in self._tensors()}
        given = {name: (tuple(value.shape), value.dtype) for name, value in state["tensors"].items()}
        optimisers = {name: _groups(one.state_dict()) for name, one in self.optimisers().items()}
        steps = {name: _groups(one) for name, one in state["optimisers"].items()}
        for what, mine, theirs in (("tensor", own, given), ("optimiser", optimisers, steps)):
            wrong = next((name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)), None)
            if wrong is not None:
                raise InputError(
                    f"state: its {what} {wrong!r} is {theirs.get(wrong, 'missing')}, and {type(self).__name__} has "
                    f"{mine.get(wrong, 'none')}; give a state of the same method with the same options and network"
                )


def _refuse_no_images(images: Tensor) -> None:
    """Raise `InputError` for anything except floating-point images (B, 3, H, W), at least one, that are finite."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise InputError(
            f"images of shape {tuple(images.shape)} and {images.dtype}: a network that adapts takes (B, 3, H, W) RGB "
            "in [0, 1]"
        )
    if not images.numel():
        raise InputError(f"images of shape {tuple(images.shape)}: the batch is empty; give at least one image")
    if not bool(images.isfinite().all()):
        bad = [place for place, image in enumerate(images) if not bool(image.isfinite().all())]
        raise InputError(f"images: image {bad[0]} of the batch of {len(images)} holds NaN or infinity; leave it out")


def _groups(state: Mapping[str, Any]) -> list[int]:
    """The number of parameters of each group of an optimiser's state."""
    return [len(group["params"]) for group in state["param_groups"]]
