# ruff: noqa: E501 - types of IR are long
"""Writes docs/tile.md, which teaches the level of tiles: prose, and IR that the compiler prints for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp

from forgec.ir.tile.kernel import KernelOp
from forgec.passes import ir_source
from forgec.passes.bind_tiles import BindTiles
from forgec.passes.instruments import ir_text
from forgec.passes.ir_source import Piece
from forgec.passes.lower_to_tile import LowerToTile
from forgec.passes.tile_sizes import estimates, symbol_uses

TEXT = Path(__file__).with_name("tile_page.md")
"""The prose. ``{{softmax.forge}}`` and the like stand for what is printed: of each case ``forge``, ``tile``, ``bound``,
``llvm``, ``triton`` and ``table``; ``{{example}}`` for the file with an op and its rule.
"""
LEVEL = "x86-64-v3"
TARGET = f"cpu:{LEVEL}"
GPU = "cuda:sm_90a"
SHOWN = 6
"""Candidates in a table."""

CASES = {
    "softmax": """\
func.func @forward(%x: tensor<?x96xf32, #forge.tensor<[s0]>>) -> tensor<?x96xf32, #forge.tensor<[s0]>> {
  %y = forge.softmax %x dim 1 : (tensor<?x96xf32, #forge.tensor<[s0]>>) -> tensor<?x96xf32, #forge.tensor<[s0]>>
  func.return %y : tensor<?x96xf32, #forge.tensor<[s0]>>
}""",
    "linear": """\
func.func @forward(%x: tensor<64x48xf32>, %w: tensor<32x48xf32>, %u: tensor<64x32xf32>) -> tensor<64x32xf32> {
  %y = forge.fused "linear" (%a = %x : tensor<64x48xf32>, %b = %w : tensor<32x48xf32>, %c = %u : tensor<64x32xf32>) {
    %g = forge.linear %a, %b : (tensor<64x48xf32>, tensor<32x48xf32>) -> tensor<64x32xf32>
    %h = forge.glu %g, %c activation "silu" : (tensor<64x32xf32>, tensor<64x32xf32>) -> tensor<64x32xf32>
    forge.yield %h : tensor<64x32xf32>
  } : tensor<64x32xf32>
  func.return %y : tensor<64x32xf32>
}""",
    "attention": """\
func.func @forward(%q: tensor<1x4x64x16xf32>, %k: tensor<1x4x64x16xf32>, %v: tensor<1x4x64x16xf32>) -> tensor<1x4x64x16xf32> {
  %y = forge.attention %q, %k, %v causal : (tensor<1x4x64x16xf32>, tensor<1x4x64x16xf32>, tensor<1x4x64x16xf32>) -> tensor<1x4x64x16xf32>
  func.return %y : tensor<1x4x64x16xf32>
}""",
    "reshape": """\
func.func @forward(%x: tensor<16x48xf32>) -> tensor<16x4x12xf32> {
  %y = forge.fused "elementwise" (%a = %x : tensor<16x48xf32>) {
    %0 = forge.exp %a : (tensor<16x48xf32>) -> tensor<16x48xf32>
    %1 = forge.reshape %0 : (tensor<16x48xf32>) -> tensor<16x4x12xf32>
    forge.yield %1 : tensor<16x4x12xf32>
  } : tensor<16x4x12xf32>
  func.return %y : tensor<16x4x12xf32>
}""",
    "split": """\
func.func @forward(%x: tensor<16x48xf32>) -> tensor<4x16x12xf32> {
  %y = forge.fused "elementwise" (%a = %x : tensor<16x48xf32>) {
    %0 = forge.exp %a : (tensor<16x48xf32>) -> tensor<16x48xf32>
    %1 = forge.reshape %0 : (tensor<16x48xf32>) -> tensor<16x4x12xf32>
    %2 = forge.transpose %1 [1, 0, 2] : (tensor<16x4x12xf32>) -> tensor<4x16x12xf32>
    %3 = forge.copy %2 : (tensor<4x16x12xf32>) -> tensor<4x16x12xf32>
    forge.yield %3 : tensor<4x16x12xf32>
  } : tensor<4x16x12xf32>
  func.return %y : tensor<4x16x12xf32>
}""",
}  # fmt: skip
_SYMBOL = 'forge.symbol @s0 "seq" min 1 max 512\n'


@dataclass
class Shown:
    """A case at every level."""

    forge: str
    tile: str
    bound: str
    table: str
    llvm: str
    triton: str


def tile_page(example: Path) -> str:
    """The page; ``example`` is the file with an op and its rule."""
    cases = {name: shown(text) for name, text in CASES.items()}

    def printed(match: re.Match[str]) -> str:
        if match[1] == "example":
            return f"```python\n{example.read_text(encoding='utf-8').rstrip()}\n```"
        name, _, part = match[1].partition(".")
        text = getattr(cases[name], part)
        language = {"llvm": "llvm", "triton": "python"}.get(part, "mlir")
        return text if part == "table" else f"```{language}\n{text}\n```"

    return re.sub(r"\{\{([\w.]+)\}\}", printed, TEXT.read_text(encoding="utf-8"))


def shown(text: str) -> Shown:
    """A case at every level."""
    context = ir_source.context()
    module = ir_source.parse(Piece("forward.mlir", _SYMBOL + text, 1), context).module
    LowerToTile().apply(context, module)
    (kernel,) = [op for op in module.ops if isinstance(op, KernelOp)]
    unbound, table = _kernel_text(module), _table(kernel, module)
    other = module.clone()
    BindTiles(TARGET).apply(context, module)
    BindTiles(GPU).apply(context, other)
    return Shown(text, unbound, _kernel_text(module), table, _llvm(kernel), _triton(other))


def _kernel_text(module: ModuleOp) -> str:
    lines = [line.removeprefix("  ") for line in ir_text(module).strip().splitlines()[1:-1]]
    first = next(number for number, line in enumerate(lines) if line.startswith("tile.kernel"))
    return _with_aliases("\n".join(lines[first:]))


_TILE = re.compile(r"tensor<(?:\?x)+(\w+), #forge\.tensor<\[([A-Z0-9, ]+)\]>>")


def _with_aliases(text: str) -> str:
    """The text with a name for each type of tile, as MLIR's type aliases: ``!BM_BN_f32``."""
    found: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        alias = f"!{match[2].replace(', ', '_')}_{match[1]}"
        found[alias] = match[0]
        return alias

    body = _TILE.sub(name, text)
    return "\n".join([*(f"{alias} = {kind}" for alias, kind in found.items()), body])


def _table(kernel: KernelOp, module: ModuleOp) -> str:
    lines = ["| target | tiles | programs | live bytes | estimate |", "|---|---|---|---|---|"]
    for target in (TARGET, GPU):
        _, found = estimates(kernel, target, symbol_uses(kernel, module))
        lines += [
            f"| {target} | {candidate.text} | {candidate.programs} | {candidate.live_bytes} | "
            f"{candidate.seconds * 1e6:.3g} µs{'' if candidate.limit is None else ', ' + candidate.limit} |"
            for candidate in found[: SHOWN if target == TARGET else 2]
        ]
    return "\n".join(lines)


def _triton(module: ModuleOp) -> str:
    """The function of the kernel's Triton source."""
    from forgec.backends.triton.printer import print_kernel

    (kernel,) = [op for op in module.ops if isinstance(op, KernelOp)]
    text = print_kernel(kernel).text
    return text[text.rindex("@triton.jit") :].rstrip()


def _llvm(kernel: KernelOp) -> str:
    """The innermost loops of the kernel's LLVM IR: the longest block that has arithmetic on vectors."""
    from forgec.backends.cpu.backend import lowered_kernel
    from forgec.backends.cpu.to_llvm import llvm_text

    blocks = re.split(r"\n(?=b\d+:)", llvm_text(lowered_kernel(kernel, LEVEL)))
    inner = [block for block in blocks if re.search(r"br i1 .*label %" + block.partition(":")[0] + r"\b", block)]
    products = [block for block in inner if "llvm.fma" in block]
    sums = [block for block in inner if re.search(r"= f\w+ <\d+ x float>", block)]
    chosen = min(products or sums or blocks, key=len)
    lines = chosen.rstrip().splitlines()
    return "\n".join(lines[:24] + ["  …"] * (len(lines) > 24))
