"""Rotary position embedding: each half (or each member of a pair) is an expression of its own."""

from __future__ import annotations

from typing import Any

from forgec.ir import types
from forgec.ir.ops.composite import RopeOp
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, select
from forgec.passes.tiles.axes import Place, broadcast_place
from forgec.passes.tiles.kernel_builder import KernelBuilder, Tile
from forgec.passes.tiles.rule import computes
from forgec.runtime.symbolic import Extent, sym_max, sym_min


@computes(RopeOp)
def rope(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """``a · cos - b · sin`` and ``b · cos + a · sin``: which of them a place holds is known where the axis of features
    has been split into the members of pairs and is unrolled over them; else both are computed and one is selected.
    """
    dtype = types.dtype(op.result)
    count, first, features = op.rotated, op.first, types.shape(op.input)[-1]
    half, at = count // 2, place[-1] - first
    outside = first > 0 or count < features
    if not outside or k.axes.is_below(at, count):
        return cast(k, _rotated(k, op, place, at, half), dtype)
    through = cast(k, k.value(op.input, place), dtype)
    if k.axes.is_below(place[-1], first) or _is_outside(k, at, count, features - first):
        return through
    clamped = sym_max(0, sym_min(at, count - 1))
    turned = cast(k, _rotated(k, op, place, clamped, half), dtype)
    inside = k.both(
        compare(k, "ge", k.index(at), k.constant(0, "index")), compare(k, "lt", k.index(at), k.constant(count, "index"))
    )
    return select(k, inside, turned, through)


def _is_outside(k: KernelBuilder, at: Extent, count: int, end: int) -> bool:
    """True if a place is certain not to be rotated."""
    return (isinstance(at, int) and not 0 <= at < count) or k.axes.is_below(at - count, end - count)


def _rotated(k: KernelBuilder, op: RopeOp, place: Place, at: Extent, half: int) -> Tile:
    """What rotation makes of the pair at a place of the rotated features."""
    adjacent = op.interleaved is not None and op.to_halves is None
    if adjacent:  # places 2i and 2i + 1
        member, pair = _parts(k, at, 2, inner=True)
    else:
        member, pair = _parts(k, at, half, inner=False)
    if isinstance(member, int):
        return _turn(k, op, place, at, pair, member, half)
    halves = [_turn(k, op, place, at, pair, which, half) for which in (0, 1)]
    return select(k, compare(k, "eq", k.index(member), k.constant(0, "index")), *halves)


def _parts(k: KernelBuilder, at: Extent, divisor: int, inner: bool) -> tuple[Extent, Extent]:
    """Which member of a pair a place holds, and the pair's number."""
    if isinstance(at, int):
        quotient, rest = divmod(at, divisor)
    else:
        quotient, rest = k.axes.divide(at, divisor)
        for axis in k.axes.of(at):  # to be split and unrolled, where it is an axis of its own
            whole = 2 * divisor if not inner else axis.extent
            if at == axis.symbol and axis.extent == whole and not inner:
                k.splits.append((axis.name, divisor))
                k.unroll_splits.add((axis.name, divisor))
    return (rest, quotient) if inner else (quotient, rest)


def _turn(k: KernelBuilder, op: RopeOp, place: Place, at: Extent, pair: Extent, member: int, half: int) -> Tile:
    work, first = op.work_dtype, op.first
    if op.interleaved is not None:
        places = (2 * pair, 2 * pair + 1)
    else:
        places = (pair, pair + half)
    a, b = (cast(k, k.value(op.input, (*place[:-1], first + where)), work) for where in places)
    where = pair if op.once is not None else at
    table = (*place[:-1], where)
    cos, sin = (cast(k, k.value(v, broadcast_place(table, types.shape(v))), work) for v in (op.cos, op.sin))
    if member == 0:
        return apply(k, "sub", apply(k, "mul", a, cos), apply(k, "mul", b, sin))
    return apply(k, "add", apply(k, "mul", b, cos), apply(k, "mul", a, sin))
