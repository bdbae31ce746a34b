"""Kernels that memory bounds: rows are given to programs, and tiles have long ones."""

from __future__ import annotations

import pytest

from forgec.ir.context import context
from forgec.ir.tile.kernel import KernelOp
from forgec.passes.manager import run_pipeline
from tests.ir.build import parse


def kernel(body: str, inputs: str, result: str, pipeline: str) -> KernelOp:
    module = parse(f"func.func @forward({inputs}) -> {result} {{\n{body}\nfunc.return %y : {result}\n}}")
    run_pipeline(module, pipeline, context=context())
    return next(op for op in module.ops if isinstance(op, KernelOp))


def test_rows_of_a_square_matrix_that_are_summed_are_tiled() -> None:
    """Only where the result has the summed axis itself a row is whole there."""
    found = kernel(
        "%y = forge.sum %x over [1] : (tensor<512x512xf32>) -> tensor<512xf32>",
        "%x: tensor<512x512xf32>", "tensor<512xf32>", "lower-to-tile",
    )  # fmt: skip
    roles = {parameter.name: (parameter.whole, parameter.extent) for parameter in found.tiles.data}
    assert sorted(roles.values()) == [(False, 512), (True, 512)]


def test_a_row_that_is_normalised_is_whole_once() -> None:
    found = kernel(
        "%y = forge.softmax %x dim 1 : (tensor<512x512xf32>) -> tensor<512x512xf32>",
        "%x: tensor<512x512xf32>", "tensor<512x512xf32>", "lower-to-tile",
    )  # fmt: skip
    assert sorted(parameter.whole for parameter in found.tiles.data) == [False, True]


@pytest.mark.parametrize("columns", [4096, 2048])
def test_tiles_have_long_rows_where_there_is_no_product(columns: int) -> None:
    kind = f"tensor<4096x{columns}xf32>"
    found = kernel(
        f"%y = forge.concat %x, %z dim 1 : ({kind}, {kind}) -> tensor<4096x{2 * columns}xf32>",
        f"%x: {kind}, %z: {kind}", f"tensor<4096x{2 * columns}xf32>",
        '@O2,lower-to-tile,bind-tiles{target="cpu:x86-64-v3"}',
    )  # fmt: skip
    assert found.bindings["BN"] >= 1024
