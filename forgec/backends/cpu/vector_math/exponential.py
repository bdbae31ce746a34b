"""exp, log and what is made of them: the hyperbolic functions and powers.

After P. T. P. Tang ("Table-driven implementation of the exponential function", ACM TOMS 15, 1989) without the tables,
and the reductions of fdlibm (e_log.c, s_log1p.c: log(1 + f) through s = f/(2 + f)).
"""

from __future__ import annotations

from collections.abc import Callable

from xdsl.dialects.builtin import Float64Type
from xdsl.ir import SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import bits, element_type, f64
from forgec.backends.cpu.vector_math import polynomials as p
from forgec.backends.cpu.vector_math.arithmetic import (
    LN2,
    LOG2_E,
    LOG10_2,
    LOG10_E,
    Pair,
    bits_of,
    elementary,
    exact_product,
    exact_sum,
    exact_sum_in_any_order,
    format_of,
    nearest_integer,
    pair_plus,
    pair_times,
    parts,
    polynomial,
    power_of_two,
    scaled,
    scaled_in_one_step,
    scales_in_one_step,
    split_exponent,
)

_TANH_END = 9.02
"""From here on tanh is less than half an ulp below 1."""
INF = float("inf")
NAN = float("nan")
# Beyond these the exponential is 0 or infinite for certain; within them half its exponent is a normal number's.
_EXP_RANGE = {32: (-110.0, 100.0), 64: (-760.0, 720.0)}
_EXP2_RANGE = {32: (-160.0, 140.0), 64: (-1090.0, 1040.0)}


def _clamped(e: Emitter, x: SSAValue, low: float, high: float) -> SSAValue:
    """x within the range; NaN stays."""
    x = e.select(e.fcmp("olt", x, low), e.const(x.type, low), x)
    return e.select(e.fcmp("ogt", x, high), e.const(x.type, high), x)


def _expm1_reduced(e: Emitter, r: SSAValue, low: SSAValue | None = None) -> SSAValue:
    """exp(r + low) − 1, |r| ≤ ln 2/2."""
    first = e.fmul(polynomial(e, r, p.EXP[bits(r.type)]), r)
    return e.fma(first, r, r) if low is None else e.fadd(r, e.fma(first, r, low))


def _reduced(e: Emitter, x: SSAValue) -> tuple[SSAValue, SSAValue, SSAValue]:
    """x = n ln 2 + (r + low): n as an integer, r, low."""
    width = bits(x.type)
    n, k = nearest_integer(e, x, parts(LOG2_E, width, 1)[0])
    high, middle = parts(LN2, width, 2)
    first = e.fma(n, -high, x)  # exact
    r = e.fma(n, -middle, first)
    return k, r, e.fma(n, -middle, e.fsub(first, r))


def exp_scaled(e: Emitter, x: SSAValue, shift: int = 0) -> SSAValue:
    """exp(x) · 2^shift, which may be finite where exp(x) is not."""
    x = _clamped(e, x, *_EXP_RANGE[bits(x.type)])
    if bits(x.type) == 32:
        return _exp_32(e, x, shift)
    k, r, low = _reduced(e, x)
    return scaled(e, e.fadd(_expm1_reduced(e, r, low), 1.0), e.add(k, shift) if shift else k)


def _exp_32(e: Emitter, x: SSAValue, shift: int) -> SSAValue:
    """The same in float32: what r has lost is a quarter of an ulp of the result, and is left out.

    Halves of the exponent are taken of the bits of the shifted number, whose upper ones the shift to the exponent's
    place throws away.
    """
    fmt = format_of(x)
    shifted = e.fma(x, parts(LOG2_E, 32, 1)[0], fmt.round_shift)
    n = e.fsub(shifted, fmt.round_shift)
    high, middle = parts(LN2, 32, 2)
    r = e.fma(n, -middle, e.fma(n, -high, x))
    value = e.fadd(_expm1_reduced(e, r), 1.0)
    if scales_in_one_step(e, x.type):
        return scaled_in_one_step(e, value, e.fadd(n, float(shift)) if shift else n)
    whole = bits_of(e, shifted)
    whole = e.add(whole, shift) if shift else whole
    half = e.ashr(whole, 1)
    value = e.fmul(value, power_of_two(e, half, x.type))
    return e.fmul(value, power_of_two(e, e.sub(whole, half), x.type))


