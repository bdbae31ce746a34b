"""Norms and rotations after a product: it is computed once, in the parts that the rotation needs."""

from __future__ import annotations

import pytest
import torch

from forgec.ir.context import context
from forgec.ir.interpreter import interpret
from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.kernel import KernelOp
from forgec.passes.manager import run_pipeline
from tests.ir.build import parse

HEADS = """
func.func @forward(%x : tensor<2x5x12xf32>, %w : tensor<24x12xf32>, %g : tensor<8xf32>, %c : tensor<1x1x5x4xf32>,
    %s : tensor<1x1x5x4xf32>) -> tensor<2x3x5x8xf32> {
  %0 = forge.linear %x, %w : (tensor<2x5x12xf32>, tensor<24x12xf32>) -> tensor<2x5x24xf32>
  %1 = forge.reshape %0 : (tensor<2x5x24xf32>) -> tensor<2x5x3x8xf32>
  %2 = NORM
  %3 = forge.transpose %2 [0, 2, 1, 3] : (tensor<2x5x3x8xf32>) -> tensor<2x3x5x8xf32, #forge.tensor<[], strides = [120, 8, 24, 1]>>
  %4 = forge.rope %3 cos %c sin %s once : (tensor<2x3x5x8xf32, #forge.tensor<[], strides = [120, 8, 24, 1]>>, tensor<1x1x5x4xf32>, tensor<1x1x5x4xf32>) -> tensor<2x3x5x8xf32>
  func.return %4 : tensor<2x3x5x8xf32>
}
"""  # noqa: E501
NORMS = {
    norm: f"forge.{norm} %1 weight %g axes 1 eps 1.0e-06 : (tensor<2x5x3x8xf32>, tensor<8xf32>) -> tensor<2x5x3x8xf32>"
    for norm in ("rms_norm", "layer_norm")
}


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_and_a_rotation_share_the_product(norm: str) -> None:
    module = parse(HEADS.replace("NORM", NORMS[norm]))
    torch.manual_seed(0)
    angles = torch.randn(1, 1, 5, 4)
    given = [torch.randn(2, 5, 12), torch.randn(24, 12), torch.randn(8), angles.cos(), angles.sin()]
    (expected,) = interpret(module, given)
    run_pipeline(module, "@O2,lower-to-tile", context=context())
    (kernel,) = [op for op in module.ops if isinstance(op, KernelOp)]
    assert sum(isinstance(op, DotOp) for op in kernel.walk()) == 2  # one for each half
    for pipeline in ("", "bind-tiles"):
        run_pipeline(module, pipeline, context=context())
        torch.testing.assert_close(interpret(module, given)[0], expected, rtol=0, atol=1e-5)
