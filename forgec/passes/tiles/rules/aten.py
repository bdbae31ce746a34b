"""Operators that have no op of their own but that kernels compute all the same."""

from __future__ import annotations

from math import prod
from typing import Any

from xdsl.builder import Builder
from xdsl.dialects import math
from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.ops.aten import AtenOp
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, made, number, work_dtype
from forgec.passes.tiles.axes import Axis, Place, unflattened
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.operators import settings
from forgec.passes.tiles.reads import inside, read_inside
from forgec.passes.tiles.rule import OPERATOR_EXPANSIONS, OPERATORS, computes, computes_operator, expands, of_operator
from forgec.passes.tiles.rules.pointwise import integer_power
from forgec.passes.tiles.rules.reduction import reduced
from forgec.runtime.plan import Reg
from forgec.runtime.symbolic import Extent, floordiv, mod


@computes_operator("aten::searchsorted.Tensor", "aten::bucketize.Tensor")
def searchsorted(k: KernelBuilder, op: AtenOp, place: Place) -> Tile:
    """How many elements of the row lie before a value, or with ``right`` not after it: the row is in order."""
    given = settings(op, "sorted values" if "searchsorted" in op.callee.data else "values sorted")
    right = given.get("side", "right" if given.get("right") else "left") == "right"
    if given.get("sorter") is not None or not isinstance(given["values"], Reg):
        raise NotLowered("searchsorted has a rule for rows that are in order themselves")
    row, wanted = op.inputs[given["sorted"].id], op.inputs[given["values"].id]
    shape, dtype = types.shape(row), types.result_dtype([row, wanted], [])
    value = cast(k, k.value(wanted, place), dtype)
    outer = place[:-1] if len(shape) > 1 else ()

    def element(axis: Axis) -> Tile:
        here = cast(k, k.value(row, (*outer, axis.symbol)), dtype)
        if dtype not in types.FLOATS:
            counts = compare(k, "le" if right else "lt", here, value)
        else:  # NaN comes last in a row, and goes last
            counts = apply(k, "xor", compare(k, "gt" if right else "ge", here, value), k.constant(True, "i1"))
        return cast(k, counts, "i64")

    return cast(k, reduced(k, "add", shape[len(shape) - 1], place, element), types.dtype(op.outputs[0]))


@computes_operator("aten::new_empty", "aten::empty.memory_format", "aten::empty_like")
def uninitialised(k: KernelBuilder, op: AtenOp, place: Place) -> Tile:
    """Memory in which nothing is written yet: zeros, so that runs are alike."""
    return number(k, 0, types.dtype(op.outputs[0]))


@computes_operator("aten::pad")
def pad(k: KernelBuilder, op: AtenOp, place: Place) -> Tile:
    """A number around the elements; fewer than none means that elements are left out."""
    given = settings(op, "input pad mode value")
    if given.get("mode", "constant") != "constant":
        raise NotLowered(f"{op.callee.data} has a rule for constant padding")
    value, places = op.inputs[0], list(place)
    conditions: list[Tile | None] = []
    for position, low in enumerate(given["pad"][::2]):
        dim = len(place) - 1 - position
        places[dim] = place[dim] - low
        if (low, given["pad"][2 * position + 1]) != (0, 0):
            conditions.append(inside(k, places[dim], types.shape(value)[dim]))
    return read_inside(k, value, tuple(places), k.every(conditions), given.get("value") or 0)


@computes_operator("aten::im2col")
def im2col(k: KernelBuilder, op: AtenOp, place: Place) -> Tile:
    """The elements under a kernel, one column for each of its places: [B, C · taps, places]."""
    given = settings(op, "input kernel_size dilation padding stride")
    value = op.inputs[0]
    shape = types.shape(value)
    *batch, row, column = place
    channel, *taps = unflattened(k.axes, row, (shape[-3], *given["kernel_size"]))
    steps = list(
        zip(shape[-2:], given["kernel_size"], given["dilation"], given["padding"], given["stride"], strict=True)
    )
    counts = [floordiv(n + 2 * p - d * (taken - 1) - 1, s) + 1 for n, taken, d, p, s in steps]
    spots = unflattened(k.axes, column, counts)
    places = [y * s + tap * d - p for y, tap, (_, _, d, p, s) in zip(spots, taps, steps, strict=True)]
    where = k.every([inside(k, at, extent) for at, extent in zip(places, shape[-2:], strict=True)])
    return read_inside(k, value, (*batch, channel, *places), where, 0)


