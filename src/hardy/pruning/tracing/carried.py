"""What tensors carry while a network runs: for each tensor the layers of labels of its channels.

`hardy.pruning.tracing.flow` fills it, operation by operation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from hardy.pruning.tracing.atom_sets import AtomSets, varying

__all__ = ["Carried"]


class Carried:
    """The labels of tensors, and the module that runs now.

    Args:
        network: what runs; its parameters must not be replaced meanwhile.
        labels: where atoms live.
        known: for parameters, buffers and norms over channels, their layers.
        trusted: the modules whose slices of channels are known to keep heads together, or to follow other widths.

    Attributes:
        running: the names of the modules that run now, the innermost last.
        standardised: the layers that normalise their own weights over what they take in.
    """

    def __init__(
        self, network: nn.Module, sets: AtomSets, known: Mapping[Any, list[Tensor]], trusted: frozenset[str]
    ) -> None:
        self.network = network
        self.sets = sets
        self.trusted = trusted
        self.running: list[str] = []
        self.standardised: set[str] = set()
        self._tags: dict[int, tuple[Any, list[Tensor]]] = {id(t): (t, tags) for t, tags in known.items()}

    def of(self, tensor: Any) -> list[Tensor]:
        """The layers of a tensor; none for one that carries no channels."""
        return self._tags[id(tensor)][1] if id(tensor) in self._tags else []

    def put(self, tensor: Tensor, tags: Sequence[Tensor]) -> None:
        """Label a tensor; layers that vary along the same axis are joined, constant ones left out.

        Where all channels of a tensor are tied to each other, none can go alone.
        """
        kept: list[Tensor] = []
        for tag in tags:
            found = self.sets.compressed(tag)
            if found is None:
                if tag.numel() > 1:
                    self.fix([tag], "all channels are tied to each other")
                continue
            for other in [o for o in kept if set(varying(o)) & set(varying(found))]:
                kept = [k for k in kept if k is not other]
                found = self.sets.join(other, found, self.reason("is tied to a fixed number of channels"))
            kept.append(found)
        self._tags[id(tensor)] = (tensor, kept)

    @property
    def here(self) -> str:
        """The name of the module that runs now."""
        return self.running[-1] if self.running else ""

    def reason(self, text: str) -> str:
        """``text`` with the module that runs now."""
        return f"{text} in {self.here}" if self.here else text

    def note_own_weight(self, tag: Tensor, source: Tensor) -> bool:
        """True where ``source`` is the own weight of the layer that runs now, which normalises it over what it takes
        in: that is noted, and a cut weight is normalised over what is left of it."""
        module = self.network.get_submodule(self.here)
        if not isinstance(module, (_ConvNd, nn.Linear)) or source.numel() != module.weight.numel():
            return False
        own = self.sets.owners(tag) in ({(self.here, "in")}, {(self.here, "out")})
        if own:
            self.standardised.add(self.here)
        return own

    def fix(self, tags: Sequence[Tensor], text: str) -> None:
        """The channels of ``layers`` cannot go."""
        for tag in tags:
            self.sets.block(tag, self.reason(text))
