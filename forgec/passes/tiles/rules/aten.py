"""Operators that have no op of their own but that kernels compute all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forgec.ir import types
from forgec.ir.ops.module import AtenOp
from forgec.passes.tiles.arithmetic import cast, compare, number
from forgec.passes.tiles.axes import Axis, Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.rule import computes
from forgec.passes.tiles.rules.reduction import reduced
from forgec.runtime.plan import Reg


def _settings(op: AtenOp, names: tuple[str, ...]) -> dict[str, Any]:
    """The arguments by name; ``names`` are those of the positional ones, in order."""
    positional, keyword = op.arguments
    return {**dict(zip(names, positional, strict=False)), **dict(keyword)}


def searchsorted(k: KernelBuilder, op: AtenOp, place: Place) -> Tile:
    """How many elements of the row lie before a value, or with ``right`` not after it: the row is in order."""
    given = _settings(op, ("sorted", "values"))
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
            counts = _not(k, compare(k, "gt" if right else "ge", here, value))
        return cast(k, counts, "i64")

    return cast(k, reduced(k, "add", shape[-1], place, element), types.dtype(op.outputs[0]))


def _not(k: KernelBuilder, condition: Tile) -> Tile:
    from forgec.passes.tiles.arithmetic import binary

    return binary(k, "xor", condition, k.constant(True, "i1"))


def uninitialised(k: KernelBuilder, op: AtenOp, place: Place) -> Tile:
    """Memory in which nothing is written yet: zeros, so that runs are alike."""
    return number(k, 0, types.dtype(op.outputs[0]))


_CALLEES: dict[str, Callable[[KernelBuilder, AtenOp, Place], Tile]] = {
    "aten::searchsorted.Tensor": searchsorted,
    "aten::new_empty": uninitialised,
    "aten::empty.memory_format": uninitialised,
    "aten::empty_like": uninitialised,
}


@computes(AtenOp)
def operator(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    rule = _CALLEES.get(op.callee.data)
    if rule is None:
        raise NotLowered(f"{op.callee.data} has no rule")
    if any(types.dtype(value) in types.COMPLEX for value in (*op.operands, *op.results)):
        raise NotLowered("complex numbers have no tiles")
    return rule(k, op, place)
