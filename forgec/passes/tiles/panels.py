"""Weights of linears in the order in which kernels read them: panels of rows, each column of a panel side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.dialects.func import CallOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import Rewriter

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ExtentsAttr, IntsAttr, ScalarAttr
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.index import EmbeddingOp
from forgec.ir.ops.module import ParamOp, ParamRefOp, YieldOp
from forgec.ir.ops.shape import ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.spatial import PadOp
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.memory import GatherOp, LoadOp, ViewOp
from forgec.ir.tile.types import extents
from forgec.passes.layers import Layers
from forgec.passes.patterns import made_by
from forgec.passes.rewriting import blocks, erase_unused
from forgec.passes.tiles.group import KnownGroups, alone
from forgec.passes.tiles.kernel_builder import NotLowered
from forgec.runtime.symbolic import Extent

Key = str | SSAValue
"""A parameter by its name, or an argument of a layer."""


@dataclass(eq=False)
class Weight:
    """Parameters, and arguments of layers, that calls pass to one another: all are packed, or none is."""

    names: list[str] = field(default_factory=list)
    values: list[SSAValue] = field(default_factory=list)
    is_fixed: bool = False
    """True if a call passes something else."""


@dataclass(frozen=True)
class Form:
    """How a weight [rows, columns] is stored: perhaps as [columns, rows]; and how it will be, in panels of rows."""

    dtype: str
    rows: int
    columns: int
    turned: bool
    panel: int

    @property
    def packed(self) -> types.AnyTensorType:
        return types.tensor(self.dtype, [-(-self.rows // self.panel), self.columns, self.panel])

    def pack(self, stored: SSAValue) -> list[ForgeOp]:
        """The ops that make panels of the weight as it is stored."""
        ops: list[ForgeOp] = []
        rows = stored
        if self.turned:
            ops.append(TransposeOp.make([rows], {"permutation": IntsAttr([1, 0])}))
            rows = ops[-1].results[0]
        count, columns, panel = types.shape(self.packed)
        if (missing := count * panel - self.rows) != 0:
            properties = {
                "mode": StringAttr("constant"),
                "low": ExtentsAttr([0, 0]),
                "high": ExtentsAttr([missing, 0]),
                "value": ScalarAttr.of(0.0),
            }
            ops.append(PadOp.make([rows], properties))
            rows = ops[-1].results[0]
        ops.append(_reshaped(rows, [count, panel, columns]))
        ops.append(TransposeOp.make(ops[-1].results, {"permutation": IntsAttr([0, 2, 1])}))
        return ops

    def unpack(self, packed: SSAValue) -> list[ForgeOp]:
        """The ops that read panels as [rows, columns]."""
        count, columns, panel = types.shape(self.packed)
        turned = TransposeOp.make([packed], {"permutation": IntsAttr([0, 2, 1])})
        ops: list[ForgeOp] = [turned, _reshaped(turned.results[0], [count * panel, columns])]
        if count * panel != self.rows:
            properties = {"dim": IntAttr(0), "start": ExtentAttr(0), "step": ExtentAttr(1)}
            kind = types.tensor(self.dtype, [self.rows, columns])
            ops.append(SliceOp.create(operands=ops[-1].results, properties=properties, result_types=[kind]))
        return ops


def _reshaped(value: SSAValue, shape: Sequence[Extent]) -> ForgeOp:
    return ReshapeOp.create(operands=[value], result_types=[types.tensor(types.dtype(value), shape)])


def pack_weights(module: ModuleOp, panel: int, known: KnownGroups) -> None:
    """Store the weights of linears in panels, where kernels can read them so.

    A weight [N, K], or its transpose, becomes a parameter [ceil(N / panel), K, panel], filled up with zeros, that its
    users read as [N, K] through a transpose and a reshape. Embeddings that share the weight read it so as well; what
    anything else reads stays as it is. Each group is lowered to see whether its tiles are whole panels.
    """
    _Packing(module, panel, known).run()


class _Packing:
    def __init__(self, module: ModuleOp, panel: int, known: KnownGroups) -> None:
        self.module = module
        self.panel = panel
        self.known = known
        self.layers = Layers(module)
        self.params = {op.sym_name.data: op for op in module.ops if isinstance(op, ParamOp)}

    def run(self) -> None:
        for weight in self._weights():
            form = None if weight.is_fixed else self._form(weight)
            if form is not None and self._fits(weight, form):
                self._pack(weight, form)
        for layer in self.layers.callees_first():
            self.layers.drop_unused(layer)

    # What is one weight
    # --------------------------------------------------------------------------------------------------------------

    def _weights(self) -> list[Weight]:
        found: dict[Key, Weight] = {}
        for block in blocks(self.module):
            for op in block.ops:
                if isinstance(op, ParamRefOp):
                    name = op.param.root_reference.data
                    found.setdefault(name, Weight([name])).values.append(op.result)
        arguments = [argument for layer in self.layers.functions.values() for argument in layer.body.block.args]
        found.update({argument: Weight(values=[argument]) for argument in arguments})
        for layer in self.layers.functions.values():
            for call in self.layers.calls_of(layer):
                for operand, argument in zip(call.operands, layer.body.block.args, strict=True):
                    passed = found.get(_key(operand))
                    if passed is None:
                        found[argument].is_fixed = True
                    else:
                        _unite(found, passed, found[argument])
        return [weight for weight in dict.fromkeys(found.values()) if weight.names]

    # What can be packed
    # --------------------------------------------------------------------------------------------------------------

    def _form(self, weight: Weight) -> Form | None:
        """None if something else than linears reads the weight, or if it is no matrix of floats."""
        first = weight.values[0]
        kind, shape = types.tensor_type(first), types.shape(first)
        if any(value.type != kind for value in weight.values) or types.dtype(first) not in types.FLOATS:
            return None
        if len(shape) != 2 or not types.is_contiguous(first):
            return None
        readings = {reading for value in weight.values for reading in self._readings(value)}
        turned = {is_turned for name, is_turned in readings if name == "linear"}
        if len(turned) != 1 or ("other", False) in readings or readings >= {("linear", True), ("embedding", False)}:
            return None
        (is_turned,) = turned
        rows, columns = shape[::-1] if is_turned else shape
        if not isinstance(rows, int) or not isinstance(columns, int) or rows * columns == 0:
            return None
        return Form(types.dtype(first), rows, columns, is_turned, self.panel)

    def _readings(self, value: SSAValue) -> Iterator[tuple[str, bool]]:
        """How a weight is read: by a linear, an embedding or something else; and whether it is transposed before."""
        for use in value.uses:
            op = use.operation
            if isinstance(op, FusedOp):
                yield from _readings(op.body.block.args[use.index])
            elif not isinstance(op, CallOp) or op.callee.root_reference.data not in self.layers.functions:
                yield _reading(op, use.index), False

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
        made: dict[str, ParamOp] = {name: self._packed_param(name, form) for name in weight.names}
        packed: dict[SSAValue, SSAValue] = {}

        def of(value: SSAValue) -> SSAValue:
            if value not in packed:
                layer = self.layers.layer_of(value)
                if layer is None:
                    packed[value] = self._reference(value, made)
                else:
                    index = list(layer.body.block.args).index(value)  # type: ignore[arg-type] - it is one of them
                    passed = [of(call.operands[index]) for call in self.layers.calls_of(layer)]
                    packed[value] = self.layers.add_argument(layer, passed, value.name_hint or "weight")
            return packed[value]

        for value in weight.values:
            of(value)
        for value in weight.values:
            for use in list(value.uses):
                op = use.operation
                if isinstance(op, CallOp):
                    continue
                group = op if isinstance(op, FusedOp) else _grouped(op)
                for position, operand in enumerate(list(group.operands)):
                    if operand is value:
                        _read_packed(group, position, packed[value], form)
        for value in weight.values:
            erase_unused(value, ParamRefOp)

    def _reference(self, value: SSAValue, made: dict[str, ParamOp]) -> SSAValue:
        ref = made_by(value, ParamRefOp)
        assert ref is not None, "a weight is a parameter or an argument of a layer"
        param = made[ref.param.root_reference.data]
        properties = {"param": SymbolRefAttr(param.sym_name.data)}
        found = ParamRefOp.create(properties=properties, result_types=[param.type], location=ref.location)
        found.result.name_hint = value.name_hint
        block = ref.parent_block()
        assert block is not None
        block.insert_op_before(found, ref)
        return found.result

    def _packed_param(self, name: str, form: Form) -> ParamOp:
        stored = self.params[name]
        ref = ParamRefOp.create(properties={"param": SymbolRefAttr(name)}, result_types=[stored.type])
        ops = [ref, *form.pack(ref.result)]
        end = YieldOp.create(operands=ops[-1].results)
        for op in (*ops, end):
            op.location = stored.location
        body = Block([*ops, end])
        own = f"{name}.panels"
        while own in self.params:
            own += "_"
        properties = {"sym_name": StringAttr(own), "type": form.packed}
        made = ParamOp.create(properties=properties, regions=[Region(body)])
        made.location = stored.location
        self.module.body.block.insert_op_after(made, list(self.params.values())[-1])
        self.params[own] = made
        return made


def _key(value: SSAValue) -> Key:
    ref = made_by(value, ParamRefOp)
    return value if ref is None else ref.param.root_reference.data


def _unite(found: dict[Key, Weight], a: Weight, b: Weight) -> None:
    if a is b:
        return
    a.names += b.names
    a.values += b.values
    a.is_fixed = a.is_fixed or b.is_fixed
    for key in (*b.names, *b.values):
        if key in found:
            found[key] = a


def _reading(op: Operation, index: int) -> str:
    if isinstance(op, LinearOp) and not op.is_quantized and op.operands[index] is op.weight is not op.input:
        return "linear"
    return "embedding" if isinstance(op, EmbeddingOp) and index == 0 else "other"


def _readings(argument: SSAValue) -> Iterator[tuple[str, bool]]:
    """How a group reads one of its arguments."""
    for use in argument.uses:
        op = use.operation
        if isinstance(op, TransposeOp) and list(op.permutation.data) == [1, 0]:
            names = {_reading(inner.operation, inner.index) for inner in op.result.uses}
            yield ("linear", True) if names == {"linear"} else ("other", False)
        else:
            yield _reading(op, use.index), False


def _grouped(op: Operation) -> FusedOp:
    """An op as a group of its own, in its place."""
    group = alone(op)
    block = op.parent_block()
    assert block is not None
    block.insert_op_before(group, op)
    for old, new in zip(op.results, group.results, strict=True):
        old.replace_all_uses_with(new)
    Rewriter.erase_op(op)
    return group


def _read_packed(group: FusedOp, position: int, packed: SSAValue, form: Form) -> None:
    """Have a group read a weight in panels instead of an operand."""
    block = group.body.block
    old, new = block.args[position], block.insert_arg(packed.type, position)
    new.name_hint = old.name_hint
    ops = form.unpack(new)
    first = block.first_op
    assert first is not None, "a group ends with its yield"
    for op in ops:
        op.location = group.location
        block.insert_op_before(op, first)
    rows = ops[-1].results[0]
    for use in list(old.uses):
        if form.turned:
            use.operation.results[0].replace_all_uses_with(rows)
            Rewriter.erase_op(use.operation)
        else:
            use.operation.operands[use.index] = rows
    block.erase_arg(old)
    group.operands[position] = packed


def _reads_panels(kernel: KernelOp, number: int) -> bool:
    """True if a kernel reads its parameter by tiles alone, not element by element."""
    held: set[SSAValue] = {kernel.parameters[number]}
    for op in kernel.walk():
        if isinstance(op, ViewOp) and op.source in held:
            held.add(op.result)
        elif isinstance(op, (GatherOp, LoadOp)) and op.block in held and not _takes_rows(op):
            return False
    return True


def _takes_rows(op: GatherOp | LoadOp) -> bool:
    return isinstance(op, LoadOp) and len(extents(op.result)) > 1
