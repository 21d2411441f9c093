"""The tags of the tensors of a running network (`hardy.pruning.tracing.atom_sets`).

`hardy.pruning.tracing.flow` adds the tags of each operation's results.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from hardy.pruning.tracing.atom_sets import AtomSets, varying

__all__ = ["Carried"]


class Carried:
    """The tags of tensors, and the modules that run at the moment.

    Args:
        network: the network that runs; its parameters must not be replaced during the run.
        sets: the atom sets.
        known: the tags of parameters, buffers and norm layers over channels.
        trusted: the modules whose slices of channels are known to keep heads together, or to follow other widths.

    Attributes:
        running: the names of the modules that run at the moment, the innermost last.
        standardised: the names of layers that standardise their own weights over their inputs.
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
        """The tags of a tensor; none for one without channels."""
        return self._tags[id(tensor)][1] if id(tensor) in self._tags else []

    def put(self, tensor: Tensor, tags: Sequence[Tensor]) -> None:
        """Set the tags of a tensor; tags that vary along the same axis are joined, constant tags are left out.

        If all channels of a tensor are joined with each other, they are blocked.
        """
        kept: list[Tensor] = []
        for tag in tags:
            found = self.sets.compressed(tag)
            if found is None:
                if tag.numel() > 1:
                    self.fix([tag], "all channels are coupled to each other")
                continue
            for other in [o for o in kept if set(varying(o)) & set(varying(found))]:
                kept = [k for k in kept if k is not other]
                found = self.sets.join(other, found, self.reason("is coupled to a fixed number of channels"))
            kept.append(found)
        self._tags[id(tensor)] = (tensor, kept)

    @property
    def here(self) -> str:
        """The name of the innermost module that runs at the moment."""
        return self.running[-1] if self.running else ""

    def reason(self, text: str) -> str:
        """``text`` with the name of the module that runs at the moment."""
        return f"{text} in {self.here}" if self.here else text

    def note_own_weight(self, tag: Tensor, source: Tensor) -> bool:
        """Whether ``source`` is the weight of the running layer, which standardises it over its inputs.

        If so, the layer is added to `standardised`. After a cut it standardises over the remaining inputs.
        """
        module = self.network.get_submodule(self.here)
        if not isinstance(module, (_ConvNd, nn.Linear)) or source.numel() != module.weight.numel():
            return False
        own = self.sets.owners(tag) in ({(self.here, "in")}, {(self.here, "out")})
        if own:
            self.standardised.add(self.here)
        return own

    def fix(self, tags: Sequence[Tensor], text: str) -> None:
        """Block the channels of ``tags``: they cannot be removed because of ``text``."""
        for tag in tags:
            self.sets.block(tag, self.reason(text))
