"""Products with panels of weights: any number of rows, steps and columns, packed factors, and the inner loop's code."""

from __future__ import annotations

import ctypes
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forgec.backends.cpu.backend import host_level
from forgec.backends.cpu.compile import AARCH64, assembly
from forgec.backends.cpu.concurrency import together
from forgec.backends.cpu.tile_to_llvm import kernel_module
from forgec.ir.tile.cache_sets import PACKED_LIMIT, crowds, left_factors
from tests.backends.cpu.launch import DTYPES, Guarded, compiled, kernels_of
from tests.backends.cpu.native import Native

LEVELS = ("x86-64-v3",) if host_level() != "x86-64-v4" else ("x86-64-v3", "x86-64-v4")


def product(
    steps: int,
    columns: int,
    tile_rows: int,
    tile_steps: int,
    *,
    rows: int | None = None,
    dtype: str = "f32",
    apart: int | None = None,
) -> str:
    """A product with weights in panels of 32 columns; the number of rows is the symbol ``n0`` unless it is given.
    Rows of the left factor are ``apart`` elements from one to the next.
    """
    panels = -(-columns // 32)
    m = "?" if rows is None else str(rows)
    words = ["n0"] if rows is None else []
    strides = [] if apart is None else [f"strides = [{apart}, 1]"]

    def kind(shape: str, parts: list[str]) -> str:
        return f"!tile.block<tensor<{shape}{f', #forge.tensor<{parts_text(parts)}>' if parts else ''}>>"

    def parts_text(parts: list[str]) -> str:
        return f"[{', '.join(words)}]{', ' + ', '.join(strides) if strides and parts is x_parts else ''}"

    x_parts = [*words, *strides]
    y_parts = list(words)
    x, y = kind(f"{m}x{steps}x{dtype}", x_parts), kind(f"{m}x{columns}x{dtype}", y_parts)
    w, panel = f"!tile.block<tensor<{panels}x{steps}x32x{dtype}>>", f"!tile.block<tensor<{steps}x32x{dtype}>>"
    along = "1" if steps % tile_steps == 0 else ""
    inside = "in_bounds [0, 1]" if rows is not None and rows % tile_rows == 0 and columns % 32 == 0 else ""
    symbols = "symbols [n0] " if rows is None else ""
    count = f"floordiv({m if rows is not None else 'n0'} + {tile_rows - 1}, {tile_rows})"
    left, right = f"tensor<{tile_rows}x{tile_steps}x{dtype}>", f"tensor<{tile_steps}x32x{dtype}>"
    sums = f"tensor<{tile_rows}x32xf32>"
    out = f"tensor<{tile_rows}x32x{dtype}>"
    rounded = f"%out = arith.truncf %sum : {sums} to {out}" if dtype == "bf16" else ""
    return f"""
tile.kernel @product(%x : {x}, %w : {w}, %y : {y}) {symbols}writes [2] grid [{count}, {panels}] {{
  %p = tile.program_id 0
  %q = tile.program_id 1
  %z = arith.constant 0 : index
  %row = tile.index p0 * {tile_rows}(%p) : (index) -> index
  %column = tile.index p0 * 32(%q) : (index) -> index
  %at = tile.index p0 * {steps * 32}(%q) : (index) -> index
  %v = tile.view %w[%at] : {w} to {panel}
  %zero = arith.constant 0.0 : f32
  %first = tile.broadcast %zero along [] : f32 -> {sums}
  %end = arith.constant {steps} : index
  %step = arith.constant {tile_steps} : index
  %sum = scf.for %k = %z to %end step %step iter_args(%a = %first) -> ({sums}) {{
    %l = tile.load %x[%row, %k] in_bounds [{"0, " * bool(inside and along)}{along}] : {x} -> {left}
    %r = tile.load %v[%k, %z] in_bounds [{along + ", " if along else ""}1] : {panel} -> {right}
    %d = tile.dot %l, %r into %a : {left}, {right} -> {sums}
    scf.yield %d : {sums}
  }}
  {rounded}
  tile.store %{"out" if rounded else "sum"}, %y[%row, %column] {inside} : {out}, {y}
  tile.return
}}""".replace("in_bounds [1, 1]", "in_bounds [0, 1]")


def run(native: Native, tensors: list[torch.Tensor], symbols: list[int], cuts: list[int]) -> torch.Tensor:
    """The result when a launch is run in parts, each as on a thread of its own."""
    held = [Guarded(tensor) for tensor in tensors]
    slots = np.array([*(guarded.address for guarded in held), *symbols], dtype=np.int64)
    for begin, end in pairwise(cuts):
        assert native("product", np.zeros(1), slots, begin, end, result=ctypes.c_int32) == 0
    assert all(guarded.is_intact() for guarded in held)
    return held[-1].tensor.clone()


def check(
    level: str, text: str, rows: int, steps: int, columns: int, tile_rows: int, dtype: str, apart: int, dynamic: bool
) -> None:
    native, _ = compiled(text, level)
    kind = DTYPES[dtype]
    memory = torch.full((rows * apart,), float("nan")).to(kind)
    x = memory.as_strided((rows, steps), (apart, 1))
    x.copy_(torch.randn(rows, steps).to(kind))
    panels = -(-columns // 32)
    w = torch.zeros(panels * 32, steps, dtype=kind)
    w[:columns] = torch.randn(columns, steps).to(kind)
    y = torch.full((rows, columns), float("nan"), dtype=kind)
    packed = w.view(panels, 32, steps).permute(0, 2, 1).contiguous()
    programs = -(-rows // tile_rows) * panels
    symbols = [rows] if dynamic else []
    found = run(native, [x, packed, y], symbols, [0, programs])
    exact = x.double() @ w[:columns].double().T
    allowed = (1e-6 if dtype == "f32" else 5e-3) * (x.double().abs() @ w[:columns].double().abs().T + 1e-30)
    assert bool(((found.double() - exact).abs() <= allowed).all())
    apart_by_one = run(native, [x, packed, y], symbols, [*range(programs + 1)])
    in_three = run(native, [x, packed, y], symbols, [0, programs // 3, programs // 2, programs])
    assert torch.equal(found, apart_by_one)
    assert torch.equal(found, in_three)


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=10, deadline=None)
@given(
    rows=st.integers(1, 61),
    steps=st.sampled_from((1, 7, 33, 64, 100, 513, 1024)),
    columns=st.sampled_from((1, 31, 32, 70)),
    tile_rows=st.sampled_from((1, 4, 5, 8, 15, 16, 17, 27, 32, 43)),
    tile_steps=st.sampled_from((32, 64, 111)),
    dtype=st.sampled_from(("f32", "f32", "bf16")),
    dynamic=st.booleans(),
)
def test_products_of_any_shape_are_right_however_they_are_divided(
    level: str, rows: int, steps: int, columns: int, tile_rows: int, tile_steps: int, dtype: str, dynamic: bool
) -> None:
    tile_steps = min(tile_steps, steps)
    text = product(steps, columns, tile_rows, tile_steps, rows=None if dynamic else rows, dtype=dtype)
    check(level, text, rows, steps, columns, tile_rows, dtype, steps, dynamic)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rows", [1, 7, 14, 16, 29, 64])
def test_rows_that_lie_a_page_apart(level: str, rows: int) -> None:
    text = product(96, 70, 16, 32, apart=1024)
    check(level, text, rows, 96, 70, 16, "f32", 1024, True)


def test_which_rows_crowd_a_cache() -> None:
    assert crowds(4096, 8)
    assert crowds(16384, 5)
    assert crowds(2048, 14)
    assert not crowds(4096, 4)
    assert not crowds(3072, 14)
    assert not crowds(4000, 14)
    assert not crowds(None, 14)
    assert not crowds(0, 14)


def test_programs_share_what_is_packed() -> None:
    (crowded,) = kernels_of(product(1024, 64, 16, 256, rows=16))
    assert list(left_factors(crowded)) == [(16, 4096, 4096)]
    (even,) = kernels_of(product(768, 64, 16, 256, rows=16))
    (half,) = kernels_of(product(768, 64, 16, 256, rows=16, dtype="bf16"))
    assert [together(kernel) for kernel in (crowded, even, half)] == [4, 1, 4]
    assert frame(crowded) - frame(even) >= 16 * 4096
    (large,) = kernels_of(product(PACKED_LIMIT // 64, 64, 16, 256, rows=16, apart=PACKED_LIMIT // 4))
    (beyond,) = kernels_of(product(PACKED_LIMIT // 64 + 256, 64, 16, 256, rows=16, apart=PACKED_LIMIT // 4))
    assert frame(large) >= PACKED_LIMIT > frame(beyond)


def frame(kernel: object) -> int:
    """Bytes of the frame that the text of a kernel's function allocates."""
    text = assembly(kernel_module([kernel]), cpu="x86-64-v4", features="", vector_bits=512)  # type: ignore[list-item]
    return max(int(size) for size in re.findall(r"sub\w*\s+\$(\d+), %rsp", text))


TWO = """
tile.kernel @product(%x : !tile.block<tensor<16x1024xf32>>, %w : !tile.block<tensor<2x1024x32xf32>>, %y : !tile.block<tensor<8x64xf32>>) writes [2] grid [2] {
  %q = tile.program_id 0
  %z = arith.constant 0 : index
  %eight = arith.constant 8 : index
  %column = tile.index p0 * 32(%q) : (index) -> index
  %at = tile.index p0 * 32768(%q) : (index) -> index
  %v = tile.view %w[%at] : !tile.block<tensor<2x1024x32xf32>> to !tile.block<tensor<1024x32xf32>>
  %zero = arith.constant 0.0 : f32
  %first = tile.broadcast %zero along [] : f32 -> tensor<8x32xf32>
  %end = arith.constant 1024 : index
  %step = arith.constant 128 : index
  %sum = scf.for %k = %z to %end step %step iter_args(%a = %first) -> (tensor<8x32xf32>) {
    %l = tile.load %x[%z, %k] in_bounds [0, 1] : !tile.block<tensor<16x1024xf32>> -> tensor<8x128xf32>
    %m = tile.load %x[%eight, %k] in_bounds [0, 1] : !tile.block<tensor<16x1024xf32>> -> tensor<8x128xf32>
    %r = tile.load %v[%k, %z] in_bounds [0, 1] : !tile.block<tensor<1024x32xf32>> -> tensor<128x32xf32>
    %d = tile.dot %l, %r into %a : tensor<8x128xf32>, tensor<128x32xf32> -> tensor<8x32xf32>
    %e = tile.dot %m, %r into %d : tensor<8x128xf32>, tensor<128x32xf32> -> tensor<8x32xf32>
    scf.yield %e : tensor<8x32xf32>
  }
  tile.store %sum, %y[%z, %column] in_bounds [0, 1] : tensor<8x32xf32>, !tile.block<tensor<8x64xf32>>
  tile.return
}"""  # noqa: E501


def test_two_factors_of_one_loop_are_packed_apart() -> None:
    native, _ = compiled(TWO)
    x, w = torch.randn(16, 1024), torch.randn(64, 1024)
    packed = w.view(2, 32, 1024).permute(0, 2, 1).contiguous()
    found = run(native, [x, packed, torch.zeros(8, 64)], [], [0, 2])
    exact = (x[:8] + x[8:]).double() @ w.double().T
    assert (found.double() - exact).abs().max() < 1e-3


def inner_loop(text: str, multiply: str) -> list[str]:
    """The instructions from the label before the first multiply-add to the branch after it."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith((".p2align", ".cfi", "//", "#"))]
    middle = next(number for number, line in enumerate(lines) if line.startswith(multiply))
    first = max(number for number in range(middle) if lines[number].startswith(".LBB"))
    last = next(n for n in range(middle, len(lines)) if re.match(r"b\.|j[a-z]+\s", lines[n]))
    return lines[first + 1 : last + 1]


def test_the_inner_loop_for_neon_multiplies_by_elements_and_spills_nothing() -> None:
    kernels = kernels_of(product(512, 128, 96, 128, rows=96))
    text = assembly(kernel_module(kernels, vector_bytes=16), cpu="neoverse-n1", features="", triple=AARCH64)
    loop = inner_loop(text, "fmla")
    names = [line.split()[0] for line in loop]
    fmla = [line for line in loop if line.startswith("fmla")]
    assert len(fmla) == 24  # six rows of four registers
    assert all(re.fullmatch(r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[\d\].*", line) for line in fmla)
    assert len({line.split()[1] for line in fmla}) == 24, "each sum stays in a register of its own"
    assert not any(name.startswith("st") for name in names)
    assert not any("sp" in re.findall(r"[a-z]+\d*", line.partition("[")[2]) for line in loop if "[" in line)
    assert names.count("ldp") + sum(name.startswith("ldr") for name in names) <= 6 + 4


@pytest.mark.parametrize(("cpu", "vector_bytes", "sums"), [("x86-64-v3", 32, 12), ("x86-64-v4", 64, 28)])
def test_the_inner_loop_for_x86_keeps_all_sums_in_registers(cpu: str, vector_bytes: int, sums: int) -> None:
    rows = 84
    kernels = kernels_of(product(512, 128, rows, 128, rows=rows))
    module = kernel_module(kernels, vector_bytes=vector_bytes)
    loop = inner_loop(assembly(module, cpu=cpu, features="", vector_bits=8 * vector_bytes), "vfmadd")
    fma = [line for line in loop if line.startswith("vfmadd231ps")]
    assert len({line.split()[-1] for line in fma}) == len(fma) == sums
    assert not any("rsp" in line or re.match(r"vmov\w+\s+%[xyz]mm\d+, [^%]", line) for line in loop)
    assert sum(line.startswith("prefetcht1") for line in loop) == 1
