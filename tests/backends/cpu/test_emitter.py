"""What ``Emitter`` builds, compiled and executed, against numpy and torch."""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np
import pytest
import torch
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.llvm import FastMathAttr
from xdsl.dialects.utils import FastMathFlag
from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu.compile import assembly, compile_module, optimized_llvm
from forgec.backends.cpu.elf import ObjectFile
from forgec.backends.cpu.emitter import Emitter, function
from forgec.backends.cpu.llvm_types import (
    PTR,
    bf16,
    f16,
    f32,
    f64,
    i1,
    i8,
    i16,
    i32,
    i64,
    integer_like,
    vector,
)
from forgec.backends.cpu.to_llvm import llvm_text
from forgec.diagnostics import ForgeError
from tests.backends.cpu.native import Native, elementwise

BF16 = np.dtype(ml_dtypes.bfloat16)
NUMPY = {f16: np.dtype("f2"), bf16: BF16, f32: np.dtype("f4"), f64: np.dtype("f8"), i1: np.dtype("?")} | {
    i8: np.dtype("i1"),
    i16: np.dtype("i2"),
    i32: np.dtype("i4"),
    i64: np.dtype("i8"),
}
TORCH = {f16: torch.float16, bf16: torch.bfloat16, f32: torch.float32, f64: torch.float64, i1: torch.bool} | {
    i8: torch.int8,
    i16: torch.int16,
    i32: torch.int32,
    i64: torch.int64,
}
EDGES = [0.0, -0.0, 1.0, -1.5, 0.5, 2.5, 3.5, -7.75, 1e-40, -1e-45, 3e38, -3e38, 65504.0, 65520.0, 1e30, 100.25]
SPECIAL = [np.inf, -np.inf, np.nan, 6e-8, 2.98e-8, 127.0, -128.0, 126.5]


def as_torch(array: np.ndarray) -> torch.Tensor:
    return (
        torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if array.dtype == BF16 else torch.from_numpy(array)
    )


def run(
    compute, arrays: list[np.ndarray], types: list[Attribute], output: Attribute, width: int | None = 8
) -> np.ndarray:
    """``compute`` of the arrays, whose sizes the width divides."""
    widths = [t if width is None else vector(t, width) for t in [*types, output]]
    result = np.empty(arrays[0].shape, NUMPY[output])
    elementwise(compute, widths[:-1], widths[-1])(*arrays, result)
    return result


def numbers(type: Attribute, seed: int = 0, count: int = 64) -> np.ndarray:
    """Random numbers of a type, of all magnitudes, with zeros and limits among them."""
    random = np.random.default_rng(seed)
    dtype = NUMPY[type]
    if dtype.kind == "b":
        return random.integers(0, 2, count).astype(bool)
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        values = random.integers(limits.min, limits.max, count, dtype=dtype, endpoint=True)
        values[:4] = 0, 1, -1, limits.min
        return values
    with np.errstate(all="ignore"):
        values = (random.standard_normal(count) * 10.0 ** random.integers(-3, 4, count)).astype(dtype)
        values[: len(EDGES)] = np.array(EDGES).astype(dtype)
        values[len(EDGES) : len(EDGES) + len(SPECIAL)] = np.array(SPECIAL).astype(dtype)
    return values


@pytest.mark.parametrize("width", [None, 1, 3, 8, 16])
def test_float_arithmetic(width: int | None) -> None:
    a, b = (numbers(f32, seed, 48) for seed in (1, 2))

    def compute(e: Emitter, v: list[SSAValue]) -> SSAValue:
        x, y = v
        return e.fdiv(e.fsub(e.fmul(e.fadd(x, y), x), e.fneg(y)), e.sqrt(e.fabs(e.copysign(x, y))))

    with np.errstate(all="ignore"):
        expected = ((a + b) * a - -b) / np.sqrt(np.abs(a))
    np.testing.assert_array_equal(run(compute, [a, b], [f32, f32], f32, width), expected)


