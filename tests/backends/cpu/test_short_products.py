"""Products of bfloat16 and of bytes by instructions that add several at a time, and what stands for them elsewhere."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import forgec
from forgec.backends.cpu.compile import assembly
from forgec.backends.cpu.tile_to_llvm import kernel_module
from forgec.backends.cpu.variants import FEATURES
from forgec.runtime import processor
from tests.backends.cpu.launch import Guarded, kernels_of
from tests.backends.cpu.native import Native

HAS_FEATURES = processor.refusal("x86-64-v4", FEATURES, processor.host()) is None
HAS_V4 = processor.refusal("x86-64-v4", (), processor.host()) is None
VARIANTS = [("x86-64-v3", 32, ()), *([("x86-64-v4", 64, ())] * HAS_V4), *([("x86-64-v4", 64, FEATURES)] * HAS_FEATURES)]


def product(
    steps: int,
    columns: int,
    tile_rows: int,
    tile_steps: int,
    dtype: str,
    *,
    given: str | None = None,
    in_panels: bool = True,
    width: int = 32,
) -> str:
    """A product [n0, steps] x [columns, steps]. The left factor is ``given`` in another dtype and rounded, the right
    one lies in panels of 32 columns, or in rows of its own.
    """
    sum_type = "i32" if dtype == "i8" else "f32"
    given = given or dtype
    panels = -(-columns // width)
    x = f"!tile.block<tensor<?x{steps}x{given}, #forge.tensor<[n0]>>>"
    y = f"!tile.block<tensor<?x{columns}x{sum_type}, #forge.tensor<[n0]>>>"
    loaded, left = f"tensor<{tile_rows}x{tile_steps}x{given}>", f"tensor<{tile_rows}x{tile_steps}x{dtype}>"
    sums = f"tensor<{tile_rows}x{width}x{sum_type}>"
    rounding = f"%l = arith.truncf %m : {loaded} to {left}" if given != dtype else ""
    if in_panels:
        w, panel = f"!tile.block<tensor<{panels}x{steps}x32x{dtype}>>", f"!tile.block<tensor<{steps}x32x{dtype}>>"
        right = f"tensor<{tile_steps}x{width}x{dtype}>"
        view = f"""%at = tile.index p0 * {steps * 32}(%q) : (index) -> index
  %v = tile.view %w[%at] : {w} to {panel}"""
        load = f"%r = tile.load %v[%k, %z] in_bounds [1] : {panel} -> {right}"
    else:
        w, right = f"!tile.block<tensor<{columns}x{steps}x{dtype}>>", f"tensor<{width}x{tile_steps}x{dtype}>"
        view, load = "", f"%r = tile.load %w[%column, %k] : {w} -> {right}"
    words = ("" if in_panels else "transposed ") + ('precision "bf16" ' if dtype == "bf16" else "")
    return f"""
