"""Roots, rounding to integers, and exact remainders."""

from __future__ import annotations

from xdsl.ir import SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import i1
from forgec.backends.cpu.vector_math.arithmetic import (
    bits_of,
    elementary,
    format_of,
    power_of_two,
    sign_is_set,
    through_float64,
)


@elementary
def sqrt(e: Emitter, x: SSAValue) -> SSAValue:
    """Correctly rounded."""
    return e.sqrt(x)


@elementary
def rsqrt(e: Emitter, x: SSAValue) -> SSAValue:
    """1/√x, two roundings."""
    return e.fdiv(1.0, e.sqrt(x))


@elementary
def floor(e: Emitter, x: SSAValue) -> SSAValue:
    return e.intrinsic("llvm.floor", (x,))


@elementary
def ceil(e: Emitter, x: SSAValue) -> SSAValue:
    return e.intrinsic("llvm.ceil", (x,))


@elementary
def round_even(e: Emitter, x: SSAValue) -> SSAValue:
    """To the nearest integer, ties to even, as torch.round."""
    return e.intrinsic("llvm.roundeven", (x,))


@elementary
def trunc(e: Emitter, x: SSAValue) -> SSAValue:
    return e.intrinsic("llvm.trunc", (x,))


def _exponent(e: Emitter, a: SSAValue) -> SSAValue:
    """⌊log2(a)⌋ of positive finite numbers, subnormal ones too."""
    fmt = format_of(a)
    whole = bits_of(e, a)
    field = e.lshr(whole, fmt.precision)
    zeros = e.intrinsic("llvm.ctlz", (whole, e.const(i1, 0)))
    small = e.sub(fmt.bits - 1 - fmt.bias - fmt.precision + 1, zeros)
    return e.select(e.icmp("eq", field, 0), small, e.sub(field, fmt.bias))


@elementary
@through_float64
def fmod(e: Emitter, x: SSAValue, y: SSAValue) -> SSAValue:
    """x − y · trunc(x/y), exactly, with the sign of x; NaN if x is infinite or y is 0.

    Long division: each step takes up to 51 bits of the quotient off, of all lanes at once, until none has any left.
    In most cases that is one.
    """
    fmt, t = format_of(x), x.type
    inf = float("inf")
    a, b = e.fabs(x), e.fabs(y)
    proper = e.and_(e.and_(e.fcmp("olt", a, inf), e.fcmp("ogt", b, 0.0)), e.fcmp("ord", x, y))
    one = e.const(t, 1.0)
    # Lanes without a remainder take part as 0 mod 1.
    divisor = e.select(e.and_(proper, e.fcmp("olt", b, inf)), b, one)
    start = e.select(e.and_(proper, e.fcmp("olt", b, inf)), a, e.const(t, 0.0))
    least = _exponent(e, divisor)
    chunk = fmt.precision - 1

    def step(carried: list[SSAValue]) -> tuple[SSAValue, list[SSAValue]]:
        (rest,) = carried
        more = e.fcmp("oge", rest, divisor)
        distance = e.sub(_exponent(e, e.select(more, rest, divisor)), least)
        up = e.smax(e.sub(distance, chunk), 0)
        half = e.lshr(up, 1)
        large = e.fmul(
            e.fmul(divisor, power_of_two(e, half, t)), power_of_two(e, e.sub(up, half), t)
        )  # exact, at most rest
        quotient = e.intrinsic("llvm.trunc", (e.fdiv(rest, large),))
        # The quotient may have been rounded up to the next integer.
        left = e.fma(e.fneg(quotient), large, rest)
        left = e.select(e.fcmp("olt", left, 0.0), e.fadd(left, large), left)
        left = e.select(more, left, rest)
        return e.any(e.fcmp("oge", left, divisor)), [left]

    (rest,) = e.repeat([start], step)
    result = e.copysign(e.select(e.fcmp("oeq", b, inf), a, rest), x)
    nan = e.select(e.fcmp("uno", x, y), e.fadd(x, y), e.const(t, float("nan")))
    return e.select(proper, result, nan)


@elementary
def remainder(e: Emitter, x: SSAValue, y: SSAValue) -> SSAValue:
    """x modulo y with the sign of y, as torch.remainder: fmod, and one addition if the signs differ."""
    rest = fmod(e, x, y)
    signs = e.xor(sign_is_set(e, rest), e.fcmp("olt", y, 0.0))
    return e.select(e.and_(signs, e.fcmp("une", rest, 0.0)), e.fadd(rest, y), rest)
