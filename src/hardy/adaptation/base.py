"""The interface of a network that learns while it predicts: images in, logits out, and back to the start on request."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.seed import seeded

__all__ = ["State", "TestTimeAdaptation"]

State = dict[str, Any]
"""What `TestTimeAdaptation.state` returns: the seed, and copies by name of tensors and of optimisers' states."""


class TestTimeAdaptation(nn.Module, ABC):
    """A copy of ``network`` that may change with every batch that it predicts.

    A subclass writes `adapt`. Its constructor takes ``network`` before the ``*`` and its options after, and configures
    ``self.network`` once: what it freezes, the modes of norms. What it remembers from batch to batch are parameters and
    buffers of its own or of the network, which keep their names, shapes and types, and the state of `optimisers`;
    nothing else, or `reset` could not be exact. Gradients are cleared before each batch. ``reset`` and ``seed`` are no
    names for options: a recipe's section ``adapt`` and `hardy.adapt` have them.

    Contract, held by ``tests/contracts/test_adaptations.py`` for every method: the network given stays as it is;
    `reset` and `restore` are exact to the bit; neither `train` nor ``torch.no_grad`` around a call changes what it
    does; the same seed and images give the same bits; a batch of one image and image-level networks work.

    Attributes:
        network: the copy, in evaluation mode unless the subclass changes the mode of some modules.
        predicts: whether the logits of a batch come ``before`` or ``after`` the update that the batch causes.
        seed: decides every draw of the method, with the number of the batch; set it before the first batch.
        step: how many batches were seen since the start, a buffer of shape ().
    """

    __test__ = False  # pytest collects classes by this beginning of a name
    predicts: ClassVar[Literal["before", "after"]]
    step: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        self.seed = 0
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._start: State | None = None

    @abstractmethod
    def adapt(self, images: Tensor) -> Tensor:
        """The logits (B, K, H, W), or (B, K), of ``images`` (B, 3, H, W) RGB in [0, 1], and one update, in place.

        Gradients are enabled. Draws are those of ``torch``'s CPU generator, which is seeded for each batch.
        """

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The optimisers that `adapt` steps, by a name of the method's own; none by default."""
        return {}

    def forward(self, images: Tensor) -> Tensor:
        """The logits (B, K, H, W), or (B, K), of ``images`` without a graph; the network learns from them."""
        self._keep_start()
        self.zero_grad(set_to_none=True)
        with torch.inference_mode(False), torch.enable_grad(), seeded(self.seed, "adapt", int(self.step)):
            given = images.clone() if images.is_inference() else images.detach()
            logits = self.adapt(given).detach()
        self.step += 1
        return logits

    def reset(self) -> None:
        """Forget everything learned since the start, in place and to the bit."""
        if self._start is not None:
            self.restore(self._start)

    def state(self) -> State:
        """A copy of all that was learned, for `restore`."""
        optimisers = {name: copy.deepcopy(one.state_dict()) for name, one in self.optimisers().items()}
        tensors = {name: value.detach().clone() for name, value in self._tensors()}
        return {"seed": self.seed, "tensors": tensors, "optimisers": optimisers}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Return to ``state``, in place and to the bit; `reset` still returns to the start.

        Args:
            state: what `state` returned, of a method with the same options on the same network.

        Raises:
            InputError: for the state of another method or network; nothing was changed then.
        """
        self._refuse_other(state)
        self._keep_start()
        self.seed = state["seed"]
        with torch.no_grad():
            for name, value in self._tensors():
                value.copy_(state["tensors"][name])
        for name, optimiser in self.optimisers().items():
            optimiser.load_state_dict(copy.deepcopy(state["optimisers"][name]))

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the method alone decides the mode of its modules."""
        return self

    def _keep_start(self) -> None:
        """Remember the start when it is first left: then the subclass has configured its copy."""
        if self._start is None:
            self._start = self.state()

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter and buffer, also those that a state dict leaves out."""
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


def _groups(state: Mapping[str, Any]) -> list[int]:
    """How many parameters each group of an optimiser's state has."""
    return [len(group["params"]) for group in state["param_groups"]]
