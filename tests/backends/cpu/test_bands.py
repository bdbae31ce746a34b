"""Products in a band, and what no store writes: as machine code, beside the interpreter."""

from __future__ import annotations

import pytest
import torch

from forgec.backends.cpu.needed import Limit, Needed
from forgec.ir.context import context
from forgec.ir.tile.compute import DotOp, ReduceOp
from forgec.ir.tile.kernel import KernelOp
from forgec.passes.manager import run_pipeline
from tests.backends.cpu.launch import agree, compiled, kernels_of
from tests.ir.build import parse

PRODUCT = """
tile.kernel @product(%x : !tile.block<tensor<{rows}x{steps}xf32>>, %w : !tile.block<tensor<{first}x{second}xf32>>,
    %y : !tile.block<tensor<{rows}x{columns}xf32>>) writes [2] grid [1] bound {{}} {{
  %z = arith.constant 0 : index
  %low = arith.constant {low} : index
  %high = arith.constant {high} : index
  %f = arith.constant 1.0 : f32
  %start = tile.broadcast %f along [] : f32 -> tensor<{rows}x{columns}xf32>
  %a = tile.load %x[%z, %z] : !tile.block<tensor<{rows}x{steps}xf32>> -> tensor<{rows}x{steps}xf32>
  %b = tile.load %w[%z, %z] : !tile.block<tensor<{first}x{second}xf32>> -> tensor<{first}x{second}xf32>
  %d = tile.dot %a, %b into %start rows %low, %high band "{band}"{transposed}
    : tensor<{rows}x{steps}xf32>, tensor<{first}x{second}xf32> -> tensor<{rows}x{columns}xf32>
  {after}
  tile.store %r, %y[%z, %z] : tensor<{rows}x{columns}xf32>, !tile.block<tensor<{rows}x{columns}xf32>>
  tile.return
}}
"""
SUM = "%r = arith.mulf %d, %start : tensor<{rows}x{columns}xf32>"
RESULT = """
  %i = tile.range : tensor<{rows}xindex>
  %j = tile.range : tensor<{columns}xindex>
  %ii = tile.broadcast %i along [0] : tensor<{rows}xindex> -> tensor<{rows}x{columns}xindex>
  %jj = tile.broadcast %j along [1] : tensor<{columns}xindex> -> tensor<{rows}x{columns}xindex>
  %apart = tile.index p1 - p0(%ii, %jj)
    : (tensor<{rows}x{columns}xindex>, tensor<{rows}x{columns}xindex>) -> tensor<{rows}x{columns}xindex>
  %l = tile.broadcast %low along [] : index -> tensor<{rows}x{columns}xindex>
  %h = tile.broadcast %high along [] : index -> tensor<{rows}x{columns}xindex>
  %c = arith.cmpi {least}, %apart, %l : tensor<{rows}x{columns}xindex>
  %e = arith.cmpi {most}, %h, %apart : tensor<{rows}x{columns}xindex>
  %k = arith.andi %c, %e : tensor<{rows}x{columns}xi1>
  %r = arith.select %k, %d, %start : tensor<{rows}x{columns}xi1>, tensor<{rows}x{columns}xf32>
"""


def product(band: str, rows: int, steps: int, columns: int, low: int, high: int, transposed: bool, after: str) -> str:
    first, second = (columns, steps) if transposed else (steps, columns)
    extents = {"rows": rows, "columns": columns, "steps": steps, "first": first, "second": second}
    turned = " transposed" if transposed else ""
    return PRODUCT.format(
        **extents, low=low, high=high, band=band, transposed=turned,
        after=after.format(**extents, least="sge", most="sgt"),
    )  # fmt: skip


