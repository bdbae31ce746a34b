"""Convolutions whose weights are parameters: the image is copied with its channels last and its padding around it, so
that each row of a window is one row of a product, and the weight becomes a matrix, which ``panels`` packs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from xdsl.builder import Builder
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import CallOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from forgec.ir import types
from forgec.ir.attributes import ExtentsAttr, IntsAttr, ScalarAttr
from forgec.ir.ops.contraction import ConvolutionOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import ParamOp
from forgec.ir.ops.shape import TransposeOp
from forgec.ir.ops.spatial import PadOp
from forgec.ir.ops.windowed_linear import WindowedLinearOp
from forgec.passes.layers import Layers
from forgec.passes.rewriting import blocks
from forgec.passes.shared_weights import Replacement, Weight, computed_param, grouped, weights_of
from forgec.runtime.symbolic import Extent

LEAST_CHANNELS = 16
"""Channels of a group's result from which on they are worth the vectors of a panel."""
LEAST_SUMMED = 8
"""Channels of a group's input, of several groups, from which on windows are rows of a product."""


@dataclass(frozen=True)
class Form:
    """A weight [groups * made, channels, *kernel]."""

    groups: int
    made: int
    channels: int
    kernel: tuple[int, ...]


def take_windows(module: ModuleOp) -> None:
    """Write convolutions as ``forge.windowed_linear`` of a copy of the image, where that is faster; those of few
    channels in each group take a copy with its padding around it.
    """
    layers = Layers(module)
    params = {op.sym_name.data: op for op in module.ops if isinstance(op, ParamOp)}
    for weight in weights_of(module, layers):
        form = None if weight.is_fixed else _form(weight, layers)
        if form is not None:
            _take(weight, form, module, layers, params)
    for layer in layers.callees_first():
        layers.drop_unused(layer)
    for block in [b for b in blocks(module) if not isinstance(b.parent_op(), FusedOp)]:
        for op in list(block.ops):
            inner = list(op.inner) if isinstance(op, FusedOp) else [op]
            if any(isinstance(each, ConvolutionOp) and _is_narrow(each) for each in inner):
                _pad(op if isinstance(op, FusedOp) else grouped(op))


def _is_narrow(op: ConvolutionOp) -> bool:
    return (types.shape(op.weight)[1] == 1 or op.groups.data > 1) and any(op.padding.data)


def _pad(group: FusedOp) -> None:
    """Have convolutions of few channels in each group read a copy of the image that has the padding."""
    block = group.body.block
    for op in list(group.inner):
        if isinstance(op, ConvolutionOp) and _is_narrow(op) and op.input in block.args:
            image = group.operands[list(block.args).index(op.input)]  # type: ignore[arg-type] - it is one of them
            copy = Block(arg_types=[image.type])
            emit = Emitter(Builder(InsertPoint.at_end(copy)), op)
            padded = _padded(emit, copy.args[0], op)
            op.operands[0] = add_argument(group, _before(group, "pad", copy, padded, image))
            op.padding = IntsAttr([0] * len(op.padding.data))
    drop_unused(group)


def _form(weight: Weight, layers: Layers) -> Form | None:
    """None if something else than convolutions of one form reads the weight."""
    forms: set[Form | None] = set()
    for value in weight.values:
        for use in value.uses:
            op = use.operation
            if isinstance(op, CallOp) and op.callee.root_reference.data in layers.functions:
                continue
            forms |= {_form_of(inner, index) for inner, index in readers_of(op, use.index)}
    return forms.pop() if len(forms) == 1 else None


def readers_of(op: Operation, index: int) -> Iterator[tuple[Operation, int]]:
    """The ops that read an operand of an op, which may be a group."""
    if not isinstance(op, FusedOp):
        yield op, index
        return
    for use in op.body.block.args[index].uses:
        yield use.operation, use.index


