"""Masks of attention as models compute them: from positions, from lengths, as numbers and as booleans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.ops import binary as b
from forgec.ir.ops import select
from forgec.ir.ops import unary as u
from forgec.ir.ops.attention import LEAST
from tests.fragments.author import FragmentAuthor


def kept(g: FragmentAuthor, rows: Any, columns: Any, past: Any) -> SSAValue:
    """Booleans [rows, columns] or [B, 1, rows, columns], true where a score is kept."""
    mask = _comparison(g, rows, columns, past)
    for _ in range(g.pick([0, 0, 0, 1, 1, 2])):
        other = g.pick([_comparison, _comparison, _padding])(g, rows, columns, past)
        cls = g.pick([b.LogicalAndOp, b.LogicalAndOp, b.BitwiseAndOp, b.LogicalOrOp, b.MulOp])
        mask = g.n(cls, mask, other)
    if g.one_in(6):
        mask = g.emit(u.LogicalNotOp, g.emit(u.LogicalNotOp, mask))
    return mask


def _comparison(g: FragmentAuthor, rows: Any, columns: Any, past: Any) -> SSAValue:
    """Causal, sliding windows, chunks and prefixes by positions, written in several ways; or a mask that is given."""
    if g.one_in(6):
        return g.given("i1", [rows, columns])
    if g.one_in(8):
        return _triangle(g, rows, columns)
    i = g.iota(rows, past) if g.one_in(2) else g.n(b.AddOp, g.iota(rows), past if isinstance(past, int) else 1)
    i, j = g.reshape(i, rows, 1), g.iota(columns)
    if g.one_in(3):
        j = g.reshape(j, 1, columns)
    if g.one_in(6):
        i, j = g.cast(i, "i32"), g.cast(j, "i32")
    size = g.integer(1, 4)
    choices: list[Callable[[], SSAValue]] = [
        lambda: g.emit(b.LeOp, j, i),
        lambda: g.emit(b.LeOp, j, i),
        lambda: g.emit(b.GeOp, i, j),
        lambda: g.emit(b.LtOp, j, g.n(b.AddOp, i, 1)),
        lambda: g.emit(u.LogicalNotOp, g.emit(b.GtOp, j, i)),
        lambda: g.n(b.GeOp, g.emit(b.SubOp, i, j), 0),
        lambda: g.n(b.LtOp, g.emit(b.SubOp, i, j), size),
        lambda: g.emit(b.GtOp, j, g.n(b.SubOp, i, size)),
        lambda: g.emit(b.LeOp, g.n(b.SubOp, i, size), j),
        lambda: g.n(b.LtOp, g.emit(u.AbsOp, g.emit(b.SubOp, i, j)), size),
        lambda: g.n(b.LeOp, g.emit(u.AbsOp, g.emit(b.SubOp, j, i)), size),
        lambda: g.emit(b.EqOp, g.n(b.FloorDivOp, i, size), g.n(b.FloorDivOp, j, size)),
        lambda: g.emit(b.GeOp, g.n(b.FloorDivOp, i, size), g.n(b.FloorDivOp, j, size)),
        lambda: g.n(b.LtOp, j, size),
        lambda: g.n(b.GeOp, i, size),
        lambda: g.emit(b.LtOp, j, i),
        lambda: g.emit(b.NeOp, j, i),
        lambda: g.emit(b.LeOp, g.n(b.MulOp, j, 2), i),
        lambda: g.n(b.EqOp, g.n(b.RemainderOp, g.emit(b.SubOp, i, j), size), 0),
    ]
    return g.pick(choices)()


def _triangle(g: FragmentAuthor, rows: Any, columns: Any) -> SSAValue:
    """``tril`` or ``triu`` of ones."""
    ones = g.full(True if g.one_in(2) else 1.0, g.pick(["i1", g.dtype]), [rows, columns])
    cls = g.pick([select.TrilOp, select.TrilOp, select.TriuOp])
    cut = g.emit(cls, ones, diagonal=ExtentAttr(g.integer(-1, 1)))
    return cut if types.dtype(cut) == "i1" else g.n(b.NeOp, cut, 0)


def _padding(g: FragmentAuthor, rows: Any, columns: Any, past: Any) -> SSAValue:
    """True for the columns [B, 1, 1, columns] that are no padding."""
    if g.one_in(2):
        mask = g.given("i1", [g.batch, columns])
    else:
        mask = g.n(b.NeOp, g.given("i64", [g.batch, columns]), 0)
    return g.reshape(mask, g.batch, 1, 1, columns)


def masked(g: FragmentAuthor, scores: SSAValue, mask: SSAValue) -> SSAValue:
    """Scores with a mask of booleans, in one of the ways in which models apply it."""
    dtype = types.dtype(scores)
    least = g.pick([-float("inf"), LEAST[dtype], LEAST[dtype], -1e9 if dtype != "f16" else -6e4, -3.0, LEAST["bf16"]])
    if dtype == "f16" and least < LEAST["f16"]:
        least = LEAST["f16"]
    way = g.integer(0, 5)
    if way == 0:
        return g.emit(select.WhereOp, mask, scores, g.full(least, dtype))
    if way == 1:
        dropped = g.emit(u.LogicalNotOp, mask)
        return g.emit(select.MaskedFillOp, scores, dropped, value=ScalarAttr.of(least))
    if way == 2 and least != -float("inf"):
        dropped = g.n(b.RsubOp, g.cast(mask, dtype), 1.0)
        return g.n(b.AddOp, scores, g.n(b.MulOp, dropped, least))
    return g.n(b.AddOp, scores, added(g, mask, dtype, least))


def added(g: FragmentAuthor, mask: SSAValue, dtype: str, least: float) -> SSAValue:
    """A mask of booleans as numbers to add: 0 where it is true."""
    if g.one_in(3):
        zeros = g.full(0.0, dtype, types.shape(mask) if g.one_in(2) else ())
        return g.emit(select.MaskedFillOp, zeros, g.emit(u.LogicalNotOp, mask), value=ScalarAttr.of(least))
    return g.emit(select.WhereOp, mask, g.full(0.0, dtype), g.full(least, dtype))


def numbers(g: FragmentAuthor, heads: Any, rows: Any, columns: Any) -> SSAValue:
    """Numbers that are added to scores: a bias that is given, in one of the shapes that broadcast."""
    shapes: list[Sequence[Any]] = [(rows, columns), (g.batch, 1, rows, columns), (heads, rows, columns), (columns,)]
    return g.given(g.dtype, g.pick(shapes))
