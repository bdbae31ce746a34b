"""Which tiles of a kernel are stored in memory of the frame, and which are computed where they are read.

A tile that one loop nest alone reads is computed there. Stored are those that two nests read, or a nest in a deeper
loop, or that a broadcast would compute again and again, unless computing them again costs no more than a load.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Block, BlockArgument, Operation, Region, SSAValue

from forgec.backends.cpu.elementwise import EXPENSIVE
from forgec.ir import types
from forgec.ir.tile import compute, memory
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.types import block_type, extents

CHEAP, CHEAP_IN_PRODUCT = 6, 2
"""A tile whose computation costs so many simple ops is computed again rather than stored: to write it and read it takes
about as long. Products read their factors many times."""
_LOAD, _LOAD_HALF, _TO_HALF = 2, 3, 7
_MUCH = 100
LONGEST_CHAIN = 64
"""Ops one after the other that one loop nest computes at most: what a scan's steps, written out, are stored after."""


def is_tile(value: SSAValue) -> bool:
    return isinstance(value.type, TensorType)


def is_deferred(op: Operation) -> bool:
    """True of the ops whose tiles can be computed where they are read."""
    return _is_deferred(op.__class__)


@cache
def _is_deferred(kind: type[Operation]) -> bool:
    if issubclass(kind, arith.ConstantOp):
        return False
    return kind.name.startswith(("arith.", "math.")) or issubclass(
        kind,
        memory.LoadOp | memory.GatherOp | compute.IndexOp | compute.RangeOp | compute.BroadcastOp | compute.TransposeOp
        | compute.PadOp,
    )  # fmt: skip


