"""Results that no cache holds are written past the caches, where their vectors lie in whole pieces of lines."""

from __future__ import annotations

import pytest
import torch

from forgec.backends.cpu import tile_to_llvm
from forgec.backends.cpu.to_llvm import llvm_text
from tests.backends.cpu.launch import agree, compiled, kernels_of


def doubled(columns: int, stride: int, dtype: str = "f32", offset: int = 0) -> str:
    """Twice a matrix of rows that are ``stride`` apart in the result."""
    tile = f"tensor<4x64x{dtype}>"
    block = f"!tile.block<tensor<?x{columns}x{dtype}, #forge.tensor<[n0], strides = [{stride}, 1]>>>"
    return f"""
tile.kernel @doubled(%x : !tile.block<tensor<?x{columns}x{dtype}, #forge.tensor<[n0]>>>, %whole : {block})
    symbols [n0] writes [1] tiles [BM over n0, BN over {columns}]
    grid [floordiv(n0 + BM - 1, BM), floordiv({columns} + BN - 1, BN)] bound {{BM = 4, BN = 64}} {{
  %p = tile.program_id 0
  %q = tile.program_id 1
  %r = tile.index p0 * BM (%p) : (index) -> index
  %c = tile.index p0 * BN (%q) : (index) -> index
  %v = tile.load %x[%r, %c] : !tile.block<tensor<?x{columns}x{dtype}, #forge.tensor<[n0]>>> -> {tile}
  %w = arith.addf %v, %v : {tile}
  tile.store %w, %whole[%r, %c] : {tile}, {block}
  tile.return
}}"""


def text(source: str) -> str:
    return llvm_text(tile_to_llvm.kernel_module(kernels_of(source)))


def test_whether_is_decided_at_run_time_where_extents_are_known_then() -> None:
    found = text(doubled(128, 128))
    assert "!nontemporal" in found
    assert str(tile_to_llvm.STREAMED_BYTES) in found
    assert "fence seq_cst" in found


def test_rows_that_begin_anywhere_are_not() -> None:
    assert "nontemporal" not in text(doubled(128, 130))


def test_a_tensor_that_is_read_is_not() -> None:
    plain, strided = "f32, #forge.tensor<[n0]>>>", "f32, #forge.tensor<[n0], strides = [128, 1]>>>"
    source = doubled(128, 128)
    load = next(line for line in source.splitlines() if "tile.load" in line)
    changed = load.replace("%x", "%whole").replace(plain, strided)
    assert "nontemporal" not in text(source.replace(load, changed))


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f64"])
@pytest.mark.parametrize("cpu", ["x86-64-v3", "host"])
def test_results_are_the_same_wherever_they_lie(monkeypatch: pytest.MonkeyPatch, dtype: str, cpu: str) -> None:
    """Tensors end where readable memory ends: with 7 rows they begin at addresses that are multiples of nothing more
    than an element or, with whole pages, of everything."""
    monkeypatch.setattr(tile_to_llvm, "STREAMED_BYTES", 1)
    native, kernels = compiled(doubled(128, 128, dtype), cpu)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f64": torch.float64}[dtype]
    for rows in (7, 32, 64):
        x = torch.randn(rows, 128, generator=torch.Generator().manual_seed(rows)).to(kind)
        agree(native, kernels["doubled"], [x, torch.empty_like(x)], [rows])


def test_a_tile_that_lies_otherwise_is_turned_in_registers() -> None:
    """No element is read by itself, and whole lines are written past the caches."""
    source = """
!X = !tile.block<tensor<8192x4096xf32, #forge.tensor<[], strides = [1, 8192]>>>
!Y = !tile.block<tensor<8192x4096xf32>>
tile.kernel @turned(%x : !X, %y : !Y) writes [1] tiles [BM over 8192, BN over 4096] grid [64, 64]
    bound {BM = 128, BN = 64} {
  %p = tile.program_id 0
  %q = tile.program_id 1
  %r = tile.index p0 * BM (%p) : (index) -> index
  %c = tile.index p0 * BN (%q) : (index) -> index
  %v = tile.load %x[%r, %c] in_bounds [0, 1] : !X -> tensor<128x64xf32>
  tile.store %v, %y[%r, %c] in_bounds [0, 1] : tensor<128x64xf32>, !Y
  tile.return
}"""
    found = text(source)
    assert "gather" not in found
    assert "store <16 x float>" in found
    assert "!nontemporal" in found


@pytest.mark.parametrize("cpu", ["x86-64-v3", "host"])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f64", "i8"])
def test_turned_tiles_with_edges(dtype: str, cpu: str) -> None:
    block = "!tile.block<tensor<?x?x{}, #forge.tensor<[n0, n1], strides = [{}]>>>"
    x, y = block.format(dtype, "1, s0"), block.format(dtype, "t0, 1")
    source = f"""
tile.kernel @turned(%x : {x}, %y : {y}) symbols [n0, n1, s0, t0] writes [1] tiles [BM over n0, BN over n1]
    grid [floordiv(n0 + BM - 1, BM), floordiv(n1 + BN - 1, BN)] bound {{BM = 32, BN = 64}} {{
  %p = tile.program_id 0
  %q = tile.program_id 1
  %r = tile.index p0 * BM (%p) : (index) -> index
  %c = tile.index p0 * BN (%q) : (index) -> index
  %v = tile.load %x[%r, %c] : {x} -> tensor<32x64x{dtype}>
  tile.store %v, %y[%r, %c] : tensor<32x64x{dtype}>, {y}
  tile.return
}}"""
    native, kernels = compiled(source, cpu)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f64": torch.float64, "i8": torch.int8}[dtype]
    for rows, columns in ((32, 64), (33, 65), (1, 100), (70, 3), (31, 63)):
        generator = torch.Generator().manual_seed(rows)
        values = torch.randint(-99, 99, (columns, rows), generator=generator).to(kind).t()
        agree(
            native, kernels["turned"], [values, torch.empty(rows, columns, dtype=kind)], [rows, columns, rows, columns]
        )