@computes_operator("aten::col2im")
def col2im(k: KernelBuilder, op: AtenOp, place: Place) -> Tile:
    """Sums of the columns' elements that belong to a place: what ``im2col`` would read from there."""
    given = settings(op, "input output_size kernel_size dilation padding stride")
    value, size = op.inputs[0], given["output_size"]
    *batch, channel, row, column = place
    taps = given["kernel_size"]
    steps = list(zip(size, taps, given["dilation"], given["padding"], given["stride"], strict=True))
    counts = [floordiv(n + 2 * p - d * (taken - 1) - 1, s) + 1 for n, taken, d, p, s in steps]
    wide = work_dtype(types.dtype(value))

    def element(axis: Axis) -> Tile:
        tap = unflattened(k.axes, axis.symbol, taps)
        spots: list[Extent] = []
        conditions: list[Tile | None] = []
        for at, number_, count, (_, _, d, p, s) in zip((row, column), tap, counts, steps, strict=True):
            reached = at + p - number_ * d
            spot = reached if s == 1 else floordiv(reached, s)
            spots.append(spot)
            conditions.append(inside(k, spot, count))
            if s != 1:
                conditions.append(compare(k, "eq", k.index(mod(reached, s)), k.constant(0, "index")))
        source = (*batch, (channel * taps[0] + tap[0]) * taps[1] + tap[1], spots[0] * counts[1] + spots[1])
        return cast(k, read_inside(k, value, source, k.every(conditions), 0), wide)

    return cast(k, reduced(k, "add", prod(taps), place, element), types.dtype(op.outputs[0]))


@computes_operator("aten::pow.Scalar")
def power_of_number(k: KernelBuilder, op: AtenOp, place: Place) -> Tile:
    """A number to the power of each element."""
    given = settings(op, "self exponent")
    dtype = types.dtype(op.outputs[0])
    exponent = cast(k, k.value(op.inputs[0], place), dtype)
    if dtype in types.FLOATS:
        wide = work_dtype(dtype)
        return cast(k, made(k, math.PowFOp, number(k, float(given["self"]), wide), cast(k, exponent, wide)), dtype)
    return integer_power(k, number(k, given["self"], dtype), exponent, dtype)


@computes_operator("aten::einsum")
def einsum(k: KernelBuilder, op: AtenOp, place: Place) -> Tile:
    """The sum of products over the letters that the result lacks."""
    positional: Any = op.arguments[0]
    text, operands = positional[0], [op.inputs[each.id] for each in positional[1]]
    before, arrow, after = text.replace(" ", "").partition("->")
    parts = before.split(",")
    if not arrow or not all(part.isalpha() or not part for part in (*parts, after)) or len(set(after)) != len(after):
        raise NotLowered(f"einsum {text!r} has no rule")
    extents: dict[str, Extent] = {}
    for part, value in zip(parts, operands, strict=True):
        for letter, extent in zip(part, types.shape(value), strict=True):
            if extents.setdefault(letter, extent) != extent:
                raise NotLowered(f"einsum {text!r} repeats an axis of one place")
    dtype = types.dtype(op.outputs[0])
    wide = work_dtype(dtype)

    def summed(left: list[str], places: dict[str, Extent]) -> Tile:
        if left:
            outer = tuple(places.values())
            return reduced(
                k, "add", extents[left[0]], outer, lambda axis: summed(left[1:], {**places, left[0]: axis.symbol})
            )
        total: Tile | None = None
        for part, value in zip(parts, operands, strict=True):
            here = cast(k, k.value(value, tuple(places[letter] for letter in part)), wide)
            total = here if total is None else apply(k, "mul", *k.aligned(total, here))
        assert total is not None, "einsum has operands"
        return total

    rest = [letter for letter in dict.fromkeys("".join(parts)) if letter not in after]
    return cast(k, summed(rest, dict(zip(after, place, strict=True))), dtype)


@computes(AtenOp)
def operator(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    rule = of_operator(OPERATORS, op.callee.data)
    if rule is None:
        raise NotLowered(f"{op.callee.data} has no rule")
    return rule(k, op, place)


@expands(AtenOp)
def smaller(op: Any, builder: Builder) -> list[SSAValue]:
    """Operators that one kernel cannot compute, as smaller ops."""
    expansion = of_operator(OPERATOR_EXPANSIONS, op.callee.data)
    if expansion is None:
        raise NotLowered(f"{op.callee.data} has no rule")
    return expansion(op, builder)