@pytest.mark.parametrize("type", [f16, bf16])
def test_half_precision_rounds_each_operation_once(type: Attribute) -> None:
    a, b = numbers(type, 1, 4096), numbers(type, 2, 4096)
    ours = run(lambda e, v: e.fmul(e.fadd(v[0], v[1]), e.fneg(v[1])), [a, b], [type, type], type)
    expected = (as_torch(a) + as_torch(b)) * -as_torch(b)
    torch.testing.assert_close(as_torch(ours), expected, rtol=0, atol=0, equal_nan=True)


def test_subnormals_are_kept() -> None:
    x = np.full(8, 3e-39, np.float32)
    np.testing.assert_array_equal(run(lambda e, v: e.fmul(v[0], 0.5), [x], [f32], f32), x * np.float32(0.5))


@pytest.mark.parametrize("source", [f32, f64, f16, bf16])
@pytest.mark.parametrize("target", [f16, bf16, f32, f64, i1])
def test_casts_between_floats_are_those_of_torch(source: Attribute, target: Attribute) -> None:
    a = numbers(source, 3, 2048)
    ours = run(lambda e, v: e.convert(v[0], target), [a], [source], target)
    torch.testing.assert_close(as_torch(ours), as_torch(a).to(TORCH[target]), rtol=0, atol=0, equal_nan=True)
    if target != i1:
        zero = ours == 0
        np.testing.assert_array_equal(np.signbit(ours[zero]), np.signbit(a[zero]))


@pytest.mark.parametrize("source", [i1, i8, i16, i32, i64])
@pytest.mark.parametrize("target", [f16, bf16, f32, f64, i1, i8, i32, i64])
def test_casts_of_integers_are_those_of_torch(source: Attribute, target: Attribute) -> None:
    a = numbers(source)
    ours = run(lambda e, v: e.convert(v[0], target), [a], [source], target)
    torch.testing.assert_close(as_torch(ours), torch.from_numpy(a).to(TORCH[target]), rtol=0, atol=0)


def test_unsigned_bytes_are_not_negative() -> None:
    a = np.arange(256, dtype=np.uint8)
    for target in (f32, bf16, i32, i64):
        ours = run(lambda e, v, t=target: e.convert(v[0], t, signed=False), [a], [i8], target)
        torch.testing.assert_close(as_torch(ours), torch.from_numpy(a).to(TORCH[target]), rtol=0, atol=0)
    wide = np.array([0.0, 1.9, 255.0, 256.5, 300.0, -1.0, -0.5, 70000.0], np.float32)
    ours = run(lambda e, v: e.convert(v[0], i8, signed=False), [wide], [f32], i8).view(np.uint8)
    np.testing.assert_array_equal(ours, torch.from_numpy(wide).to(torch.uint8).numpy())


@pytest.mark.parametrize("source", [f16, bf16, f32, f64])
def test_floats_become_integers_as_in_torch_and_saturate_beyond(source: Attribute) -> None:
    a = np.array([0.0, -0.9, 1.5, -1.5, 100.75, 300.0, -300.0, 40000.0], NUMPY[source])
    for target in (i8, i16, i32, i64):
        ours = run(lambda e, v, t=target: e.convert(v[0], t), [a], [source], target)
        torch.testing.assert_close(torch.from_numpy(ours), as_torch(a).to(TORCH[target]), rtol=0, atol=0)
    beyond = np.array([np.inf, -np.inf, np.nan, 3e9, -3e9, 2147483520.0, -2147483648.0, 5.0], np.float32)
    ours = run(lambda e, v: e.fptosi_sat(v[0], i32), [beyond], [f32], i32)
    np.testing.assert_array_equal(ours, [2**31 - 1, -(2**31), 0, 2**31 - 1, -(2**31), 2147483520, -(2**31), 5])
    ours = run(lambda e, v: e.fptoui_sat(v[0], i8), [beyond], [f32], i8).view(np.uint8)
    np.testing.assert_array_equal(ours, [255, 0, 0, 255, 0, 255, 0, 5])