tile.kernel @product(%x : {x}, %w : {w}, %y : {y}) symbols [n0] writes [2] grid [floordiv(n0 + {tile_rows - 1},
    {tile_rows}), {panels}] {{
  %p = tile.program_id 0
  %q = tile.program_id 1
  %z = arith.constant 0 : index
  %row = tile.index p0 * {tile_rows}(%p) : (index) -> index
  %column = tile.index p0 * {width}(%q) : (index) -> index
  {view}
  %zero = arith.constant {"0" if dtype == "i8" else "0.0"} : {sum_type}
  %first = tile.broadcast %zero along [] : {sum_type} -> {sums}
  %end = arith.constant {steps} : index
  %step = arith.constant {tile_steps} : index
  %sum = scf.for %k = %z to %end step %step iter_args(%a = %first) -> ({sums}) {{
    %{"m" if rounding else "l"} = tile.load %x[%row, %k] : {x} -> {loaded}
    {rounding}
    {load}
    %d = tile.dot %l, %r into %a {words}: {left}, {right} -> {sums}
    scf.yield %d : {sums}
  }}
  tile.store %sum, %y[%row, %column] : {sums}, {y}
  tile.return
}}"""


def native_of(text: str, level: str, vector_bytes: int, features: Sequence[str]) -> Native:
    module = kernel_module(kernels_of(text), vector_bytes=vector_bytes, features=features)
    return Native(module, level, features, 8 * vector_bytes)


def run(native: Native, tensors: list[torch.Tensor], symbols: list[int], cuts: list[int]) -> torch.Tensor:
    held = [Guarded(tensor) for tensor in tensors]
    slots = np.array([*(guarded.address for guarded in held), *symbols], dtype=np.int64)
    for begin, end in pairwise(cuts):
        assert native("product", np.zeros(1), slots, begin, end, result=ctypes.c_int32) == 0
    assert all(guarded.is_intact() for guarded in held)
    return held[-1].tensor.clone()


def panels_of(w: torch.Tensor) -> torch.Tensor:
    columns, steps = w.shape
    padded = torch.zeros(-(-columns // 32) * 32, steps, dtype=w.dtype)
    padded[:columns] = w
    return padded.view(-1, 32, steps).permute(0, 2, 1).contiguous()


@pytest.mark.parametrize(("level", "vector_bytes", "features"), VARIANTS, ids=lambda value: str(value))
@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(1, 61),
    steps=st.sampled_from((1, 7, 33, 64, 100, 513, 1024)),
    columns=st.sampled_from((1, 31, 32, 70)),
    tile_rows=st.sampled_from((1, 8, 9, 15, 17, 32, 43)),
    tile_steps=st.sampled_from((4, 32, 64, 111)),
    kind=st.sampled_from((("bf16", "bf16"), ("bf16", "f32"), ("i8", "i8"))),
    in_panels=st.booleans(),
)
def test_products_of_any_extents(
    level: str,
    vector_bytes: int,
    features: Sequence[str],
    rows: int,
    steps: int,
    columns: int,
    tile_rows: int,
    tile_steps: int,
    kind: tuple[str, str],
    in_panels: bool,
) -> None:
    dtype, given_dtype = kind
    text = product(steps, columns, tile_rows, tile_steps, dtype, given=given_dtype, in_panels=in_panels)
    native = native_of(text, level, vector_bytes, features)
    programs = -(-rows // tile_rows) * -(-columns // 32)
    if dtype == "i8":
        x, w = (torch.randint(-128, 128, shape).to(torch.int8) for shape in ((rows, steps), (columns, steps)))
        y = torch.full((rows, columns), 77, dtype=torch.int32)
        exact, allowed = x.double() @ w.double().T, torch.zeros(())
    else:
        x, w = torch.randn(rows, steps), torch.randn(columns, steps).bfloat16()
        x = x.bfloat16() if given_dtype == "bf16" else x
        y = torch.full((rows, columns), float("nan"))
        rounded = x.bfloat16().double()
        exact, allowed = rounded @ w.double().T, steps * 2**-22 * (rounded.abs() @ w.double().abs().T)
    tensors = [x, panels_of(w) if in_panels else w, y]
    found = run(native, tensors, [rows], [0, programs])
    assert bool(((found.double() - exact).abs() <= allowed).all())
    assert torch.equal(found, run(native, tensors, [rows], [*range(programs + 1)]))
    assert torch.equal(found, run(native, tensors, [rows], [0, programs // 3, programs // 2, programs]))


@pytest.mark.parametrize(
    ("dtype", "given_dtype", "multiply"),
    [("bf16", "bf16", "vdpbf16ps"), ("bf16", "f32", "vdpbf16ps"), ("i8", "i8", "vpdpbusd")],
)
def test_the_inner_loop_keeps_all_sums_in_registers(dtype: str, given_dtype: str, multiply: str) -> None:
    text = product(512, 128, 84, 512, dtype, given=given_dtype)
    module = kernel_module(kernels_of(text), vector_bytes=64, features=FEATURES)
    features = ",".join(f"+{name}" for name in FEATURES)
    lines = assembly(module, cpu="x86-64-v4", features=features, vector_bits=512).splitlines()
    names = [line.split()[0] if line.split() else "" for line in lines]
    best: list[str] = []
    for number, name in enumerate(names):
        if name == multiply:
            first = max(n for n in range(number) if lines[n].startswith(".LBB"))
            last = next(n for n in range(number, len(lines)) if names[n].startswith("j"))
            best = max(best, [line.strip() for line in lines[first + 1 : last + 1]], key=len)
    sums = {line.split()[-1] for line in best if line.startswith(multiply)}
    assert len(sums) == 28
    assert not any(re.match(r"vmov\w+\s+%zmm\d+, ", line) for line in best), "no sum is stored"
    assert sum("(%rsp" in line for line in best) <= 2, "the panel, interleaved"
    assert len(best) <= 28 + 14 + 14, "\n".join(best)


@pytest.mark.parametrize("weights", ["float32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("rows", [1, 3])
def test_sums_of_a_single_product(weights: str, rows: int) -> None:
    layer, x = torch.nn.Linear(1, 5).eval(), torch.randn(rows, 1)
    compiled = forgec.compile(layer, (x,), weights=weights, target="cpu:host")
    torch.testing.assert_close(compiled(x), layer(x), rtol=1e-2, atol=1e-2)
