"""Rows that a mask picks, changes and puts back, as a choice between all rows changed and all as they were."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from forgec.ir import types
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ElementwiseOp, producer
from forgec.ir.ops.binary import AddOp
from forgec.ir.ops.composite import GluOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.module import SymbolOp
from forgec.ir.ops.norm import LayerNormOp, RmsNormOp
from forgec.ir.ops.reduction import LogSoftmaxOp, SoftmaxOp
from forgec.ir.ops.select import TrilOp, TriuOp, WhereOp
from forgec.ir.symbols import mentioned_symbols
from forgec.passes.patterns import applied, missed
from forgec.passes.rewriting import blocks, replace
from forgec.runtime.plan import Reg
from forgec.runtime.symbolic import Extent

PUTS = ("aten::index_put", "aten::_unsafe_index_put")
BY_ROW = (ElementwiseOp, GluOp, LayerNormOp, RmsNormOp, SoftmaxOp, LogSoftmaxOp)
"""Ops that compute a row of the first dimension from that row of their operands, for little more than reading it."""


@dataclass(frozen=True)
class SelectMaskedRows(ModulePass):
    """Compute all rows where a mask picks rows that are written back by the same mask, and choose by it.

    Before::

        %0 = forge.aten "aten::index.Tensor"(%x, [%m]) defines [u0] : (tensor<3x4xf32>, tensor<3xi1>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
        %1 = forge.exp %0 : (tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
        %2 = forge.aten "aten::index_put"(%x, [%m], %1, false) : (tensor<3x4xf32>, tensor<3xi1>, tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<3x4xf32>

    After::

        %1 = forge.exp %x : (tensor<3x4xf32>) -> tensor<3x4xf32>
        %3 = forge.reshape %m : (tensor<3xi1>) -> tensor<3x1xi1>
        %2 = forge.where %3, %1, %x : (tensor<3x1xi1>, tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>

    No extent is then known to the data alone, which cuts the program. What is computed of the rows must be pointwise, a
    normalisation or a softmax within rows, and used for nothing else. Products stay: of all rows they may cost many
    times what they cost of the rows picked (one adapter of many, say); a remark says so.

    Order: after ``cse``, which makes equal masks one, and before kernels are formed.
    """  # noqa: E501

    name = "select-masked-rows"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for root in [child for child in block.ops if isinstance(child, AtenOp) and child.callee.data in PUTS]:
                found = _read(root)
                if found is not None:
                    _rewrite(root, found)


@dataclass
class _Masked:
    """A masked write: its mask, the rows that it writes, and the ops that compute these, in order; ``reads`` pick the
    rows that they are computed of.
    """

    destination: SSAValue
    mask: SSAValue
    rows: SSAValue
    accumulates: bool
    count: Extent
    """How many rows there are: what only the data tells."""
    reads: list[AtenOp] = field(default_factory=list)
    ops: list[Operation] = field(default_factory=list)


def _read(root: AtenOp) -> _Masked | None:
    positional, _ = root.arguments
    destination, places, rows, *rest = positional
    mask = _mask(root, places)
    if mask is None or not (isinstance(destination, Reg) and isinstance(rows, Reg)):
        return None
    values = root.inputs[rows.id]
    shape, target = types.shape(values), types.shape(root.inputs[destination.id])
    rank = types.rank(mask)
    if len(shape) != len(target) - rank + 1 or rank == 0 or types.shape(mask) != target[:rank]:
        return None
    found = _Masked(root.inputs[destination.id], mask, values, bool(rest and rest[0]), shape[0])
    if found.accumulates and types.dtype(values) == "i1":
        return None
    known: set[SSAValue] = set()
    reason = _collect(found, values, known)
    if reason is None and not _is_private(found, root):
        reason = "other ops need some of them"
    if reason is not None:
        missed(root, f"the rows that a mask picks are written on their own: {reason}")
        return None
    return found


def _source(op: AtenOp) -> tuple[SSAValue, Any]:
    """What ``aten::index`` reads, and where."""
    positional: Any = op.arguments[0]
    return op.inputs[positional[0].id], positional[1]


def _mask(op: AtenOp, places: object) -> SSAValue | None:
    """The boolean mask, if it is all that says which rows."""
    if not isinstance(places, (list, tuple)) or len(places) != 1 or not isinstance(places[0], Reg):
        return None
    mask = op.inputs[places[0].id]
    return mask if types.dtype(mask) == "i1" else None


def _collect(found: _Masked, value: SSAValue, known: set[SSAValue]) -> str | None:
    """Add what computes rows to what was found; yields why not, if they are not computed row by row."""
    if value in known:
        return None
    known.add(value)
    op, shape = producer(value), types.shape(value)
    if op is None or shape[0] != found.count or isinstance(found.count, int):
        return "how many there are is no matter of the mask"
    if isinstance(op, AtenOp) and op.callee.data == "aten::index.Tensor":
        source, places = _source(op)
        inner = types.shape(source)
        if _mask(op, places) is not found.mask or inner[: types.rank(found.mask)] != types.shape(found.mask):
            return "they were picked by another mask"
        found.reads.append(op)
        return None
    within = not isinstance(op, (SoftmaxOp, LogSoftmaxOp)) or op.dim.data != 0
    if not isinstance(op, BY_ROW) or not within or (isinstance(op, (TrilOp, TriuOp)) and len(shape) < 3):
        return f"{op.name} is not computed for all rows"
    if isinstance(op, (LayerNormOp, RmsNormOp)) and len(shape) < 2:
        return f"{op.name} is not computed for all rows"
    for operand in op.operands:
        given = types.shape(operand)
        if given and given[0] == found.count and len(given) == len(shape):
            reason = _collect(found, operand, known)
            if reason is not None:
                return reason
        elif _mentions(given, found.count) or (len(given) == len(shape) and given[0] != 1):
            return f"{op.name} is not computed for all rows"
    found.ops.append(op)
    return None


def _mentions(shape: tuple[Extent, ...], count: Extent) -> bool:
    return any(extent == count for extent in shape)


def _is_private(found: _Masked, root: AtenOp) -> bool:
    """True if nothing else uses the rows, nor how many they are."""
    own = {root, *found.ops, *found.reads}
    for op in (*found.ops, *found.reads):
        if any(use.operation not in own for result in op.results for use in result.uses):
            return False
    defined = {name for op in found.reads for name in op.defined_symbols}
    module = root.get_toplevel_object()
    assert isinstance(module, ModuleOp), "a pass runs on modules"
    return not any(
        mentioned_symbols(op) & defined for op in module.walk() if op not in own and not isinstance(op, SymbolOp)
    )


def _rewrite(root: AtenOp, found: _Masked) -> None:
    emit = Emitter(Builder(InsertPoint.before(root)), root)
    places = types.shape(found.mask)
    rank, count = len(places), prod(places, start=1)
    known: dict[SSAValue, SSAValue] = {}
    for op in found.reads:
        value, _ = _source(op)
        rest = types.shape(value)[rank:]
        known[op.outputs[0]] = value if rank == 1 else emit.reshape(value, (count, *rest))
    for op in found.ops:
        (result,) = op.results
        kind = types.tensor(types.dtype(result), (count, *types.shape(result)[1:]))
        operands = [known.get(operand, operand) for operand in op.operands]
        new = op.create(
            operands=operands, properties=op.properties, attributes=op.attributes, result_types=[kind],
            location=op.location,
        )  # fmt: skip
        known[result] = emit.builder.insert(new).results[0]
        known[result].name_hint = result.name_hint
    values = known[found.rows]
    rest = types.shape(values)[1:]
    if rank > 1:
        values = emit.reshape(values, (*places, *rest))
    if found.accumulates:
        values = emit(AddOp, found.destination, values)
    mask = emit.reshape(found.mask, (*places, *[1] * len(rest))) if rest else found.mask
    defined = {name for op in found.reads for name in op.defined_symbols}
    module = root.get_toplevel_object()
    choice = WhereOp.make([mask, values, found.destination], result_types=[root.outputs[0].type])
    replace(root, choice.results, [choice])
    for op in (*reversed(found.ops), *found.reads):
        Rewriter.erase_op(op)
    for symbol in [op for op in module.walk() if isinstance(op, SymbolOp) and op.sym_name.data in defined]:
        Rewriter.erase_op(symbol)
    applied(choice, "all rows are computed, and chosen by the mask")
