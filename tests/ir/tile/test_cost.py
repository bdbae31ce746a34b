"""Costs of kernels, and what is known of index values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forgec.ir.tile.cost import kernel_cost
from forgec.ir.tile.memory import LoadOp
from forgec.ir.tile.places import Places
from forgec.runtime.symbolic import evaluate, parse
from tests.backends.cpu.launch import kernels_of
from tests.ir.tile.kernels import MATMUL, MATMUL_TYPES, SCALE, SCALE_TYPES, SOFTMAX, SOFTMAX_TYPES, kernel_of


def test_an_elementwise_kernel() -> None:
    cost = kernel_cost(kernel_of(SCALE, SCALE_TYPES))
    assert cost.is_exact
    assert cost.program.flops == parse("BM")
    assert cost.program.dot_flops == 0
    assert cost.program.bytes_read == cost.program.bytes_written == parse("min(BM, n0) * 4")
    assert cost.programs == parse("(n0 + BM - 1) // BM")
    assert cost.footprint_bytes == parse("n0 * 8")
    assert cost.live_bytes == parse("BM * 12")  # the operands of the product, and the product


def test_a_matmul_by_the_turns_of_its_loop() -> None:
    cost = kernel_cost(kernel_of(MATMUL, MATMUL_TYPES))
    values = {"n0": 64, "n1": 96, "n2": 100, "BM": 32, "BN": 48, "BK": 16}
    turns = 7  # of 16: 100 in all
    assert evaluate(cost.program.dot_flops, values) == 2 * 32 * 48 * 16 * turns
    assert evaluate(cost.program.bytes_read, values) == 4 * 16 * (32 + 48) * turns
    assert evaluate(cost.launch.bytes_written, values) == 4 * 64 * 96
    assert evaluate(cost.programs, values) == 4
    assert cost.dot_bytes_at(values) == 4 * 16 * (32 + 48)
    assert cost.live_bytes_at(values) == 4 * (16 * (32 + 48) + 3 * 32 * 48)


def test_rows_count_whole_lines_of_memory() -> None:
    cost = kernel_cost(kernel_of(SOFTMAX, SOFTMAX_TYPES))
    values = {"n0": 8, "n1": 3, "BM": 4, "BN": 16}
    assert evaluate(cost.program.bytes_read, values) == 4 * 3 * 4
    assert evaluate(cost.program.line_bytes, values) == 2 * 4 * 64
    assert evaluate(cost.at(values).launch.flops, {}) == 2 * 5 * 4 * 16


def test_a_table_counts_as_what_is_gathered_of_it() -> None:
    text = """
tile.kernel @rows(%w : !tile.block<tensor<5000x768xf32>>, %i : !tile.block<tensor<64xi64>>,
    %y : !tile.block<tensor<64x768xf32>>) writes [2] tiles [BM over 64, BN over 768] grid [16, 48]
    bound {BM = 4, BN = 16} {
  %p = tile.program_id 0
  %q = tile.program_id 1
  %r = tile.index p0 * 4 (%p) : (index) -> index
  %c = tile.index p0 * 16 (%q) : (index) -> index
  %ids = tile.load %i[%r] : !tile.block<tensor<64xi64>> -> tensor<4xi64>
  %at = arith.index_cast %ids : tensor<4xi64> to tensor<4xindex>
  %rows = tile.broadcast %at along [0] : tensor<4xindex> -> tensor<4x16xindex>
  %range = tile.range : tensor<16xindex>
  %places = tile.index p0 + p1 (%range, %c) : (tensor<16xindex>, index) -> tensor<16xindex>
  %columns = tile.broadcast %places along [1] : tensor<16xindex> -> tensor<4x16xindex>
  %v = tile.gather %w[INDICES] :
      !tile.block<tensor<5000x768xf32>>, tensor<4x16xindex>, tensor<4x16xindex> -> tensor<4x16xf32>
  tile.store %v, %y[%r, %c] : tensor<4x16xf32>, !tile.block<tensor<64x768xf32>>
  tile.return
}"""
    (along_rows,) = kernels_of(text.replace("INDICES", "%rows, %columns"))
    (across,) = kernels_of(text.replace("INDICES", "%columns, %rows"))
    cost = kernel_cost(along_rows)
    assert cost.footprint_bytes == 2 * 64 * 768 * 4 + 64 * 8
    stored = 4 * 64 + 64  # the tile that is stored, and the line of its indices
    assert cost.program.line_bytes == 4 * 64 + stored
    assert kernel_cost(across).program.line_bytes == 4 * 16 * 64 + stored


def test_a_bound_that_depends_on_the_program_counts_as_in_the_middle() -> None:
    text = MATMUL.replace("tile.index n2 () : () -> index", "tile.index p0 + BM (%m) : (index) -> index")
    cost = kernel_cost(kernel_of(text, MATMUL_TYPES))
    assert not cost.is_exact
    values = {"n0": 64, "n1": 16, "n2": 64, "BM": 16, "BN": 16, "BK": 16}
    assert evaluate(cost.program.dot_flops, values) == 2 * 16**3 * 3  # program 2 of 4


@pytest.mark.parametrize(
    ("start", "extent", "inside"),
    [
        ("p0 * 16", 64, True),
        ("p0 * 16", 63, False),
        ("p0 * 16 - 1", 64, False),
        ("48 - p0 * 16", 64, True),
        ("floordiv(p0, 2) * 16", 32, True),
        ("mod(p0, 3) * 16", 48, True),
        ("mod(p0, 3) * 16", 47, False),
        ("min(p0 * 100, 48)", 64, True),
        ("max(p0 * 16 - 48, 0)", 16, True),
    ],
)
def test_whether_places_are_inside_for_all_programs(start: str, extent: int, inside: bool) -> None:
    block = f"!tile.block<tensor<{extent}xf32>>"
    kernel = kernel_of(f"""
tile.kernel @k(%x : {block}) grid [4] {{
  %p = tile.program_id 0
  %o = tile.index {start} (%p) : (index) -> index
  %v = tile.load %x[%o] : {block} -> tensor<16xf32>
  tile.return
}}""")
    (load,) = (op for op in kernel.walk() if isinstance(op, LoadOp))
    assert Places(kernel).is_inside(load.offsets[0], 16, extent) == inside


def test_costs_add_and_scale() -> None:
    cost = kernel_cost(kernel_of(SCALE, SCALE_TYPES)).program
    assert (cost + cost).parts == cost.times(2).parts
    assert cost.dearer(replace(cost, flops=0)).flops == cost.flops