def test_integer_arithmetic_and_comparisons() -> None:
    a, b = numbers(i32, 1), numbers(i32, 2)
    a[:4], b[:4] = (7, -7, 7, -7), (2, 2, -2, -2)
    b[b == 0] = 3
    cases = {
        "add": (lambda e, v: e.add(*v), a + b),
        "sub": (lambda e, v: e.sub(*v), a - b),
        "mul": (lambda e, v: e.mul(*v), a * b),
        "sdiv": (lambda e, v: e.sdiv(*v), np.trunc(a / b).astype(np.int32)),
        "srem": (lambda e, v: e.srem(*v), np.fmod(a, b)),
        "udiv": (lambda e, v: e.udiv(*v), (a.view(np.uint32) // b.view(np.uint32)).view(np.int32)),
        "urem": (lambda e, v: e.urem(*v), (a.view(np.uint32) % b.view(np.uint32)).view(np.int32)),
        "bits": (lambda e, v: e.xor(e.and_(v[0], 255), e.or_(v[1], e.not_(v[0]))), (a & 255) ^ (b | ~a)),
        "shifts": (lambda e, v: e.xor(e.shl(v[0], 3), e.xor(e.ashr(v[0], 2), e.lshr(v[1], 5))),
                   (a << 3) ^ (a >> 2) ^ (b.view(np.uint32) >> 5).view(np.int32)),
        "smin": (lambda e, v: e.smin(*v), np.minimum(a, b)),
        "smax": (lambda e, v: e.smax(*v), np.maximum(a, b)),
        "umin": (lambda e, v: e.umin(*v), np.minimum(a.view(np.uint32), b.view(np.uint32)).view(np.int32)),
        "umax": (lambda e, v: e.umax(*v), np.maximum(a.view(np.uint32), b.view(np.uint32)).view(np.int32)),
        "iabs": (lambda e, v: e.iabs(v[0]), np.abs(a)),
    }  # fmt: skip
    for name, (compute, expected) in cases.items():
        np.testing.assert_array_equal(run(compute, [a, b], [i32, i32], i32), expected, err_msg=name)
    signs = {"eq": a == b, "ne": a != b, "slt": a < b, "sle": a <= b, "sgt": a > b, "sge": a >= b}
    for predicate, expected in signs.items():
        ours = run(lambda e, v, p=predicate: e.icmp(p, *v), [a, b], [i32, i32], i1)
        np.testing.assert_array_equal(ours, expected, err_msg=predicate)
    unsigned = a.view(np.uint32) < b.view(np.uint32)
    np.testing.assert_array_equal(run(lambda e, v: e.icmp("ult", *v), [a, b], [i32, i32], i1), unsigned)


def test_comparisons_of_floats_and_nan() -> None:
    a = np.array([1, 2, 3, np.nan, np.nan, 0.0, np.inf, -np.inf], np.float32)
    b = np.array([2, 2, 2, 1.0, np.nan, -0.0, np.inf, np.nan], np.float32)
    ordered = ~(np.isnan(a) | np.isnan(b))
    cases = {"eq": a == b, "gt": a > b, "ge": a >= b, "lt": a < b, "le": a <= b, "ne": (a != b) & ordered}
    for name, holds in cases.items():
        for prefix, expected in (("o", holds), ("u", holds | ~ordered)):
            ours = run(lambda e, v, p=prefix + name: e.fcmp(p, *v), [a, b], [f32, f32], i1)
            np.testing.assert_array_equal(ours, expected, err_msg=prefix + name)
    np.testing.assert_array_equal(run(lambda e, v: e.fcmp("ord", *v), [a, b], [f32, f32], i1), ordered)
    for ours, theirs in (("fmin", np.minimum), ("fmax", np.maximum)):
        result = run(lambda e, v, name=ours: getattr(e, name)(*v), [a, b], [f32, f32], f32)
        np.testing.assert_array_equal(result, theirs(a, b))


@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 16])
@pytest.mark.parametrize("type", [f32, i32, f64, bf16])
def test_reductions(width: int, type: Attribute) -> None:
    a = np.random.default_rng(width).integers(1, 4, width).astype(NUMPY[type])
    kinds = ["add", "mul", "min", "max"] + (["and", "or", "xor"] if type == i32 else [])
    func = function("reduce", [PTR, PTR])
    e = Emitter(func)
    value = e.load(vector(type, width), e.arguments[0])
    for k, kind in enumerate(kinds):
        e.store(e.reduce(kind, value), e.element(e.arguments[1], k, type))
    e.ret()
    result = np.empty(len(kinds), NUMPY[type])
    Native(ModuleOp([func]))("reduce", a, result)
    wide = a.astype(np.int64)
    expected = [wide.sum(), wide.prod(), wide.min(), wide.max()]
    if type == i32:
        expected += [np.bitwise_and.reduce(wide), np.bitwise_or.reduce(wide), np.bitwise_xor.reduce(wide)]
    np.testing.assert_array_equal(result.astype(np.int64), expected)


