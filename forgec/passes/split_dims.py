"""Ops work on the dimensions that were merged for them, so that nothing is copied only to merge it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.ir import Operation, OpResult, SSAValue

from forgec.ir import types
from forgec.ir.ops.base import ElementwiseOp, ForgeOp, producer
from forgec.ir.ops.composite import RopeOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.shape import CopyOp, SliceOp, ViewOp, is_free
from forgec.passes.axes import VIEWS, Atom, Dims, extent_of, leaves, regrouped
from forgec.passes.layouts import give_layout
from forgec.passes.rearrangements import Chain, discard, reshaped, shortest, traced
from forgec.passes.rewriting import erase_unused, replace
from forgec.runtime.symbolic import Extent

OWN: dict[type[Operation], int] = {MatmulOp: 2, RopeOp: 1, ElementwiseOp: 0}
"""Ops that do the same along their leading dimensions, and how many of the last ones that is not so for."""


def split_readers(copying: Operation) -> None:
    """Let the ops that read a copy, or a reshape that copies, work on the dimensions that it merges, where they can.

    A merged dimension of batch and heads, say, becomes two: the result is reshaped, which costs nothing. What is
    broadcast on the way need not be; products and pointwise ops broadcast.
    """
    for reader in list(dict.fromkeys(_readers(copying))):
        own = next((count for kind, count in OWN.items() if isinstance(reader, kind)), None)
        if own is not None and isinstance(reader, ForgeOp) and len(reader.results) == 1:
            _split(reader, own)


def _readers(op: Operation) -> Iterator[Operation]:
    """The ops that read a result, through free rearrangements."""
    for use in op.results[0].uses:
        user = use.operation
        if isinstance(user, ViewOp) and (is_free(user) or isinstance(user, CopyOp)):
            yield from _readers(user)
        else:
            yield user


@dataclass
class _Reading:
    """An operand as a rearrangement of a source; for each dimension the parts that strides of the source can merge."""

    source: SSAValue
    ops: tuple[Operation, ...]
    given: Dims
    wanted: Dims
    parts: list[tuple[Extent, ...]]

    def split(self, parts: Sequence[Sequence[Extent]]) -> list[Operation] | None:
        """New ops that yield the operand with each dimension in these parts, but for extent 1 where it is broadcast;
        None if they move elements.
        """
        wanted: Dims = []
        for dim, extents in zip(self.wanted, parts, strict=True):
            found = regrouped(dim, extents)
            if found is None:
                return None
            wanted += found
        given = [leaves(dim) for dim in self.given]
        known = {atom for dim in given for atom in dim}
        wanted = [[atom for atom in leaves(dim) if atom in known] for dim in wanted]
        ops = shortest(Chain(self.source, self.ops, given, wanted))
        if all(map(is_free, ops)):
            return ops
        discard(ops)
        return None


def _reading(value: SSAValue, user: Operation) -> _Reading | None:
    """How an operand was copied to lie as it does; None if it was not, or strides can express that."""
    shape = types.shape(value)
    if 0 in shape:
        return None
    wanted: Dims = [[Atom(extent)] for extent in shape]
    given, ops = traced(value, wanted, VIEWS, user.parent)
    source = ops[-1].operands[0] if ops else value
    strides = _uncopied(source, user)
    if all(map(is_free, ops)) and strides == types.strides(source):
        return None
    stride: dict[Atom, Extent] = {}
    for dim, step in zip(given, strides, strict=True):
        for atom in reversed(leaves(dim)):
            stride[atom] = step
            step = step * atom.extent
    parts: list[tuple[Extent, ...]] = []
    for dim in wanted:
        groups: list[list[Atom]] = []
        for atom in leaves(dim):
            last = groups[-1][-1] if groups else None
            if last is not None and stride.get(last, 0) == stride.get(atom, 0) * atom.extent:
                groups[-1].append(atom)
            else:
                groups.append([atom])
        parts.append(tuple(map(extent_of, groups)) or (1,))
    return _Reading(source, tuple(ops), given, wanted, parts)


def _uncopied(value: SSAValue, user: Operation) -> tuple[Extent, ...]:
    """The strides that a slice would have if nothing had been copied before it."""
    op = producer(value)
    if not isinstance(op, (SliceOp, CopyOp)) or op.parent is not user.parent:
        return types.strides(value)
    strides = list(_uncopied(op.input, user))
    if isinstance(op, SliceOp):
        strides[op.dim.data] = strides[op.dim.data] * op.step.data
    return types.canonical_strides(types.shape(value), strides)


def _split(op: ForgeOp, own: int) -> None:
    shape = types.shape(op.results[0])
    lead = len(shape) - own
    if lead < 1 or any(types.rank(value) < own for value in op.operands):
        return
    readings = {index: found for index, v in enumerate(op.operands) if (found := _reading(v, op)) is not None}
    whole = [Atom(extent) for extent in shape]
    for index, reading in list(readings.items()):
        offset = len(shape) - len(reading.parts)
        for place, parts in enumerate(reading.parts, offset):
            if len(parts) > 1 and (place >= lead or regrouped([whole[place]], parts) is None):
                readings.pop(index, None)
    split = [[atom.extent for atom in leaves([atom])] or [1] for atom in whole[:lead]]
    if all(len(extents) == 1 for extents in split) or not readings:
        return
    result = [*(extent for extents in split for extent in extents), *shape[lead:]]
    made: list[Operation] = []
    operands: list[SSAValue] = []
    for index, value in enumerate(op.operands):
        new = _operand(value, readings.get(index), split, own, len(shape))
        if new is None:
            discard(made)
            return
        made += new
        operands.append(new[-1].results[0] if new else value if index not in readings else readings[index].source)
    kind = types.tensor(types.dtype(op.results[0]), result)
    renewed = type(op).create(operands=operands, properties=op.properties, result_types=[kind])
    if renewed.infer()[0][1] != tuple(result):  # what was broadcast is so by nothing else
        discard([*made, renewed])
        return
    merged = reshaped(renewed.results[0], shape)
    kept = op.results[0].type
    old = list(op.operands)
    replace(op, merged.results, [*made, renewed, merged])
    assert isinstance(merged.result, OpResult)
    give_layout(merged.result, kept)
    for value in old:
        erase_unused(value, ViewOp)


def _operand(
    value: SSAValue, reading: _Reading | None, split: Sequence[Sequence[Extent]], own: int, rank: int
) -> list[Operation] | None:
    """New ops that yield an operand with its leading dimensions in parts; none at all for its source."""
    shape = types.shape(value)
    offset = rank - len(shape)
    parts: list[Sequence[Extent]] = []
    for dim, extent in enumerate(shape):
        extents = split[offset + dim] if dim < len(shape) - own else [extent]
        parts.append([1] * len(extents) if extent == 1 else extents)
    if reading is not None:
        return reading.split(parts)
    target = [extent for extents in parts for extent in extents]
    return [] if tuple(target) == shape else [reshaped(value, target)]