def _form_of(op: Operation, index: int) -> Form | None:
    if not isinstance(op, ConvolutionOp) or index != 1:
        return None
    block = op.parent_block()
    if isinstance(op.parent_op(), FusedOp) and (block is None or op.input not in block.args):
        return None
    if types.dtype(op.input) not in types.FLOATS or not types.is_contiguous(op.weight):
        return None
    made, channels, *kernel = types.shape(op.weight)
    groups = op.groups.data
    if not isinstance(made, int) or not isinstance(channels, int) or 0 in (made, channels):
        return None
    known = [extent for extent in kernel if isinstance(extent, int)]
    if len(known) != len(kernel) or prod(known) <= 1 or made // groups < LEAST_CHANNELS:
        return None
    if groups > 1 and channels < LEAST_SUMMED:
        return None
    return Form(groups, made // groups, channels, tuple(known))


def _take(weight: Weight, form: Form, module: ModuleOp, layers: Layers, params: dict[str, ParamOp]) -> None:
    def matrix(emit: Emitter, stored: SSAValue, _: object) -> SSAValue:
        count = len(form.kernel)
        turned = emit(TransposeOp, stored, permutation=IntsAttr([0, *range(2, count + 2), 1]))
        return emit.reshape(turned, (form.groups, form.made, prod(form.kernel) * form.channels))

    made = {name: computed_param(module, params, params[name], "windows", matrix) for name in weight.names}
    for group, positions, value in Replacement(layers, made).readers(weight):
        for position in positions:
            _rewrite(group, position, value, form)


def _rewrite(group: FusedOp, position: int, matrix: SSAValue, form: Form) -> None:
    """Replace the convolutions of a group that take an operand for their weight."""
    block = group.body.block
    weight = block.args[position]
    own = add_argument(group, matrix)
    for op in [use.operation for use in weight.uses]:
        assert isinstance(op, ConvolutionOp), "seen before"
        image = group.operands[list(block.args).index(op.input)]  # type: ignore[arg-type] - it is one of them
        windows = add_argument(group, _channels_last(group, image, op, form))
        properties = {"kernel": IntsAttr(form.kernel), "strides": op.strides, "dilation": op.dilation}
        operands = [windows, own, *([] if op.bias is None else [op.bias])]
        made = WindowedLinearOp.make(operands, properties, [op.result.type], op.location)
        made.result.name_hint = op.result.name_hint
        block.insert_op_before(made, op)
        op.result.replace_all_uses_with(made.result)
        Rewriter.erase_op(op)
    drop_unused(group)


def drop_unused(group: FusedOp) -> None:
    block = group.body.block
    for number in reversed(range(len(block.args))):
        if block.args[number].first_use is None:
            block.erase_arg(block.args[number])
            group.operands = [operand for n, operand in enumerate(group.operands) if n != number]


def add_argument(group: FusedOp, value: SSAValue) -> SSAValue:
    """One more operand of a group, inside."""
    block = group.body.block
    argument = block.insert_arg(value.type, len(block.args))
    argument.name_hint = value.name_hint
    group.operands = [*group.operands, value]
    return argument


def _channels_last(group: FusedOp, image: SSAValue, op: ConvolutionOp, form: Form) -> SSAValue:
    """A group before another one that copies an image as [B, G, *X, C], with zeros around its places."""
    block = Block(arg_types=[image.type])
    emit = Emitter(Builder(InsertPoint.at_end(block)), op)
    found = _padded(emit, block.args[0], op)
    batch, _, *places = types.shape(found)
    found = emit.reshape(found, (batch, form.groups, form.channels, *places))
    found = emit(TransposeOp, found, permutation=IntsAttr([0, 1, *range(3, len(places) + 3), 2]))
    return _before(group, "channels_last", block, found, image)


def _padded(emit: Emitter, image: SSAValue, op: ConvolutionOp) -> SSAValue:
    padding: list[Extent] = [0, 0, *op.padding.data]
    if not any(padding):
        return image
    return emit(
        PadOp, image, mode=StringAttr("constant"), low=ExtentsAttr(padding), high=ExtentsAttr(padding),
        value=ScalarAttr.of(0.0),
    )  # fmt: skip


def _before(group: FusedOp, kind: str, block: Block, result: SSAValue, image: SSAValue) -> SSAValue:
    """A group before another one that does with an image what a block does with its argument."""
    copied = FusedOp.of(kind, list(block.ops), [block.args[0]], [result])
    copied.operands[0] = image
    copied.location = group.location
    outer = group.parent_block()
    assert outer is not None
    outer.insert_op_before(copied, group)
    copied.results[0].name_hint = image.name_hint
    return copied.results[0]