@pytest.mark.parametrize("position", range(8))
def test_reductions_propagate_nan(position: int) -> None:
    a = np.arange(8, dtype=np.float32)
    a[position] = np.nan
    func = function("reduce", [PTR, PTR])
    e = Emitter(func)
    value = e.load(vector(f32, 8), e.arguments[0])
    for k, kind in enumerate(("min", "max", "add")):
        e.store(e.reduce(kind, value), e.element(e.arguments[1], k, f32))
    e.ret()
    result = np.zeros(3, np.float32)
    Native(ModuleOp([func]))("reduce", a, result)
    assert np.isnan(result).all()


@pytest.mark.parametrize("cpu", ["host", "x86-64-v3"])
@pytest.mark.parametrize("type", [i1, i8, bf16, f16, f32, i64])
def test_masked_memory_touches_only_its_lanes(type: Attribute, cpu: str) -> None:
    """Loads and gathers under a mask at the end of a page that nothing follows."""
    dtype, count = NUMPY[type], 16
    source = numbers(type, 5)[:count].copy()
    func = function("move", [PTR, PTR, PTR, PTR, i64])
    e = Emitter(func)
    src, dst, scattered, indices, n = e.arguments
    t = vector(type, count)
    mask = e.icmp("slt", e.iota(i64, count), e.splat(n, count))
    e.masked_store(e.masked_load(t, src, mask), dst, mask)
    where = e.load(vector(i64, count), indices)
    gathered = e.gather(t, e.element(src, where, type), mask)
    e.scatter(gathered, e.element(scattered, where, type), mask)
    e.ret()
    native = Native(ModuleOp([func]), cpu)
    for n in (0, 1, 5, 16):
        page = ctypes.CDLL(None).mmap
        page.restype, page.argtypes = (
            ctypes.c_void_p,
            [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long],
        )
        start = page(None, 8192, 3, 0x22, -1, 0)
        ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + 4096), 4096, 0)
        memory = (ctypes.c_char * (n * dtype.itemsize)).from_address(start + 4096 - n * dtype.itemsize)
        short = np.frombuffer(memory, dtype) if n else np.empty(0, dtype)
        if n:
            short[:] = source[:n]
        copied, scattered_to = (np.zeros(count, dtype) for _ in range(2))
        order = np.random.default_rng(n).permutation(n) if n else np.empty(0, np.int64)
        order = np.concatenate([order, np.full(count - n, 10**9)]).astype(np.int64)
        native("move", short, copied, scattered_to, order, n)
        ctypes.CDLL(None).munmap(ctypes.c_void_p(start), 8192)
        for result in (copied, scattered_to):
            np.testing.assert_array_equal(result[:n], source[:n])
            assert not result[n:].any()


