"""Kernels with loops, for the tests of extraction: lowered from forge ops, and at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from xdsl.dialects.builtin import ModuleOp

from forgec.ir.context import context
from forgec.ir.tile.kernel import KernelOp
from forgec.passes import ir_source
from forgec.passes.bind_tiles import bind
from forgec.passes.manager import run_pipeline
from forgec.schedule import machine
from forgec.schedule.machine import Machine
from tests.chooser import Chooser
from tests.ir.tile.kernels import kernel_of

ATTENTION = """
func.func @forward(%q: tensor<1x4xSEQxHEADxbf16>, %k: tensor<1x4xSEQxHEADxbf16>, %v: tensor<1x4xSEQxHEADxbf16>)
    -> tensor<1x4xSEQxHEADxbf16> {
  %y = forge.attention %q, %k, %v MORE : (tensor<1x4xSEQxHEADxbf16>, tensor<1x4xSEQxHEADxbf16>,
      tensor<1x4xSEQxHEADxbf16>) -> tensor<1x4xSEQxHEADxbf16>
  func.return %y : tensor<1x4xSEQxHEADxbf16>
}
"""


def lowered(text: str, bindings: Mapping[str, int] | None = None, pipeline: str = "lower-to-tile") -> list[KernelOp]:
    """The kernels of a function, with these tile extents if there are any."""
    module = ir_source.parse(ir_source.Piece("model.mlir", text, 1), ir_source.context()).module
    run_pipeline(module, pipeline, context=context())
    return bound(module, bindings)


def bound(module: ModuleOp, bindings: Mapping[str, int] | None) -> list[KernelOp]:
    """The kernels of a module, with these tile extents if there are any."""
    kernels = [op for op in module.ops if isinstance(op, KernelOp)]
    for kernel in kernels:
        if bindings is not None:
            bind(kernel, bindings)
    return kernels


def attention(head: int, rows: int, columns: int, sequence: int, more: str = "") -> KernelOp:
    """An attention kernel over tiles of so many rows and columns."""
    text = ATTENTION.replace("SEQ", str(sequence)).replace("HEAD", str(head)).replace("MORE", more)
    (kernel,) = lowered(text, {"BM": rows, "BD": head, "BN": columns})
    return kernel


def any_machine(accumulator: str = "register") -> Machine:
    """A machine that multiplies whatever there is, and leaves sums where it is told."""
    made = machine.named("sm_90a" if accumulator == "register" else "sm_100a")
    product = made.instructions["mma.bf16"]
    products = {f"mma.{dtype}": product for dtype in ("f32", "f64", "i32", "i8", "tf32")}
    return replace(made, name="any", instructions={**made.instructions, **products})


class RandomLoop:
    """The text of a kernel with one loop over tiles of 16 x 16, whose body is random."""

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser
        self.lines: list[str] = []
        self.carried = [f"%c{number}" for number in range(chooser.integer(0, 3))]
        self.rows = [bool(chooser.integer(0, 1)) for _ in self.carried]
        self.tiles = [name for name, row in zip(self.carried, self.rows, strict=True) if not row] + ["%outer", "%zeros"]
        self.vectors = [name for name, row in zip(self.carried, self.rows, strict=True) if row] + ["%outer_row"]
        self.masks: list[str] = []

    def pick(self, names: list[str]) -> str:
        """Late ones more often: chains."""
        near = self.chooser.integer(0, 1)
        low = max(len(names) - 3, 0) if near else 0
        return names[self.chooser.integer(low, len(names) - 1)]

    def add(self, text: str, kind: str) -> None:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"    {name} = {text}")
        {"tile": self.tiles, "row": self.vectors, "mask": self.masks}[kind].append(name)

    def step(self) -> None:
        """One more op."""
        tile, other, row = self.pick(self.tiles), self.pick(self.tiles), self.pick(self.vectors)
        match self.chooser.integer(0, 10):
            case 0 | 1:
                offsets = ("%m, %i", "%i, %m", "%i, %zero", "%zero, %i")[self.chooser.integer(0, 3)]
                block = ("%x", "%w")[self.chooser.integer(0, 1)]
                self.add(f"tile.load {block}[{offsets}] : !B -> !T", "tile")
            case 2 | 3:
                into = ("%zeros", self.pick(self.tiles))[self.chooser.integer(0, 1)]
                how = (" transposed", "")[self.chooser.integer(0, 1)]
                self.add(f"tile.dot {tile}, {other} into {into}{how} : !T, !T -> !T", "tile")
            case 4:
                self.add(f"arith.addf {tile}, {other} : !T", "tile")
            case 5:
                self.add(f"math.exp {tile} : !T", "tile")
            case 6:
                self.add(f'tile.reduce "add" {tile} axis 1 : !T -> !R', "row")
            case 7:
                self.add(f"tile.broadcast {row} along [0] : !R -> !T", "tile")
            case 8:
                self.add(f"arith.mulf {row}, {self.pick(self.vectors)} : !R", "row")
            case 9:
                self.add(f"tile.transpose {tile} [1, 0] : !T -> !T", "tile")
            case _:
                self.add(f"arith.cmpf olt, {tile}, {other} : !T", "mask")
                self.add(f"arith.select {self.masks[-1]}, {tile}, {other} : !M, !T", "tile")

    def kernel(self) -> KernelOp:
        """The kernel, with between 1 and 14 ops in its loop."""
        for _ in range(self.chooser.integer(1, 14)):
            self.step()
        yields = [self.pick(self.vectors if row else self.tiles) for row in self.rows]
        kinds = ["!R" if row else "!T" for row in self.rows]
        starts = ["%outer_row" if row else "%outer" for row in self.rows]
        carried = ", ".join(f"{name} = {start}" for name, start in zip(self.carried, starts, strict=True))
        head = f" iter_args({carried}) -> ({', '.join(kinds)})" if self.carried else ""
        results = f"%r:{len(kinds)} = " if kinds else ""
        end = [f"    scf.yield {', '.join(yields)} : {', '.join(kinds)}"] if kinds else ["    scf.yield"]
        body = "\n".join(self.lines + end)
        text = f"""
tile.kernel @random(%x : !B, %w : !B, %y : !B) writes [2] tiles [BM over 64] grid [6, 6] bound {{BM = 16}} {{
  %p = tile.program_id 0
  %q = tile.program_id 1
  %m = tile.index p0 * 16 (%p) : (index) -> index
  %n = tile.index p0 * 16 (%q) : (index) -> index
  %zero = tile.index 0 () : () -> index
  %end = tile.index 64 () : () -> index
  %step = tile.index 16 () : () -> index
  %f = arith.constant 0.0 : f32
  %zeros = tile.broadcast %f along [] : f32 -> !T
  %outer = tile.load %x[%m, %n] : !B -> !T
  %outer_row = tile.reduce "add" %outer axis 1 : !T -> !R
  {results}scf.for %i = %zero to %end step %step{head} {{
{body}
  }}
  tile.store %outer, %y[%m, %n] : !T, !B
  tile.return
}}"""
        types = {
            "B": "!tile.block<tensor<64x64xf32>>",
            "T": "tensor<16x16xf32>",
            "R": "tensor<16xf32>",
            "M": "tensor<16x16xi1>",
        }
        return kernel_of(text, types)
