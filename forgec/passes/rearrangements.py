"""Chains of reshapes and transposes as one: dimensions are split, their parts permuted, and merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.dialects.builtin import AnyTensorType
from xdsl.ir import Block, Operation, SSAValue

from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.layout import reshape_strides
from forgec.ir.ops.base import producer
from forgec.ir.ops.shape import ReshapeOp, TransposeOp, is_free
from forgec.passes.axes import Atom, Dims, before, extent_of, leaves, regrouped
from forgec.runtime.symbolic import Extent

LONGEST = 8
"""Ops that one chain may have: no more are looked at."""


@dataclass(frozen=True)
class Chain:
    """Rearrangements that lead from ``source`` to the result of the first of ``ops`` (which are the last to run)."""

    source: SSAValue
    ops: tuple[Operation, ...]
    given: Dims
    """For each dimension of the source its atoms."""
    wanted: Dims
    """For each dimension of the result its atoms."""

    @property
    def moves(self) -> bool:
        """True if one of the ops is a copy, or needs one."""
        return not all(is_free(op) for op in self.ops)

    @property
    def merges(self) -> bool:
        """True if a reshape on the way merges dimensions, or parts of them."""
        inner = [op for op in self.ops[1:] if isinstance(op, ReshapeOp)]
        cut = [regrouped(map(Atom, types.shape(op.input)), types.shape(op.result)) for op in inner]
        return any(dims is None or any(len(leaves(dim)) > 1 for dim in dims) for dims in cut)

    @property
    def is_private(self) -> bool:
        """True if nothing else reads what stands between the source and the result."""
        return all(len(list(op.results[0].uses)) == 1 for op in self.ops[1:])


def chain_to(op: Operation, *kinds: type[Operation]) -> Chain | None:
    """The longest chain of ops of ``kinds`` (reshapes, transposes, copies) in one block that ends with ``op`` and whose
    atoms can be told; None for less than two ops.
    """
    wanted: Dims = [[Atom(extent)] for extent in types.shape(op.results[0])]
    if any(extent == 0 for extent in types.shape(op.results[0])):
        return None
    given, ops = traced(op.results[0], wanted, kinds, op.parent)
    if len(ops) < 2:
        return None
    return Chain(ops[-1].operands[0], tuple(ops), [leaves(dim) for dim in given], [leaves(dim) for dim in wanted])


def traced(
    value: SSAValue, dims: Dims, kinds: tuple[type[Operation], ...], block: Block | None
) -> tuple[Dims, list[Operation]]:
    """The ops of ``kinds`` in one block that a value is made by, the last one first, as far back as atoms can be told
    (and no more than ``LONGEST``); and the atoms of what these are made of.
    """
    ops: list[Operation] = []
    while isinstance(op := producer(value), kinds) and op.parent is block and len(ops) < LONGEST:
        found = before(op, dims)
        if found is None:
            break
        dims, value = found, op.operands[0]
        ops.append(op)
    return dims, ops


Plan: TypeAlias = "tuple[tuple[Extent, ...] | None, tuple[int, ...] | None, tuple[Extent, ...] | None]"
"""A shape, a permutation and a shape; None for what is not needed."""


def shortest(chain: Chain) -> list[Operation]:
    """New ops that do what a chain does, as few as there can be: a reshape that splits dimensions, a transpose, a
    reshape that merges them, or less. Splitting never moves anything, so these are free if strides can express the
    whole. None at all if the result is the source.
    """
    plans = [plan for plan in (_split_permute_merge(chain), _reshape_permute(chain)) if plan is not None]
    given = [atom for dim in chain.given for atom in dim]
    if given == [atom for dim in chain.wanted for atom in dim]:
        plans = [(_shape_of(chain.wanted), None, None)]
    best = min(plans, key=lambda plan: sum(part is not None for part in plan))
    split, order, merged = best
    ops: list[Operation] = []
    value = chain.source
    if split is not None and split != types.shape(value):
        ops.append(reshaped(value, split))
        value = ops[-1].results[0]
    if order is not None:
        ops.append(transposed(value, order))
        value = ops[-1].results[0]
    if merged is not None:
        ops.append(reshaped(value, merged))
    return ops


def type_of(chain: Chain, ops: Sequence[Operation]) -> AnyTensorType:
    """The type that new ops for a chain yield."""
    return types.tensor_type(ops[-1].results[0] if ops else chain.source)


def discard(ops: Sequence[Operation]) -> None:
    """Give up ops that nothing uses."""
    for op in reversed(ops):
        op.erase()


def _shape_of(dims: Dims) -> tuple[Extent, ...]:
    return tuple(extent_of(dim) for dim in dims)


def _order(permutation: Sequence[int]) -> tuple[int, ...] | None:
    return None if list(permutation) == sorted(permutation) else tuple(permutation)


def _split_permute_merge(chain: Chain) -> Plan:
    """Each dimension of the source in as few parts as the result needs; those of extent 1 go first."""
    place = {atom: index for index, atom in enumerate(atom for dim in chain.wanted for atom in dim)}
    last = {dim[-1] for dim in chain.wanted if dim}
    parts: Dims = []
    for dim in chain.given:
        parts.append([])
        for atom in dim:
            before = parts[-1][-1] if parts[-1] else None
            if before is not None and (before in last or place[atom] != place[before] + 1):
                parts.append([])
            parts[-1].append(atom)
    order = sorted(range(len(parts)), key=lambda index: place[parts[index][0]] if parts[index] else -1)
    split, permuted, merged = _shape_of(parts), [parts[index] for index in order], _shape_of(chain.wanted)
    return (
        None if split == types.shape(chain.source) else split,
        _order(order),
        None if _shape_of(permuted) == merged else merged,
    )


def _reshape_permute(chain: Chain) -> Plan | None:
    """The dimensions of the result in the order of the source, then permuted; None if the source has their atoms apart
    from one another.
    """
    given = [atom for dim in chain.given for atom in dim]
    place = {atom: index for index, atom in enumerate(given)}
    for dim in chain.wanted:
        if dim and given[place[dim[0]] : place[dim[0]] + len(dim)] != dim:
            return None
    filled = sorted((d for d, dim in enumerate(chain.wanted) if dim), key=lambda d: place[chain.wanted[d][0]])
    ones = [d for d, dim in enumerate(chain.wanted) if not dim]
    inner = [*ones, *filled]
    if len(ones) == sum(not dim for dim in chain.given) and len(inner) == len(chain.given):
        inner = [(filled if dim else ones).pop(0) for dim in chain.given]  # perhaps the source's own shape
    shape = tuple(extent_of(chain.wanted[d]) for d in inner)
    permutation = [inner.index(d) for d in range(len(inner))]
    return None if shape == types.shape(chain.source) else shape, _order(permutation), None


def reshaped(value: SSAValue, shape: Sequence[Extent]) -> ReshapeOp:
    """A new reshape: free where strides can express it."""
    strides = reshape_strides(types.shape(value), types.strides(value), shape)
    kind = types.tensor(types.dtype(value), shape, strides)
    return ReshapeOp.create(operands=[value], result_types=[kind])


def transposed(value: SSAValue, order: Sequence[int]) -> TransposeOp:
    """A new transpose: always free."""
    shape, strides = types.shape(value), types.strides(value)
    kind = types.tensor(types.dtype(value), [shape[d] for d in order], [strides[d] for d in order])
    return TransposeOp.create(operands=[value], properties={"permutation": IntsAttr(order)}, result_types=[kind])