def test_loops_branches_and_returns() -> None:
    """Collatz: the steps of each number, with loops in loops, carried values and branches; 3 for numbers below 1."""
    func = function("steps", [PTR, PTR, i64, i64], i32)
    e = Emitter(func)
    source, target, count, limit = e.arguments

    def number(index: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
        n = e.load(i64, e.element(source, index, i64))
        e.return_if(e.icmp("slt", n, 1), e.const(i32, 3))

        def step(_: SSAValue, state: list[SSAValue]) -> list[SSAValue]:
            value, steps = state
            odd = e.icmp("ne", e.and_(value, 1), 0)
            (following,) = e.if_(odd, lambda: [e.add(e.mul(value, 3), 1)], lambda: [e.lshr(value, 1)])
            running = e.icmp("sgt", value, 1)
            (advanced,) = e.if_(running, lambda: [e.add(steps, 1)], unchanged=[steps])
            return [e.select(running, following, value), advanced]

        _, steps = e.loop(0, limit, 1, [n, e.const(i64, 0)], step)
        e.store(steps, e.element(target, index, i64))
        return [e.add(carried[0], steps)]

    (total,) = e.loop(0, count, 1, [e.const(i64, 0)], number)
    e.store(total, e.element(target, count, i64))
    e.ret(e.const(i32, 0))
    native = Native(ModuleOp([func]))
    source_, target_ = np.array([1, 6, 7, 27], np.int64), np.full(5, -1, np.int64)
    assert native("steps", source_, target_, 4, 1000, result=ctypes.c_int32) == 0
    assert target_.tolist() == [0, 8, 16, 111, 135]
    assert native("steps", source_, target_, 0, 1000, result=ctypes.c_int32) == 0
    assert target_[0] == 0, "no iteration: the carried value is stored as it was"
    assert native("steps", np.array([1, 0], np.int64), target_, 2, 5, result=ctypes.c_int32) == 3


def test_loop_refuses_a_body_that_changes_types() -> None:
    e = Emitter(function("f", [i64]))
    with pytest.raises(TypeError, match="the loop carries"):
        e.loop(0, 4, 1, [e.arguments[0]], lambda index, carried: [e.trunc(carried[0], i32)])
    e = Emitter(function("f", [i1]))
    with pytest.raises(TypeError, match="different types"):
        e.if_(e.arguments[0], lambda: [e.const(i32, 1)], lambda: [e.const(i64, 1)])


def test_lanes() -> None:
    a = np.arange(8, dtype=np.float32)

    def compute(e: Emitter, v: list[SSAValue]) -> SSAValue:
        low, high = e.slice(v[0], 0, 4), e.slice(v[0], 4, 4)
        swapped = e.concat(high, low)
        first = e.splat(e.extract(swapped, 0), 8)
        return e.insert(e.fadd(e.shuffle(swapped, [7, 6, 5, 4, 3, 2, 1, 0]), first), e.const(f32, -1), e.const(i32, 2))

    np.testing.assert_array_equal(run(compute, [a], [f32], f32), [7, 6, -1, 4, 11, 10, 9, 8])


def test_frame_memory_of_a_loop_is_allocated_once() -> None:
    func = function("reverse", [PTR, i64])
    e = Emitter(func)
    data, repeats = e.arguments

    def body(index: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
        scratch = e.alloca(f32, 8192)
        e.store(e.load(vector(f32, 8), data), scratch)
        e.store(e.shuffle(e.load(vector(f32, 8), scratch), range(7, -1, -1)), data)
        return []

    e.loop(0, repeats, 1, (), body)
    e.ret()
    a = np.arange(8, dtype=np.float32)
    Native(ModuleOp([func]))("reverse", a, 100_001)
    np.testing.assert_array_equal(a, range(7, -1, -1))


def test_calls_of_functions_of_the_module() -> None:
    square = function("square", [f64], f64, internal=True)
    e = Emitter(square)
    e.ret(e.fmul(e.arguments[0], e.arguments[0]))
    func = function("apply", [PTR])
    e = Emitter(func)
    result = e.call(square, [e.load(f64, e.arguments[0])])
    assert result is not None
    e.store(result, e.arguments[0])
    e.ret()
    a = np.array([3.0])
    Native(ModuleOp([square, func]))("apply", a)
    assert a[0] == 9.0


def test_constants_stand_once_and_keep_the_sign_of_zero() -> None:
    e = Emitter(function("f", []))
    t = vector(f32, 4)
    assert e.const(t, 1.5) is e.const(t, 1.5)
    assert e.const(t, 0.0) is not e.const(t, -0.0)
    assert e.const(i8, 255) is e.const(i8, -1)
    e.ret()
    assert len(list(e.entry.ops)) == 5


def test_no_flags_unless_the_caller_sets_them() -> None:
    func = function("f", [f32, f32], f32)
    e = Emitter(func)
    product = e.fmul(*e.arguments)
    e.fastmath = FastMathAttr((FastMathFlag.ALLOW_CONTRACT,))
    e.ret(e.fadd(product, 1.0))
    text = llvm_text(ModuleOp([func]))
    assert "fmul float" in text
    assert "fadd contract float" in text
    assert "nnan" not in text
    assert " fast " not in text


def _sum_kernel(width: int) -> ModuleOp:
    func = function("total", [PTR, PTR, i64])
    e = Emitter(func)

    def body(index: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
        return [e.fadd(carried[0], e.load(vector(f32, width), e.element(e.arguments[0], index, f32)))]

    (total,) = e.loop(0, e.arguments[2], width, [e.zero(vector(f32, width))], body)
    e.store(e.reduce("add", total), e.arguments[1])
    e.ret()
    return ModuleOp([func])


@pytest.mark.parametrize("cpu", ["host", "x86-64-v3", "x86-64-v4"])
def test_objects_are_deterministic_and_self_contained(cpu: str) -> None:
    first, second = (compile_module(_sum_kernel(16), cpu=cpu) for _ in range(2))
    assert first == second
    assert first[:4] == b"\x7fELF"
    assert not ObjectFile(first).undefined


def test_registers_are_as_wide_as_asked() -> None:
    wide = assembly(_sum_kernel(16), cpu="x86-64-v4", vector_bits=512)
    assert "zmm" in wide
    assert "zmm" not in assembly(_sum_kernel(16), cpu="x86-64-v3")


def test_loops_do_not_become_calls() -> None:
    func = function("clear", [PTR, i64])
    e = Emitter(func)

    def body(index: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
        e.store(e.const(i8, 0), e.gep(e.arguments[0], index))
        return []

    e.loop(0, e.arguments[1], 1, (), body)
    e.ret()
    assert not ObjectFile(compile_module(ModuleOp([func]), cpu="x86-64-v3")).undefined
    assert "define void @clear" in optimized_llvm(ModuleOp([func.clone()]), cpu="x86-64-v3")


def test_calls_of_a_library_are_an_error() -> None:
    func = function("sine", [f32], f32)
    e = Emitter(func)
    e.ret(e.intrinsic("llvm.sin", (e.arguments[0],)))
    with pytest.raises(ForgeError, match=r"FORGE-B003.*object code of sine for x86-64-v3 calls sinf"):
        compile_module(ModuleOp([func]), cpu="x86-64-v3")


def test_what_llvm_refuses_is_an_error() -> None:
    func = function("wrong", [f32], f32)
    e = Emitter(func)
    e.ret(e.intrinsic("llvm.no.such.thing", (e.arguments[0],)))
    with pytest.raises(ForgeError, match=r"FORGE-B003.*object code of wrong"):
        compile_module(ModuleOp([func]), cpu="x86-64-v3")


def test_integer_like() -> None:
    assert integer_like(vector(bf16, 4)) == vector(i16, 4)
    assert integer_like(f64) == i64
