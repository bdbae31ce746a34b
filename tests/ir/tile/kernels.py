"""Kernels written by hand, for the tests of the tile level, and how they are run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from xdsl.dialects.builtin import ModuleOp

from forgec.ir.tile.interpreter import run_kernel
from forgec.ir.tile.kernel import KernelOp
from tests.ir.build import parse

SCALE = """
tile.kernel @scale(%x : !V, %y : !V) symbols [n0] writes [1] tiles [BM over n0] grid [floordiv(n0 + BM - 1, BM)] {
  %p = tile.program_id 0
  %o = tile.index p0 * BM (%p) : (index) -> index
  %v = tile.load %x[%o] : !V -> !T
  %c = arith.constant 2.0 : f32
  %cs = tile.broadcast %c along [] : f32 -> !T
  %w = arith.mulf %v, %cs : !T
  tile.store %w, %y[%o] : !T, !V
  tile.return
}"""
SCALE_TYPES = {"V": "!tile.block<tensor<?xf32, #forge.tensor<[n0]>>>", "T": "tensor<?xf32, #forge.tensor<[BM]>>"}

SOFTMAX = """
tile.kernel @softmax(%x : !V, %y : !V) symbols [n0, n1] writes [1] tiles [BM over n0, BN whole n1]
    grid [floordiv(n0 + BM - 1, BM)] {
  %p = tile.program_id 0
  %o = tile.index p0 * BM (%p) : (index) -> index
  %z = arith.constant 0 : index
  %v = tile.load %x[%o, %z] : !V -> !T
  %i = tile.pad %v[%o, %z] within [n0, n1] other -inf : !T
  %m = tile.reduce "max" %i axis 1 : !T -> !R
  %ms = tile.broadcast %m along [0] : !R -> !T
  %d = arith.subf %i, %ms : !T
  %e = math.exp %d : !T
  %f = tile.pad %e[%o, %z] within [n0, n1] other 0.0 : !T
  %s = tile.reduce "add" %f axis 1 : !T -> !R
  %ss = tile.broadcast %s along [0] : !R -> !T
  %w = arith.divf %f, %ss : !T
  tile.store %w, %y[%o, %z] : !T, !V
  tile.return
}"""
SOFTMAX_TYPES = {
    "V": "!tile.block<tensor<?x?xf32, #forge.tensor<[n0, n1]>>>",
    "T": "tensor<?x?xf32, #forge.tensor<[BM, BN]>>",
    "R": "tensor<?xf32, #forge.tensor<[BM]>>",
}

MATMUL = """
tile.kernel @matmul(%a : !A, %b : !B, %c : !C) symbols [n0, n1, n2] writes [2]
    tiles [BM over n0, BN over n1, BK over n2]
    grid [floordiv(n0 + BM - 1, BM), floordiv(n1 + BN - 1, BN)] {
  %p = tile.program_id 0
  %q = tile.program_id 1
  %m = tile.index p0 * BM (%p) : (index) -> index
  %n = tile.index p0 * BN (%q) : (index) -> index
  %zero = arith.constant 0 : index
  %end = tile.index n2 () : () -> index
  %step = tile.index BK () : () -> index
  %f = arith.constant 0.0 : f32
  %init = tile.broadcast %f along [] : f32 -> !TC
  %sum = scf.for %k = %zero to %end step %step iter_args(%acc = %init) -> (!TC) {
    %l = tile.load %a[%m, %k] : !A -> !TA
    %r = tile.load %b[%k, %n] : !B -> !TB
    %d = tile.dot %l, %r into %acc : !TA, !TB -> !TC
    scf.yield %d : !TC
  }
  tile.store %sum, %c[%m, %n] : !TC, !C
  tile.return
}"""
MATMUL_TYPES = {
    "A": "!tile.block<tensor<?x?xf32, #forge.tensor<[n0, n2]>>>",
    "B": "!tile.block<tensor<?x?xf32, #forge.tensor<[n2, n1]>>>",
    "C": "!tile.block<tensor<?x?xf32, #forge.tensor<[n0, n1]>>>",
    "TA": "tensor<?x?xf32, #forge.tensor<[BM, BK]>>",
    "TB": "tensor<?x?xf32, #forge.tensor<[BK, BN]>>",
    "TC": "tensor<?x?xf32, #forge.tensor<[BM, BN]>>",
}


def module_of(text: str, types: Mapping[str, str] | None = None) -> ModuleOp:
    """A module with the kernels of a text; ``types`` are the types that it names ``!NAME``."""
    return parse("".join(f"!{name} = {kind}\n" for name, kind in (types or {}).items()) + text)


def kernel_of(text: str, types: Mapping[str, str] | None = None) -> KernelOp:
    """The one kernel of a text."""
    (kernel,) = (op for op in module_of(text, types).ops if isinstance(op, KernelOp))
    return kernel


def run(
    kernel: KernelOp,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    symbols: Sequence[int],
    bindings: Mapping[str, int] | None = None,
    order: Iterable[int] | None = None,
) -> list[torch.Tensor]:
    """What a kernel makes of copies of tensors: the parameters after the ``inputs``."""
    made = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype).copy_(t) for t in outputs]
    run_kernel(kernel, [*inputs, *made], symbols, bindings, order)
    return made
