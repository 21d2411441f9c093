"""Atom sets: which channel every element of a tensor belongs to, and which channels must be removed together.

An atom is one channel of one side of a module. A cell is an atom together with the modules at whose output its gate
would be. A tag is an integer tensor of cells that broadcasts to the tensor it describes. Its size is 1 along every axis
along which the channel does not change, and -1 means no channel. A tensor may have several tags that vary along
different axes. Joining two tags joins their atoms, which form disjoint sets.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["NONE", "Atom", "AtomSets", "lifted", "varying"]

Atom = tuple[str, str, int]
"""(module name, side, channel)."""

NONE = -1


class AtomSets:
    """Atoms, the disjoint sets that they form, and the reasons why some cannot be removed."""

    def __init__(self) -> None:
        self._atoms: list[Atom] = []
        self._above: list[int] = []
        self._cells: list[tuple[int, frozenset[str]]] = []
        self._known: dict[tuple[int, frozenset[str]], int] = {}
        self.blocked: dict[int, str] = {}
        self.taken: list[tuple[int, frozenset[str]]] = []
        """(atom, gate sites) of every channel that a network layer or a product reads."""
        self.reached: set[int] = set()
        self.single: set[int] = set()
        """Atoms that are the only channel of their sides: they are always kept, so blocking them has no effect."""

    def new(self, module: str, side: str, size: int, gate: str | None = None) -> Tensor:
        """Add atoms for one side of a module, with the gate site ``gate``, and return their cells (size,)."""
        sources = frozenset() if gate is None else frozenset([gate])
        atom, cell = len(self._atoms), len(self._cells)
        atoms = range(atom, atom + size)
        self._above.extend(atoms)
        self._atoms.extend((module, side, channel) for channel in range(size))
        self._cells.extend((number, sources) for number in atoms)
        self._known.update(((number, sources), cell + position) for position, number in enumerate(atoms))
        return torch.arange(cell, cell + size)

    def _cell(self, atom: int, sources: frozenset[str]) -> int:
        cell = self._known.get((atom, sources))
        if cell is None:
            cell = self._known[atom, sources] = len(self._cells)
            self._cells.append((atom, sources))
        return cell

    def _root(self, atom: int) -> int:
        above = self._above
        top = atom
        while above[top] != top:
            top = above[top]
        while above[atom] != top:
            above[atom], atom = top, above[atom]
        return top

    def _union(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        if one != other:
            self._above[max(one, other)] = min(one, other)

    def block(self, tag: Tensor, reason: str) -> None:
        """Record that the channels of ``tag`` cannot be removed; the first reason is kept."""
        for cell in tag.unique().tolist():
            if cell != NONE:
                self._block(self._cells[cell][0], reason)

    def _block(self, atom: int, reason: str) -> None:
        if self._root(atom) not in {self._root(one) for one in self.single}:
            self.blocked.setdefault(atom, reason)

    def join(self, one: Tensor, other: Tensor, reason: str, *, keep: bool = True) -> Tensor:
        """Join the atoms of both tags at each element and return the joined tag; atoms without a partner are blocked.

        Args:
            one: a tag; its gate sites are kept.
            other: a tag that broadcasts with ``one``.
            reason: the reason for blocking an atom that has no partner.
            keep: also keep the gate sites of ``other``.
        """
        one, other = torch.broadcast_tensors(one, other)
        span = len(self._cells) + 1
        pairs, positions = torch.unique((one + 1) * span + (other + 1), return_inverse=True)
        cells = []
        for pair in pairs.tolist():
            a, b = pair // span - 1, pair % span - 1
            cells.append(self._meet(a, b, reason, keep))
        return torch.tensor(cells, dtype=torch.int64)[positions]

    def _meet(self, a: int, b: int, reason: str, keep: bool) -> int:
        if NONE in (a, b):
            if a != b:
                self._block(self._cells[max(a, b)][0], reason)
            return max(a, b)
        (atom, sources), (twin, more) = self._cells[a], self._cells[b]
        self._union(atom, twin)
        return self._cell(atom, sources | more if keep else sources)

    def take(self, tag: Tensor) -> None:
        """Record that a network layer or a product reads the channels of ``tag``."""
        for cell in tag.unique().tolist():
            if cell != NONE:
                self.taken.append(self._cells[cell])

    def sourced(self, tag: Tensor, sources: Iterable[str] = ()) -> Tensor:
        """``tag`` with the gate sites ``sources`` instead of its own."""
        wanted = frozenset(sources)
        cells, positions = tag.unique(return_inverse=True)
        changed = [c if c == NONE else self._cell(self._cells[c][0], wanted) for c in cells.tolist()]
        return torch.tensor(changed, dtype=torch.int64)[positions]

    def owners(self, tag: Tensor) -> set[tuple[str, str]]:
        """The (module, side) of all channels in ``tag``."""
        return {self._atoms[self._cells[cell][0]][:2] for cell in tag.unique().tolist() if cell != NONE}

    def tie(self, tag: Tensor, axis: int) -> None:
        """Join all channels of ``tag`` that have the same index along ``axis``."""
        for row in tag.transpose(0, axis).flatten(1) if tag.ndim > 1 else tag.unsqueeze(1):
            atoms = [self._cells[cell][0] for cell in row.unique().tolist() if cell != NONE]
            for atom in atoms[1:]:
                self._union(atoms[0], atom)
            if atoms and bool((row == NONE).any()):
                self._block(atoms[0], "is coupled to channels that cannot be removed")

    def compressed(self, tag: Tensor) -> Tensor | None:
        """``tag`` with size 1 along axes along which its channels are the same; None if it varies along no axis."""
        for axis, (size, stride) in enumerate(zip(tag.shape, tag.stride(), strict=True)):
            if size > 1 and stride == 0:
                tag = tag.narrow(axis, 0, 1)
        if all(size == 1 for size in tag.shape):
            return None
        cells, positions = tag.unique(return_inverse=True)
        roots = torch.tensor([c if c == NONE else self._root(self._cells[c][0]) for c in cells.tolist()])[positions]
        for axis in varying(tag):
            if bool((roots == roots.narrow(axis, 0, 1)).all()):
                tag, roots = tag.narrow(axis, 0, 1), roots.narrow(axis, 0, 1)
        return tag if varying(tag) else None

    def groups(self) -> list[list[int]]:
        """The numbers of the atoms, one list for each set that must be removed together."""
        found: dict[int, list[int]] = defaultdict(list)
        for atom in range(len(self._atoms)):
            found[self._root(atom)].append(atom)
        return list(found.values())

    def number(self, cell: Tensor) -> int:
        """The number of the atom of a cell."""
        return self._cells[int(cell)][0]

    def atom(self, number: int) -> Atom:
        """The atom of this number."""
        return self._atoms[number]

    def reach(self, tag: Tensor) -> None:
        """Record that the channels of ``tag`` are used in a forward pass."""
        self.reached.update(self._cells[cell][0] for cell in tag.unique().tolist() if cell != NONE)


def varying(tag: Tensor) -> list[int]:
    """The axes along which the channel of ``tag`` changes."""
    return [axis for axis, size in enumerate(tag.shape) if size > 1]


def lifted(tag: Tensor, rank: int) -> Tensor:
    """``tag`` with leading axes of size 1, up to ``rank`` axes."""
    shape: Sequence[int] = (1,) * (rank - tag.ndim) + tuple(tag.shape)
    return tag.reshape(shape)
