"""The elementwise ops of ``arith`` and ``math`` in Triton.

Floats of 16 and 8 bits are computed in float32 and rounded once, which gives what the op says. Where Triton's own
function is an approximation that is off by more than about 2 ulp, the exact one is called (``tl.div_rn``,
``libdevice.*``); fast-math flags are not used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from typing import Any

from xdsl.dialects import arith, math
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, FloatAttr, IndexType, IntegerAttr, IntegerType
from xdsl.ir import Attribute, Operation, SSAValue

from forgec.backends.triton.text import Level, Text, binary, call, joined, literal
from forgec.backends.triton.writer import Writer, refusal
from forgec.ir.tile.compute import BroadcastOp
from forgec.ir.tile.elementwise import ErfcOp, RemFOp
from forgec.ir.tile.types import INDEX, element, extents
from forgec.ir.types import ELEMENT_TYPES
from forgec.runtime.symbolic import Bounds

Rule = Callable[[Writer, Operation, list[Text]], Text]

NARROW = ("float16", "bfloat16", "float8e4nv", "float8e5")
_BOOLEAN = IntegerType(1)
_FLOAT32 = ELEMENT_TYPES["f32"]


def write(writer: Writer, op: Operation) -> bool:
    """Writes an elementwise op; False if it is none that is known."""
    rule = next((RULES[kind] for kind in type(op).__mro__ if kind in RULES), None)
    if rule is None:
        return False
    operands = [writer[operand] for operand in op.operands]
    if operands and all(operand.literal is not None for operand in operands):
        operands[0] = writer.typed(operands[0], element(op.operands[0]))
    writer.define(op.results[0], rule(writer, op, operands), op)
    return True


def float_cast(writer: Writer, text: Text, source: Attribute, target: Attribute) -> Text:
    """A float as one of another type, rounded to nearest even; what is too large becomes infinite, or NaN (e4m3fn)."""
    from_dtype, to_dtype = writer.dtype(source), writer.dtype(target)
    if from_dtype == to_dtype:
        return text
    if from_dtype == "float64" and to_dtype in ("bfloat16", *NARROW[2:]):  # no such instruction
        text, from_dtype = writer.cast(text, source, "float32"), "float32"
    if to_dtype in NARROW[2:]:
        if from_dtype != "float32":
            text = writer.cast(text, source, "float32")
        return call(writer.helper(f"to_{to_dtype}"), writer.typed(text, element(source)).code, shape=text.shape)
    if from_dtype in NARROW[2:] and to_dtype in ("float64", "bfloat16"):
        # To float64 there is no instruction; to bfloat16 Triton moves the bits, which makes 65536 of infinity.
        text, source = writer.cast(text, source, "float32"), _FLOAT32
    return writer.cast(text, element(source), to_dtype)


def _float(rule: Rule) -> Rule:
    """The rule with its narrow floats as float32, and its result narrow again."""

    def wrapped(writer: Writer, op: Operation, operands: list[Text]) -> Text:
        kind = element(op.operands[0])
        if writer.dtype(kind) not in NARROW:
            return rule(writer, op, operands)
        wide = [
            operand if operand.literal is not None or element(value) != kind else writer.cast(operand, kind, "float32")
            for operand, value in zip(operands, op.operands, strict=True)
        ]
        found = rule(writer, op, wide)
        result = element(op.results[0])
        if result != kind:
            return found
        dtype = writer.dtype(result)
        if dtype in NARROW[2:]:
            return call(writer.helper(f"to_{dtype}"), found.code, shape=found.shape)
        return Text(f"{found.at(Level.ATOM)}.to(tl.{dtype})", found.shape)

    return wrapped


def _operator(symbol: str) -> Rule:
    return lambda writer, op, operands: binary(symbol, *operands)


def _function(name: str) -> Rule:
    return lambda writer, op, operands: call(name, *(o.code for o in operands), shape=joined(*operands))


def _typed_function(name: str) -> Rule:
    """A function all of whose operands must be tensors of one dtype."""

    def rule(writer: Writer, op: Operation, operands: list[Text]) -> Text:
        typed = [_as_computed(writer, o, value) for o, value in zip(operands, op.operands, strict=True)]
        return call(name, *(o.code for o in typed), shape=joined(*typed))

    return rule


def _as_computed(writer: Writer, text: Text, value: SSAValue) -> Text:
    """A constant as a tensor of the dtype in which its op computes; other text as it is."""
    if text.literal is None and not text.plain:
        return text
    dtype = writer.dtype(value)
    if dtype in ("float32", *NARROW) and isinstance(text.literal, float) and _is_float32(text.literal):
        return text
    if dtype == "int32" and text.literal is not None:
        return text
    if dtype in NARROW:
        return call("tl.full", "()", text.code, "tl.float32")
    return writer.typed(text, element(value))


def _is_float32(value: float) -> bool:
    """True for numbers that Triton takes as float32 by itself: not for subnormal ones."""
    return value == 0.0 or not isfinite(value) or 2.0**-126 <= abs(value) <= 3.4028234663852886e38


def _by_width(rules: dict[str, Rule], other: Rule) -> Rule:
    """One rule for each dtype in which an op computes (after widening)."""

    def rule(writer: Writer, op: Operation, operands: list[Text]) -> Text:
        dtype = writer.dtype(op.operands[0])
        return rules.get("float32" if dtype in NARROW else dtype, other)(writer, op, operands)

    return rule


def _unsigned(rule: Rule, *, literals: bool = True) -> Rule:
    """The rule on operands as unsigned numbers; a result of the operands' type is signless again. ``literals``: the
    rule takes a constant as a number, whose type Triton derives from the other operand.
    """

    def wrapped(writer: Writer, op: Operation, operands: list[Text]) -> Text:
        kind = element(op.operands[0])
        dtype = writer.dtype(kind)
        if dtype == "int1":
            return rule(writer, op, operands)
        read = [
            o
            if literals and o.literal is not None and o.literal >= 0
            else writer.cast(o, kind, f"u{dtype}", bitcast=True)
            for o in operands
        ]
        found = rule(writer, op, read)
        if element(op.results[0]) != kind:
            return found
        return Text(f"{found.at(Level.ATOM)}.to(tl.{dtype}, bitcast=True)", found.shape)

    return wrapped


# Constants, comparisons, choices --------------------------------------------------------------------------------------


def _constant(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    assert isinstance(op, arith.ConstantOp)
    value, kind = op.value, element(op.result)
    if isinstance(value, DenseIntOrFPElementsAttr) and value.is_splat():
        number: Any = value.get_values()[0]
    elif isinstance(value, (IntegerAttr, FloatAttr)):
        number = value.value.data
    else:
        raise refusal(op, "a constant of a tile kernel is one number")
    return literal(bool(number) if kind == _BOOLEAN else number, kind)


_SIGNED = {0: "==", 1: "!=", 2: "<", 3: "<=", 4: ">", 5: ">="}
_ORDER = {2: "<", 3: "<=", 4: ">", 5: ">=", 6: "<", 7: "<=", 8: ">", 9: ">="}


def _cmpi(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    assert isinstance(op, arith.CmpiOp)
    predicate = op.predicate.value.data
    boolean = element(op.lhs) == _BOOLEAN
    if element(op.lhs) == INDEX and predicate in _DECIDED:
        known = _DECIDED[predicate](writer.ranges.of(op.lhs), writer.ranges.of(op.rhs))
        if known is not None:
            return literal(known)
    if predicate >= 6 and not boolean:
        return _unsigned(lambda w, o, texts: binary(_ORDER[predicate], *texts))(writer, op, operands)
    if boolean and predicate >= 2:  # as numbers: true is 1, or -1 where signed
        numbers = [writer.cast(operand, _BOOLEAN, "int32") for operand in operands]
        return binary(_ORDER[predicate], *(numbers if predicate >= 6 else reversed(numbers)))
    return binary(_SIGNED[predicate], *operands)


def _less(left: Bounds, right: Bounds) -> bool | None:
    """Whether all of the left are less than all of the right: True, certainly not: False, or None."""
    (low, high), (least, most) = left, right
    if high is not None and least is not None and high < least:
        return True
    return False if low is not None and most is not None and low >= most else None


def _not(known: bool | None) -> bool | None:
    return None if known is None else not known


_DECIDED: dict[int, Callable[[Bounds, Bounds], bool | None]] = {
    2: _less,
    3: lambda left, right: _not(_less(right, left)),
    4: lambda left, right: _less(right, left),
    5: lambda left, right: _not(_less(left, right)),
}
"""Orders of indices, by the numbers of arith.cmpi: slt, sle, sgt, sge."""


def _and(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    """Both; the other one where one is true by itself."""
    if element(op.operands[0]) == _BOOLEAN:
        for text, other in (operands, operands[::-1]):
            if text.literal is True:
                return other
    return _operator("&")(writer, op, operands)


def _cmpf(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    assert isinstance(op, arith.CmpfOp)
    left, right = operands
    predicate = op.predicate.value.data
    ordered = {1: "==", 2: ">", 3: ">=", 4: "<", 5: "<="}
    opposite = {9: "<=", 10: "<", 11: ">=", 12: ">"}  # unordered or greater: not (less or equal)
    if predicate in ordered:
        return binary(ordered[predicate], left, right)
    if predicate in opposite:
        return _negated(binary(opposite[predicate], left, right))
    match predicate:
        case 13:
            return binary("!=", left, right)
        case 6:
            return binary("|", binary("<", left, right), binary(">", left, right))
        case 8:
            return _negated(binary("|", binary("<", left, right), binary(">", left, right)))
        case 7:
            return binary("&", binary("==", left, left), binary("==", right, right))
        case 14:
            return binary("|", binary("!=", left, left), binary("!=", right, right))
    return literal(predicate == 15)


def _negated(text: Text) -> Text:
    return Text(f"~{text.at(Level.UNARY)}", text.shape, Level.UNARY)


def _select(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    condition, left, right = operands
    if (left.literal is not None and right.literal is not None) or writer.dtype(op.operands[1]) in NARROW:
        left, right = (writer.typed(text, element(op.results[0])) for text in (left, right))
    return call("tl.where", condition.code, left.code, right.code, shape=joined(condition, left, right))


def _xori(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    for text, other in (operands, operands[::-1]):
        if text.literal is True:
            return _negated(other)
    return binary("^", *operands)


# Numbers --------------------------------------------------------------------------------------------------------------


def _negf(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    return binary("*", operands[0], literal(-1.0))  # Triton's -x is 0 - x, which loses the sign of zero


def _mulf(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    """A product of ``a[:, :, None]`` and ``b[None, :, :]`` has ``b`` in front: if it is summed, Triton makes a
    ``tl.dot`` of it otherwise, which rounds float32 to tf32 and is wrong where it sums fewer than 8 elements.
    """
    if _last_new_axis(op.operands[0]) == 2 and _last_new_axis(op.operands[1]) == 0:
        operands = operands[::-1]
    return binary("*", *operands)


def _last_new_axis(value: SSAValue) -> int | None:
    """The last axis that the broadcast that makes a tile adds; None where there is no such broadcast or axis."""
    if not isinstance(value.owner, BroadcastOp):
        return None
    new = set(range(len(extents(value)))) - set(value.owner.along.data)
    return max(new) if new else _last_new_axis(value.owner.input)


def _floordivsi(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    return call(writer.helper("floor_div"), *(o.code for o in operands), shape=joined(*operands))


def _ceildivsi(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    return call(writer.helper("ceil_div"), *(o.code for o in operands), shape=joined(*operands))


def _ceildivui(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    left, right = operands
    more = Text(f"({binary('!=', binary('%', left, right), literal(0)).code}).to({left.at(Level.ATOM)}.dtype)")
    return binary("+", binary("//", left, right), replace(more, shape=joined(left, right)))


def _boolean(other: Rule, symbol: str) -> Rule:
    """Arithmetic modulo 2 on booleans."""
    return lambda w, op, texts: binary(symbol, *texts) if element(op.operands[0]) == _BOOLEAN else other(w, op, texts)


def _extrema(function: str, on_boolean: str) -> Rule:
    def rule(writer: Writer, op: Operation, operands: list[Text]) -> Text:
        if element(op.operands[0]) == _BOOLEAN:
            return binary(on_boolean, *operands)
        if writer.dtype(op.operands[0]) in ("int8", "int16", "int32", "int64"):
            return _typed_function(f"tl.{function}")(writer, op, operands)
        raise refusal(op, f"Triton has no {function} of {element(op.operands[0])}")

    return rule


def _copysign(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    """Of narrow floats by their bits: what widens a NaN on a GPU forgets its sign."""
    kind = element(op.operands[0])
    dtype = writer.dtype(kind)
    if dtype not in NARROW:
        return _typed_function("libdevice.copysign")(writer, op, operands)
    width = 8 if dtype in NARROW[2:] else 16
    size, sign = (writer.cast(operand, kind, f"int{width}", bitcast=True) for operand in operands)
    size = binary("&", size, literal((1 << (width - 1)) - 1))
    found = binary("|", size, binary("&", sign, literal(-(1 << (width - 1)))))
    return Text(f"({found.code}).to(tl.{dtype}, bitcast=True)", found.shape)


def _propagating(function: str) -> Rule:
    return lambda writer, op, operands: _typed_function(writer.helper(function))(writer, op, operands)


def _powi(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    dtype = writer.dtype(op.operands[0])
    kind = element(op.operands[1])
    power = writer.cast(operands[1], kind, "float64" if dtype == "float64" else "float32")
    base = _as_computed(writer, operands[0], op.operands[0])
    return call("libdevice.pow", base.code, power.code, shape=joined(base, power))


# Casts ----------------------------------------------------------------------------------------------------------------


def _float_cast(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    return float_cast(writer, operands[0], element(op.operands[0]), element(op.results[0]))


def _from_integer(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    """From integers to floats and to wider integers: a boolean that is signed is -1."""
    source, target = element(op.operands[0]), element(op.results[0])
    dtype = writer.dtype(target)
    unsigned = isinstance(op, (arith.UIToFPOp, arith.ExtUIOp))
    text = _read_as(writer, operands[0], source, unsigned=unsigned)
    if dtype in NARROW:
        found = Text(f"{text.at(Level.ATOM)}.to(tl.float32)", text.shape)
        if dtype in NARROW[2:]:
            found = call(writer.helper(f"to_{dtype}"), found.code, shape=text.shape)
        else:
            found = Text(f"{found.code}.to(tl.{dtype})", text.shape)
    else:
        found = Text(f"{text.at(Level.ATOM)}.to(tl.{dtype})", text.shape)
    if source == _BOOLEAN and not unsigned:
        return binary("*", found, literal(-1 if isinstance(op, arith.ExtSIOp) else -1.0))
    return found


def _read_as(writer: Writer, text: Text, kind: Attribute, *, unsigned: bool) -> Text:
    """An integer whose highest bit is a sign, or is not."""
    text = writer.typed(text, kind)
    if kind == _BOOLEAN or not unsigned:
        return text
    return writer.cast(text, kind, f"u{writer.dtype(kind)}", bitcast=True)


def _to_integer(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    """Towards zero; what does not fit becomes the nearest that does, and NaN becomes 0."""
    source, target = element(op.operands[0]), element(op.results[0])
    text, dtype = writer.typed(operands[0], source), writer.dtype(target)
    if writer.dtype(source) in NARROW:
        text = writer.cast(text, source, "float32")
    unsigned = isinstance(op, arith.FPToUIOp)
    if target == _BOOLEAN:
        return binary(">=", text, literal(1.0)) if unsigned else binary("<=", text, literal(-1.0))
    width = int(dtype.removeprefix("uint").removeprefix("int"))
    low, high = (0, 1 << width) if unsigned else (-(1 << (width - 1)), 1 << (width - 1))
    wanted = f"{'u' if unsigned else ''}int{width}"
    found = call(
        writer.helper("to_integer"), text.code, str(float(low)), str(float(high)), str(low), str(high - 1),
        f"tl.{wanted}", shape=text.shape,
    )  # fmt: skip
    return found if dtype == wanted else Text(f"{found.code}.to(tl.{dtype}, bitcast=True)", text.shape)


def _trunci(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    source, target = element(op.operands[0]), element(op.results[0])
    if target == _BOOLEAN:
        return binary("!=", binary("&", operands[0], literal(1)), literal(0))
    return writer.cast(operands[0], source, writer.dtype(target))


def _index_cast(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    source, target = element(op.operands[0]), element(op.results[0])
    text = operands[0]
    if text.literal is not None:
        return literal(int(text.literal))
    if source == _BOOLEAN:
        return binary("*", writer.cast(text, source, writer.dtype(target)), literal(-1))
    if writer.dtype(source) == writer.dtype(target) and not text.plain:
        return text
    if writer.dtype(source) == "int64" and isinstance(target, IndexType):
        return call(writer.helper("to_place"), text.code, shape=text.shape)
    return writer.cast(text, source, writer.dtype(target))


def _bitcast(writer: Writer, op: Operation, operands: list[Text]) -> Text:
    source, target = element(op.operands[0]), element(op.results[0])
    return writer.cast(operands[0], source, writer.dtype(target), bitcast=True)


_DEVICE = {
    math.AcosOp: "acos", math.AcoshOp: "acosh", math.AsinOp: "asin", math.AsinhOp: "asinh", math.AtanOp: "atan",
    math.AtanhOp: "atanh", math.Atan2Op: "atan2", math.CbrtOp: "cbrt",
    math.CoshOp: "cosh", math.SinhOp: "sinh", math.TanOp: "tan", math.TanhOp: "tanh", math.ExpM1Op: "expm1",
    math.Log10Op: "log10", math.Log1pOp: "log1p", math.PowFOp: "pow", math.RoundOp: "round",
    math.RoundEvenOp: "rint", math.TruncOp: "trunc", math.ErfOp: "erf", ErfcOp: "erfc",
    RemFOp: "fmod",
}  # fmt: skip

RULES: dict[type[Operation], Rule] = {
    arith.ConstantOp: _constant,
    arith.CmpiOp: _cmpi,
    arith.CmpfOp: _float(_cmpf),
    arith.SelectOp: _select,
    arith.AddiOp: _boolean(_operator("+"), "^"),
    arith.SubiOp: _boolean(_operator("-"), "^"),
    arith.MuliOp: _boolean(_operator("*"), "&"),
    arith.DivSIOp: _operator("//"),
    arith.RemSIOp: _operator("%"),
    arith.DivUIOp: _unsigned(_operator("//")),
    arith.RemUIOp: _unsigned(_operator("%")),
    arith.FloorDivSIOp: _floordivsi,
    arith.CeilDivSIOp: _ceildivsi,
    arith.CeilDivUIOp: _unsigned(_ceildivui, literals=False),
    arith.AndIOp: _and,
    arith.OrIOp: _operator("|"),
    arith.XOrIOp: _xori,
    arith.ShLIOp: _operator("<<"),
    arith.ShRSIOp: _operator(">>"),
    arith.ShRUIOp: _unsigned(_operator(">>")),
    arith.MinSIOp: _extrema("minimum", "|"),
    arith.MaxSIOp: _extrema("maximum", "&"),
    arith.MinUIOp: _unsigned(_extrema("minimum", "&"), literals=False),
    arith.MaxUIOp: _unsigned(_extrema("maximum", "|"), literals=False),
    arith.AddfOp: _float(_operator("+")),
    arith.SubfOp: _float(_operator("-")),
    arith.MulfOp: _float(_mulf),
    arith.DivfOp: _float(_by_width({"float64": _operator("/")}, _typed_function("tl.div_rn"))),
    arith.NegfOp: _float(_negf),
    arith.MaximumfOp: _float(_propagating("maximum")),
    arith.MinimumfOp: _float(_propagating("minimum")),
    arith.MaxnumfOp: _float(_typed_function("tl.maximum")),
    arith.MinnumfOp: _float(_typed_function("tl.minimum")),
    arith.BitcastOp: _bitcast,
    arith.IndexCastOp: _index_cast,
    arith.FPToSIOp: _to_integer,
    arith.FPToUIOp: _to_integer,
    arith.SIToFPOp: _from_integer,
    arith.UIToFPOp: _from_integer,
    arith.ExtSIOp: _from_integer,
    arith.ExtUIOp: _from_integer,
    arith.TruncIOp: _trunci,
    arith.ExtFOp: _float_cast,
    arith.TruncFOp: _float_cast,
    math.AbsFOp: _float(_function("tl.abs")),
    math.AbsIOp: _function("tl.abs"),
    math.CeilOp: _float(_function("tl.ceil")),
    math.FloorOp: _float(_function("tl.floor")),
    math.ExpOp: _float(_function("tl.exp")),
    math.Exp2Op: _float(_function("tl.exp2")),
    math.LogOp: _float(_function("tl.log")),
    math.Log2Op: _float(_function("tl.log2")),
    math.SinOp: _float(_function("tl.sin")),
    math.CosOp: _float(_function("tl.cos")),
    math.RsqrtOp: _float(_function("tl.rsqrt")),
    math.SqrtOp: _float(_by_width({"float64": _function("tl.sqrt")}, _function("tl.sqrt_rn"))),
    math.CopySignOp: _copysign,
    math.FmaOp: _float(_typed_function("tl.fma")),
    math.FPowIOp: _float(_powi),
    **{op: _float(_typed_function(f"libdevice.{name}")) for op, name in _DEVICE.items()},
}
