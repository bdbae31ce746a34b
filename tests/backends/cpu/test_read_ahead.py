"""Which elements are asked for before they are read, and halves that are computed in pairs of vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from forgec.backends.cpu import tile_to_llvm
from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import bf16, f32, vector
from forgec.backends.cpu.read_ahead import rows_ahead
from forgec.backends.cpu.to_llvm import llvm_text
from tests.backends.cpu.launch import agree, compiled, kernels_of
from tests.backends.cpu.native import elementwise


@pytest.mark.parametrize(
    ("shape", "strides", "reduced", "expected"),
    [
        ((32, 128), (4096, 1), False, 16 * 4096),  # rows of 512 bytes, 16 of which are turned or read side by side
        ((8, 2048), (8192, 1), False, 8192),  # halves of rows
        ((512, 4), (1, 4096), True, 4 * 4096),  # columns that are summed
        ((512, 4), (1, 4096), False, 0),  # a tile that is turned
        ((8, 2048), (2048, 1), False, 0),  # one run
        ((8, 8192), (16384, 1), False, 0),  # long rows
        ((1, 128), (4096, 1), False, 0),
        ((8, 128), (4096, 2), False, 0),
    ],
)
def test_short_rows_that_lie_apart(
    shape: tuple[int, ...], strides: tuple[int, ...], reduced: bool, expected: int
) -> None:
    assert rows_ahead(shape, strides, 4, reduced=reduced) == expected


def halves(columns: int, dtype: str) -> str:
    """The sum of the halves of rows of 2 · columns elements, rounded after each step."""
    whole = f"!tile.block<tensor<?x{2 * columns}x{dtype}, #forge.tensor<[n0]>>>"
    half = f"!tile.block<tensor<?x{columns}x{dtype}, #forge.tensor<[n0], strides = [{2 * columns}, 1]>>>"
    result = f"!tile.block<tensor<?x{columns}x{dtype}, #forge.tensor<[n0]>>>"
    tile, wide = f"tensor<4x128x{dtype}>", "tensor<4x128xf32>"
    return f"""
tile.kernel @halves(%x : {whole}, %y : {result})
    symbols [n0] writes [1] tiles [BM over n0, BN over {columns}]
    grid [floordiv(n0 + BM - 1, BM), floordiv({columns} + BN - 1, BN)] bound {{BM = 4, BN = 128}} {{
  %p = tile.program_id 0
  %q = tile.program_id 1
  %r = tile.index p0 * BM (%p) : (index) -> index
  %c = tile.index p0 * BN (%q) : (index) -> index
  %z = tile.index 0 () : () -> index
  %n = tile.index {columns} () : () -> index
  %first = tile.view %x[%z] : {whole} to {half}
  %second = tile.view %x[%n] : {whole} to {half}
  %a = tile.load %first[%r, %c] : {half} -> {tile}
  %b = tile.load %second[%r, %c] : {half} -> {tile}
  %a32 = arith.extf %a : {tile} to {wide}
  %b32 = arith.extf %b : {tile} to {wide}
  %w = arith.addf %a32, %b32 : {wide}
  %v = arith.truncf %w : {wide} to {tile}
  tile.store %v, %y[%r, %c] : {tile}, {result}
  tile.return
}}"""


def test_halves_of_rows_are_asked_for() -> None:
    assert "llvm.prefetch" in llvm_text(tile_to_llvm.kernel_module(kernels_of(halves(256, "bf16"))))


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("columns", [256, 200])
@pytest.mark.parametrize("cpu", ["x86-64-v3", "host"])
def test_nothing_changes_that_is_asked_for_or_paired(dtype: str, columns: int, cpu: str) -> None:
    """Tensors end where readable memory ends; 200 columns are a whole tile and a part of one."""
    native, kernels = compiled(halves(columns, dtype), cpu)
    kind = {"bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    for rows in (1, 4, 7):
        x = torch.randn(rows, 2 * columns, generator=torch.Generator().manual_seed(rows)).to(kind)
        x[0, :4] = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0]).to(kind)
        agree(native, kernels["halves"], [x, torch.zeros(rows, columns, dtype=kind)], [rows])


@pytest.mark.parametrize("lanes", [16, 32])
@pytest.mark.parametrize("cpu", ["x86-64-v3", "host"])
def test_rounding_to_bfloat16_is_that_of_torch(lanes: int, cpu: str) -> None:
    """Of each sign, exponent and leading bits with the lower halves that decide: subnormal numbers, ties and NaN."""

    def narrow(e: Emitter, values: list) -> object:
        return e.narrow(values[0], bf16)

    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    x = (upper[:, None] | lower).reshape(-1).view(np.float32)
    found = np.empty(x.size, np.uint16)
    elementwise(narrow, [vector(f32, lanes)], vector(bf16, lanes), cpu)(x, found)  # type: ignore[arg-type]
    expected = torch.from_numpy(x.copy()).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    nan = np.isnan(x)
    assert (found[~nan] == expected[~nan]).all()
    assert (found[nan] & 0x7FFF > 0x7F80).all()
