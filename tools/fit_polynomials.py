"""Fit the polynomials of ``forgec/backends/cpu/vector_math/polynomials.py``, and print that file.

    python -m tools.fit_polynomials > forgec/backends/cpu/vector_math/polynomials.py

Each row of ``FITS`` is a function, an interval and the weight of the error, which makes the error of the result
relative. The fit is the exchange algorithm of Remez for linear weighted approximation (E. W. Cheney, Introduction to
Approximation Theory, ch. 3), in 60 digits. Coefficients are rounded to the format afterwards: the terms that matter
most for rounding (1, x, x²/2) stand in the code and are not fitted.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpmath import mp, mpf

mp.dps = 60
Number = Any  # mpmath's types depend on its backend

Function = Callable[[Number], Number]


@dataclass(frozen=True)
class Fit:
    """``f`` on ``interval`` by ``terms`` (for float32, float64) coefficients, so that error · ``weight`` is least."""

    name: str
    f: Function
    weight: Function
    interval: tuple[float, float]
    terms: tuple[int, int]
    what: str


def _series(closed: Function, coefficients: Callable[[int], Number], near: float = 1e-3) -> Function:
    """``closed``, by its power series around 0, where the closed form cancels."""

    def f(x: Number) -> Number:
        if abs(x) > near:
            return closed(x)
        return mp.fsum(coefficients(k) * x**k for k in range(25))

    return f


def _odd(f: Function, derivative_terms: Callable[[int], Number]) -> Function:
    """(f(x) − x)/x³ as a function of z = x²."""
    return _series(lambda z: (f(mp.sqrt(z)) - mp.sqrt(z)) / mp.sqrt(z) ** 3, derivative_terms)


def _tanh_term(k: int) -> Number:
    n = k + 2
    return mpf(4) ** n * (mpf(4) ** n - 1) * mp.bernoulli(2 * n) / mp.factorial(2 * n)


def _asin_term(k: int) -> Number:
    n = k + 1
    return mp.factorial(2 * n) / (mpf(4) ** n * mp.factorial(n) ** 2 * (2 * n + 1))


def _odd_weight(f: Function) -> Function:
    return lambda z: abs(mp.sqrt(z) ** 3 / f(mp.sqrt(z))) if z else mpf(0)


def _log_remainder(z: Number) -> Number:
    """(log((1 + s)/(1 − s)) − 2 s)/s as a function of z = s², divided by z."""
    s = mp.sqrt(z)
    return (mp.log((1 + s) / (1 - s)) - 2 * s) / (s * z)


def _erfcx(t: Number) -> Number:
    """(1 + 2 x) exp(x²) erfc(x) as a function of t = (x − 4)/(x + 4)."""
    if t == 1:
        return 2 / mp.sqrt(mp.pi)
    x = 4 * (1 + t) / (1 - t)
    if x > 300:  # asymptotic series, Abramowitz and Stegun 7.1.23
        series = mp.fsum((-1) ** k * mp.fac2(2 * k - 1) / (2 * x * x) ** k for k in range(9))
        return (1 + 2 * x) / (x * mp.sqrt(mp.pi)) * series
    with mp.workdps(80):
        return (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x)


_LN2_HALF = float(mp.log(2) / 2)
_QUARTER_PI_SQUARED = float((mp.pi / 4) ** 2)
_S_SQUARED = float((3 - 2 * mp.sqrt(2)) ** 2)
_TWO_OVER_ROOT_PI = 2 / mp.sqrt(mp.pi)

FITS = [
    Fit("EXP", _series(lambda r: (mp.exp(r) - 1 - r) / r**2, lambda k: 1 / mp.factorial(k + 2)), lambda r: r**2,
        (-_LN2_HALF * 1.01, _LN2_HALF * 1.01), (5, 10), "(exp(r) − 1 − r)/r² for |r| ≤ ln 2/2"),
    Fit("LOG", _series(_log_remainder, lambda k: mpf(2) / (2 * k + 3), 1e-9), lambda z: z,
        (0, _S_SQUARED), (4, 8), "(log((1 + s)/(1 − s)) − 2 s)/s³ in s², s = f/(2 + f), |f| ≤ √2 − 1"),
    Fit("LOG_TAIL", _series(lambda z: (_log_remainder(z) - mpf(2) / 3) / z, lambda k: mpf(2) / (2 * k + 5), 1e-9),
        lambda z: z, (0, _S_SQUARED), (0, 9), "the same without its first term, 2/3"),
    Fit("SIN", _odd(mp.sin, lambda k: (-1) ** (k + 1) / mp.factorial(2 * k + 3)), _odd_weight(mp.sin),
        (0, _QUARTER_PI_SQUARED * 1.01), (3, 6), "(sin(r) − r)/r³ in r², |r| ≤ π/4"),
    Fit("COS",
        _series(lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2, lambda k: (-1) ** k / mp.factorial(2 * k + 4)),
        lambda z: z**2, (0, _QUARTER_PI_SQUARED * 1.01), (3, 6), "(cos(r) − 1 + r²/2)/r⁴ in r², |r| ≤ π/4"),
    Fit("TANH", _odd(mp.tanh, _tanh_term), _odd_weight(mp.tanh), (0, 0.3025), (0, 11),
        "(tanh(x) − x)/x³ in x², |x| ≤ 0.55"),
    Fit("SINH", _odd(mp.sinh, lambda k: 1 / mp.factorial(2 * k + 3)), _odd_weight(mp.sinh), (0, 1), (4, 7),
        "(sinh(x) − x)/x³ in x², |x| ≤ 1"),
    Fit("ASIN", _odd(mp.asin, _asin_term), _odd_weight(mp.asin), (0, 0.25), (6, 13),
        "(asin(x) − x)/x³ in x², |x| ≤ 1/2"),
    Fit("ATAN", _odd(mp.atan, lambda k: (-1) ** (k + 1) / mpf(2 * k + 3)), _odd_weight(mp.atan),
        (0, 0.1916), (5, 11), "(atan(x) − x)/x³ in x², |x| ≤ 7/16"),
    Fit("ERF_NEAR", _series(lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1,
                            lambda k: _TWO_OVER_ROOT_PI * (-1) ** k / (mp.factorial(k) * (2 * k + 1)) - (k == 0), 1e-6),
        lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)) if z else 1 / _TWO_OVER_ROOT_PI, (0, 1.21), (7, 0),
        "erf(x)/x − 1 in x², |x| ≤ 1.1"),
    Fit("ERF_FAR", lambda x: mp.erfc(x) ** (mpf(1) / 8), lambda x: 8 * mp.erfc(x) ** (mpf(7) / 8) / mp.erf(x),
        (1.1, 3.95), (7, 0), "the eighth root of erfc(x), 1.1 ≤ x ≤ 3.95, so that erf has least error"),
    Fit("ERF", _series(lambda z: (mp.erf(mp.sqrt(z)) / mp.sqrt(z) - _TWO_OVER_ROOT_PI) / z,
                       lambda k: _TWO_OVER_ROOT_PI * (-1) ** (k + 1) / (mp.factorial(k + 1) * (2 * k + 3)), 1e-6),
        lambda z: z, (0, 1), (0, 12), "(erf(x)/x − 2/√π)/x² in x², |x| ≤ 1"),
    Fit("ERFCX", _erfcx, lambda t: 1 / _erfcx(t), (-1, 1), (0, 26),
        "(1 + 2 x) exp(x²) erfc(x) in t = (x − 4)/(x + 4), x ≥ 0 (Shepherd and Laframboise, Math. Comp. 36, 1981)"),
]  # fmt: skip


def remez(fit: Fit, terms: int) -> tuple[list[Number], Number]:
    """The coefficients, lowest first, and the largest weighted error."""
    low, high = map(mpf, fit.interval)
    grid = [low + (high - low) * (1 - mp.cos(mp.pi * k / (40 * terms))) / 2 for k in range(40 * terms + 1)]
    values = [fit.f(x) for x in grid]
    weights = [fit.weight(x) for x in grid]
    least = max(weights) * mpf("1e-9")  # where the weight vanishes any polynomial is right
    usable = [k for k in range(len(grid)) if weights[k] > least]
    points = [usable[round(k * (len(usable) - 1) / terms)] for k in range(terms + 1)]
    coefficients, worst = [mpf(0)], mpf(0)
    for _ in range(12):
        rows = mp.matrix(
            [[grid[p] ** i for i in range(terms)] + [(-1) ** k / weights[p]] for k, p in enumerate(points)]
        )
        solution = mp.lu_solve(rows, mp.matrix([values[p] for p in points]))
        coefficients = [solution[i] for i in range(terms)]
        errors = [weights[k] * (values[k] - mp.polyval(coefficients[::-1], grid[k])) for k in range(len(grid))]
        worst = max(map(abs, errors))
        if worst < abs(solution[terms]) * mpf("1.01"):
            break
        points = _alternation(errors, usable, terms + 1)
    return coefficients, worst


def _alternation(errors: list[Number], usable: list[int], count: int) -> list[int]:
    """The places of ``count`` extrema of alternating sign, among them the largest."""
    extrema: list[int] = []
    for k in usable:
        if extrema and mp.sign(errors[k]) == mp.sign(errors[extrema[-1]]):
            if abs(errors[k]) > abs(errors[extrema[-1]]):
                extrema[-1] = k
        else:
            extrema.append(k)
    while len(extrema) > count:
        extrema.pop(0 if abs(errors[extrema[0]]) < abs(errors[extrema[-1]]) else -1)
    if len(extrema) < count:
        raise ArithmeticError("the error does not alternate often enough")
    return extrema


def main() -> None:
    print('"""Coefficients of polynomials, lowest power first; written by ``tools/fit_polynomials.py``."""\n')
    print("# For each: what it approximates, and the largest error relative to the result, for float32 and float64")
    for fit in FITS:
        rows, errors = [], []
        for terms, format_ in zip(fit.terms, "fd", strict=True):
            if not terms:
                rows.append("()")
                continue
            coefficients, worst = remez(fit, terms)
            print(f"{fit.name}: {mp.nstr(worst, 3)} = 2^{mp.nstr(mp.log(worst, 2), 4)}", file=sys.stderr)
            rounded = [struct.unpack(format_, struct.pack(format_, float(c)))[0] for c in coefficients]
            rows.append("(" + ", ".join(repr(c) for c in rounded) + ",)")
            errors.append(f"2^{mp.nstr(mp.log(worst, 2), 3)}")
        print(f"\n# {fit.what}; {', '.join(errors)}\n{fit.name} = {{32: {rows[0]}, 64: {rows[1]}}}")


if __name__ == "__main__":
    main()
