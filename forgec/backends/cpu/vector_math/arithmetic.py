"""What the functions share: formats, constants in parts, polynomials, arithmetic of pairs, scaling by powers of 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache, wraps
from typing import Any

import numpy as np
from xdsl.dialects.builtin import Float64Type, IntegerType
from xdsl.dialects.llvm import FastMathAttr
from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import HALVES, bits, element_type, f64, i32, i64, integer_like, lanes, size_bytes
from forgec.backends.cpu.value_emitter import Operand

_NO_FLAGS = FastMathAttr(None)
Function = Callable[..., SSAValue]
Pair = tuple[SSAValue, SSAValue]
"""An unevaluated sum of a number and a much smaller one."""

LN2 = "0.69314718055994530941723212145817656807550013436025525412068"
LOG2_E = "1.44269504088896340735992468100189213742664595415298593413544"
LOG10_2 = "0.30102999566398119521373889472449302676818988146210854131042"
LOG10_E = "0.43429448190325182765112891891660508229439700580366656611445"
PI = "3.14159265358979323846264338327950288419716939937510582097494"
HALF_PI = "1.57079632679489661923132169163975144209858469968755291048747"
TWO_OVER_PI = "0.63661977236758134307553505349005744813783858296182579499066"


@dataclass(frozen=True)
class Format:
    """A format of IEEE 754: ``precision`` counts the bits of the fraction, ``bias`` is that of the exponent."""

    bits: int
    precision: int
    bias: int

    @property
    def integer(self) -> Attribute:
        return i32 if self.bits == 32 else i64

    @property
    def round_shift(self) -> float:
        """1.5 · 2^precision: adding it rounds to an integer, which then stands in the low bits."""
        return 1.5 * 2.0**self.precision


_FORMATS = {32: Format(32, 23, 127), 64: Format(64, 52, 1023)}


def format_of(x: SSAValue) -> Format:
    return _FORMATS[bits(x.type)]


@cache
def parts(digits: str, width: int, count: int) -> Any:
    """The number as a sum: a tuple of ``count`` floats of this width, each the nearest to what is left."""
    context, rest, result = Context(prec=70), Decimal(digits), []
    for _ in range(count):
        part = float(np.float32(float(rest))) if width == 32 else float(rest)
        result.append(part)
        rest = context.subtract(rest, Decimal(part))
    return tuple(result)


def elementary(function: Function) -> Function:
    """float16 and bfloat16 are computed in float32 and rounded; the caller's fast-math flags do not apply inside."""

    @wraps(function)
    def emit(e: Emitter, *operands: SSAValue) -> SSAValue:
        type = operands[0].type
        if isinstance(element_type(type), HALVES):
            return e.narrow(emit(e, *map(e.widen, operands)), type)
        flags, e.fastmath = e.fastmath, _NO_FLAGS
        try:
            return function(e, *operands)
        finally:
            e.fastmath = flags

    return emit


def through_float64(function: Function) -> Function:
    """float32 is computed in float64 and rounded, so that its error is a hair above half an ulp."""

    @wraps(function)
    def emit(e: Emitter, *operands: SSAValue) -> SSAValue:
        if isinstance(element_type(operands[0].type), Float64Type):
            return function(e, *operands)
        element = element_type(operands[0].type)
        return e.convert(function(e, *(e.convert(x, f64) for x in operands)), element)

    return emit