@elementary
def exp(e: Emitter, x: SSAValue) -> SSAValue:
    return exp_scaled(e, x)


@elementary
def exp2(e: Emitter, x: SSAValue) -> SSAValue:
    x = _clamped(e, x, *_EXP2_RANGE[bits(x.type)])
    n, k = nearest_integer(e, x, 1.0)
    high, low = parts(LN2, bits(x.type), 2)
    fraction = e.fsub(x, n)  # exact
    r, error = exact_product(e, fraction, high)
    return scaled(e, e.fadd(_expm1_reduced(e, r, e.fma(fraction, low, error)), 1.0), k)


@elementary
def expm1(e: Emitter, x: SSAValue) -> SSAValue:
    fmt = format_of(x)
    # Below the lower bound the result is −1.
    inside = _clamped(e, x, -0.75 * fmt.precision - 5, _EXP_RANGE[fmt.bits][1])
    k, r, rest = _reduced(e, inside)
    tail = e.fadd(e.fmul(polynomial(e, r, p.EXP[fmt.bits]), e.fmul(r, r)), rest)
    # Half of (2^k − 1) + 2^k (r + tail), the large parts first: 2^k may overflow where the result does not.
    too_large = e.icmp("sgt", k, fmt.bias + 1)
    k = e.smin(k, fmt.bias + 1)
    s = power_of_two(e, e.sub(k, 1), x.type)
    half = e.const(x.type, -0.5)
    large = e.icmp("sge", k, 0)
    base, error = exact_sum(e, e.select(large, s, half), e.select(large, half, s))
    linear = e.fmul(s, r)  # exact
    total, lost = exact_sum_in_any_order(e, base, linear)
    result = e.fmul(e.fadd(total, e.fadd(e.fma(s, tail, lost), error)), 2.0)
    result = e.select(e.icmp("eq", k, 0), e.fadd(r, tail), result)
    result = e.select(e.and_(too_large, e.fcmp("ord", x, x)), e.const(x.type, INF), result)
    # Where x² is lost the result is x itself, with its sign if it is 0.
    return e.select(e.fcmp("olt", e.fabs(x), 2.0 ** -(fmt.precision + 3)), x, result)


def log1p_pair(e: Emitter, f: SSAValue) -> Pair:
    """log(1 + f) as a pair, for |f| ≤ √2 − 1."""
    half_square = e.fmul(e.fmul(f, f), 0.5)
    s = e.fdiv(f, e.fadd(f, 2.0))
    z = e.fmul(s, s)
    remainder = e.fmul(polynomial(e, z, p.LOG[bits(f.type)]), z)
    high = e.fsub(f, half_square)
    # f − f²/2 with its error, by the fused product.
    low = e.fma(e.fmul(f, -0.5), f, e.fsub(f, high))
    return high, e.fma(s, e.fadd(half_square, remainder), low)


def _log_with_base(e: Emitter, x: SSAValue, of_two: str, of_e: str, one: bool = False) -> SSAValue:
    """log(x) where ``of_two`` = log(2) and ``of_e`` = log(e) in the base; ``one`` says that the latter is 1."""
    width = bits(x.type)
    m, k = split_exponent(e, x)
    high, low = log1p_pair(e, e.fsub(m, 1.0))
    if not one:
        high, low = pair_times(e, exact_sum(e, high, low), parts(of_e, width, 2))
    result = _with_exponent(e, k, high, low, of_two, x)
    return _log_edges(e, x, result)


def _with_exponent(e: Emitter, k: SSAValue, high: SSAValue, low: SSAValue, of_two: str, like: SSAValue) -> SSAValue:
    count = e.convert(k, element_type(like.type))
    unit, unit_low = parts(of_two, bits(like.type), 2)
    main, error = exact_product(e, count, unit)
    total, lost = exact_sum(e, main, high)
    return e.fadd(total, e.fadd(lost, e.fadd(low, e.fma(count, unit_low, error))))


def _log_edges(e: Emitter, x: SSAValue, result: SSAValue) -> SSAValue:
    result = e.select(e.fcmp("oeq", x, INF), x, result)
    result = e.select(e.fcmp("oeq", x, 0.0), e.const(x.type, -INF), result)
    return e.select(e.fcmp("olt", x, 0.0), e.const(x.type, NAN), e.select(e.fcmp("uno", x, x), x, result))


