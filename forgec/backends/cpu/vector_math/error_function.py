"""erf and erfc."""

from __future__ import annotations

from xdsl.ir import SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import bits
from forgec.backends.cpu.vector_math import polynomials as p
from forgec.backends.cpu.vector_math.arithmetic import elementary, exact_product, parts, polynomial, through_float64
from forgec.backends.cpu.vector_math.exponential import exp_scaled

_ERF_BORDER, _ERF_END = 1.1, 3.95
_TWO_OVER_ROOT_PI = "1.12837916709551257389615890312154517168810125865799771368817"


def _near(e: Emitter, x: SSAValue) -> SSAValue:
    """erf(x), |x| ≤ 1, in float64."""
    width = bits(x.type)
    high, low = parts(_TWO_OVER_ROOT_PI, width, 2)
    z = e.fmul(x, x)
    return e.fma(x, high, e.fmul(x, e.fma(z, polynomial(e, z, p.ERF[width]), low)))


def _complement(e: Emitter, a: SSAValue) -> SSAValue:
    """erfc(a), a ≥ 0, in float64: exp(−a²) times what stays between 1 and 1.2 when divided by 1 + 2 a."""
    a = e.select(e.fcmp("ogt", a, 30.0), e.const(a.type, 30.0), a)  # where it is 0; of infinity t would be NaN
    sum_ = e.fadd(a, 4.0)
    quotient = e.fdiv(e.fsub(a, 4.0), sum_)
    # a − 4 = (a + 4) t; the rest corrects the quotient: t = (a + 4 − 8)/(a + 4) = 1 − 8/(a + 4).
    lost = e.fsub(a, e.fsub(sum_, 4.0))
    rest = e.fma(e.fneg(quotient), sum_, e.fsub(a, 4.0))
    t = e.fadd(quotient, e.fdiv(e.fma(e.fneg(quotient), lost, rest), sum_))
    scaled = polynomial(e, t, p.ERFCX[64])
    below = e.fma(a, 2.0, 1.0)
    ratio = e.fdiv(scaled, below)
    ratio = e.fadd(ratio, e.fdiv(e.fma(e.fneg(ratio), below, scaled), below))
    square, error = exact_product(e, a, a)
    # exp(−(square + error)) ratio, of which 2^-100 is applied last, so that subnormal results are rounded once.
    upscaled = exp_scaled(e, e.fneg(square), 100)
    value = e.fmul(upscaled, ratio)
    return e.fmul(e.fma(e.fneg(value), error, value), 2.0**-100)


def _erf_32(e: Emitter, a: SSAValue) -> SSAValue:
    """erf(a), a ≥ 0, in float32: 1 less the eighth power of a polynomial, which at the end of the range is less than
    half an ulp; near 0 an odd polynomial. One chain of operations computes both, with the coefficients of either.
    """
    near = e.fcmp("olt", a, _ERF_BORDER)
    cut = e.select(e.fcmp("ogt", a, _ERF_END), e.const(a.type, _ERF_END), a)
    t = e.select(near, e.fmul(a, a), cut)
    value: SSAValue | None = None
    for c, d in reversed(list(zip(p.ERF_NEAR[32], p.ERF_FAR[32], strict=True))):
        coefficient = e.select(near, e.const(a.type, c), e.const(a.type, d))
        value = coefficient if value is None else e.fma(value, t, coefficient)
    assert value is not None
    square = e.fmul(value, value)
    fourth = e.fmul(square, square)
    return e.select(near, e.fma(value, a, a), e.fma(e.fneg(fourth), fourth, 1.0))


@elementary
def erf(e: Emitter, x: SSAValue) -> SSAValue:
    a = e.fabs(x)
    if bits(x.type) == 32:
        return e.copysign(_erf_32(e, a), x)
    far = e.fsub(1.0, _complement(e, a))
    return e.copysign(e.select(e.fcmp("olt", a, 1.0), _near(e, a), far), x)


@elementary
@through_float64
def erfc(e: Emitter, x: SSAValue) -> SSAValue:
    a = e.fabs(x)
    tail = _complement(e, a)
    tail = e.select(e.fcmp("olt", x, 0.0), e.fsub(2.0, tail), tail)
    return e.select(e.fcmp("olt", a, 0.5), e.fsub(1.0, _near(e, x)), tail)
