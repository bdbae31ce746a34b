"""Products, reductions, scans, and changes of form in Triton."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod

from xdsl.dialects import arith
from xdsl.dialects.builtin import IntegerType

from forgec.backends.triton.elementwise import NARROW, float_cast
from forgec.backends.triton.text import Level, Text, binary, call, literal
from forgec.backends.triton.writer import MAX_TILE_ELEMENTS, Writer, refusal
from forgec.ir.tile.compute import BroadcastOp, DotOp, IndexOp, PadOp, RangeOp, ReduceOp, ScanOp, TransposeOp
from forgec.ir.tile.kernel import ProgramIdOp
from forgec.ir.tile.memory import LoadOp, StoreOp, ViewOp
from forgec.ir.tile.types import element, extents
from forgec.ir.types import ELEMENT_TYPES
from forgec.runtime.symbolic import substitute

_F32 = ELEMENT_TYPES["f32"]
_BOOLEAN = IntegerType(1)


def program_id(writer: Writer, op: ProgramIdOp) -> None:
    """The grid of a launch has one axis, so that no axis is limited to 65535: places on it are divided here."""
    axis, grid = op.axis.data, writer.kernel.grid.data
    if grid[axis] == 1:
        writer.set(op.result, literal(0))
        return
    if "program" not in writer.programs:
        wish = op.result.name_hint or "m" if len(grid) == 1 else "program"
        text = call("tl.program_id", "0")
        if writer.index == "int64":
            text = Text(f"{text.code}.to(tl.int64)")
        writer.programs["program"] = writer.named(wish, text, op)
    found = writer.programs["program"]
    inner = prod(grid[axis + 1 :], start=1)
    if inner != 1:
        found = binary("//", found, writer.expression(inner))
    if axis != 0:
        found = binary("%", found, writer.expression(grid[axis]))
    if found.level is Level.ATOM:
        writer.set(op.result, found)
    else:
        writer.define(op.result, found, op, f"program_{axis}", inline=False)


def index(writer: Writer, op: IndexOp) -> None:
    names = writer.symbols()
    given = {f"p{number}": writer[operand] for number, operand in enumerate(op.inputs)}
    numbers = {name: text.literal for name, text in given.items() if type(text.literal) is int}
    found = substitute(op.expression.data, numbers)
    text = writer.expression(found, {**names, **given}, writer.ranges.expression(op))
    writer.define(op.result, text, op, _wish(op))


def _wish(op: IndexOp) -> str:
    """A name that says what an index is for, by what uses it first."""
    if extents(op.result):
        return "pos"
    for use in op.result.uses:
        user = use.operation
        if isinstance(user, ViewOp):
            return "offset"
        if isinstance(user, (LoadOp, StoreOp)) and len(user.offsets) > 1:
            from_the_end = len(user.operands) - 1 - use.index
            return ("first_col", "first_row")[from_the_end] if from_the_end < 2 else "first"
        if isinstance(user, (LoadOp, StoreOp)):
            return "first"
        spread = next(iter(user.results[0].uses), None) if isinstance(user, BroadcastOp) else use
        if spread is not None and isinstance(spread.operation, arith.CmpiOp) and spread.index == 1:
            return "end"
    return "place"


def range_(writer: Writer, op: RangeOp) -> None:
    extent = extents(op.result)[0]
    size = writer.number(extent)
    text = call("tl.arange", "0", writer.extent_code(extent), shape=(size,))
    if writer.index == "int64":
        text = Text(f"{text.code}.to(tl.int64)", text.shape)
    writer.define(op.result, text, op, "steps", inline=False)


def broadcast(writer: Writer, op: BroadcastOp) -> None:
    text = writer[op.input]
    found = text.subscript(op.along.data, len(extents(op.result)))
    if text.level is Level.ATOM:
        writer.set(op.result, found)
    else:
        writer.define(op.result, found, op)


def transpose(writer: Writer, op: TransposeOp) -> None:
    text, permutation = writer[op.input], op.permutation.data
    if not text.shape or list(permutation) == sorted(permutation):
        writer.set(op.result, text)
        return
    shape = tuple(text.shape[axis] for axis in permutation)
    if len(shape) == 2:
        found = call("tl.trans", text.code, shape=shape)
    else:
        found = call("tl.permute", text.code, str(tuple(permutation)), shape=shape)
    writer.define(op.result, found, op)


def pad(writer: Writer, op: PadOp) -> None:
    shape = writer.shape(op.result)
    rank = len(shape)
    text, kind = writer[op.input], element(op.result)
    if not shape:
        writer.set(op.result, text)
        return
    conditions = []
    for axis, (offset, extent, bound) in enumerate(
        zip(op.offsets, extents(op.result), op.bounds.data, strict=True)
    ):  # fmt: skip
        most = writer.ranges.of(offset)[1]
        limit = writer.ranges.extent(bound)[0]
        if most is not None and limit is not None and most + shape[axis] <= limit:
            continue
        place = writer.places(writer[offset], extent, axis, rank)
        condition = writer.inside(place, offset, shape[axis], bound, axis, rank, low=False)
        if condition is not None:
            conditions.append(condition)
    mask = writer.mask(conditions)
    if mask is None:
        writer.set(op.result, text)
        return
    dtype = writer.dtype(op.result)
    other = literal(writer.element_of(kind, op.other.value), kind)
    if text.literal is not None:
        text = writer.typed(text, kind)
    if dtype in NARROW[2:]:
        other = float_cast(writer, call("tl.full", "()", other.code, "tl.float32"), _F32, kind)
    elif dtype in NARROW or other.code == "-0.0":
        other = writer.typed(other, kind)
    shape = tuple(max(a, b) for a, b in zip(text.shape or (1,) * rank, mask.shape or (1,) * rank, strict=True))
    found = call("tl.where", mask.code, text.code, other.code, shape=shape if text.shape or mask.shape else ())
    writer.define(op.result, found, op)


# Products -------------------------------------------------------------------------------------------------------------


def dot(writer: Writer, op: DotOp) -> None:
    """``tl.dot`` where it computes what the op says, else the sum of a product with three axes."""
    left, right = (writer.full(writer[o], o.type) for o in (op.lhs, op.rhs))
    kind, total = writer.dtype(op.lhs), writer.dtype(op.accumulator)
    transposed = op.transposed is not None
    rows, depth = writer.shape(op.lhs)
    columns = writer.shape(op.result)[1]
    result = (rows, columns)
    accumulator = writer[op.accumulator]
    starts_at_zero = accumulator.literal == 0 and accumulator.literal is not None
    if op.rows and op.band is None:
        left = _within_rows(writer, op, left, rows)
    if op.band is not None and op.band.data == "sum":
        right = _read_in_band(writer, op, right, rows, depth)
    if kind in NARROW[2:]:  # exact in float16; the tensor cores would add float8 products with too few bits
        left, right = (writer.cast(text, element(op.lhs), "float16") for text in (left, right))
        kind = "float16"
    floats = kind in ("float16", "bfloat16", "float32") and total == "float32" and depth >= 16
    doubles = kind == total == "float64" and depth >= 16
    integers = kind == "int8" and total in ("int32", "int64") and depth >= 32
    if floats or doubles or integers:
        second = _turned(right) if transposed else right
        options = [f'input_precision="{op.precision.data}"'] if kind == "float32" else []
        if integers:
            options.append("out_dtype=tl.int32")
        if doubles:
            options.append("out_dtype=tl.float64")
        if not starts_at_zero and total != "int64":
            accumulator = writer.full(accumulator, op.accumulator.type)
            found = call("tl.dot", left.code, second.code, accumulator.code, *options, shape=result)
        else:
            found = call("tl.dot", left.code, second.code, *options, shape=result)
            if total == "int64":
                found = Text(f"{found.code}.to(tl.int64)", result)
            if not starts_at_zero:
                found = binary("+", accumulator, found)
    else:
        if rows * columns * depth > MAX_TILE_ELEMENTS:
            raise refusal(op, f"a product of {element(op.lhs)} of {rows}x{depth}x{columns} is too large for Triton")
        found = _summed_product(writer, op, left, right, kind, transposed)
        if not starts_at_zero:
            found = binary("+", accumulator, found)
    writer.define(op.result, replace(found, shape=result), op, "product")


def _within_rows(writer: Writer, op: DotOp, left: Text, rows: int) -> Text:
    """Zeros for the rows that are not added to."""
    first, last = (writer[place].at(Level.SUM) for place in op.rows)
    mask = f"((tl.arange(0, {rows}) >= {first}) & (tl.arange(0, {rows}) < {last}))[:, None]"
    return call("tl.where", mask, left.code, "0", shape=left.shape)


def _read_in_band(writer: Writer, op: DotOp, right: Text, rows: int, depth: int) -> Text:
    """Zeros for what no row's band has: 0 · NaN would be NaN."""
    low, high = (writer[place].at(Level.SUM) for place in op.rows)
    steps = f"tl.arange(0, {depth})"
    mask = f"(({steps} >= {low}) & ({steps} < {high} + {rows - 1}))"
    along = "[None, :]" if op.transposed is not None else "[:, None]"
    return call("tl.where", mask + along, right.code, "0", shape=right.shape)


