"""Linears whose input and weight are both quantised multiply their integers."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import BlockArgument, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.ops.base import ForgeOp, producer
from forgec.ir.ops.binary import AddOp, BitwiseXorOp, MulOp, SubOp
from forgec.ir.ops.byte_linear import ByteLinearOp
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.decomposition import Emitter, Number
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import ParamOp
from forgec.ir.ops.quantization import DequantizeOp, held_number
from forgec.ir.ops.reduction import SumOp
from forgec.ir.ops.shape import TransposeOp
from forgec.passes.layers import Layers
from forgec.passes.patterns import applied, missed
from forgec.passes.rewriting import blocks, erase_unused
from forgec.passes.shared_weights import Replacement, Weight, computed_param, grouped, weights_of

MOST_STEPS = 1 << 15
"""So many products of bytes less zero points of at most 9 bits have a sum below 2 to the power of 31."""
NOT_INTEGERS = "this linear multiplies floats, not the bytes that both sides were quantised to"


@dataclass(frozen=True)
class MultiplyBytes(ModulePass):
    """Let linears between dequantised tensors of bytes multiply the bytes.

    ``Σ (q - z) · s · w · t`` is ``(Σ q · w - z · Σ w) · s · t``, whose sums are exact, where ``q`` has one scale ``s``
    and zero point ``z`` for all or for each row, and the weight one scale ``t`` for all or for each of its rows.

    Before::

        %x = forge.dequantize %q scales %s zeros %z compute "f32" : (tensor<9x64xi8>, …) -> tensor<9x64xf32>
        %y = forge.linear %x, %w scales %t compute "f32" : (tensor<9x64xf32>, tensor<32x64xi8>, …) -> tensor<9x32xf32>

    After, in a group of its own or the linear's::

        %sums = forge.param_ref @w.sums : tensor<32xi32>
        %p = forge.byte_linear %q, %w : (tensor<9x64xi8>, tensor<32x64xi8>) -> tensor<9x32xi32>
        …
        %y = forge.mul %scaled, %u : (tensor<9x32xf32>, tensor<32xf32>) -> tensor<9x32xf32>

    The results differ from the model's by its own roundings of float32. Unsigned bytes become signed ones first. Sums
    of a weight are a parameter, so with zero points the weight has to be one; zero points that are tensors are
    multiplied in float32. What has zero points for its weight, or
    scales for groups along the sum, stays, with a remark where it is the only obstacle.

    Order: before ``lower-to-tile``, for targets with kernels.
    """

    name = "multiply-bytes"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for current in list(block.ops):
                if isinstance(current, ByteLinearOp) and not isinstance(current.parent_op(), FusedOp):
                    grouped(current)  # so that its weight may be packed
        layers = Layers(op)
        params = {param.sym_name.data: param for param in op.ops if isinstance(param, ParamOp)}
        rewriter = _Rewriter(op, layers, params)
        for block in [b for b in blocks(op) if not isinstance(b.parent_op(), FusedOp)]:
            for current in list(block.ops):
                inner = [current] if isinstance(current, LinearOp) else []
                if isinstance(current, FusedOp):
                    inner = [each for each in current.inner if isinstance(each, LinearOp)]
                for linear in inner:
                    rewriter.visit(linear)


@dataclass
class _Rewriter:
    module: ModuleOp
    layers: Layers
    params: dict[str, ParamOp]

    def __post_init__(self) -> None:
        self.weights: dict[SSAValue, Weight] = {}
        for weight in weights_of(self.module, self.layers):
            self.weights.update(dict.fromkeys(weight.values, weight))
        self.sums: dict[int, Replacement] = {}

    def visit(self, linear: LinearOp) -> None:
        """Rewrite a linear if it multiplies bytes that were dequantised."""
        group = linear.parent_op()
        group = group if isinstance(group, FusedOp) else None
        outside = _outside(linear.input, group)
        source = None if outside is None else producer(outside)
        if not isinstance(source, DequantizeOp) or not linear.is_quantized or types.dtype(linear.weight) != "i8":
            return
        if types.dtype(source.quantized) not in ("i8", "ui8") or source.packing is not None:
            return
        why = self._obstacle(linear, source, group)
        if why is not None:
            missed(linear, NOT_INTEGERS, why)
            return
        if group is None:
            group = grouped(linear)
            linear = next(op for op in group.inner if isinstance(op, LinearOp))
        self._rewrite(linear, source, group)

    def _obstacle(self, linear: LinearOp, source: DequantizeOp, group: FusedOp | None) -> str | None:
        steps = types.shape(linear.input)[-1]
        if not isinstance(steps, int) or not 0 < steps <= MOST_STEPS:
            return f"{steps} products may have a sum of more than 32 bits"
        if types.dtype(linear.input) != "f32" or types.dtype(linear.result) != "f32" or linear.packing is not None:
            return "it does not compute in float32"
        if linear.zeros is not None:
            return "its weight has zero points"
        scales = linear.scales
        if scales is not None and types.rank(scales) and types.shape(scales)[-1] != 1:
            return "its weight has scales for groups along the sum"
        for parameter in (source.scales, source.zeros):
            if parameter is not None and types.rank(parameter) and not _is_of_rows(parameter, source.result):
                return "its input has scales or zero points for parts of rows"
        if source.zeros is not None and source.compute is not None and source.compute.data in ("i8", "ui8"):
            return "the zero points of its input wrap"
        return None if not self._shifts(source) or self._weight(linear, group) else "its weight is no parameter"

    def _shifts(self, source: DequantizeOp) -> bool:
        """True if zero points are subtracted, or bytes are made signed."""
        return types.dtype(source.quantized) == "ui8" or (source.zeros is not None and held_number(source.zeros) != 0)

    def _weight(self, linear: LinearOp, group: FusedOp | None) -> Weight | None:
        """The weight that a linear reads as it is, or transposed."""
        value = linear.weight
        if isinstance(value.owner, TransposeOp):
            value = value.owner.input
        outside = _outside(value, group)
        found = None if outside is None else self.weights.get(outside)
        return None if found is None or found.is_fixed else found

    def _sums(self, linear: LinearOp, group: FusedOp) -> SSAValue:
        """The sums of a weight's rows, a parameter."""
        weight = self._weight(linear, group)
        assert weight is not None, "seen before"
        turned = isinstance(linear.weight.owner, TransposeOp)
        value = linear.weight.owner.input if isinstance(linear.weight.owner, TransposeOp) else linear.weight

        def compute(emit: Emitter, stored: SSAValue, _: object) -> SSAValue:
            wide = emit.cast(stored, "i32")
            return emit.typed(
                SumOp, wide, dtype="i32", shape=[types.shape(stored)[int(turned)]], dims=IntsAttr([1 - turned])
            )

        if id(weight) not in self.sums:
            made = {n: computed_param(self.module, self.params, self.params[n], "sums", compute) for n in weight.names}
            self.sums[id(weight)] = Replacement(self.layers, made)
        outside = _outside(value, group)
        assert outside is not None, "it is a parameter"
        return self.sums[id(weight)].of(outside)

    def _rewrite(self, linear: LinearOp, source: DequantizeOp, group: FusedOp) -> None:
        shifts = self._shifts(source)
        sums = self._sums(linear, group) if shifts else None
        outer = Emitter(Builder(InsertPoint.before(group)), linear)
        numbers = _signed(outer, source.quantized)
        offset = 128 if numbers is not source.quantized else 0

        def taken(value: SSAValue) -> SSAValue:
            argument = group.body.block.insert_arg(value.type, len(group.body.block.args))
            argument.name_hint = value.name_hint
            group.operands = [*group.operands, value]
            return argument

        emit = Emitter(Builder(InsertPoint.before(linear)), linear)
        product = emit(ByteLinearOp, taken(numbers), linear.weight)
        zero: SSAValue | Number | None = 0 if source.zeros is None else held_number(source.zeros)
        if zero is None:
            assert source.zeros is not None, "it is a tensor"
            assert sums is not None, "which may not be 0"
            zeros = emit.cast(taken(source.zeros), "f32")
            zeros = emit.binary(SubOp, zeros, offset) if offset else zeros
            sums = emit.cast(taken(sums), "f32")
            value = emit.binary(SubOp, emit.cast(product, "f32"), emit.binary(MulOp, zeros, sums))
        elif sums is not None:
            value = emit.binary(SubOp, product, emit.binary(MulOp, taken(sums), int(zero) - offset))
            value = emit.cast(value, "f32")
        else:
            value = emit.cast(product, "f32")
        for scales, owner in ((source.scales, source), (linear.scales, linear)):
            if scales is None:
                continue
            held = held_number(scales)
            if held is not None:
                value = emit.binary(MulOp, value, float(held))
                continue
            factor = emit.cast(taken(scales) if owner is source else scales, "f32")
            if owner is linear and types.rank(factor):
                factor = emit.reshape(factor, types.shape(factor)[:1])
            value = emit.binary(MulOp, value, factor)
        if linear.bias is not None:
            value = emit.binary(AddOp, value, linear.bias)
        applied(linear, "it multiplies the bytes of its input and its weight")
        linear.result.replace_all_uses_with(value)
        Rewriter.erase_op(linear)
        _drop_unread(group)
        erase_unused(source.result, DequantizeOp)


