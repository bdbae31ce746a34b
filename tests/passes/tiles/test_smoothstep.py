"""The family that docs/tile.md shows: a file in the folder of rules is all that the compiler needs of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from xdsl.dialects.builtin import ModuleOp

from forgec.backends.cpu.backend import lowered_kernel
from forgec.backends.cpu.to_llvm import llvm_text
from forgec.backends.triton.printer import print_kernel
from forgec.ir.interpreter import interpret
from forgec.ir.tile.kernel import KernelOp, LaunchOp
from forgec.passes import ir_source
from forgec.passes.bind_tiles import BindTiles
from forgec.passes.instruments import ir_text
from forgec.passes.ir_source import Piece
from forgec.passes.lower_to_tile import LowerToTile
from forgec.passes.tiles import rule, rules

NAME = f"{rules.__name__}.smoothstep"


@pytest.fixture(autouse=True)
def _in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the file lay in the folder of rules."""
    rules.all_rules()  # so that those of the folder are declared outside of this test
    shutil.copy(Path(__file__).with_name("smoothstep.py"), tmp_path)
    own = dict(rule.RULES)
    for module in (rule, rules):
        monkeypatch.setattr(module, "RULES", own)
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(tmp_path)])
    for cached in (rules._modules, rules.all_rules):
        cached.cache_clear()
    yield
    sys.modules.pop(NAME, None)
    vars(rules).pop("smoothstep", None)
    for cached in (rules._modules, rules.all_rules):
        cached.cache_clear()


def _module(dtype: str) -> ModuleOp:
    x, w, y = (f"tensor<{shape}x{dtype}>" for shape in ("5x6", "4x6", "5x4"))
    text = f"""
    func.func @main(%x: {x}, %w: {w}) -> {y} {{
      %p = forge.linear %x, %w : ({x}, {w}) -> {y}
      %s = forge.smoothstep %p : ({y}) -> {y}
      func.return %s : {y}
    }}"""
    return ir_source.parse(Piece("smoothstep.mlir", text, 1), ir_source.context()).module


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16"])
def test_a_family_in_one_file(dtype: str) -> None:
    module = _module(dtype)
    again = ir_source.parse(Piece("again.mlir", ir_text(module), 1), ir_source.context()).module
    assert ir_text(again) == ir_text(module)
    tiles: ModuleOp = module.clone()
    LowerToTile().apply(None, tiles)  # type: ignore[arg-type]
    tiles.verify()
    assert sum(isinstance(op, LaunchOp) for op in tiles.walk()) == 2
    kind = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16}[dtype]
    inputs = [torch.randn(5, 6).to(kind), torch.randn(4, 6).to(kind)]
    for wide in (True, False):
        found, wanted = (interpret(m, inputs, function="main", float64=wide) for m in (tiles, module))
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("target", "words"), [("cpu:x86-64-v3", "fmul"), ("cuda:sm_90a", "tl.maximum")])
def test_both_backends_print_it(target: str, words: str) -> None:
    module = _module("f32")
    LowerToTile().apply(None, module)  # type: ignore[arg-type]
    BindTiles(target).apply(ir_source.context(), module)
    kernel = next(op for op in module.ops if isinstance(op, KernelOp) and "smoothstep" in op.sym_name.data)
    cpu = target.startswith("cpu")
    text = llvm_text(lowered_kernel(kernel, target.removeprefix("cpu:"))) if cpu else print_kernel(kernel).text
    assert words in text
