"""How much work the ops of a kernel are, in the kinds of instructions that machines have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from math import ceil

from xdsl.dialects import arith, math, scf
from xdsl.dialects.builtin import AnyFloat, IntegerType, TensorType
from xdsl.ir import Operation, SSAValue

from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.locations import location_of
from forgec.ir.tile.compute import DotOp, IndexOp, RangeOp, ReduceOp, ScanOp, TransposeOp
from forgec.ir.tile.elementwise import ErfcOp, RemFOp
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.memory import GatherOp, LoadOp
from forgec.ir.tile.types import element
from forgec.passes.schedule.body import bytes_of, known_extents, size
from forgec.schedule.machine import Instruction, Machine

EXPONENTIALS = (math.ExpOp, math.Exp2Op)
SPECIAL: dict[type[Operation], tuple[int, int]] = {
    math.ExpOp: (1, 0),
    math.Exp2Op: (1, 0),
    math.ExpM1Op: (1, 4),
    math.LogOp: (1, 1),
    math.Log2Op: (1, 0),
    math.Log10Op: (1, 1),
    math.Log1pOp: (1, 4),
    math.RsqrtOp: (1, 0),
    math.SqrtOp: (1, 2),
    math.TanhOp: (2, 4),
    math.SinOp: (1, 4),
    math.CosOp: (1, 4),
    arith.DivfOp: (1, 8),
    math.ErfOp: (1, 14),
    ErfcOp: (1, 18),
    RemFOp: (1, 12),
    math.PowFOp: (2, 4),
    arith.DivSIOp: (1, 12),
    arith.DivUIOp: (1, 12),
    arith.RemSIOp: (1, 14),
    arith.RemUIOp: (1, 14),
}
"""For each element: results of the special function units, other operations. Of those that ``ex2``, ``lg2``, ``rsqrt``
and ``rcp`` (PTX ISA, instructions of floats) do not compute at once: range reduction, the steps that round a division
correctly, polynomials. ``exp2`` of a machine has one multiply-add with each result: of ``exp`` that is the product with
log2(e).
"""
OTHER = 1
"""Operations for each element of whatever else there is."""


def product_kind(op: DotOp) -> str:
    """The instruction of a machine that carries out a product: ``mma.bf16``, ``mma.f16``, ``mma.fp8``, ``mma.tf32``,
    or another dtype's name.
    """
    name = types.dtype(types.tensor(element(op.lhs), ()))
    if name.startswith("f8"):
        return "mma.fp8"
    return "mma.tf32" if name == "f32" and op.precision.data == "tf32" else f"mma.{name}"


def product(kernel: KernelOp, op: DotOp, machine: Machine) -> tuple[str, Instruction, int, tuple[int, int, int]]:
    """The instruction of a product, its multiply-adds in whole instructions, and rows, columns and depth.

    Raises:
        ForgeError: FORGE-U010, where the machine has no such instruction, or the product stands for a sum in an
            element type that its instructions do not sum in.
    """
    kind = product_kind(op)
    if kind not in machine.instructions:
        raise error(
            "FORGE-U010",
            f"machine {machine.name} has no instruction {kind}, which kernel {kernel.sym_name.data} multiplies with",
            location=location_of(op),
            notes=("it has " + ", ".join(sorted(machine.instructions)),),
        )
    instruction = machine.instructions[kind]
    rows, columns = known_extents(op.result)
    shape = (rows, columns, known_extents(op.lhs)[1])
    steps = (instruction.rows or 1, instruction.column_step or 1, instruction.depth or 1)
    whole = 1
    for extent, step in zip(shape, steps, strict=True):
        whole *= ceil(Fraction(extent, step)) * step
    return kind, instruction, whole, shape


def factor_memory(instruction: Instruction, *, left: bool) -> str:
    """Where a product takes a computed factor from: registers before tensor memory before shared memory."""
    allowed = instruction.left if left else instruction.right
    return next((memory for memory in ("register", "tensor", "shared") if memory in allowed), "register")


def operand_bytes(op: DotOp, instruction: Instruction, *, left_is_shared: bool, by_rows: bool = False) -> int:
    """Bytes of shared memory that a product reads for its factors.

    ``by_rows``: its warps have to divide its rows, since a left factor that is computed in registers lies where sums
    do.
    """
    left = bytes_of(op.lhs) if left_is_shared else 0
    return instruction.operand_bytes(known_extents(op.result)[0], left, bytes_of(op.rhs), across=not by_rows)


def synchronous(ops: Iterable[Operation]) -> dict[str, int]:
    """The work of a stretch of synchronous code, by kind of instruction: ``exp2``, ``arithmetic``, ``exchange``."""
    found: Counter[str] = Counter()
    ops = list(ops)
    for op in ops:
        _count(op, ops, found)
    return {kind: ceil(Fraction(amount, 2)) for kind, amount in sorted(found.items()) if amount}


def _count(op: Operation, among: list[Operation], found: Counter[str]) -> None:
    """Adds the work of an op, in halves."""
    if isinstance(op, scf.IfOp):
        branches: list[Counter[str]] = []
        for region in op.regions:
            branch: Counter[str] = Counter()
            inside = [inner for block in region.blocks for inner in block.ops]
            for inner in inside:
                _count(inner, inside, branch)
            branches.append(branch)
        for kind in {kind for branch in branches for kind in branch}:
            found[kind] += max(branch[kind] for branch in branches)
        return
    if isinstance(op, (scf.YieldOp, arith.ConstantOp, IndexOp, RangeOp)) or not op.operands:
        return
    items = max((size(value) for value in (*op.operands, *op.results) if isinstance(value.type, TensorType)), default=1)
    if isinstance(op, (LoadOp, GatherOp)):  # in a branch
        found["load"] += 2 * bytes_of(op.result)
    elif isinstance(op, TransposeOp):
        found["exchange"] += 2 * items
    elif isinstance(op, (ReduceOp, ScanOp)):
        found["arithmetic"] += 2 * items * (2 if "arg" in op.kind.data or isinstance(op, ScanOp) else 1)
    elif type(op) in SPECIAL:
        special, other = SPECIAL[type(op)]
        found["exp2"] += 2 * special * items
        found["arithmetic"] += 2 * other * items
    elif not _goes_with_exponential(op, among):
        found["arithmetic"] += OTHER * (1 if is_narrowing(op) and _bits(op.results[0]) <= 16 else 2) * items


def _goes_with_exponential(op: Operation, among: list[Operation]) -> bool:
    """Whether an op is the multiply-add that each exponential has with it: a difference or a product that nothing but
    one exponential reads.
    """
    if not isinstance(op, (arith.SubfOp, arith.AddfOp, arith.MulfOp)):
        return False
    uses = list(op.results[0].uses)
    return len(uses) == 1 and isinstance(uses[0].operation, EXPONENTIALS) and uses[0].operation in among


def is_narrowing(op: Operation) -> bool:
    """Whether an op makes fewer bits of the same numbers; 16 bits are made of two numbers at once."""
    return (
        isinstance(op, (arith.TruncFOp, arith.TruncIOp, arith.FPToSIOp, arith.FPToUIOp))
        and 0 < _bits(op.results[0]) < _bits(op.operands[0])
    )  # fmt: skip


def _bits(value: SSAValue) -> int:
    kind = element(value)
    if isinstance(kind, IntegerType):
        return kind.width.data
    return kind.bitwidth if isinstance(kind, AnyFloat) else 64
