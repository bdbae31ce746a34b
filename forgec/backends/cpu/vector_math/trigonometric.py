"""sin, cos, tan and their inverses.

Reduction by multiples of π/2 as a pair of numbers: in three steps where the quotient is small (W. J. Cody and W.
Waite, Software Manual for the Elementary Functions, 1980, with fused operations), else from the bits of 2/π that
matter (M. Payne and R. Hanek, "Radian reduction for trigonometric functions", SIGNUM Newsletter 18, 1983).
Polynomials and the inverse functions after fdlibm (k_sin.c, k_cos.c, e_asin.c, s_atan.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from xdsl.dialects.builtin import IntegerType
from xdsl.ir import SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import bits, element_type, i64, lanes, with_element
from forgec.backends.cpu.vector_math import polynomials as p
from forgec.backends.cpu.vector_math.arithmetic import (
    HALF_PI,
    PI,
    TWO_OVER_PI,
    Pair,
    bits_of,
    elementary,
    exact_product,
    exact_sum,
    exact_sum_in_any_order,
    format_of,
    nearest_integer,
    parts,
    polynomial,
    power_of_two,
    sign_is_set,
)

i128 = IntegerType(128)
NAN = float("nan")
# Up to here the quotient has few enough bits that three parts of π/2 leave an error far below that of the polynomials.
_NEAR = {32: 2.0**15, 64: 2.0**20}
_WORDS = 22


@cache
def _two_over_pi_words() -> Sequence[int]:
    """64 zero bits, then the bits of 2/π behind the binary point, in words of 64."""
    count = 64 * _WORDS
    guard = count + 64

    def arctangent_of_inverse(n: int) -> int:
        term = total = (1 << guard) // n
        k = 1
        while term:
            term //= n * n
            k += 2
            total += -(term // k) if k % 4 == 3 else term // k
        return total

    pi = 16 * arctangent_of_inverse(5) - 4 * arctangent_of_inverse(239)  # Machin
    digits = ((2 << (guard + count)) // pi) & ((1 << count) - 1)
    words = [(digits >> (count - 64 * (i + 1))) & (2**64 - 1) for i in range(_WORDS - 1)]
    return [0, *words]


def _payne_hanek(e: Emitter, x: SSAValue, table: SSAValue) -> tuple[SSAValue, SSAValue, SSAValue]:
    """For a finite scalar |x| ≥ 2^15: the quadrant as i64, and the rest; ``table`` has ``_two_over_pi_words``."""
    fmt = format_of(x)
    fraction_bits = fmt.precision + 1
    whole = e.zext(bits_of(e, x), i64) if fmt.bits == 32 else bits_of(e, x)
    field = e.and_(e.lshr(whole, fmt.precision), 2 * fmt.bias + 1)
    mantissa = e.or_(e.and_(whole, (1 << fmt.precision) - 1), 1 << fmt.precision)
    # |x| = mantissa · 2^E. Bits of 2/π that give multiples of 4 are left out: the window begins at bit E − 1.
    start = e.add(field, 64 - 2 - fmt.bias - fmt.precision)
    start = e.smin(e.smax(start, 0), 64 * (_WORDS - 4))
    index, shift = e.lshr(start, 6), e.and_(start, 63)
    word = [e.load(i64, e.element(table, e.add(index, k), i64)) for k in range(4)]
    window = [e.zext(e.intrinsic("llvm.fshl", (word[k], word[k + 1], shift)), i128) for k in range(3)]
    m = e.zext(mantissa, i128)
    # The product modulo 2^192 without its last 64 bits: a number of 128 bits in units of 4/2^128.
    low = e.lshr(e.mul(m, window[2]), 64)
    product = e.add(e.add(e.shl(e.mul(m, window[0]), 64), e.mul(m, window[1])), low)
    quadrant = e.lshr(e.add(product, e.shl(e.const(i128, 1), 125)), 126)
    rest = e.sub(product, e.shl(quadrant, 126))
    below = e.icmp("slt", rest, 0)
    magnitude = e.select(below, e.sub(0, rest), rest)
    zeros = e.umin(e.intrinsic("llvm.ctlz", (magnitude, e.const(with_element(x.type, IntegerType(1)), 0))), 127)
    top = e.trunc(e.lshr(e.shl(magnitude, zeros), 64), i64)
    zeros = e.trunc(zeros, fmt.integer)
    # The leading bits of the rest, and those that follow, each exact as a float.
    following = min(fraction_bits, 64 - fraction_bits)
    first = e.convert(e.lshr(top, 64 - fraction_bits), element_type(x.type))
    second = e.convert(e.lshr(e.shl(top, fraction_bits), 64 - following), element_type(x.type))
    high = e.fmul(first, power_of_two(e, e.sub(2 - fraction_bits, zeros), x.type))
    second = e.fmul(second, power_of_two(e, e.sub(2 - fraction_bits - following, zeros), x.type))
    half_pi, half_pi_low = parts(HALF_PI, fmt.bits, 2)
    main, error = exact_product(e, high, half_pi)
    r, r_low = exact_sum(e, main, e.fma(high, half_pi_low, e.fma(second, half_pi, error)))
    quadrant = e.trunc(quadrant, i64)
    negative = sign_is_set(e, x)
    flip = e.xor(negative, below)
    quadrant = e.select(negative, e.sub(0, quadrant), quadrant)
    return quadrant, e.select(flip, e.fneg(r), r), e.select(flip, e.fneg(r_low), r_low)


def _far(e: Emitter, x: SSAValue) -> list[SSAValue]:
    """The reduction of each lane, one after the other: quadrants as integers of the format's width, and the rest."""
    fmt = format_of(x)
    words = _two_over_pi_words()
    table = e.alloca(i64, len(words))
    for k, word in enumerate(words):
        e.store(e.const(i64, word), e.element(table, k, i64))
    integer = element_type(fmt.integer)

    def narrowed(quadrant: SSAValue) -> SSAValue:
        return e.trunc(quadrant, integer) if fmt.bits == 32 else quadrant

    count = lanes(x.type)
    if count is None:
        quadrant, r, low = _payne_hanek(e, x, table)
        return [narrowed(quadrant), r, low]
    element = element_type(x.type)
    source, *results = [e.alloca(element, count) for _ in range(4)]
    e.store(x, source)

    def lane(index: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
        quadrant, r, low = _payne_hanek(e, e.load(element, e.element(source, index, element)), table)
        for value, target in zip((narrowed(quadrant), r, low), results, strict=True):
            e.store(value, e.element(target, index, element))
        return []

    e.loop(0, count, 1, (), lane)
    types = (with_element(x.type, integer), x.type, x.type)
    return [e.load(type, target) for type, target in zip(types, results, strict=True)]


def _reduced(e: Emitter, x: SSAValue) -> tuple[SSAValue, SSAValue, SSAValue]:
    """x = quadrant · π/2 + (r + low), |r| ≤ π/4: the quadrant (two bits of an integer), r and low. NaN of infinities.

    The sine and the cosine of one angle, as rotary embeddings need them, share it.
    """
    return e.remember(("reduction by π/2", x), lambda: _reduction(e, x))


def _reduction(e: Emitter, x: SSAValue) -> tuple[SSAValue, SSAValue, SSAValue]:
    fmt = format_of(x)
    n, quadrant = nearest_integer(e, x, parts(TWO_OVER_PI, fmt.bits, 1)[0])
    high, middle, last = parts(HALF_PI, fmt.bits, 3)
    first = e.fma(n, -high, x)  # exact
    # Near multiples of π/2 the first two parts cancel, so that what each step loses counts.
    product, product_low = exact_product(e, n, middle)
    r, lost = exact_sum_in_any_order(e, first, e.fneg(product))
    r, low = exact_sum(e, r, e.fma(n, -last, e.fsub(lost, product_low)))
    a = e.fabs(x)
    far = e.and_(e.fcmp("ogt", a, _NEAR[fmt.bits]), e.fcmp("olt", a, float("inf")))

    def exactly() -> list[SSAValue]:
        values = _far(e, x)
        return [e.select(far, new, old) for new, old in zip(values, (quadrant, r, low), strict=True)]

    quadrant, r, low = e.if_(e.any(far), exactly, unchanged=(quadrant, r, low))
    return quadrant, r, low


def _sine(e: Emitter, r: SSAValue, low: SSAValue) -> Pair:
    """sin(r + low) as r and what is added to it."""
    z = e.fmul(r, r)
    cubic = e.fmul(e.fmul(z, r), polynomial(e, z, p.SIN[bits(r.type)]))
    return r, e.fadd(cubic, e.fma(e.fmul(z, -0.5), low, low))


def _cosine(e: Emitter, r: SSAValue, low: SSAValue) -> Pair:
    """cos(r + low) as 1 − r²/2, rounded, and what is added to it."""
    z = e.fmul(r, r)
    half = e.fmul(z, 0.5)
    high = e.fsub(1.0, half)
    lost = e.fma(e.fmul(r, -0.5), r, e.fsub(1.0, high))  # of 1 − r²/2, with the error of r²
    quartic = e.fmul(e.fmul(z, z), polynomial(e, z, p.COS[bits(r.type)]))
    return high, e.fadd(lost, e.fma(e.fneg(r), low, quartic))


def _sine_of_quadrant(e: Emitter, quadrant: SSAValue, r: SSAValue, low: SSAValue) -> SSAValue:
    sine, cosine = e.fadd(*_sine(e, r, low)), e.fadd(*_cosine(e, r, low))
    value = e.select(e.icmp("ne", e.and_(quadrant, 1), 0), cosine, sine)
    sign = e.shl(e.and_(quadrant, 2), bits(r.type) - 2)
    return e.bitcast(e.xor(bits_of(e, value), sign), r.type)


def _unless_tiny(e: Emitter, x: SSAValue, result: SSAValue) -> SSAValue:
    """x itself where its cube is far below its last bit, which keeps zeros and subnormals."""
    return e.select(e.fcmp("olt", e.fabs(x), 2.0 ** -(format_of(x).precision // 2 + 3)), x, result)


@elementary
def sin(e: Emitter, x: SSAValue) -> SSAValue:
    return _unless_tiny(e, x, _sine_of_quadrant(e, *_reduced(e, x)))


@elementary
def cos(e: Emitter, x: SSAValue) -> SSAValue:
    quadrant, r, low = _reduced(e, x)
    return _sine_of_quadrant(e, e.add(quadrant, 1), r, low)


@elementary
def tan(e: Emitter, x: SSAValue) -> SSAValue:
    quadrant, r, low = _reduced(e, x)
    sine, cosine = exact_sum(e, *_sine(e, r, low)), exact_sum(e, *_cosine(e, r, low))
    odd = e.icmp("ne", e.and_(quadrant, 1), 0)
    # tan(r + π/2) = −cos(r)/sin(r)
    above = [e.select(odd, e.fneg(c), s) for s, c in zip(sine, cosine, strict=True)]
    below = [e.select(odd, s, c) for s, c in zip(sine, cosine, strict=True)]
    quotient = e.fdiv(above[0], below[0])
    rest = e.fadd(e.fma(e.fneg(quotient), below[0], above[0]), e.fma(e.fneg(quotient), below[1], above[1]))
    return _unless_tiny(e, x, e.fadd(quotient, e.fdiv(rest, below[0])))


@elementary
def asin(e: Emitter, x: SSAValue) -> SSAValue:
    a = e.fabs(x)
    r, cubic, far = _arcsine_parts(e, a)
    high, low = parts(HALF_PI, bits(x.type), 2)
    # π/2 − 2 (r + cubic)
    outer, lost = exact_sum(e, e.const(x.type, high), e.fmul(r, -2.0))
    outer = e.fadd(outer, e.fma(cubic, -2.0, e.fadd(lost, low)))
    result = e.copysign(e.select(far, outer, e.fadd(r, cubic)), x)
    return _unless_tiny(e, x, result)


def _arcsine_parts(e: Emitter, a: SSAValue) -> tuple[SSAValue, SSAValue, SSAValue]:
    """asin of a ≥ 0, or of √((1 − a)/2) for a > ½, as r and what is added to it, and which of both. NaN for a > 1."""
    far = e.fcmp("ogt", a, 0.5)
    half = e.fmul(e.fsub(1.0, a), 0.5)  # exact for a > ½
    z = e.select(far, half, e.fmul(a, a))
    root = e.sqrt(half)
    r = e.select(far, root, a)
    cubic = e.fmul(e.fmul(z, r), polynomial(e, z, p.ASIN[bits(a.type)]))
    # What the root has lost, (z − r²)/(2 r).
    lost = e.fdiv(e.fma(e.fneg(root), root, half), e.fadd(root, root))
    lost = e.select(e.and_(far, e.fcmp("olt", a, 1.0)), lost, e.const(a.type, 0.0))
    return r, e.fadd(cubic, lost), far


@elementary
def acos(e: Emitter, x: SSAValue) -> SSAValue:
    r, cubic, far = _arcsine_parts(e, e.fabs(x))
    negative = sign_is_set(e, x)
    width = bits(x.type)
    half_pi, half_pi_low = parts(HALF_PI, width, 2)
    pi, pi_low = parts(PI, width, 2)
    # |x| ≤ ½: π/2 − (r + cubic), with the sign of x.
    signed_r, signed_cubic = e.copysign(r, x), e.select(negative, e.fneg(cubic), cubic)
    near, near_lost = exact_sum(e, e.const(x.type, half_pi), e.fneg(signed_r))
    near = e.fadd(near, e.fadd(near_lost, e.fsub(half_pi_low, signed_cubic)))
    # Else 2 (r + cubic), or π less that.
    doubled = e.fmul(e.fadd(r, cubic), 2.0)
    back, back_lost = exact_sum(e, e.const(x.type, pi), e.fmul(r, -2.0))
    back = e.fadd(back, e.fadd(back_lost, e.fma(cubic, -2.0, pi_low)))
    return e.select(far, e.select(negative, back, doubled), near)


# Where n/d reaches these, atan(n/d) is computed as atan(c) + atan((n − c d)/(d + c n)).
_ATAN_STEPS = ((0.4375, 0.5), (0.6875, 1.0), (1.1875, 1.5), (2.4375, float("inf")))
_ATAN_OF = {
    0.5: "0.46364760900080611621425623146121440202853705428612",
    1.0: "0.78539816339744830961566084581987572104929234984378",
    1.5: "0.98279372324732906798571061101466601449687745363163",
    float("inf"): HALF_PI,
}


def _arctangent_of_ratio(e: Emitter, n: SSAValue, d: SSAValue) -> Pair:
    """atan(n/d) for n, d ≥ 0, not both 0 or infinite, as a pair."""
    t, width = n.type, bits(n.type)
    above, below = n, d
    high, low = e.const(t, 0.0), e.const(t, 0.0)
    for border, c in _ATAN_STEPS:
        reached = e.fcmp("oge", n, e.fmul(d, border))
        if c == float("inf"):
            moved = e.fneg(d), n
        else:
            moved = e.fma(d, -c, n), e.fma(n, c, d)  # n − c d is exact: n and c d are within a factor of 2
        above, below = e.select(reached, moved[0], above), e.select(reached, moved[1], below)
        c_high, c_low = parts(_ATAN_OF[c], width, 2)
        high, low = e.select(reached, e.const(t, c_high), high), e.select(reached, e.const(t, c_low), low)
    quotient = e.fdiv(above, below)
    z = e.fmul(quotient, quotient)
    cubic = e.fmul(e.fmul(z, quotient), polynomial(e, z, p.ATAN[width]))
    total, lost = exact_sum(e, high, quotient)
    return total, e.fadd(lost, e.fadd(cubic, low))


@elementary
def atan(e: Emitter, x: SSAValue) -> SSAValue:
    result = e.fadd(*_arctangent_of_ratio(e, e.fabs(x), e.const(x.type, 1.0)))
    return _unless_tiny(e, x, e.copysign(result, x))


@elementary
def atan2(e: Emitter, y: SSAValue, x: SSAValue) -> SSAValue:
    """The angle of (x, y), with the special cases of C (F.10.1.4): zeros have signs, infinities are at 45°."""
    fmt, t = format_of(x), x.type
    n, d = e.fabs(y), e.fabs(x)
    inf, one = float("inf"), e.const(t, 1.0)
    equal = e.and_(e.fcmp("oeq", n, d), e.or_(e.fcmp("oeq", n, inf), e.fcmp("oeq", n, 0.0)))
    both_zero = e.and_(equal, e.fcmp("oeq", n, 0.0))
    n = e.select(both_zero, e.const(t, 0.0), e.select(equal, one, n))
    d = e.select(equal, one, d)
    # Scaled, so that neither sums overflow nor differences become subnormal.
    larger = e.select(e.fcmp("ogt", n, d), n, d)
    shrink = e.fcmp("ogt", larger, 2.0 ** (fmt.bias - 3))
    grow = e.fcmp("olt", larger, 2.0 ** (2 * fmt.precision + 4 - fmt.bias))
    factor = e.select(shrink, e.const(t, 2.0**-4), e.select(grow, e.const(t, 2.0 ** (fmt.precision + 4)), one))
    high, low = _arctangent_of_ratio(e, e.fmul(n, factor), e.fmul(d, factor))
    pi, pi_low = parts(PI, fmt.bits, 2)
    back, lost = exact_sum(e, e.const(t, pi), e.fneg(high))
    back = e.fadd(back, e.fadd(lost, e.fsub(pi_low, low)))
    result = e.copysign(e.select(sign_is_set(e, x), back, e.fadd(high, low)), y)
    return e.select(e.fcmp("uno", x, y), e.fadd(x, y), result)