def _drop_unread(group: FusedOp) -> None:
    """Drop the operands that nothing in a group reads."""
    block = group.body.block
    kept = [n for n, argument in enumerate(block.args) if argument.first_use is not None]
    for argument in [argument for argument in block.args if argument.first_use is None]:
        block.erase_arg(argument)
    group.operands = [group.operands[n] for n in kept]


def _outside(value: SSAValue, group: FusedOp | None) -> SSAValue | None:
    """What a group is given for an argument; the value itself where there is no group."""
    if group is None:
        return value
    return group.operands[value.index] if isinstance(value, BlockArgument) else None


def _is_of_rows(parameter: SSAValue, result: SSAValue) -> bool:
    shape, whole = types.shape(parameter), types.shape(result)
    return shape[-1] == 1 and all(a in (1, b) for a, b in zip(shape[:-1], whole[:-1], strict=True))


def _signed(emit: Emitter, numbers: SSAValue) -> SSAValue:
    """Bytes as i8, those of ui8 less 128."""
    if types.dtype(numbers) == "i8":
        return numbers
    flipped = emit.binary(BitwiseXorOp, numbers, 128)
    signed = emit.cast(flipped, "i8")
    ops = [value.owner for value in (flipped, signed) if isinstance(value.owner, ForgeOp)]
    group = FusedOp.of("bitwise_xor", ops, [numbers], [signed])
    found = emit.insert(group)
    for op in reversed(ops):
        Rewriter.erase_op(op)
    return found