def _turned(text: Text) -> Text:
    """A transpose; of a transpose, what it was made of."""
    inner = re.fullmatch(r"tl\.trans\((\w+)\)", text.code)
    return Text(inner.group(1) if inner else f"{text.at(Level.ATOM)}.T", text.shape[::-1])


def _summed_product(writer: Writer, op: DotOp, left: Text, right: Text, kind: str, transposed: bool) -> Text:
    total = writer.dtype(op.accumulator)
    parts = []
    for text in (left, right):
        parts.append(text if kind == total else Text(f"{text.at(Level.ATOM)}.to(tl.{total})", text.shape))
    if transposed:  # [m, n, k]
        product = binary("*", parts[0].subscript((0, 2), 3), parts[1].subscript((1, 2), 3))
        axis = "axis=2"
    else:  # [m, k, n]; the other way round Triton makes a tl.dot of it again (see ``elementwise._mulf``)
        product = binary("*", parts[1].subscript((1, 2), 3), parts[0].subscript((0, 1), 3))
        axis = "axis=1"
    found = call("tl.sum", product.code, axis)
    # tl.sum widens small integers
    return found if total not in ("int8", "int16") else Text(f"{found.code}.to(tl.{total})")


# Reductions and scans -------------------------------------------------------------------------------------------------


