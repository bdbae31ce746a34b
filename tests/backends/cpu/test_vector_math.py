"""Accuracy of the elementary functions, in ulp: of float32 against float64, of float64 against mpmath.

A sweep has numbers of every exponent, those where functions change their method, and all special values. The tests
take a sample; ``python -m tests.backends.cpu.test_vector_math`` prints the largest errors over many more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.llvm import CallIntrinsicOp, FastMathAttr
from xdsl.dialects.utils import FastMathFlag
from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu import vector_math
from forgec.backends.cpu.emitter import Emitter, function
from forgec.backends.cpu.llvm_types import bf16, f16, f32, f64, vector
from forgec.backends.cpu.to_llvm import llvm_text
from tests.backends.cpu.native import elementwise

Array = np.ndarray
LIMITS_32 = dict.fromkeys(vector_math.UNARY, 2.0) | dict.fromkeys(vector_math.BINARY, 2.0)
LIMITS_64 = LIMITS_32 | {"erfc": 4.0}
EXACT = ("sqrt", "floor", "ceil", "round_even", "trunc", "fmod", "remainder")
LIMITS_32 |= dict.fromkeys(EXACT, 0.5)
LIMITS_64 |= dict.fromkeys(EXACT, 0.5)


def python_modulo(x: Array, y: Array) -> Array:
    """As torch.remainder is defined: the addition of the divisor rounds. (torch's own fails for large quotients.)"""
    rest = np.fmod(x, y)
    return np.where((rest != 0) & ((rest < 0) != (y < 0)), rest + y, rest)


REFERENCES: dict[str, Callable[..., Array]] = {
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "erf": lambda x: torch.erf(torch.from_numpy(x)).numpy(),
    "erfc": lambda x: torch.erfc(torch.from_numpy(x)).numpy(),
    "round_even": np.round,
    "pow": np.power,
    "atan2": np.arctan2,
    "fmod": np.fmod,
    "remainder": python_modulo,
}
EXPONENTS = {"f4": (-149, 128), "f8": (-1074, 1024)}


def reference(name: str) -> Callable[..., Array]:
    return REFERENCES.get(name) or getattr(np, name)


@cache
def compiled(name: str, type: Attribute, width: int | None = 8, cpu: str = "host") -> Callable[..., Array]:
    compute = (vector_math.UNARY | vector_math.BINARY)[name]
    t = type if width is None else vector(type, width)
    call = elementwise(lambda e, values: compute(e, *values), [t] * (2 if name in vector_math.BINARY else 1), t, cpu)

    def apply(*arrays: Array) -> Array:
        padded = [np.resize(a, -(-a.size // 16) * 16) for a in arrays]
        result = np.empty_like(padded[0])
        call(*padded, result)
        return result[: arrays[0].size]

    return apply


def special(dtype: np.dtype) -> Array:
    info = np.finfo(dtype)
    tiny = info.smallest_subnormal
    positive = [0, tiny, 3 * tiny, info.tiny - tiny, info.tiny, info.eps / 2, 0.5, 1 - info.epsneg, 1, 1 + info.eps, 2]
    positive += [
        88.72284,
        88.72283,
        103.97,
        104.1,
        89.41599,
        709.782712893384,
        745.13,
        746,
        710.4758600739439,
        127.999,
        149,
        150,
    ]
    positive += [
        1074,
        1075,
        1024,
        info.max,
        np.inf,
        np.nan,
        16777215,
        16777216,
        2.5,
        3.5,
        8388607.5,
        1e-5,
        10.05,
        27.2,
        0.55,
    ]
    positive += [np.pi / 2, np.pi, 710 * np.pi, 32768, 1048576, 0.4375, 0.6875, 1.1875, 2.4375, 0.92, 4.0, 3.9]
    with np.errstate(over="ignore"):
        values = np.array(positive, dtype)
    return np.concatenate([values, -values])


def sweep(dtype: np.dtype, per_exponent: int, seed: int = 0) -> Array:
    """Numbers of every exponent and both signs, and many of moderate size."""
    random = np.random.default_rng(seed)
    low, high = EXPONENTS[dtype.str[1:]]
    exponents = np.repeat(np.arange(low, high), per_exponent)
    with np.errstate(all="ignore"):
        wide = np.ldexp(random.uniform(1, 2, exponents.size), exponents).astype(dtype)
    moderate = np.concatenate(
        [random.uniform(0, top, 40 * per_exponent).astype(dtype) for top in (1, 2, 4, 12, 30, 110, 800, 1e5)]
    )
    turns = (
        np.concatenate([random.integers(0, 2 * 10**k, 20 * per_exponent) for k in range(1, 8)]) * (np.pi / 2)
    ).astype(dtype)
    positive = np.concatenate([wide, moderate, turns])
    return np.concatenate([special(dtype), positive, -positive])


def pairs(name: str, dtype: np.dtype, count: int, seed: int = 0) -> tuple[Array, Array]:
    """All pairs of special values, pairs of any sizes, and pairs whose result is an ordinary number."""
    random = np.random.default_rng(seed)
    edges = special(dtype)
    first, second = (grid.ravel() for grid in np.meshgrid(edges, edges))
    any_ = sweep(dtype, max(count // 600, 1), seed)
    x, y = random.choice(any_, count), random.choice(any_, count)
    near = np.exp(random.uniform(-20, 20, count)).astype(dtype)
    if name == "pow":
        other = (random.uniform(-1.05, 1.05, count) * (88 if dtype.itemsize == 4 else 709) / np.log(near)).astype(dtype)
        near, other = np.concatenate([near, -near]), np.concatenate([other, np.round(other)])
    else:
        other = (near * np.exp(random.uniform(-4, 4, count)) * random.choice([-1, 1], count)).astype(dtype)
    return np.concatenate([first, x, near]), np.concatenate([second, y, other])


def ulps(ours: Array, exact: Array) -> Array:
    """The distance in ulp of the format of ``ours``; of infinities and NaN 0 where they are equal, else infinite."""
    dtype = ours.dtype
    with np.errstate(all="ignore"):
        rounded = exact.astype(dtype)
        unit = np.spacing(np.minimum(np.abs(rounded), np.finfo(dtype).max)).astype(np.float64)
        distance = np.abs(ours.astype(exact.dtype) - exact) / unit
    distance[np.isnan(distance)] = np.inf
    same = (ours == rounded) | (np.isnan(ours) & np.isnan(rounded))
    distance[same & ~np.isfinite(rounded)] = 0
    distance[same & (rounded == 0)] = 0
    wrong_sign = same & (rounded == 0) & (np.signbit(ours) != np.signbit(rounded))
    distance[wrong_sign] = np.inf
    # Half an ulp on either side of the border to infinity counts as within the error.
    border = np.isinf(rounded) != np.isinf(ours)
    if exact.dtype != dtype:
        limit = float(np.finfo(dtype).max)
        close = border & (np.abs(np.abs(exact) - limit) <= 2 * limit * float(np.finfo(dtype).eps))
        distance[close] = 1
    return distance


def errors_32(name: str, count: int, seed: int = 0) -> tuple[float, str]:
    """The largest error in float32, and where it is."""
    dtype = np.dtype("f4")
    arguments = pairs(name, dtype, count, seed) if name in vector_math.BINARY else (sweep(dtype, count, seed),)
    ours = compiled(name, f32)(*arguments)
    with np.errstate(all="ignore"):
        exact = reference(name)(*(a.astype(np.float64) for a in arguments))
        if name == "remainder":
            exact = python_modulo(*arguments).astype(np.float64)
    distance = ulps(ours, exact)
    worst = int(distance.argmax())
    return float(
        distance[worst]
    ), f"{name}({', '.join(str(a[worst]) for a in arguments)}) = {ours[worst]}, not {exact[worst]}"


def exact_64(name: str, *arguments: float) -> tuple[float, Any]:
    """The result rounded to float64, and unrounded."""
    with mpmath.workdps(50):
        a = [mpmath.mpf(x) for x in arguments]
        functions = {"exp2": lambda x: mpmath.power(2, x), "log2": lambda x: mpmath.log(x, 2), "pow": mpmath.power}
        functions |= {"rsqrt": lambda x: 1 / mpmath.sqrt(x)}
        if name in ("sin", "cos", "tan"):
            with mpmath.workdps(360):
                value = getattr(mpmath, name)(a[0])
        elif name in ("expm1", "log1p", "sinh", "tanh", "erf", "atan", "asin") and abs(a[0]) < mpmath.mpf("1e-25"):
            value = a[0] if name != "erf" else a[0] * 2 / mpmath.sqrt(mpmath.pi)
        else:
            with mpmath.workdps(110):
                value = (functions.get(name) or getattr(mpmath, name))(*a)
        return float(value), value


def errors_64(name: str, count: int, seed: int = 0) -> tuple[float, str]:
    """The largest error in float64, and where it is. Special values are numpy's."""
    dtype = np.dtype("f8")
    if name in vector_math.BINARY:
        arguments = pairs(name, dtype, count, seed)
    else:
        arguments = (sweep(dtype, max(count // 100, 1), seed),)
    ours = compiled(name, f64)(*arguments)
    with np.errstate(all="ignore"):
        approximate = reference(name)(*arguments)
    distance = ulps(ours, approximate)
    if name not in EXACT:
        # numpy's own functions err, too; where results differ at all the exact one decides, for a sample of the rest.
        assert (distance < 1e4).all(), (
            f"{name}{tuple(a[distance.argmax()] for a in arguments)} = {ours[distance.argmax()]}"
        )
        finite = np.isfinite(ours) & np.isfinite(approximate) & (ours != 0)
        suspects = np.flatnonzero(finite & (distance > 0))
        order = np.argsort(-distance[suspects], kind="stable")
        chosen = np.concatenate(
            [suspects[order[: count // 2]], np.random.default_rng(1).permutation(suspects)[: count // 2]]
        )
        measured = np.zeros_like(distance)
        for k in chosen:
            rounded, value = exact_64(name, *(float(a[k]) for a in arguments))
            measured[k] = abs(float((mpmath.mpf(float(ours[k])) - value) / mpmath.mpf(float(np.spacing(abs(rounded))))))
        distance = measured
    worst = int(distance.argmax())
    return float(distance[worst]), f"{name}({', '.join(repr(float(a[worst])) for a in arguments)}) = {ours[worst]!r}"


ALL = [*vector_math.UNARY, *vector_math.BINARY]


@pytest.mark.parametrize("name", ALL)
def test_float32_accuracy(name: str) -> None:
    error, where = errors_32(name, 2000 if name in vector_math.BINARY else 12)
    assert error <= LIMITS_32[name], where


@pytest.mark.parametrize("name", ALL)
def test_float64_accuracy(name: str) -> None:
    error, where = errors_64(name, 30)
    assert error <= LIMITS_64[name], where


@pytest.mark.wide
@pytest.mark.parametrize("name", ALL)
def test_accuracy_of_many_more(name: str) -> None:
    error, where = errors_32(name, 100_000 if name in vector_math.BINARY else 2000, seed=1)
    assert error <= LIMITS_32[name], where
    error, where = errors_64(name, 1000, seed=1)
    assert error <= LIMITS_64[name], where


@pytest.mark.parametrize("name", ALL)
def test_results_do_not_depend_on_width_or_cpu(name: str) -> None:
    """Scalars, and 16 lanes on a CPU whose registers have 8, give the bits of 8 lanes."""
    dtype = np.dtype("f4")
    arguments = pairs(name, dtype, 100) if name in vector_math.BINARY else (sweep(dtype, 1),)
    expected = compiled(name, f32)(*arguments)
    np.testing.assert_array_equal(compiled(name, f32, None)(*arguments), expected)
    np.testing.assert_array_equal(compiled(name, f32, 16, "x86-64-v3")(*arguments), expected)


@pytest.mark.parametrize("name", ["exp", "sin", "pow", "fmod"])
@pytest.mark.parametrize("width", [None, 1, 3, 16])
def test_any_width_in_float64(name: str, width: int | None) -> None:
    dtype = np.dtype("f8")
    arguments = pairs(name, dtype, 48) if name in vector_math.BINARY else (sweep(dtype, 1),)
    arguments = [a[: a.size // 48 * 48] for a in arguments]
    t = f64 if width is None else vector(f64, width)
    compute = (vector_math.UNARY | vector_math.BINARY)[name]
    ours = np.empty_like(arguments[0])
    elementwise(lambda e, values: compute(e, *values), [t] * len(arguments), t, "x86-64-v3")(*arguments, ours)
    np.testing.assert_array_equal(ours, compiled(name, f64)(*arguments))


@pytest.mark.parametrize("type", [f16, bf16])
@pytest.mark.parametrize("name", ["exp", "tanh", "atan2"])
def test_half_precision_is_float32_rounded(name: str, type: Attribute) -> None:
    compute = (vector_math.UNARY | vector_math.BINARY)[name]
    random = np.random.default_rng(0)
    dtype = torch.float16 if type == f16 else torch.bfloat16
    arguments = [
        torch.from_numpy(random.standard_normal(256) * 4).to(dtype) for _ in range(2 if name == "atan2" else 1)
    ]
    t = vector(type, 8)
    ours = torch.empty(256, dtype=dtype)
    call = elementwise(lambda e, values: compute(e, *values), [t] * len(arguments), t)
    call(*(a.view(torch.int16).numpy() for a in (*arguments, ours)))
    wide = compiled(name, f32)(*(a.float().numpy() for a in arguments))
    torch.testing.assert_close(ours, torch.from_numpy(wide).to(dtype), rtol=0, atol=0)


def test_sine_and_cosine_of_one_angle_share_its_reduction() -> None:
    t = vector(f32, 8)

    def product(e: Emitter, values: list[SSAValue]) -> SSAValue:
        sine, cosine = vector_math.sin(e, values[0]), vector_math.cos(e, values[0])
        calls = [op for op in e.func.walk() if isinstance(op, CallIntrinsicOp) and "reduce.or" in op.intrin.data]
        assert len(calls) == 1
        return e.fmul(sine, cosine)

    x = sweep(np.dtype("f4"), 1)[:64]
    ours = np.empty_like(x)
    elementwise(product, [t], t)(x, ours)
    np.testing.assert_array_equal(ours, compiled("sin", f32)(x) * compiled("cos", f32)(x))


def test_flags_of_the_caller_do_not_apply_inside() -> None:
    """Reassociation would undo the sums that recover what rounding lost."""
    func = function("f", [f32], f32)
    e = Emitter(func)
    flags = FastMathAttr((FastMathFlag.REASSOC, FastMathFlag.NO_NANS))
    e.fastmath = flags
    result = vector_math.expm1(e, e.arguments[0])
    assert e.fastmath == flags
    e.ret(result)
    text = llvm_text(ModuleOp([func]))
    assert "reassoc" not in text
    assert "nnan" not in text


if __name__ == "__main__":
    names = sys.argv[1:] or [*vector_math.UNARY, *vector_math.BINARY]
    for name in names:
        for measure, count in ((errors_32, 20_000 if name in vector_math.BINARY else 500), (errors_64, 400)):
            try:
                error, where = measure(name, count)
                print(f"{name:12} {measure.__name__} {error:8.3f}  {where}", flush=True)
            except Exception as fault:
                print(f"{name:12} {measure.__name__} {type(fault).__name__} {fault}"[:600], flush=True)