@elementary
def log(e: Emitter, x: SSAValue) -> SSAValue:
    return _log_with_base(e, x, LN2, "1", one=True)


@elementary
def log2(e: Emitter, x: SSAValue) -> SSAValue:
    return _log_with_base(e, x, "1", LOG2_E)


@elementary
def log10(e: Emitter, x: SSAValue) -> SSAValue:
    return _log_with_base(e, x, LOG10_2, LOG10_E)


@elementary
def log1p(e: Emitter, x: SSAValue) -> SSAValue:
    one = e.const(x.type, 1.0)
    total = e.fadd(x, 1.0)
    # What the sum has lost, as a share of it.
    small = e.fcmp("olt", e.fabs(x), 1.0)
    lost = e.select(small, e.fsub(x, e.fsub(total, one)), e.fsub(one, e.fsub(total, x)))
    m, k = split_exponent(e, total)
    near = e.icmp("eq", k, 0)
    f = e.select(near, x, e.fsub(m, 1.0))
    high, low = log1p_pair(e, f)
    low = e.select(near, low, e.fadd(low, e.fdiv(lost, total)))
    result = _with_exponent(e, k, high, low, LN2, x)
    result = e.select(e.fcmp("olt", e.fabs(x), 2.0 ** -(format_of(x).precision + 3)), x, _log_edges(e, total, result))
    return e.select(e.fcmp("uno", x, x), x, result)


def _tanh_32(e: Emitter, a: SSAValue) -> SSAValue:
    """tanh(a), a ≥ 0, in float32, of t = exp(2 a) − 1: 1 − 2/(t + 2), and below 0.55 a + (t − 2 a − a t)/(t + 2), so
    that what is divided is the small part of the result.
    """
    cut = e.select(e.fcmp("ogt", a, _TANH_END), e.const(a.type, _TANH_END), a)
    twice = e.fadd(cut, cut)
    k, r, _ = _reduced(e, twice)
    power = power_of_two(e, k, a.type)
    t = e.fma(_expm1_reduced(e, r), power, e.fsub(power, 1.0))
    near = e.fcmp("olt", a, 0.55)
    rest = e.select(near, e.fma(e.fneg(cut), t, e.fsub(t, twice)), e.const(a.type, -2.0))
    return e.fadd(e.select(near, cut, e.const(a.type, 1.0)), e.fdiv(rest, e.fadd(t, 2.0)))


@elementary
def tanh(e: Emitter, x: SSAValue) -> SSAValue:
    a = e.fabs(x)
    if bits(x.type) == 32:
        return e.copysign(_tanh_32(e, a), x)
    z = e.fmul(x, x)
    near = e.fma(e.fmul(z, a), polynomial(e, z, p.TANH[64]), a)
    far = e.fsub(1.0, e.fdiv(2.0, e.fadd(exp_scaled(e, e.fadd(a, a)), 1.0)))
    return e.copysign(e.select(e.fcmp("olt", a, 0.55), near, far), x)


@elementary
def sinh(e: Emitter, x: SSAValue) -> SSAValue:
    a = e.fabs(x)
    z = e.fmul(x, x)
    near = e.fma(e.fmul(z, a), polynomial(e, z, p.SINH[bits(x.type)]), a)
    half = exp_scaled(e, a, -1)
    return e.copysign(e.select(e.fcmp("olt", a, 1.0), near, e.fsub(half, e.fdiv(0.25, half))), x)


@elementary
def cosh(e: Emitter, x: SSAValue) -> SSAValue:
    half = exp_scaled(e, e.fabs(x), -1)
    return e.fadd(half, e.fdiv(0.25, half))