BANDS = [(-64, 1), (-3, 4), (5, 9), (-100, -90), (20, 64)]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("level", "rows", "steps", "columns"),
    [
        ("x86-64-v4", 64, 48, 32),
        ("x86-64-v3", 3, 32, 48),
        ("x86-64-v4", 7, 40, 16),
        ("x86-64-v3", 20, 24, 1),
        ("x86-64-v3", 29, 33, 19),
    ],
)
def test_products_in_a_band(level: str, transposed: bool, rows: int, steps: int, columns: int) -> None:
    """Of a sum, what no row's band has is not read: it is NaN here."""
    torch.manual_seed(0)
    apart = torch.arange(steps) - torch.arange(rows)[:, None]
    for low, high in BANDS:
        inside = (apart >= low) & (apart < high)
        x = torch.where(inside, torch.randn(rows, steps), 0)
        w = torch.where(inside.any(0)[:, None], torch.randn(steps, columns), torch.nan)
        w = w.T.contiguous() if transposed else w
        text = product("sum", rows, steps, columns, low, high, transposed, SUM)
        native, kernels = compiled(text, level)
        y = torch.empty(rows, columns)
        agree(native, kernels["product"], [x, w, y], ())

        whole = torch.randn(rows, steps), torch.randn(w.shape)
        text = product("result", rows, steps, columns, low, high, transposed, RESULT)
        native, kernels = compiled(text, level)
        agree(native, kernels["product"], [*whole, y], ())


ATTENTION = """
forge.symbol @s0 "seq" min 1 max 200
func.func @forward(%q: {T}, %k: {T}, %v: {T}) -> {T} {{
  %0 = forge.attention %q, %k, %v {modifiers} : ({T}, {T}, {T}) -> {T}
  func.return %0 : {T}
}}
"""


def dynamic_attention(modifiers: str) -> str:
    """The text of the bound kernel of an attention whose length is known when it runs."""
    kind = "tensor<1x2x?x16xf32, #forge.tensor<[s0]>>"
    module = parse(ATTENTION.format(T=kind, modifiers=modifiers))
    run_pipeline(module, 'lower-to-tile,bind-tiles{target="cpu:x86-64-v3"}', context=context())
    return str(next(op for op in module.ops if isinstance(op, KernelOp)))


@pytest.mark.parametrize("modifiers", ["", "causal", "causal window 20", "window 9", "chunk 24 causal"])
def test_lengths_that_are_known_when_it_runs(modifiers: str) -> None:
    torch.manual_seed(0)
    native, kernels = compiled(dynamic_attention(modifiers))
    (kernel,) = kernels.values()
    for length in (1, 2, 5, 9, 13, 63, 64, 65, 131):
        given = [torch.randn(1, 2, length, 16) for _ in range(3)]
        agree(native, kernel, [*given, torch.full((1, 2, length, 16), torch.nan)], (length,))


def test_rows_after_the_end_are_not_needed() -> None:
    (kernel,) = kernels_of(dynamic_attention("causal"))
    needed = Needed(kernel)
    values = [op.results[0] for op in kernel.walk() if isinstance(op, DotOp | ReduceOp)]
    assert len(values) == 4
    assert all(isinstance(needed.of(value)[0], Limit) for value in values)
    assert all(limit is None for value in values for limit in needed.of(value)[1:])


def test_what_a_reduction_of_rows_reads_is_needed() -> None:
    """With chunks the rows say together which columns are read; they are all needed for that."""
    (kernel,) = kernels_of(dynamic_attention("chunk 24 causal"))
    needed = Needed(kernel)
    across = [op for op in kernel.walk() if isinstance(op, ReduceOp) and op.kind.data == "or"]
    assert across
    assert all(needed.of(op.input) == (None, None) for op in across)


def test_tiles_that_lie_in_their_blocks_are_needed_whole() -> None:
    text = product("sum", 8, 16, 16, 0, 4, False, SUM).replace("%y[%z, %z]", "%y[%z, %z] in_bounds [0, 1]")
    needed = Needed(kernels_of(text)[0])
    assert not needed.limits
