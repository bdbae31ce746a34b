"""Weights of linears in the order in which kernels read them: panels of rows, each column of a panel side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr
from xdsl.dialects.func import CallOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import Rewriter

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ExtentsAttr, IntsAttr, ScalarAttr
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.byte_linear import ByteLinearOp
from forgec.ir.ops.contraction import GroupedMatmulOp, LinearOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.index import EmbeddingOp
from forgec.ir.ops.module import ParamOp
from forgec.ir.ops.quantization import BYTES, WORD
from forgec.ir.ops.shape import ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.spatial import PadOp
from forgec.ir.ops.unary import CastOp
from forgec.ir.ops.windowed_linear import WindowedLinearOp
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.memory import GatherOp, LoadOp, ViewOp
from forgec.ir.tile.types import extents
from forgec.passes.layers import Layers
from forgec.passes.rewriting import blocks, erase_unused
from forgec.passes.shared_weights import Replacement, Weight, computed_param, weights_of
from forgec.passes.tiles.group import KnownGroups
from forgec.passes.tiles.kernel_builder import PANEL_ROWS, NotLowered
from forgec.runtime.symbolic import Extent

PACKED = (*types.FLOATS, *BYTES, WORD)
"""Dtypes of weights that are stored in panels."""


@dataclass(frozen=True)
class Form:
    """How a weight [rows, columns] is stored: perhaps as [columns, rows]; and how it will be, in panels of rows. A
    ``stack`` of so many of them, [stack, rows, columns], has the panels of one after those of the other.
    """

    dtype: str
    rows: int
    columns: int
    turned: bool
    panel: int
    stack: int | None = None
    packed_dtype: str = ""
    """The dtype of what is stored, if it is another one."""

    @property
    def before(self) -> list[int]:
        """The extents before those of a matrix."""
        return [] if self.stack is None else [self.stack]

    @property
    def turn(self) -> IntsAttr:
        """The permutation that turns a weight."""
        return IntsAttr([1, 0] if self.stack is None else [0, 2, 1])

    @property
    def packed(self) -> types.AnyTensorType:
        panels = -(-self.rows // self.panel) * (self.stack or 1)
        return types.tensor(self.packed_dtype or self.dtype, [panels, self.columns, self.panel])

    def pack(self, stored: SSAValue) -> list[ForgeOp]:
        """The ops that make panels of the weight as it is stored."""
        ops: list[ForgeOp] = []
        rows = stored
        if self.turned:
            ops.append(TransposeOp.make([rows], {"permutation": self.turn}))
            rows = ops[-1].results[0]
        count, columns, panel = types.shape(self.packed)
        if missing := -self.rows % self.panel:
            nothing = [0 for _ in self.before]
            properties = {
                "mode": StringAttr("constant"),
                "low": ExtentsAttr([*nothing, 0, 0]),
                "high": ExtentsAttr([*nothing, missing, 0]),
                "value": ScalarAttr.of(0.0 if self.dtype in types.FLOATS else 0),
            }
            ops.append(PadOp.make([rows], properties))
            rows = ops[-1].results[0]
        ops.append(_reshaped(rows, [count, panel, columns]))
        ops.append(TransposeOp.make(ops[-1].results, {"permutation": IntsAttr([0, 2, 1])}))
        if self.packed_dtype:
            ops.append(_cast(ops[-1].results[0], self.packed_dtype))
        return ops

    def unpack(self, packed: SSAValue) -> list[ForgeOp]:
        """The ops that read panels as [rows, columns]."""
        padded = -(-self.rows // self.panel) * self.panel
        turned = TransposeOp.make([packed], {"permutation": IntsAttr([0, 2, 1])})
        packed_as = self.packed_dtype or self.dtype
        whole = types.tensor(packed_as, [*self.before, padded, self.columns])
        ops: list[ForgeOp] = [turned, ReshapeOp.create(operands=turned.results, result_types=[whole])]
        if padded != self.rows:
            properties = {"dim": IntAttr(len(self.before)), "start": ExtentAttr(0), "step": ExtentAttr(1)}
            kind = types.tensor(packed_as, [*self.before, self.rows, self.columns])
            ops.append(SliceOp.create(operands=ops[-1].results, properties=properties, result_types=[kind]))
        if self.packed_dtype:
            ops.append(_cast(ops[-1].results[0], self.dtype))
        return ops


def _cast(value: SSAValue, dtype: str) -> ForgeOp:
    return CastOp.create(operands=[value], result_types=[types.tensor(dtype, types.shape(value))])


def _reshaped(value: SSAValue, shape: Sequence[Extent]) -> ForgeOp:
    return ReshapeOp.create(operands=[value], result_types=[types.tensor(types.dtype(value), shape)])


def pack_weights(module: ModuleOp, panel: int, known: KnownGroups, factors: str = "") -> None:
    """Store the weights of linears in panels, where kernels can read them so.

    A weight [N, K], or its transpose, becomes a parameter [ceil(N / panel), K, panel], filled up with zeros, that its
    users read as [N, K] through a transpose and a reshape. Embeddings that share the weight read it so as well; what
    anything else reads stays as it is. Each group is lowered to see whether its tiles are whole panels. The weights of
    grouped products, [G, K, N] or transposes of [G, N, K], become [G * ceil(N / panel), K, panel]. Weights of float32
    that are only multiplied with are rounded to ``factors``, if that is the name of a dtype.
    """
    for block in blocks(module):
        for op in list(block.ops):
            if isinstance(op, GroupedMatmulOp) and not isinstance(op.parent_op(), FusedOp):
                _grouped_with_transpose(op)
    _Packing(module, panel, known, factors).run()


class _Packing:
    def __init__(self, module: ModuleOp, panel: int, known: KnownGroups, factors: str) -> None:
        self.module = module
        self.panel = panel
        self.factors = factors
        self.known = known
        self.layers = Layers(module)
        self.params = {op.sym_name.data: op for op in module.ops if isinstance(op, ParamOp)}

    def run(self) -> None:
        for weight in weights_of(self.module, self.layers):
            form = None if weight.is_fixed else self._form(weight)
            if form is not None and self._fits(weight, form):
                self._pack(weight, form)
        for layer in self.layers.callees_first():
            self.layers.drop_unused(layer)

    # What can be packed
    # --------------------------------------------------------------------------------------------------------------

    def _form(self, weight: Weight) -> Form | None:
        """None if something else than linears reads the weight, or if it is no matrix of floats."""
        first = weight.values[0]
        kind, shape = types.tensor_type(first), types.shape(first)
        if any(value.type != kind for value in weight.values) or types.dtype(first) not in PACKED:
            return None
        if len(shape) not in (2, 3) or not types.is_contiguous(first):
            return None
        readings = {reading for value in weight.values for reading in self._readings(value)}
        turned = {is_turned for name, is_turned in readings if name == "linear"}
        if len(turned) != 1 or ("other", False) in readings or readings >= {("linear", True), ("embedding", False)}:
            return None
        (is_turned,) = turned
        *before, rows, columns = (*shape[:-2], *(shape[:-3:-1] if is_turned else shape[-2:]))
        if not isinstance(rows, int) or not isinstance(columns, int) or rows * columns == 0:
            return None
        stack = before[0] if before else None
        if stack is not None and (not isinstance(stack, int) or stack == 0):
            return None
        is_rounded = types.dtype(first) == "f32" and all(self._is_factor(value) for value in weight.values)
        return Form(types.dtype(first), rows, columns, is_turned, self.panel, stack, self.factors if is_rounded else "")

    def _is_factor(self, value: SSAValue) -> bool:
        """True if a weight, or its transpose, is only multiplied with."""
        for use in value.uses:
            op = use.operation
            if isinstance(op, FusedOp):
                found = self._is_factor(op.body.block.args[use.index])
            elif isinstance(op, TransposeOp):
                found = self._is_factor(op.result)
            elif isinstance(op, CallOp):
                found = op.callee.root_reference.data in self.layers.functions
            else:
                products = (LinearOp, GroupedMatmulOp, WindowedLinearOp)
                found = isinstance(op, products) and use.index == 1 and op.operands[0] is not value
            if not found:
                return False
        return True

    def _readings(self, value: SSAValue) -> Iterator[tuple[str, bool]]:
        """How a weight is read: by a linear, an embedding or something else; and whether it is transposed before."""
        for use in value.uses:
            op = use.operation
            if isinstance(op, FusedOp):
                yield from _readings(op.body.block.args[use.index])
            elif not isinstance(op, CallOp) or op.callee.root_reference.data not in self.layers.functions:
                yield _reading(op, use.index), _is_turned(op, use.index)

    def _fits(self, weight: Weight, form: Form) -> bool:
        """True if the kernels of all groups that read a weight read whole panels."""
        packed = Block(arg_types=[form.packed]).args[0]
        for group in dict.fromkeys(use.operation for value in weight.values for use in value.uses):
            if not isinstance(group, FusedOp):
                continue
            positions = [position for position, operand in enumerate(group.operands) if operand in weight.values]
            if not any(name == "linear" for n in positions for name, _ in _readings(group.body.block.args[n])):
                continue
            copy = group.clone()
            for position in positions:
                _read_packed(copy, position, packed, form)
            try:
                lowered = self.known.lower(copy)
            except NotLowered:
                return False
            finally:
                copy.erase()
            if not all(_reads_panels(lowered.kernel, number) for number in lowered.numbers_of(packed)):
                return False
        return True

    # Packing
    # --------------------------------------------------------------------------------------------------------------

    def _pack(self, weight: Weight, form: Form) -> None:
        made = {name: self._packed_param(name, form) for name in weight.names}
        for group, positions, value in Replacement(self.layers, made).readers(weight):
            for position in positions:
                _read_packed(group, position, value, form)

    def _packed_param(self, name: str, form: Form) -> ParamOp:
        def compute(emit: Emitter, weight: SSAValue, _: object) -> SSAValue:
            return [emit.insert(op) for op in form.pack(weight)][-1]

        return computed_param(self.module, self.params, self.params[name], "panels", compute)


def _grouped_with_transpose(op: GroupedMatmulOp) -> None:
    """A grouped product, with the transpose of its weight if there is one, as a group."""
    turned = op.weight.owner
    if not isinstance(turned, TransposeOp) or list(turned.permutation.data) != [0, 2, 1]:
        return
    block = op.parent_block()
    assert block is not None
    group = FusedOp.of("grouped_matmul", [turned, op], [op.input, turned.input, op.ends], [op.result])
    group.location = op.location
    block.insert_op_before(group, op)
    group.results[0].name_hint = op.result.name_hint
    op.result.replace_all_uses_with(group.results[0])
    Rewriter.erase_op(op)
    erase_unused(turned.result, TransposeOp)


def _reading(op: Operation, index: int) -> str:
    if isinstance(op, LinearOp) and op.operands[index] is not op.input:
        value = op.operands[index]
        if value is op.weight or (value in (op.scales, op.zeros) and types.rank(value) and types.shape(value)[-1] != 1):
            return "linear"
    if isinstance(op, (ByteLinearOp, GroupedMatmulOp, WindowedLinearOp)) and index == 1:
        return "linear"
    return "embedding" if isinstance(op, EmbeddingOp) and index == 0 else "other"


def _readings(argument: SSAValue) -> Iterator[tuple[str, bool]]:
    """How a group reads one of its arguments."""
    for use in argument.uses:
        op = use.operation
        if isinstance(op, TransposeOp) and list(op.permutation.data) in ([1, 0], [0, 2, 1]):
            names = {_reading(inner.operation, inner.index) for inner in op.result.uses}
            grouped = all(isinstance(inner.operation, GroupedMatmulOp) for inner in op.result.uses)
            yield ("linear", not grouped) if names == {"linear"} else ("other", False)
        else:
            yield _reading(op, use.index), _is_turned(op, use.index)


def _is_turned(op: Operation, index: int) -> bool:
    """True for the weights [G, K, N] of a grouped product."""
    return isinstance(op, GroupedMatmulOp) and index == 1


def _is_windowed(argument: SSAValue) -> bool:
    return any(isinstance(use.operation, WindowedLinearOp) for use in argument.uses)


def _read_packed(group: FusedOp, position: int, packed: SSAValue, form: Form) -> None:
    """Have a group read a weight in panels instead of an operand."""
    block = group.body.block
    windowed = _is_windowed(block.args[position])
    old, new = block.args[position], block.insert_arg(packed.type, position)
    new.name_hint = old.name_hint
    ops = form.unpack(new)
    if form.stack is not None and not windowed:  # grouped products read it turned
        ops.append(TransposeOp.make(ops[-1].results, {"permutation": form.turn}))
    first = block.first_op
    assert first is not None, "a group ends with its yield"
    for op in ops:
        op.location = group.location
        block.insert_op_before(op, first)
    rows = ops[-1].results[0]
    for use in list(old.uses):
        if not isinstance(use.operation, TransposeOp):
            use.operation.operands[use.index] = rows
            continue
        use.operation.results[0].replace_all_uses_with(rows)
        Rewriter.erase_op(use.operation)
    block.erase_arg(old)
    group.operands[position] = packed


def _reads_panels(kernel: KernelOp, number: int) -> bool:
    """True if a kernel reads its parameter by tiles alone, or whole rows of panels at computed columns."""
    held: set[SSAValue] = {kernel.parameters[number]}
    for op in kernel.walk():
        if isinstance(op, ViewOp) and op.source in held:
            held.add(op.result)
        elif isinstance(op, (GatherOp, LoadOp)) and op.block in held and not _takes_rows(op):
            return False
    return True


def _takes_rows(op: GatherOp | LoadOp) -> bool:
    return len(extents(op.result)) > 1 and (isinstance(op, LoadOp) or PANEL_ROWS in op.attributes)
