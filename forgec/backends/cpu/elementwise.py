"""What the ops of ``arith`` and ``math`` are in LLVM, for scalars and for vectors alike.

Integer division never traps: what ``arith`` leaves undefined is some number, since the lanes after the end of a tile,
and elements that a mask leaves out, are computed as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from xdsl.dialects import arith, llvm
from xdsl.dialects.builtin import IndexType, IntegerAttr, IntegerType
from xdsl.ir import Attribute, Operation, SSAValue

from forgec.backends.cpu import vector_math
from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import (
    FLOATS,
    NEON_BYTES,
    bits,
    element_type,
    i1,
    i8,
    i32,
    i64,
    is_float,
    lanes,
    with_element,
)
from forgec.ir.tile.types import element

Values: TypeAlias = list[SSAValue]
Rule: TypeAlias = Callable[[Emitter, Operation, Values], SSAValue]


class Unsupported(Exception):
    """The kernel has an op, or a type, that this backend does not know."""


def llvm_element(kind: Attribute) -> Attribute:
    """The LLVM type of an element or a scalar. Raises Unsupported for types that the CPU has no numbers of."""
    if isinstance(kind, IndexType):
        return i64
    if isinstance(kind, IntegerType):
        if kind.width.data not in (1, 8, 16, 32, 64):
            raise Unsupported(f"elements of type {kind}")
        return IntegerType(kind.width.data)
    if not isinstance(kind, FLOATS):
        raise Unsupported(f"elements of type {kind}")
    return kind


def compute(op: Operation) -> Callable[[Emitter, Values], SSAValue]:
    """The op's rule, bound to it, with its fast-math flags. Raises Unsupported."""
    found = RULES.get(op.name)
    if found is None:
        raise Unsupported(op.name)
    flags = op.properties.get("fastmath")
    if not isinstance(flags, arith.FastMathFlagsAttr) or not flags.data:
        return lambda e, values: found(e, op, values)
    marked = llvm.FastMathAttr(tuple(flags.data))

    def with_flags(e: Emitter, values: Values) -> SSAValue:
        outer, e.fastmath = e.fastmath, marked
        result = found(e, op, values)
        e.fastmath = outer
        return result

    return with_flags


def _target(op: Operation) -> Attribute:
    return llvm_element(element(op.results[0]))


def _zero_extended(e: Emitter, op: Operation, values: Values) -> SSAValue:
    """Vectors of bytes go through an assembly statement of no instruction when they have become 32 bits wide: LLVM
    would shift and mask the bytes before it extends them, for which x86 has no instructions, and extend both halves.
    """
    target = _target(op)
    wide = e.zext(values[0], target)
    count = lanes(wide.type)
    if count is None or element_type(values[0].type) != i8 or target != i32 or 4 * count != e.register_bytes:
        return wide
    if e.register_bytes == NEON_BYTES:
        return wide
    opaque = llvm.InlineAsmOp("", "=x,0", [wide], [wide.type])
    e.block.add_op(opaque)
    assert opaque.res is not None, "it has one"
    return opaque.res


def _simple(name: str) -> Rule:
    return lambda e, op, values: getattr(e, name)(*values)


def _divisor(e: Emitter, a: SSAValue, *, signed: bool) -> tuple[SSAValue, SSAValue | None]:
    """A divisor that does not trap, and where it stands for -1."""
    attribute = a.owner.value if isinstance(a.owner, llvm.ConstantOp) else None
    if isinstance(attribute, IntegerAttr) and attribute.value.data not in (0, -1):
        return a, None
    zero = e.icmp("eq", a, 0)
    if not signed:
        return e.select(zero, 1, a), None
    minus = e.icmp("eq", a, -1)
    return e.select(e.or_(zero, minus), 1, a), minus


def _signed_division(e: Emitter, values: Values) -> tuple[SSAValue, SSAValue, SSAValue]:
    """The quotient rounded to zero, the rest, and the divisor."""
    divisor, minus = _divisor(e, values[1], signed=True)
    quotient, rest = e.sdiv(values[0], divisor), e.srem(values[0], divisor)
    if minus is not None:
        quotient = e.select(minus, e.sub(0, values[0]), quotient)
    return quotient, rest, values[1]


def _floordiv(e: Emitter, op: Operation, values: Values) -> SSAValue:
    quotient, rest, divisor = _signed_division(e, values)
    below = e.and_(e.icmp("ne", rest, 0), e.icmp("slt", e.xor(rest, divisor), 0))
    return e.select(below, e.sub(quotient, 1), quotient)


