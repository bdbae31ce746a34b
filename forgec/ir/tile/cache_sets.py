"""Rows of products' left factors that lie so far apart in memory that they push each other out of a cache."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd

from xdsl.dialects import arith, scf
from xdsl.ir import Operation

from forgec.ir import types
from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.cost import item_bytes
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.memory import LoadOp
from forgec.ir.tile.types import block_type, element, extents
from forgec.runtime.symbolic import Extent

PACKED_LIMIT = 640 << 10
"""Bytes of a kernel's packed factors: with what else a program has in use, they fit the second level of caches (1 MiB
in AMD's Zen 4, 2 MiB in Intel's Sapphire Rapids).
"""
PAGE = 4096
"""Bytes after which first-level caches (64 sets of 64 bytes) begin again."""
WAYS = 4
"""Rows whose elements at one place may lie in the same set: half of what a set holds."""
SIDE_BY_SIDE = 14
"""Rows that are read at a time, at most."""


def crowds(apart: int | None, rows: int) -> bool:
    """True if so many rows, ``apart`` bytes from one to the next, lie in few sets of a cache."""
    if apart is None or apart == 0:
        return False
    return -(-min(rows, SIDE_BY_SIDE) * max(gcd(apart, PAGE), 64) // PAGE) > WAYS


def rounded_load(load: LoadOp) -> tuple[Operation, list[tuple[Operation, int]]]:
    """A load, or what its tile is rounded to where nothing else reads it; and what reads that, by operand."""
    uses = [(use.operation, use.index) for use in load.result.uses]
    if len(uses) == 1 and isinstance(rounding := uses[0][0], arith.TruncFOp):
        return rounding, [(use.operation, use.index) for use in rounding.result.uses]
    return load, uses


def left_factors(kernel: KernelOp) -> Iterator[tuple[Extent, int, int | None]]:
    """For each product in a loop along its sum, whose left factor is loaded there: how many rows that has, the bytes of
    a row in the type of the sum, and how many bytes rows are apart, None if they have to be packed in any case.
    """
    for dot in kernel.walk():
        load = dot.lhs.owner if isinstance(dot, DotOp) else None
        rounds = isinstance(load, arith.TruncFOp)
        load = load.input.owner if isinstance(load, arith.TruncFOp) else load
        if not isinstance(dot, DotOp) or not isinstance(load, LoadOp) or len(load.offsets) != 2:
            continue
        loop, kind = load.parent_op(), block_type(load.block)
        total, stride = types.shape(kind)[1], types.strides(kind)[0]
        if not isinstance(loop, scf.ForOp) or load.offsets[1] is not loop.body.block.args[0]:
            continue
        if isinstance(total, int) and isinstance(stride, int):
            wide, own = item_bytes(element(dot.accumulator)), item_bytes(kind.element_type)
            yield extents(load.result)[0], total * wide, stride * own if wide == own and not rounds else None
