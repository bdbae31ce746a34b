"""Pointwise ops: of one operand, of two, and those that choose."""

from __future__ import annotations

import math as numbers
from collections.abc import Callable
from typing import Any

from xdsl.dialects import arith, math
from xdsl.ir import Operation

from forgec.diagnostics import ZERO_DIVISOR
from forgec.ir import types
from forgec.ir.ops import activation, binary, select, unary
from forgec.ir.tile import elementwise
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, made, number, work_dtype
from forgec.passes.tiles.arithmetic import select as choose
from forgec.passes.tiles.arithmetic import unary as function
from forgec.passes.tiles.axes import Place, broadcast_place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.rule import computes


def operand(k: KernelBuilder, value: Any, place: Place) -> Tile:
    """An operand that broadcasts to the result, at a place of the result."""
    return k.value(value, broadcast_place(place, types.shape(value)))


# Two operands

_NAMES = {
    binary.AddOp: "add", binary.SubOp: "sub", binary.MulOp: "mul", binary.MaximumOp: "max", binary.MinimumOp: "min",
    binary.BitwiseAndOp: "and", binary.BitwiseOrOp: "or", binary.BitwiseXorOp: "xor", binary.DivOp: "div",
    binary.RsubOp: "sub",
}  # fmt: skip
_COMPARISONS = {
    binary.EqOp: "eq", binary.NeOp: "ne", binary.LtOp: "lt", binary.LeOp: "le", binary.GtOp: "gt", binary.GeOp: "ge"
}  # fmt: skip


def _operands(k: KernelBuilder, op: Any, place: Place, dtype: str) -> tuple[Tile, Tile]:
    """Both operands in the dtype in which the op computes. A number that is the second operand keeps float32's
    precision (float64's) in half precision, as in torch.
    """
    left = cast(k, operand(k, op.lhs, place), dtype)
    if op.rhs is not None:
        return left, cast(k, operand(k, op.rhs, place), dtype)
    return left, number(k, op.scalar.value, dtype)


@computes(*_NAMES)
def arithmetic(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)
    wide = work_dtype(dtype) if op.scalar is not None else dtype  # the number is not rounded to half precision
    left, right = _operands(k, op, place, wide)
    if isinstance(op, binary.RsubOp):
        left, right = right, left
    return cast(k, apply(k, _NAMES[type(op)], left, right), dtype)