def _ceildiv(e: Emitter, op: Operation, values: Values) -> SSAValue:
    quotient, rest, divisor = _signed_division(e, values)
    above = e.and_(e.icmp("ne", rest, 0), e.icmp("sge", e.xor(rest, divisor), 0))
    return e.select(above, e.add(quotient, 1), quotient)


def _ceildiv_unsigned(e: Emitter, op: Operation, values: Values) -> SSAValue:
    divisor, _ = _divisor(e, values[1], signed=False)
    quotient, rest = e.udiv(values[0], divisor), e.urem(values[0], divisor)
    return e.select(e.icmp("ne", rest, 0), e.add(quotient, 1), quotient)


def _unsigned(name: str) -> Rule:
    return lambda e, op, values: getattr(e, name)(values[0], _divisor(e, values[1], signed=False)[0])


def _shift(name: str) -> Rule:
    def emit(e: Emitter, op: Operation, values: Values) -> SSAValue:
        width = bits(values[0].type)
        small = e.icmp("ult", values[1], width)
        amount = e.select(small, values[1], width - 1)
        shifted = getattr(e, name)(values[0], amount)
        return shifted if name == "ashr" else e.select(small, shifted, 0)

    return emit


def _compare_integers(e: Emitter, op: Operation, values: Values) -> SSAValue:
    assert isinstance(op, arith.CmpiOp)
    return e.icmp(arith.CMPI_COMPARISON_OPERATIONS[op.predicate.value.data], *values)


def _compare_floats(e: Emitter, op: Operation, values: Values) -> SSAValue:
    assert isinstance(op, arith.CmpfOp)
    name = arith.CMPF_COMPARISON_OPERATIONS[op.predicate.value.data]
    if name in ("false", "true"):
        same = e.fcmp("uno", *values)
        return e.and_(same, 0) if name == "false" else e.or_(same, -1)
    return e.fcmp(name, *values)


def _number(kind: str) -> Rule:
    """The larger or smaller number: of NaN and a number the number."""

    def emit(e: Emitter, op: Operation, values: Values) -> SSAValue:
        a, b = values
        chosen = e.select(e.fcmp(kind, a, b), a, b)  # b if one is NaN
        return e.select(e.fcmp("uno", b, b), a, chosen)

    return emit


def _convert(*, signed: bool) -> Rule:
    return lambda e, op, values: e.convert(values[0], _target(op), signed=signed)


def _signed_to_float(e: Emitter, op: Operation, values: Values) -> SSAValue:
    value = values[0]
    if element_type(value.type) == i1:  # whose one bit is the sign
        value = e.sext(value, i8)
    return e.convert(value, _target(op))


def _float_to_integer(*, signed: bool) -> Rule:
    def emit(e: Emitter, op: Operation, values: Values) -> SSAValue:
        target = _target(op)
        assert isinstance(target, IntegerType)
        return (e.fptosi_sat if signed else e.fptoui_sat)(values[0], target)

    return emit


def _index_cast(e: Emitter, op: Operation, values: Values) -> SSAValue:
    source, target = bits(values[0].type), _target(op)
    if bits(target) == source:
        return values[0]
    return e.trunc(values[0], target) if bits(target) < source else e.sext(values[0], target)


def _bitcast(e: Emitter, op: Operation, values: Values) -> SSAValue:
    return e.bitcast(values[0], with_element(values[0].type, _target(op)))


def _wide(e: Emitter, value: SSAValue) -> SSAValue:
    return e.widen(value) if is_float(value.type) and bits(value.type) == 16 else value


def _math(name: str) -> Rule:
    """A function of ``vector_math``, which computes in f32 and f64."""
    function: vector_math.Function = getattr(vector_math, name)
    return lambda e, op, values: e.convert(function(e, *(_wide(e, value) for value in values)), _target(op))


def _fma(e: Emitter, op: Operation, values: Values) -> SSAValue:
    return e.convert(e.fma(*(_wide(e, value) for value in values)), _target(op))


def _round_half_away(e: Emitter, op: Operation, values: Values) -> SSAValue:
    wide = _wide(e, values[0])
    whole = vector_math.trunc(e, wide)
    further = e.fcmp("oge", e.fabs(e.fsub(wide, whole)), 0.5)
    away = e.fadd(whole, e.copysign(1.0, wide))
    return e.convert(e.copysign(e.select(further, away, whole), wide), _target(op))


