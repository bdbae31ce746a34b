"""Whole kernels, as lowering writes them, at sizes that fill their tiles and sizes that do not."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import DictionaryAttr, IntAttr

from forgec.backends.cpu.tile_to_llvm import kernel_module
from forgec.diagnostics import ForgeError
from forgec.ir.tile.kernel import KernelOp
from forgec.passes.bind_tiles import bind
from tests.backends.cpu.launch import agree
from tests.backends.cpu.native import Native, register_bytes
from tests.backends.cpu.test_tile_memory import numbers
from tests.ir.tile.kernels import MATMUL, MATMUL_TYPES, SOFTMAX, SOFTMAX_TYPES, kernel_of

ATTENTION = """
tile.kernel @attention(%q : !Q, %k : !K, %v : !K, %o : !Q) symbols [n0, n1] writes [3]
    tiles [BM over n0, BN over n1] grid [floordiv(n0 + BM - 1, BM)] {
  %p = tile.program_id 0
  %m = tile.index p0 * BM (%p) : (index) -> index
  %z = arith.constant 0 : index
  %end = tile.index n1 () : () -> index
  %step = tile.index BN () : () -> index
  %zero = arith.constant 0.0 : f32
  %low = arith.constant -1.0e+30 : f32
  %tq = tile.load %q[%m, %z] : !Q -> !TQ
  %q32 = arith.extf %tq : !TQ to !TO
  %acc0 = tile.broadcast %zero along [] : f32 -> !TO
  %sum0 = tile.broadcast %zero along [] : f32 -> !R
  %max0 = tile.broadcast %low along [] : f32 -> !R
  %acc, %sum, %max = scf.for %n = %z to %end step %step iter_args(%a = %acc0, %s = %sum0, %x = %max0)
      -> (!TO, !R, !R) {
    %tk = tile.load %k[%n, %z] : !K -> !TK
    %k32 = arith.extf %tk : !TK to !TK32
    %score0 = tile.broadcast %zero along [] : f32 -> !TS
    %score = tile.dot %q32, %k32 into %score0 transposed : !TO, !TK32 -> !TS
    %rows = tile.range : !IR
    %columns = tile.range : !IC
    %row = tile.index p0 + p1 (%rows, %m) : (!IR, index) -> !IR
    %column = tile.index p0 + p1 (%columns, %n) : (!IC, index) -> !IC
    %row2 = tile.broadcast %row along [0] : !IR -> !IS
    %column2 = tile.broadcast %column along [1] : !IC -> !IS
    %causal = arith.cmpi sle, %column2, %row2 : !IS
    %lows = tile.broadcast %low along [] : f32 -> !TS
    %masked = arith.select %causal, %score, %lows : !BS, !TS
    %inside = tile.pad %masked[%z, %n] within [BM, n1] other -1.0e+30 : !TS
    %here = tile.reduce "max" %inside axis 1 : !TS -> !R
    %newmax = arith.maximumf %x, %here : !R
    %max2 = tile.broadcast %newmax along [0] : !R -> !TS
    %shifted = arith.subf %inside, %max2 : !TS
    %e = math.exp %shifted : !TS
    %old = arith.subf %x, %newmax : !R
    %scale = math.exp %old : !R
    %total = tile.reduce "add" %e axis 1 : !TS -> !R
    %scaled = arith.mulf %s, %scale : !R
    %newsum = arith.addf %scaled, %total : !R
    %scale2 = tile.broadcast %scale along [0] : !R -> !TO
    %old_acc = arith.mulf %a, %scale2 : !TO
    %tv = tile.load %v[%n, %z] : !K -> !TK
    %v32 = arith.extf %tv : !TK to !TK32
    %new = tile.dot %e, %v32 into %old_acc : !TS, !TK32 -> !TO
    scf.yield %new, %newsum, %newmax : !TO, !R, !R
  }
  %sum2 = tile.broadcast %sum along [0] : !R -> !TO
  %result = arith.divf %acc, %sum2 : !TO
  %narrow = arith.truncf %result : !TO to !TQ
  tile.store %narrow, %o[%m, %z] : !TQ, !Q
  tile.return
}"""


def _tile(dtype: str, *extents: str) -> str:
    names = [name for name in extents if not name.isdigit()]
    sizes = "x".join(name if name.isdigit() else "?" for name in extents)
    return f"tensor<{sizes}x{dtype}, #forge.tensor<[{', '.join(names)}]>>"


ATTENTION_TYPES = {
    "Q": "!tile.block<tensor<?x24xbf16, #forge.tensor<[n0]>>>",
    "K": "!tile.block<tensor<?x24xbf16, #forge.tensor<[n1]>>>",
    "TQ": _tile("bf16", "BM", "24"), "TK": _tile("bf16", "BN", "24"), "TO": _tile("f32", "BM", "24"),
    "TK32": _tile("f32", "BN", "24"), "TS": _tile("f32", "BM", "BN"), "BS": _tile("i1", "BM", "BN"),
    "R": _tile("f32", "BM"), "IR": _tile("index", "BM"), "IC": _tile("index", "BN"), "IS": _tile("index", "BM", "BN"),
}  # fmt: skip


def bound(text: str, types: dict[str, str], **bindings: int) -> KernelOp:
    kernel = kernel_of(text, types)
    bind(kernel, bindings)
    return kernel


@pytest.mark.parametrize("cpu", ["x86-64-v3", "host"])
@pytest.mark.parametrize(("rows", "columns"), [(4, 64), (1, 80), (8, 50), (3, 101)])
def test_softmax(rows: int, columns: int, cpu: str) -> None:
    kernel = bound(SOFTMAX, SOFTMAX_TYPES, BM=rows, BN=columns)
    native = Native(kernel_module([kernel], vector_bytes=register_bytes(cpu)), cpu)
    for shape in ((7, min(columns, 50)), (rows, columns), (1, 1), (0, 4)):
        x = numbers("f32", *shape)
        if x.numel() > 8:
            x[0, 0], x.view(-1)[-1] = float("inf"), -float("inf")
        agree(native, kernel, [x, x.clone()], list(shape))


@pytest.mark.parametrize("tiles", [(16, 32, 8), (4, 64, 32), (1, 16, 64), (5, 7, 3)])
def test_matmul(tiles: tuple[int, int, int]) -> None:
    kernel = bound(MATMUL, MATMUL_TYPES, BM=tiles[0], BN=tiles[1], BK=tiles[2])
    native = Native(kernel_module([kernel], vector_bytes=32), "x86-64-v3")
    for m, n, k in ((21, 45, 19), (1, 1, 1), (32, 64, 64), (16, 0, 3), (5, 3, 0)):
        tensors = [numbers("f32", m, k), numbers("f32", k, n, seed=1), numbers("f32", m, n, seed=2)]
        agree(native, kernel, tensors, [m, n, k])


@pytest.mark.parametrize("tiles", [(16, 16), (1, 32), (4, 8), (6, 10)])
def test_attention(tiles: tuple[int, int]) -> None:
    kernel = bound(ATTENTION, ATTENTION_TYPES, BM=tiles[0], BN=tiles[1])
    native = Native(kernel_module([kernel], vector_bytes=32), "x86-64-v3")
    for queries, keys in ((16, 16), (21, 40), (1, 1), (3, 3)):
        q, k, v = (numbers("bf16", n, 24, seed=s) for s, n in enumerate((queries, keys, keys)))
        agree(native, kernel, [q, k, v, q.clone()], [queries, keys])


def test_unbound_kernels_are_refused() -> None:
    with pytest.raises(ForgeError, match="FORGE-B002"):
        kernel_module([kernel_of(SOFTMAX, SOFTMAX_TYPES)])
    partly = kernel_of(SOFTMAX, SOFTMAX_TYPES)
    partly.properties["bound"] = DictionaryAttr({"BM": IntAttr(4)})
    with pytest.raises(ForgeError, match="FORGE-B002"):
        kernel_module([partly])


def test_tiles_that_no_stack_holds_are_refused() -> None:
    with pytest.raises(ForgeError, match="bytes of the stack"):
        kernel_module([bound(SOFTMAX, SOFTMAX_TYPES, BM=64, BN=65536)])