@computes(*_COMPARISONS)
def comparison(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    scalars = [] if op.scalar is None else [op.scalar.value]
    dtype = types.result_dtype(op.operands, scalars)
    left, right = _operands(k, op, place, work_dtype(dtype) if op.scalar is not None else dtype)
    return compare(k, _COMPARISONS[type(op)], left, right)


@computes(binary.LogicalAndOp, binary.LogicalOrOp, binary.LogicalXorOp)
def logical(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    left = cast(k, operand(k, op.lhs, place), "i1")
    if op.rhs is None:
        right = k.constant(bool(op.scalar.value), "i1")
    else:
        right = cast(k, operand(k, op.rhs, place), "i1")
    name = {binary.LogicalAndOp: "and", binary.LogicalOrOp: "or", binary.LogicalXorOp: "xor"}[type(op)]
    return apply(k, name, left, right)


@computes(binary.FloorDivOp, binary.RemainderOp, binary.FmodOp)
def division(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)
    if dtype == "i1":
        raise NotLowered("booleans do not divide")
    if dtype in types.FLOATS:
        wide = work_dtype(dtype)
        left, right = _operands(k, op, place, wide)
        return cast(k, _float_division(k, op, left, right), dtype)
    left, right = _operands(k, op, place, dtype)
    within = k.inside(right.axes)
    if within is not None:  # what is beyond the extents was not read
        right = choose(k, within, right, k.constant(1, dtype))
    k.check(compare(k, "ne", right, k.constant(0, dtype)), ZERO_DIVISOR)
    if dtype == "ui8":
        if isinstance(op, binary.FloorDivOp):
            return made(k, arith.DivUIOp, left, right)
        return made(k, arith.RemUIOp, left, right)
    # the least number divided by -1 overflows, which traps: a division by -1 is a negation
    zero, ones = k.constant(0, dtype), k.constant(-1, dtype)
    minus = compare(k, "eq", right, ones)
    safe = choose(k, minus, k.constant(1, dtype), right)
    rest = choose(k, minus, zero, made(k, arith.RemSIOp, left, safe))
    if isinstance(op, binary.FmodOp):
        return rest
    negative = compare(k, "lt", apply(k, "xor", rest, right), zero)
    uneven = apply(k, "and", compare(k, "ne", rest, zero), negative)
    if isinstance(op, binary.RemainderOp):
        return choose(k, uneven, apply(k, "add", rest, right), rest)
    quotient = choose(k, minus, apply(k, "sub", zero, left), made(k, arith.DivSIOp, left, safe))
    return choose(k, uneven, apply(k, "sub", quotient, k.constant(1, dtype)), quotient)


def _float_division(k: KernelBuilder, op: Any, left: Tile, right: Tile) -> Tile:
    """torch's: ``div_floor_floating`` of c10 for floor_divide, ``fmod`` and ``remainder`` with the exact remainder."""
    rest = made(k, elementwise.RemFOp, left, right)
    if isinstance(op, binary.FmodOp):
        return rest
    zero, half, one = (number(k, value, left.dtype) for value in (0.0, 0.5, 1.0))
    signs = apply(k, "xor", compare(k, "lt", right, zero), compare(k, "lt", rest, zero))
    uneven = apply(k, "and", compare(k, "ne", rest, zero), signs)
    if isinstance(op, binary.RemainderOp):
        return choose(k, uneven, apply(k, "add", rest, right), rest)
    exact = apply(k, "div", left, right)
    quotient = apply(k, "div", apply(k, "sub", left, rest), right)
    quotient = choose(k, uneven, apply(k, "sub", quotient, one), quotient)
    whole = function(k, math.FloorOp, quotient)
    above = compare(k, "gt", apply(k, "sub", quotient, whole), half)
    whole = choose(k, above, apply(k, "add", whole, one), whole)
    nothing = made(k, math.CopySignOp, zero, exact)
    whole = choose(k, compare(k, "eq", quotient, zero), nothing, whole)
    return choose(k, compare(k, "eq", right, zero), exact, whole)


@computes(binary.ShiftLeftOp, binary.ShiftRightOp)
def shift(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)
    left, right = _operands(k, op, place, dtype)
    bits = 8 * types.ITEM_BYTES[dtype]
    zero, most = k.constant(0, dtype), k.constant(bits - 1, dtype)
    fits = apply(k, "and", compare(k, "ge", right, zero), compare(k, "le", right, most))
    amount = choose(k, fits, right, zero)
    if isinstance(op, binary.ShiftLeftOp):
        return choose(k, fits, made(k, arith.ShLIOp, left, amount), zero)
    if dtype == "ui8":
        return choose(k, fits, made(k, arith.ShRUIOp, left, amount), zero)
    return made(k, arith.ShRSIOp, left, choose(k, fits, right, most))


@computes(binary.PowOp)
def power(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)
    if dtype not in types.FLOATS:
        return _whole_power(k, op, place, dtype)
    wide = work_dtype(dtype)
    left = cast(k, operand(k, op.lhs, place), wide)
    if op.scalar is not None:
        known = _constant_power(k, left, float(op.scalar.value))
        if known is not None:
            return cast(k, known, dtype)
    _, right = _operands(k, op, place, wide)
    return cast(k, made(k, math.PowFOp, left, right), dtype)


def _whole_power(k: KernelBuilder, op: Any, place: Place, dtype: str) -> Tile:
    """By products for small constant exponents, else by squaring; of a negative exponent 0 is what a number other than
    1 and -1 gives.
    """
    exponent = None if op.scalar is None else op.scalar.value
    if exponent in (1, 2, 3):
        base = cast(k, operand(k, op.lhs, place), dtype)
        total = base
        for _ in range(int(exponent) - 1):
            total = apply(k, "mul", total, base)
        return total
    return integer_power(k, *_operands(k, op, place, dtype), dtype)


def integer_power(k: KernelBuilder, left: Tile, right: Tile, dtype: str) -> Tile:
    """``left ** right`` of integers, modulo the dtype's range."""
    left, right = cast(k, left, "i64"), cast(k, right, "i64")
    zero = k.constant(0, "i64")
    none = k.both(compare(k, "eq", left, zero), compare(k, "lt", right, zero))
    found = made(k, math.IPowIOp, choose(k, none, number(k, 2, "i64"), left), right)
    return cast(k, found, dtype)


def _constant_power(k: KernelBuilder, base: Tile, exponent: float) -> Tile | None:
    """The powers that torch computes by products and roots."""
    if exponent == 2:
        return apply(k, "mul", base, base)
    if exponent == 3:
        return apply(k, "mul", apply(k, "mul", base, base), base)
    one = number(k, 1.0, base.dtype)
    if exponent == 0.5:
        return function(k, math.SqrtOp, base)
    if exponent == -0.5:
        return apply(k, "div", one, function(k, math.SqrtOp, base))
    if exponent == -1:
        return apply(k, "div", one, base)
    if exponent == -2:
        return apply(k, "div", one, apply(k, "mul", base, base))
    return None


# One operand ----------------------------------------------------------------------------------------------------------

_FUNCTIONS: dict[type[Operation], type[Operation]] = {
    unary.ExpOp: math.ExpOp, unary.Exp2Op: math.Exp2Op, unary.Expm1Op: math.ExpM1Op, unary.LogOp: math.LogOp,
    unary.Log2Op: math.Log2Op, unary.Log10Op: math.Log10Op, unary.Log1pOp: math.Log1pOp, unary.SqrtOp: math.SqrtOp,
    unary.SinOp: math.SinOp, unary.CosOp: math.CosOp, unary.TanOp: math.TanOp, unary.AsinOp: math.AsinOp,
    unary.AcosOp: math.AcosOp, unary.AtanOp: math.AtanOp, unary.SinhOp: math.SinhOp, unary.CoshOp: math.CoshOp,
    unary.TanhOp: math.TanhOp, unary.ErfOp: math.ErfOp,
    unary.ErfcOp: elementwise.ErfcOp,
}  # fmt: skip
_ROUNDINGS: dict[type[Operation], type[Operation]] = {
    unary.FloorOp: math.FloorOp, unary.CeilOp: math.CeilOp, unary.RoundOp: math.RoundEvenOp, unary.TruncOp: math.TruncOp
}  # fmt: skip

Form = Callable[[KernelBuilder, Tile, Any], Tile]


def _widened(k: KernelBuilder, op: Any, place: Place, form: Form) -> Tile:
    """A function of floats, computed in float32 at least; integers become floats first."""
    dtype = types.dtype(op.result)
    if dtype not in types.FLOATS:
        raise NotLowered(f"{op.name} of {dtype} has no rule")
    given = cast(k, cast(k, k.value(op.input, place), dtype), work_dtype(dtype))
    return cast(k, form(k, given, op), dtype)


@computes(*_FUNCTIONS)
def functions(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return _widened(k, op, place, lambda k, x, op: made(k, _FUNCTIONS[type(op)], x))


@computes(*_ROUNDINGS)
def rounding(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    if types.dtype(op.result) not in types.FLOATS:
        return k.value(op.input, place)
    return _widened(k, op, place, lambda k, x, op: made(k, _ROUNDINGS[type(op)], x))


def sigmoid(k: KernelBuilder, x: Tile) -> Tile:
    """``1 / (1 + exp(-x))``."""
    one = number(k, 1.0, x.dtype)
    return apply(k, "div", one, apply(k, "add", one, made(k, math.ExpOp, made(k, arith.NegfOp, x))))


def gelu(k: KernelBuilder, x: Tile, approximate: str) -> Tile:
    """``x · Phi(x)``, exact or by tanh."""
    if approximate == "tanh":  # (1 + tanh(u))/2 = 1/(1 + exp(-2 u)), which loses nothing where tanh is near -1
        scale = -2 * numbers.sqrt(2 / numbers.pi)
        slope = apply(k, "mul", number(k, 0.044715 * scale, x.dtype), apply(k, "mul", x, x))
        inner = apply(k, "mul", x, apply(k, "add", slope, number(k, scale, x.dtype)))
        return apply(k, "div", x, _plus_one(k, made(k, math.ExpOp, inner)))
    half, one = number(k, 0.5, x.dtype), number(k, 1.0, x.dtype)
    curve = made(k, math.ErfOp, apply(k, "mul", x, number(k, numbers.sqrt(0.5), x.dtype)))
    return apply(k, "mul", apply(k, "mul", half, x), apply(k, "add", one, curve))


def _softplus(k: KernelBuilder, x: Tile, op: Any) -> Tile:
    beta, threshold = number(k, op.beta.value, x.dtype), number(k, op.threshold.value, x.dtype)
    scaled = apply(k, "mul", x, beta)
    curve = apply(k, "div", made(k, math.Log1pOp, made(k, math.ExpOp, scaled)), beta)
    return choose(k, compare(k, "gt", scaled, threshold), x, curve)


def _elu(k: KernelBuilder, x: Tile, op: Any) -> Tile:
    scale = number(k, op.scale.value, x.dtype)
    inner = made(k, math.ExpM1Op, apply(k, "mul", x, number(k, op.input_scale.value, x.dtype)))
    negative = apply(k, "mul", apply(k, "mul", inner, number(k, op.alpha.value, x.dtype)), scale)
    return choose(k, compare(k, "gt", x, number(k, 0.0, x.dtype)), apply(k, "mul", x, scale), negative)


def _hard(k: KernelBuilder, x: Tile) -> Tile:
    """``min(max(x + 3, 0), 6)``."""
    shifted = apply(k, "add", x, number(k, 3.0, x.dtype))
    return apply(k, "min", apply(k, "max", shifted, number(k, 0.0, x.dtype)), number(k, 6.0, x.dtype))


def _log_sigmoid(k: KernelBuilder, x: Tile) -> Tile:
    """``min(x, 0) - log1p(exp(-|x|))``."""
    least = apply(k, "min", x, number(k, 0.0, x.dtype))
    small = made(k, math.ExpOp, made(k, arith.NegfOp, made(k, math.AbsFOp, x)))
    return apply(k, "sub", least, made(k, math.Log1pOp, small))


_FORMS: dict[type[Operation], Form] = {
    unary.RsqrtOp: lambda k, x, op: apply(k, "div", number(k, 1.0, x.dtype), made(k, math.SqrtOp, x)),
    unary.ReciprocalOp: lambda k, x, op: apply(k, "div", number(k, 1.0, x.dtype), x),
    unary.SigmoidOp: lambda k, x, op: sigmoid(k, x),
    unary.SiluOp: lambda k, x, op: apply(k, "div", x, _plus_one(k, made(k, math.ExpOp, made(k, arith.NegfOp, x)))),
    unary.GeluOp: lambda k, x, op: gelu(k, x, op.approximate.data),
    activation.SoftplusOp: _softplus,
    activation.EluOp: _elu,
    activation.LeakyReluOp: lambda k, x, op: choose(
        k,
        compare(k, "gt", x, number(k, 0.0, x.dtype)),
        x,
        apply(k, "mul", x, number(k, op.slope.value, x.dtype)),
    ),
    activation.HardswishOp: lambda k, x, op: apply(k, "div", apply(k, "mul", x, _hard(k, x)), number(k, 6.0, x.dtype)),
    activation.HardsigmoidOp: lambda k, x, op: apply(k, "div", _hard(k, x), number(k, 6.0, x.dtype)),
    activation.MishOp: lambda k, x, op: apply(
        k, "mul", x, made(k, math.TanhOp, made(k, math.Log1pOp, made(k, math.ExpOp, x)))
    ),
    activation.LogSigmoidOp: lambda k, x, op: _log_sigmoid(k, x),
}


def _plus_one(k: KernelBuilder, x: Tile) -> Tile:
    return apply(k, "add", number(k, 1.0, x.dtype), x)


@computes(*_FORMS)
def forms(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return _widened(k, op, place, lambda k, x, op: _FORMS[type(op)](k, x, op))


@computes(unary.NegOp)
def negation(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    given = k.value(op.input, place)
    if given.dtype in types.FLOATS:
        return function(k, arith.NegfOp, given)
    return apply(k, "sub", number(k, 0, given.dtype), given)


@computes(unary.AbsOp)
def absolute(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    given = k.value(op.input, place)
    if given.dtype in types.FLOATS:
        return function(k, math.AbsFOp, given)
    if given.dtype in ("ui8", "i1"):
        return given
    zero = number(k, 0, given.dtype)
    return choose(k, compare(k, "lt", given, zero), apply(k, "sub", zero, given), given)


@computes(unary.SignOp)
def sign(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    given = k.value(op.input, place)
    if given.dtype == "i1":
        return given
    zero, one = number(k, 0, given.dtype), number(k, 1, given.dtype)
    above = choose(k, compare(k, "gt", given, zero), one, zero)
    if given.dtype == "ui8":
        return above
    return choose(k, compare(k, "lt", given, zero), number(k, -1, given.dtype), above)


@computes(unary.ReluOp)
def relu(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    given = k.value(op.input, place)
    return apply(k, "max", given, number(k, 0, given.dtype))


@computes(unary.LogicalNotOp)
def logical_not(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return apply(k, "xor", cast(k, k.value(op.input, place), "i1"), k.constant(True, "i1"))


@computes(unary.BitwiseNotOp)
def bitwise_not(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    given = k.value(op.input, place)
    return apply(k, "xor", given, k.constant(True if given.dtype == "i1" else -1, given.dtype))


@computes(unary.IsNanOp)
def is_nan(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    given = k.value(op.input, place)
    if given.dtype not in types.FLOATS:
        return k.constant(False, "i1")
    return compare(k, "ne", given, given)


@computes(unary.CastOp)
def conversion(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return cast(k, k.value(op.input, place), types.dtype(op.result))


@computes(unary.ClampOp)
def clamp(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)
    wide = work_dtype(dtype)
    given = cast(k, cast(k, k.value(op.input, place), dtype), wide)
    for bound, name in ((op.lower, "max"), (op.upper, "min")):
        if bound is not None:
            given = apply(k, name, given, number(k, bound.value, wide))
    return cast(k, given, dtype)


# Choices --------------------------------------------------------------------------------------------------------------


@computes(select.WhereOp)
def where(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)
    condition = cast(k, operand(k, op.condition, place), "i1")
    then, otherwise = (cast(k, operand(k, value, place), dtype) for value in (op.then, op.otherwise))
    return choose(k, condition, then, otherwise)


@computes(select.MaskedFillOp)
def masked_fill(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)
    mask = operand(k, op.mask, place)
    return choose(k, mask, number(k, op.value.value, dtype), operand(k, op.input, place))


@computes(select.TrilOp, select.TriuOp)
def triangle(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)
    ahead = k.index(place[-1] - place[-2] - op.diagonal.data)
    predicate = "le" if isinstance(op, select.TrilOp) else "ge"
    kept = compare(k, predicate, ahead, k.constant(0, "index"))
    return choose(k, kept, k.value(op.input, place), number(k, 0, dtype))