def _integer_power(e: Emitter, op: Operation, values: Values) -> SSAValue:
    """By squaring, as often as the exponent has bits; of negative exponents only ±1 has a power that is not 0."""
    base, exponent = values
    width = bits(exponent.type)
    count = e.select(e.icmp("slt", exponent, 0), e.and_(exponent, 1), exponent)
    result = e.const(base.type, 1)
    square = base
    for bit in range(width - 1):
        odd = e.icmp("ne", e.and_(count, 1 << bit), 0)
        result = e.select(odd, e.mul(result, square), result)
        square = e.mul(square, square)
    one = e.icmp("ule", e.add(base, 1), 2)  # -1, 0 or 1
    none = e.and_(e.icmp("slt", exponent, 0), e.or_(e.not_(one), e.icmp("eq", base, 0)))
    return e.select(none, 0, result)


def _float_power(e: Emitter, op: Operation, values: Values) -> SSAValue:
    base = _wide(e, values[0])
    power = vector_math.pow(e, base, e.convert(values[1], element_type(base.type)))
    return e.convert(power, _target(op))


def _count_zeros(name: str) -> Rule:
    def emit(e: Emitter, op: Operation, values: Values) -> SSAValue:
        return e.intrinsic(name, (values[0], e.const(i1, 0)))

    return emit


RULES: dict[str, Rule] = {
    **{
        f"arith.{name}": _simple(emitted)
        for name, emitted in {
            "addi": "add", "subi": "sub", "muli": "mul", "andi": "and_", "ori": "or_", "xori": "xor",
            "minsi": "smin", "maxsi": "smax", "minui": "umin", "maxui": "umax",
            "addf": "fadd", "subf": "fsub", "mulf": "fmul", "divf": "fdiv", "negf": "fneg",
            "maximumf": "fmax", "minimumf": "fmin", "select": "select",
        }.items()
    },
    "arith.divsi": lambda e, op, values: _signed_division(e, values)[0],
    "arith.remsi": lambda e, op, values: _signed_division(e, values)[1],
    "arith.floordivsi": _floordiv,
    "arith.ceildivsi": _ceildiv,
    "arith.ceildivui": _ceildiv_unsigned,
    "arith.divui": _unsigned("udiv"),
    "arith.remui": _unsigned("urem"),
    "arith.shli": _shift("shl"),
    "arith.shrui": _shift("lshr"),
    "arith.shrsi": _shift("ashr"),
    "arith.cmpi": _compare_integers,
    "arith.cmpf": _compare_floats,
    "arith.maxnumf": _number("ogt"),
    "arith.minnumf": _number("olt"),
    "arith.bitcast": _bitcast,
    "arith.index_cast": _index_cast,
    "arith.fptosi": _float_to_integer(signed=True),
    "arith.fptoui": _float_to_integer(signed=False),
    "arith.sitofp": _signed_to_float,
    "arith.uitofp": _convert(signed=False),
    "arith.extf": _convert(signed=True),
    "arith.truncf": _convert(signed=True),
    "arith.trunci": lambda e, op, values: e.trunc(values[0], _target(op)),
    "arith.extsi": lambda e, op, values: e.sext(values[0], _target(op)),
    "arith.extui": _zero_extended,
    "math.absf": _simple("fabs"),
    "math.absi": _simple("iabs"),
    "math.sqrt": _simple("sqrt"),
    "math.copysign": lambda e, op, values: e.convert(e.copysign(*(_wide(e, v) for v in values)), _target(op)),
    **{
        f"math.{name}": _math(name)
        for name in (
            "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sinh", "cosh", "tanh",
            "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "erf", "erfc", "ceil", "floor", "trunc", "rsqrt",
        )
    },
    "arith.remf": _math("fmod"),
    "math.powf": _math("pow"),
    "math.fpowi": _float_power,
    "math.roundeven": _math("round_even"),
    "math.round": _round_half_away,
    "math.fma": _fma,
    "math.ipowi": _integer_power,
    "math.ctlz": _count_zeros("llvm.ctlz"),
    "math.cttz": _count_zeros("llvm.cttz"),
    "math.ctpop": lambda e, op, values: e.intrinsic("llvm.ctpop", (values[0],)),
}  # fmt: skip
EXPENSIVE = {
    name for name in RULES if name.startswith(("math.", "arith.div", "arith.rem", "arith.floordiv", "arith.ceildiv"))
}