def reduce(writer: Writer, op: ReduceOp) -> None:
    text = writer.full(writer[op.input], op.input.type)
    kind, dtype = op.kind.data, writer.dtype(op.input)
    axis = op.axis.data
    shape = text.shape[:axis] + text.shape[axis + 1 :]
    place = f"axis={axis}"
    if text.shape[axis] == 1 and not kind.startswith("arg") and len(text.shape) > 1:
        found = call("tl.reshape", text.code, f"({', '.join(map(str, shape))},)")
    elif kind.startswith("arg"):
        found = _first(writer, op, text, kind)
    elif dtype == "int1":
        if kind == "add":
            raise refusal(op, "booleans are not added")
        found = _boolean_reduction(writer, text, kind, place)
    else:
        found = _reduction(writer, text, kind, dtype, place)
    writer.define(op.result, replace(found, shape=shape), op, _NAMES[kind])


_NAMES = {
    "add": "total", "mul": "product", "max": "largest", "maxnum": "largest", "min": "smallest", "and": "all_of",
    "or": "any_of", "argmax": "place", "argmin": "place",
}  # fmt: skip


def _reduction(writer: Writer, text: Text, kind: str, dtype: str, place: str) -> Text:
    floats = "float" in dtype
    narrow = dtype in NARROW or dtype in ("int8", "int16")
    wide = "float32" if floats else "int32"
    if narrow:
        text = Text(f"{text.at(Level.ATOM)}.to(tl.{wide})", text.shape)
    match kind:
        case "add":
            found = call("tl.sum", text.code, place)
        case "maxnum":
            found = call("tl.max", text.code, place)
        case "max" | "min" if not floats:
            found = call(f"tl.{kind}", text.code, place)
        case _:
            function = {
                "mul": "multiply", "max": "maximum", "min": "minimum", "and": "bitwise_and", "or": "bitwise_or"
            }[kind]  # fmt: skip
            found = call("tl.reduce", text.code, place, f"combine_fn={writer.helper(function)}")
    if not narrow:
        return found
    if dtype in NARROW[2:]:
        return call(writer.helper(f"to_{dtype}"), found.code)
    return Text(f"{found.code}.to(tl.{dtype})")


def _boolean_reduction(writer: Writer, text: Text, kind: str, place: str) -> Text:
    function = "min" if kind in ("and", "mul", "min") else "max"
    reduced = call(f"tl.{function}", writer.cast(text, _BOOLEAN, "int32").code, place)
    return binary("!=", reduced, literal(0))


def _first(writer: Writer, op: ReduceOp, text: Text, kind: str) -> Text:
    if writer.dtype(op.input) in (*NARROW, "int1", "int8", "int16"):
        wide = "float32" if "float" in writer.dtype(op.input) else "int32"
        text = writer.cast(text, element(op.input), wide)
    axis, rank = op.axis.data, len(text.shape)
    steps = call("tl.arange", "0", writer.extent_code(extents(op.input)[axis]), shape=(text.shape[axis],))
    places = steps.subscript([axis], rank)
    if places.shape != text.shape:
        places = call("tl.broadcast_to", places.code, writer.shape_code(op.input.type))
    function = writer.helper("first_largest" if kind == "argmax" else "first_smallest")
    pair = Text(f"({text.code}, {places.code})")
    found = Text(f"{call('tl.reduce', pair.code, f'axis={axis}', f'combine_fn={function}').code}[1]")
    return Text(f"{found.code}.to(tl.int64)") if writer.index == "int64" else found


def scan(writer: Writer, op: ScanOp) -> None:
    text = writer.full(writer[op.input], op.input.type)
    shape, kind, dtype = text.shape, op.kind.data, writer.dtype(op.input)
    narrow = dtype in NARROW or dtype in ("int8", "int16", "int1")
    floats = "float" in dtype
    if narrow:
        text = writer.cast(text, element(op.input), "float32" if floats else "int32")
    place = f"axis={op.axis.data}"
    if dtype == "int1" and kind == "add":
        raise refusal(op, "booleans are not added")
    match kind:
        case "add":
            found = call("tl.cumsum", text.code, place)
        case "mul":
            found = call("tl.cumprod", text.code, place)
        case _:
            function = "maximum" if kind == "max" else "minimum"
            found = call("tl.associative_scan", text.code, place, f"combine_fn={writer.helper(function)}")
    if dtype == "int1":
        found = binary("!=", found, literal(0))
    elif dtype in NARROW[2:]:
        found = call(writer.helper(f"to_{dtype}"), found.code)
    elif narrow:
        found = Text(f"{found.code}.to(tl.{dtype})")
    writer.define(op.result, replace(found, shape=shape), op, "running")
