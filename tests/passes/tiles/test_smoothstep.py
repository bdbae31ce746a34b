"""The family that docs/tile.md shows: it lowers, alone and in a group, and computes the same."""

from __future__ import annotations

import pytest
import torch
from xdsl.builder import Builder
from xdsl.dialects.builtin import ModuleOp

from forgec.ir import types
from forgec.ir.interpreter import interpret
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.tile.kernel import LaunchOp
from forgec.passes.lower_to_tile import LowerToTile
from forgec.passes.tiles.rules import all_rules
from tests.ir.build import function
from tests.passes.tiles.smoothstep import SmoothstepOp, smoothstep


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16"])
def test_a_family_in_one_file(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(all_rules(), SmoothstepOp, smoothstep)
    kinds = [types.tensor(dtype, (5, 6)), types.tensor(dtype, (4, 6))]

    def body(builder: Builder, arguments: object) -> list[object]:
        x, w = arguments  # type: ignore[misc]
        product = builder.insert(LinearOp.make([x, w, None], {}))
        return [builder.insert(SmoothstepOp.make([product.results[0]])).results[0]]

    module = function(kinds, body)  # type: ignore[arg-type]
    tiles: ModuleOp = module.clone()
    LowerToTile().apply(None, tiles)  # type: ignore[arg-type]
    tiles.verify()
    assert sum(isinstance(op, LaunchOp) for op in tiles.walk()) == 2
    inputs = [
        torch.randn(5, 6).to(t)
        for t in [getattr(torch, {"f32": "float32", "f64": "float64", "bf16": "bfloat16"}[dtype])]
    ]
    inputs.append(torch.randn(4, 6).to(inputs[0].dtype))
    for wide in (True, False):
        torch.testing.assert_close(interpret(tiles, inputs, float64=wide), interpret(module, inputs, float64=wide))