def polynomial(e: Emitter, x: SSAValue, coefficients: Sequence[float]) -> SSAValue:
    """Horner's scheme with fused operations, the coefficients lowest power first."""
    result = e.const(x.type, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = e.fma(result, x, c)
    return result


# -- pairs: T. J. Dekker, "A floating-point technique for extending the available precision", Numer. Math. 18, 1971 --


def exact_product(e: Emitter, a: Operand, b: Operand) -> Pair:
    high = e.fmul(a, b)
    return high, e.fma(a, b, e.fneg(high))


def exact_sum(e: Emitter, large: SSAValue, small: SSAValue) -> Pair:
    """Dekker's fast sum; |large| ≥ |small|, or large = 0."""
    high = e.fadd(large, small)
    return high, e.fadd(e.fsub(large, high), small)


def exact_sum_in_any_order(e: Emitter, a: SSAValue, b: SSAValue) -> Pair:
    """Knuth's sum (The Art of Computer Programming 2, 4.2.2)."""
    total = e.fadd(a, b)
    back = e.fsub(total, a)
    return total, e.fadd(e.fsub(a, e.fsub(total, back)), e.fsub(b, back))


def pair_times(e: Emitter, a: Pair, b: tuple[Operand, Operand]) -> Pair:
    high, low = exact_product(e, a[0], b[0])
    return exact_sum(e, high, e.fma(a[0], b[1], e.fma(a[1], b[0], low)))


def pair_plus(e: Emitter, large: tuple[Operand, Operand], small: Pair) -> Pair:
    """|large| ≥ |small|."""
    total = e.fadd(large[0], small[0])
    error = e.fadd(e.fsub(large[0], total), small[0])
    return exact_sum(e, total, e.fadd(e.fadd(error, small[1]), large[1]))


# -- bits --


def bits_of(e: Emitter, x: SSAValue) -> SSAValue:
    return e.bitcast(x, integer_like(x.type))


def sign_is_set(e: Emitter, x: SSAValue) -> SSAValue:
    return e.icmp("slt", bits_of(e, x), 0)


def power_of_two(e: Emitter, n: SSAValue, like: Attribute) -> SSAValue:
    """2^n of integers for which that is a normal number."""
    fmt = _FORMATS[bits(like)]
    return e.bitcast(e.shl(e.add(n, fmt.bias), fmt.precision), like)


def scaled(e: Emitter, x: SSAValue, n: SSAValue) -> SSAValue:
    """x · 2^n, ½ ≤ |x| ≤ 2, |n| below twice the largest exponent; rounded once, also to subnormals."""
    half = e.ashr(n, 1)
    rest = e.sub(n, half)
    return e.fmul(e.fmul(x, power_of_two(e, half, x.type)), power_of_two(e, rest, x.type))


_SCALE = {32: "llvm.x86.avx512.mask.scalef.ps.512", 64: "llvm.x86.avx512.mask.scalef.pd.512"}
_CURRENT_ROUNDING = 4


def scales_in_one_step(e: Emitter, like: Attribute) -> bool:
    """True where the processor multiplies vectors of these by powers of two in one instruction (AVX-512)."""
    count = lanes(like)
    return count is not None and e.register_bytes == 64 and (count * size_bytes(element_type(like))) % 64 == 0


def scaled_in_one_step(e: Emitter, x: SSAValue, n: SSAValue) -> SSAValue:
    """x · 2^n of a float n that is an integer, of any size; rounded once."""
    count = lanes(x.type) or 1
    whole = 64 // size_bytes(element_type(x.type))
    if count > whole:
        halves = [(e.slice(v, 0, count // 2), e.slice(v, count // 2, count // 2)) for v in (x, n)]
        return e.concat(*(scaled_in_one_step(e, *pair) for pair in zip(*halves, strict=True)))
    every = e.const(IntegerType(whole), -1)
    operands = (x, n, e.const(x.type, 0), every, e.const(i32, _CURRENT_ROUNDING))
    return e.intrinsic(_SCALE[bits(x.type)], operands, x.type, overloaded=())


def nearest_integer(e: Emitter, x: SSAValue, factor: Operand) -> tuple[SSAValue, SSAValue]:
    """x · factor rounded, as a float and as an integer, if |x · factor| < 2^(precision − 2), else any numbers.

    The integer is read off the low bits of a shifted number, since a conversion of NaN would be undefined.
    """
    fmt = format_of(x)
    shifted = e.fma(x, factor, fmt.round_shift)
    base = int(
        np.float32(fmt.round_shift).view(np.int32) if fmt.bits == 32 else np.float64(fmt.round_shift).view(np.int64)
    )
    return e.fsub(shifted, fmt.round_shift), e.sub(bits_of(e, shifted), base)


def split_exponent(e: Emitter, x: SSAValue) -> tuple[SSAValue, SSAValue]:
    """x = m · 2^k for positive finite x: m in [√½, √2), and k as an integer; subnormals too."""
    fmt = format_of(x)
    least_normal = 2.0 ** (1 - fmt.bias)
    small = e.fcmp("olt", x, least_normal)
    up = fmt.precision + 1
    normal = e.select(small, e.fmul(x, 2.0**up), x)
    whole = bits_of(e, normal)
    # The bits of √½ rounded down to its leading ones; what is added carries into the exponent from there on.
    root_half = (
        int(np.float32(0.70710677).view(np.int32))
        if fmt.bits == 32
        else int(np.float64(0.7071067811865475).view(np.int64))
    )
    offset = e.sub(whole, root_half)
    k = e.ashr(offset, fmt.precision)
    m = e.bitcast(e.sub(whole, e.shl(k, fmt.precision)), x.type)
    return m, e.sub(k, e.select(small, e.const(k.type, up), e.const(k.type, 0)))