def _log2_pair(e: Emitter, x: SSAValue) -> Pair:
    """log2 of positive finite float64 to about 65 bits, so that powers are exact enough."""
    m, k = split_exponent(e, x)
    f = e.fsub(m, 1.0)
    below, below_low = exact_sum(e, e.const(x.type, 2.0), f)
    quotient = e.fdiv(f, below)
    s = (quotient, e.fdiv(e.fma(e.fneg(quotient), below_low, e.fma(e.fneg(quotient), below, f)), below))
    z = pair_times(e, s, s)
    tail = polynomial(e, z[0], p.LOG_TAIL[64])
    series = pair_plus(e, parts("0.66666666666666666666666666666666666666666", 64, 2), exact_product(e, z[0], tail))
    cubic = pair_times(e, pair_times(e, s, z), series)
    natural = pair_plus(e, (e.fmul(s[0], 2.0), e.fmul(s[1], 2.0)), cubic)
    return pair_plus(
        e, (e.convert(k, element_type(x.type)), e.const(x.type, 0)), pair_times(e, natural, parts(LOG2_E, 64, 2))
    )


@elementary
def pow(e: Emitter, x: SSAValue, y: SSAValue) -> SSAValue:
    """x^y with the special cases of C (F.10.4.4): x^0 = 1^y = 1 also for NaN, negative x with integer y only."""
    element = element_type(x.type)
    if isinstance(element, Float64Type):
        return _power(e, x, y, _precise_exponent)
    # The exponent has 29 bits more than float32 needs, so that the logarithm needs no pairs.
    return e.convert(_power(e, e.convert(x, f64), e.convert(y, f64), _plain_exponent), element)


def _plain_exponent(e: Emitter, a: SSAValue, y: SSAValue) -> Pair:
    """y · log2(a), to about 45 bits of the power."""
    m, k = split_exponent(e, a)
    natural = e.fadd(*log1p_pair(e, e.fsub(m, 1.0)))
    logarithm = e.fma(natural, parts(LOG2_E, 64, 1)[0], e.convert(k, element_type(a.type)))
    return e.fmul(logarithm, y), e.const(a.type, 0.0)


def _precise_exponent(e: Emitter, a: SSAValue, y: SSAValue) -> Pair:
    """y · log2(a) as a pair."""
    high, low = _log2_pair(e, a)
    product, error = exact_product(e, high, y)
    return product, e.fma(low, y, error)


def _power(e: Emitter, x: SSAValue, y: SSAValue, exponent: Callable[[Emitter, SSAValue, SSAValue], Pair]) -> SSAValue:
    t = x.type
    a = e.fabs(x)
    # Powers beyond the range overflow or underflow for certain; y is cut so that no product is NaN.
    limit = 2.0**70
    high, low = exponent(e, a, _clamped(e, y, -limit, limit))
    high_in = _clamped(e, high, *_EXP2_RANGE[64])
    low = e.select(e.fcmp("oeq", high, high_in), low, e.const(t, 0))
    n, k = nearest_integer(e, high_in, 1.0)
    fraction = exact_sum(e, e.fsub(high_in, n), low)
    r = pair_times(e, fraction, parts(LN2, 64, 2))
    result = scaled(e, e.fadd(_expm1_reduced(e, *r), 1.0), k)
    # Edges.
    magnitude_up = e.xor(e.fcmp("ogt", a, 1.0), e.fcmp("olt", y, 0.0))  # a^y grows without bound as |y| or a do
    zero_or_inf = e.select(magnitude_up, e.const(t, INF), e.const(t, 0.0))
    extreme = e.or_(e.fcmp("oeq", a, INF), e.or_(e.fcmp("oeq", a, 0.0), e.fcmp("oeq", e.fabs(y), INF)))
    result = e.select(extreme, zero_or_inf, result)
    whole = e.fcmp("oeq", e.intrinsic("llvm.floor", (y,)), y)
    half = e.fmul(y, 0.5)
    odd = e.and_(whole, e.fcmp("one", e.intrinsic("llvm.floor", (half,)), half))
    finite_negative = e.and_(e.fcmp("olt", x, 0.0), e.fcmp("one", x, -INF))
    result = e.select(e.and_(finite_negative, e.not_(whole)), e.const(t, NAN), result)
    negative = e.icmp("slt", bits_of(e, x), 0)
    result = e.select(e.and_(negative, odd), e.fneg(result), result)
    result = e.select(e.fcmp("uno", x, y), e.fadd(x, y), result)
    minus_one = e.and_(e.fcmp("oeq", x, -1.0), e.fcmp("oeq", e.fabs(y), INF))
    one = e.or_(e.or_(e.fcmp("oeq", x, 1.0), e.fcmp("oeq", y, 0.0)), minus_one)
    return e.select(one, e.const(t, 1.0), result)
