"""Where the elements of a matrix lie in the tensors that it was made from, as far as reshapes and transposes tell.

The two dimensions of a matrix are cut into atoms, as finely as the shapes on the way need. Every tensor on the way has
a list of atoms for each of its dimensions; what is broadcast to it lacks some.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops.base import producer
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, TransposeOp
from forgec.runtime.symbolic import Extent

VIEWS = (ReshapeOp, TransposeOp, BroadcastOp, CopyOp)


@dataclass(eq=False)
class Atom:
    """A part of a dimension; once it is cut, ``parts`` are its outer and its inner one."""

    extent: Extent
    parts: list[Atom] = field(default_factory=list)

    def cut(self, outer: Extent) -> list[Atom]:
        """Cut it into ``outer`` times the rest."""
        self.parts = [Atom(outer), Atom(self.extent // outer)]
        return self.parts


Dims = list[list[Atom]]
"""For each dimension of a tensor its atoms, from the outermost."""


def leaves(atoms: Iterable[Atom]) -> list[Atom]:
    """The atoms as finely as they have been cut by now, without those of extent 1."""
    found: list[Atom] = []
    for atom in atoms:
        found += leaves(atom.parts) if atom.parts else [atom] if atom.extent != 1 else []
    return found


def extent_of(atoms: Iterable[Atom]) -> Extent:
    """How many places atoms make up."""
    return prod((atom.extent for atom in leaves(atoms)), start=1)


def _quotient(whole: Extent, part: Extent) -> Extent | None:
    """``whole / part`` if that surely is a whole number, whatever the symbols are."""
    quotient = whole // part
    return quotient if quotient * part == whole else None


def regrouped(atoms: Iterable[Atom], shape: Sequence[Extent]) -> Dims | None:
    """The atoms, in order, as the dimensions of a shape; atoms are cut where they have to be. None where that takes
    more than cutting (4 by 6 as 6 by 4), or where extents are not known to divide one another.
    """
    pending = leaves(atoms)[::-1]
    dims: Dims = []
    for extent in shape:
        if isinstance(extent, int) and extent < 1:
            return None
        dims.append([])
        while extent != 1:
            if not pending:
                return None
            atom = pending.pop()
            if (rest := _quotient(extent, atom.extent)) is not None:
                dims[-1].append(atom)
                extent = rest
            elif _quotient(atom.extent, extent) is not None:
                first, inner = atom.cut(extent)
                dims[-1].append(first)
                pending.append(inner)
                extent = 1
            else:
                return None
    return None if pending else dims


def before(op: Operation, dims: Dims) -> Dims | None:
    """The atoms of a view's operand, given those of its result; None where they cannot be told apart."""
    if isinstance(op, ReshapeOp):
        return regrouped([atom for dim in dims for atom in dim], types.shape(op.input))
    if isinstance(op, TransposeOp):
        found: Dims = [[] for _ in dims]
        for place, source in enumerate(op.permutation.data):
            found[source] = dims[place]
        return found
    if isinstance(op, BroadcastOp):
        return aligned(types.shape(op.input), dims)
    return dims if isinstance(op, CopyOp) else None


def aligned(shape: Sequence[Extent], dims: Dims) -> Dims:
    """The atoms of what is broadcast from a shape to ``dims``: none where it has extent 1."""
    kept = dims[len(dims) - len(shape) :] if shape else []
    return [[] if extent == 1 else dim for extent, dim in zip(shape, kept, strict=True)]


def source(value: SSAValue, dims: Dims) -> tuple[SSAValue, Dims]:
    """What a value shows other views of, and its atoms, as far back as they can be told."""
    op = producer(value)
    while isinstance(op, VIEWS):
        found = before(op, dims)
        if found is None:
            break
        value, dims = op.input, found
        op = producer(value)
    return value, dims
