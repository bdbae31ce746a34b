"""A bound tile kernel as Triton source, which reads like a person's::

    tile.kernel @scale(%x : …<?xf32>, %y : …) symbols [n0] writes [1] tiles [BM over n0] grid [ceildiv(n0, BM)]
        bound {BM = 128} {
      %m = tile.program_id 0
      %0 = tile.index p0 * BM (%m)
      %v = tile.load %x[%0]
      %1 = arith.mulf %v, %two
      tile.store %1, %y[%0]

    @triton.jit
    def scale(x_ptr, y_ptr, n0, BM: tl.constexpr):
        m = tl.program_id(0)
        offs = m * BM + tl.arange(0, BM)
        # model.py:12: y = x * 2
        v = tl.load(x_ptr + offs, mask=offs < n0, other=0.0)
        tl.store(y_ptr + offs, v * 2.0, mask=offs < n0)

The grid of a launch is one-dimensional: ``prod(grid)`` programs, the last axis of the kernel's grid fastest. Parameters
are the kernel's in order (booleans are bytes), its symbols, and, if it holds checks, ``error_ptr``: one int32, 0 before
the launch, in which a check that fails writes its number; what follows the check is then left out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from xdsl.dialects import scf
from xdsl.ir import Operation

from forgec.backends.triton import compute, control, elementwise, memory
from forgec.backends.triton.helpers import HELPERS
from forgec.backends.triton.text import Names, Text
from forgec.backends.triton.writer import MAX_TILE_ELEMENTS, WIDTH, Writer, refusal
from forgec.ir import types
from forgec.ir.tile.compute import (
    BroadcastOp,
    DotOp,
    IndexOp,
    PadOp,
    RangeOp,
    ReduceOp,
    ScanOp,
    TransposeOp,
)
from forgec.ir.tile.kernel import KernelOp, ProgramIdOp, ReturnOp
from forgec.ir.tile.memory import GatherOp, LoadOp, ScatterOp, StoreOp, ViewOp
from forgec.ir.tile.types import block_type, extents
from forgec.runtime.symbolic import Bounds, Extent, bounds, substitute

INT32_LIMIT = (1 << 31) - (1 << 21)
"""Tensors that reach further are indexed in int64; what a tile sticks out stays below 2^31."""


@dataclass(frozen=True)
class TritonSource:
    """``text`` is a Python module whose function ``name`` takes ``signature`` (name, Triton's type), in this order, and
    the tile extents ``constants``. ``checks`` are the messages of the run-time checks by number.
    """

    name: str
    text: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, int], ...]
    checks: tuple[tuple[int, str], ...]
    has_dot: bool
    has_loop: bool
    largest_tile: int


def print_kernel(kernel: KernelOp, ranges: Mapping[str, Bounds] | None = None) -> TritonSource:
    """The source of a kernel whose tile parameters are bound.

    ``ranges`` bound the kernel's symbols (from its launches); indices are int64 unless they show that every tensor
    has fewer than 2^31 elements. FORGE-B005, with the user's line, for what Triton cannot say: tile extents that are no
    powers of two, complex numbers, atomics that do not exist.
    """
    largest = _largest_tile(kernel)
    known = dict(ranges or {})
    index = "int32" if _fits_int32(kernel, known) else "int64"
    writer = Writer(kernel, known, index)
    signature: list[tuple[str, str]] = []
    for number, parameter in enumerate(kernel.parameters):
        name = writer.names.fresh(f"{parameter.name_hint or f'block{number}'}_ptr")
        writer.set(parameter, Text(name))
        signature.append((name, writer.pointer_type(parameter)))
    writer.error_pointer = writer.names.fresh("error_ptr")
    function = Names((*kernel.symbol_names, *kernel.bindings, *HELPERS)).fresh(writer.name)
    control.block(writer, kernel.body.block, write_op)
    signature += [(name, "i32" if index == "int32" else "i64") for name in kernel.symbol_names]
    if writer.checks:
        signature.append((writer.error_pointer, "*i32"))
    if all(line.lstrip().startswith("#") for line in writer.lines):
        writer.line("pass")
    ops = list(kernel.body.walk())
    body = without_comments("\n".join(writer.lines))
    constants = {name: value for name, value in kernel.bindings.items() if re.search(rf"\b{name}\b", body)}
    return TritonSource(
        function,
        _module(writer, function, [name for name, _ in signature], list(constants)),
        tuple(signature),
        tuple(constants.items()),
        tuple(sorted(writer.checks.items())),
        any(isinstance(op, DotOp) for op in ops),
        any(isinstance(op, (scf.ForOp, scf.WhileOp)) for op in ops),
        largest,
    )


def write_op(writer: Writer, op: Operation) -> None:
    """Writes one op. FORGE-B005 for those without a rule."""
    rule = RULES.get(type(op))
    if rule is not None:
        rule(writer, op)
    elif not elementwise.write(writer, op):
        raise refusal(op, f"{op.name} has no form in Triton")


RULES: dict[type[Operation], Callable[[Writer, Any], None]] = {
    ProgramIdOp: compute.program_id,
    IndexOp: compute.index,
    RangeOp: compute.range_,
    BroadcastOp: compute.broadcast,
    TransposeOp: compute.transpose,
    PadOp: compute.pad,
    DotOp: compute.dot,
    ReduceOp: compute.reduce,
    ScanOp: compute.scan,
    ViewOp: memory.view,
    LoadOp: memory.load,
    StoreOp: memory.store,
    GatherOp: memory.gather,
    ScatterOp: memory.scatter,
    ReturnOp: lambda writer, op: None,
    scf.ForOp: lambda writer, op: control.loop(writer, op, write_op),
    scf.IfOp: lambda writer, op: control.branch(writer, op, write_op),
    scf.WhileOp: lambda writer, op: control.while_loop(writer, op, write_op),
    scf.YieldOp: control.give,
}


def without_comments(text: str) -> str:
    """The statements of a source: the lines of a model, which comments hold, say nothing of the kernel."""
    return "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))


def _module(writer: Writer, function: str, parameters: list[str], constants: list[str]) -> str:
    imports = ["import triton", "import triton.language as tl"]
    body = "\n".join(writer.lines)
    helpers = "".join(f"\n{HELPERS[name]}" for name in writer.helpers)
    if "libdevice." in without_comments(body):
        imports.append("from triton.language.extra import libdevice")
    arguments = [*parameters, *(f"{name}: tl.constexpr" for name in constants)]
    head = f"def {function}({', '.join(arguments)}):"
    if len(head) > WIDTH:
        lines = textwrap.wrap(", ".join(arguments), WIDTH - 4, break_long_words=False, break_on_hyphens=False)
        head = "\n    ".join([f"def {function}(", *lines]) + "\n):"
    kernel = writer.kernel
    comments = [f"# grid: {' x '.join(str(extent) for extent in kernel.grid.data) or 1}"]
    if kernel.tiles.data:
        tiles = (f"{parameter.name} = {kernel.bindings[parameter.name]} {str(parameter).split(' ', 1)[1]}"
                 for parameter in kernel.tiles.data)  # fmt: skip
        comments.append(f"# tiles: {', '.join(tiles)}")
    text = "\n".join(f"    {comment}" for comment in comments)
    imported = "\n".join(imports)
    return f"{imported}\n{helpers}\n\n@triton.jit\n{head}\n{text}\n{body}\n"


def _largest_tile(kernel: KernelOp) -> int:
    """The elements of the largest tile. FORGE-B005 for tiles that Triton does not take."""
    if not kernel.is_bound:
        raise refusal(kernel, f"kernel {kernel.sym_name.data} has tile extents that are not bound")
    largest = 1
    for op in kernel.body.walk():
        values = [*op.results, *(argument for region in op.regions for b in region.blocks for argument in b.args)]
        for value in values:
            size = 1
            for extent in extents(value):
                number = substitute(extent, kernel.bindings)
                if not isinstance(number, int) or number <= 0 or number & (number - 1):
                    raise refusal(
                        op, f"a tile of kernel {kernel.sym_name.data} has an extent of {number}, which is no power of 2"
                    )
                size *= number
            if size > MAX_TILE_ELEMENTS:
                raise refusal(op, f"a tile of kernel {kernel.sym_name.data} has {size} elements, too many for Triton")
            largest = max(largest, size)
    return largest


def _fits_int32(kernel: KernelOp, ranges: Mapping[str, Bounds]) -> bool:
    """True if every element of every block, also of views, lies less than 2^31 elements after the block's first."""

    def small(extent: Extent) -> bool:
        high = bounds(substitute(extent, kernel.bindings), ranges)[1]
        return high is not None and high < INT32_LIMIT

    if not all(small(extent) for extent in (*kernel.symbols.data, prod(kernel.grid.data, start=1))):
        return False
    views = [op.result for op in kernel.body.walk() if isinstance(op, ViewOp)]
    for value in (*kernel.parameters, *views):
        tensor = block_type(value)
        span: Extent = 1
        for extent, stride in zip(types.shape(tensor), types.strides(tensor), strict=True):
            span = span + extent * stride
        if not small(span):
            return False
    return True
