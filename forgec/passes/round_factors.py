"""Products of float32 round what they multiply to bfloat16."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import BFloat16Type, Float32Type, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.traits import is_side_effect_free

from forgec.diagnostics import error
from forgec.ir.tile.compute import DotOp, PadOp, TransposeOp
from forgec.ir.tile.kernel import KernelOp, LaunchOp
from forgec.ir.tile.types import element, extents, tile
from forgec.passes.patterns import missed
from forgec.passes.rewriting import blocks
from forgec.passes.tiles.group import content_name

PRECISIONS = ("float32", "bf16")
"""What ``to`` may be; ``float32`` leaves products as they are."""


@dataclass(frozen=True)
class RoundFactors(ModulePass):
    """Round the factors of products of float32 to bfloat16, to the nearest and ties to even; sums stay float32.

    Before::

        %d = tile.dot %l, %r into %a : tensor<?x?xf32>, tensor<?x?xf32> -> tensor<?x?xf32>

    After, with ``to=bf16``::

        %m = arith.truncf %l : tensor<?x?xf32> to tensor<?x?xbf16>
        %s = arith.truncf %r : tensor<?x?xf32> to tensor<?x?xbf16>
        %d = tile.dot %m, %s into %a precision "bf16" : tensor<?x?xbf16>, tensor<?x?xbf16> -> tensor<?x?xf32>

    A factor that was extended from bfloat16 is taken as it was before, also before transposes and pads. Products of
    bfloat16 get the precision ``"bf16"`` as well, by which sums may be rounded as processors' instructions for such
    products do (``tile.dot``). Products of other dtypes stay as they are, and those by weights of scales and zero
    points for groups, which few rows are multiplied with as fast as memory, with a remark. Kernels whose products
    change get the name of their new content. Raises FORGE-U005 for an unknown precision.

    Order: after ``lower-to-tile``, before ``bind-tiles``, which knows that such products are faster.
    """

    name = "round-factors"

    to: str = "bf16"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        check_precision(self.to)
        if self.to == "float32":
            return
        renamed: dict[str, str] = {}
        for kernel in [each for each in op.ops if isinstance(each, KernelOp)]:
            if _rounded(kernel):
                before = kernel.sym_name.data
                kernel.properties["sym_name"] = StringAttr(content_name(kernel))
                renamed[before] = kernel.sym_name.data
        for block in blocks(op) if renamed else ():
            for launch in block.ops:
                if isinstance(launch, LaunchOp) and (name := renamed.get(launch.kernel.root_reference.data)):
                    launch.properties["kernel"] = SymbolRefAttr(name)


def check_precision(name: object) -> None:
    """Raises FORGE-U005 unless a precision of products has this name."""
    if name not in PRECISIONS:
        raise error("FORGE-U005", f"precision is {name!r}", notes=(f"values: {', '.join(PRECISIONS)}",))


def _rounded(kernel: KernelOp) -> bool:
    """Round the factors of a kernel's products. False if it has none of float32 or bfloat16."""
    known: dict[SSAValue, SSAValue] = {}
    changed = False
    for dot in [op for op in kernel.body.walk() if isinstance(op, DotOp)]:
        kinds = (element(dot.lhs), element(dot.accumulator))
        if not isinstance(kinds[0], (Float32Type, BFloat16Type)) or not isinstance(kinds[1], Float32Type):
            continue
        if dot.precision.data != "ieee":
            continue
        if isinstance(dot.rhs.owner, math.FmaOp):
            missed(dot, "a product stays float32", "its weight has scales and zero points for groups")
            continue
        before = (dot.lhs, dot.rhs)
        for position, value in enumerate(before):
            dot.operands[position] = _narrow(value, known)
        dot.properties["precision"] = StringAttr("bf16")
        for value in before:
            _erase_unused(value)
        changed = True
    return changed


def _erase_unused(value: SSAValue) -> None:
    """Erase what computes a tile, and its operands, that nothing reads any more."""
    op = value.owner
    if isinstance(op, Operation) and all(result.first_use is None for result in op.results) and is_side_effect_free(op):
        operands = list(op.operands)
        Rewriter.erase_op(op)
        for operand in operands:
            _erase_unused(operand)


def _narrow(value: SSAValue, known: dict[SSAValue, SSAValue]) -> SSAValue:
    """A tile of float32 rounded, right after it is computed."""
    if isinstance(element(value), BFloat16Type):
        return value
    if value not in known:
        known[value] = _made(value, known)
    return known[value]


def _made(value: SSAValue, known: dict[SSAValue, SSAValue]) -> SSAValue:
    owner = value.owner
    if isinstance(owner, arith.ExtFOp) and isinstance(element(owner.input), BFloat16Type):
        return owner.input
    if isinstance(owner, TransposeOp):
        op: Operation = TransposeOp(_narrow(owner.input, known), owner.permutation.data)
    elif isinstance(owner, PadOp) and owner.other.value == 0:
        op = PadOp(_narrow(owner.input, known), owner.offsets, owner.bounds.data, 0.0)
    else:
        op = arith.TruncFOp(value, tile("bf16", extents(value)))
    if isinstance(owner, Block):
        Rewriter.insert_op(op, InsertPoint.at_start(owner))
    else:
        op.location = owner.location
        block = owner.parent_block()
        assert block is not None, "it computes a factor"
        block.insert_op_after(op, owner)
    op.results[0].name_hint = value.name_hint
    return op.results[0]