@dataclass
class Placement:
    """``stored`` are the deferred tiles that are computed once, where they are defined."""

    kernel: KernelOp
    stored: set[SSAValue] = field(default_factory=set)
    written: set[SSAValue] = field(default_factory=set)
    """Parameters."""
    _costs: dict[SSAValue, int] = field(default_factory=dict)
    _readers: dict[SSAValue, frozenset[tuple[Operation, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.written = {self.kernel.parameters[position] for position in self.kernel.writes.data}
        self._cost_of(self.kernel.body)
        self._cut_chains(self.kernel.body, {})
        self._place(self.kernel.body)

    def _cost_of(self, region: Region) -> None:
        for block in region.blocks:
            for op in block.ops:
                for result in op.results:
                    self._costs[result] = self._cost(op)
                for inner in op.regions:
                    self._cost_of(inner)

    def _cut_chains(self, region: Region, lengths: dict[SSAValue, int]) -> None:
        """Store tiles that too many ops lead to. ``lengths`` are those of the chains that end in deferred tiles."""
        for block in region.blocks:
            for op in block.ops:
                if is_deferred(op) and is_tile(op.results[0]):
                    length = 1 + max((lengths.get(operand, 0) for operand in op.operands), default=0)
                    if length >= LONGEST_CHAIN:
                        self.stored.add(op.results[0])
                        self._costs[op.results[0]] = 1
                    else:
                        lengths[op.results[0]] = length
                for inner in op.regions:
                    self._cut_chains(inner, lengths)

    def _cost(self, op: Operation) -> int:
        if not is_deferred(op) or not is_tile(op.results[0]):
            return 0 if not op.results or not is_tile(op.results[0]) else 1
        if isinstance(op, compute.RangeOp | compute.IndexOp):
            return 1 + sum(self.cost(operand) for operand in op.operands)
        if isinstance(op, memory.LoadOp):
            if not _is_plain(op):
                return _MUCH
            return _LOAD if types.ITEM_BYTES[types.dtype(block_type(op.block))] >= 4 else _LOAD_HALF
        if isinstance(op, memory.GatherOp) or op.name in EXPENSIVE:
            return _MUCH
        own = 0 if isinstance(op, compute.BroadcastOp) else _TO_HALF if isinstance(op, arith.TruncFOp) else 1
        return own + sum(self.cost(operand) for operand in op.operands)

    def cost(self, value: SSAValue) -> int:
        """How much it costs to compute an element again."""
        if not is_tile(value):
            return 0
        return 1 if isinstance(value, BlockArgument) else self._costs.get(value, _MUCH)

    def _place(self, region: Region) -> None:
        for block in region.blocks:
            for op in reversed(list(block.ops)):
                for inner in reversed(op.regions):
                    self._place(inner)
                if is_deferred(op) and is_tile(op.results[0]):
                    self._decide(op, op.results[0])

    def _decide(self, op: Operation, value: SSAValue) -> None:
        readers = self.readers(value)
        self._readers[value] = readers
        again = deeper = False
        for use in value.uses:
            user = use.operation
            fused = is_deferred(user) and is_tile(user.results[0]) and user.results[0] not in self.stored
            deeper = deeper or (user.parent is not op.parent and _depth(user) > _depth(op))
            again = again or deeper or (fused and _repeats(user))
        copied = any(isinstance(reader, compute.DotOp) and operand < 2 for reader, operand in readers)
        if isinstance(op, memory.LoadOp | memory.GatherOp) and parameter_of(op.block) in self.written:
            self.stored.add(value)
        elif (deeper and copied) or (
            (len(readers) > 1 or again) and self.cost(value) > (CHEAP_IN_PRODUCT if copied else CHEAP)
        ):
            self.stored.add(value)
            self._costs[value] = 1

    def readers(self, value: SSAValue) -> frozenset[tuple[Operation, int]]:
        """The ops, and their operands, in whose loop nests a tile is read, through deferred tiles as well."""
        if (known := self._readers.get(value)) is not None:
            return known
        readers: set[tuple[Operation, int]] = set()
        for use in value.uses:
            user = use.operation
            if not is_deferred(user) or not user.results or not is_tile(user.results[0]):
                readers.add((user, use.index))
            elif user.results[0] in self.stored:
                readers.add((user, 0))
            else:
                readers |= self.readers(user.results[0])
        return frozenset(readers)


def parameter_of(block: SSAValue) -> SSAValue:
    """The parameter that a block is a part of."""
    while isinstance(view := block.owner, memory.ViewOp):
        block = view.source
    return block


def _is_plain(op: memory.LoadOp) -> bool:
    """True of a load of whole vectors, without masks."""
    block = block_type(op.block)
    axis = next((a for a, extent in reversed(list(enumerate(extents(op.result)))) if extent != 1), None)
    inside = set() if op.in_bounds is None else set(op.in_bounds.data)
    whole = types.ITEM_BYTES[types.dtype(block)] >= 2
    return whole and len(inside) == types.rank(block) and (axis is None or types.strides(block)[axis] in (0, 1))


def reduced_next(op: Operation) -> compute.ReduceOp | None:
    """The reduction that is the next loop nest after a deferred op, and reads each element of its tile at the place of
    one of its own: rows, along their innermost axis.
    """
    value, following = op.results[0], op.next_op
    while following is not None and is_deferred(following):
        following = following.next_op
    if not isinstance(following, compute.ReduceOp) or following.axis.data != len(extents(following.input)) - 1:
        return None
    return following if _same_places(following.input, value) else None


def _same_places(value: SSAValue, of: SSAValue) -> bool:
    """True if a deferred tile reads another one, and only at its own places."""
    if value is of:
        return True
    owner = value.owner
    if (
        isinstance(owner, Block)
        or not is_deferred(owner)
        or owner.name.startswith("tile.") != isinstance(owner, compute.PadOp)
    ):
        return False
    return any(extents(v) == extents(value) and _same_places(v, of) for v in owner.operands if is_tile(v))


def _depth(op: Operation) -> int:
    """The number of loops around an op."""
    depth = 0
    while (parent := op.parent_op()) is not None:
        depth += isinstance(parent, scf.ForOp | scf.WhileOp)
        op = parent
    return depth


def _repeats(op: Operation) -> bool:
    if not isinstance(op, compute.BroadcastOp):
        return False
    shape, small = extents(op.result), extents(op.input)
    kept = [target for own, target in enumerate(op.along.data) if small[own] == shape[target]]
    return any(extent != 1 for axis, extent in enumerate(shape) if axis not in kept)
