"""Transposed convolutions whose weights are parameters, as convolutions: what stands ``stride`` places apart in the
result takes the same places of the kernel, so each of the strides is a channel of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.builder import Builder
from xdsl.dialects.builtin import IntAttr, ModuleOp
from xdsl.dialects.func import CallOp
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.ops.contraction import ConvolutionOp, ConvTransposeOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import ParamOp
from forgec.ir.ops.shape import FlipOp, TransposeOp
from forgec.passes.layers import Layers
from forgec.passes.shared_weights import Replacement, Weight, computed_param, weights_of
from forgec.passes.tiles.windows import add_argument, drop_unused, readers_of


@dataclass(frozen=True)
class Phases:
    """How a weight [groups * taken, made, *kernel] is divided: ``taps`` are the places of the kernel, filled up with
    zeros to a multiple of the strides, for each of the strides.
    """

    groups: int
    taken: int
    made: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    taps: tuple[int, ...]


def take_transposed(module: ModuleOp) -> None:
    """Write transposed convolutions as convolutions, whose channels are put between one another."""
    layers = Layers(module)
    params = {op.sym_name.data: op for op in module.ops if isinstance(op, ParamOp)}
    for weight in weights_of(module, layers):
        phases = None if weight.is_fixed else _phases(weight, layers)
        if phases is not None:
            _take(weight, phases, module, layers, params)
    for layer in layers.callees_first():
        layers.drop_unused(layer)


def _phases(weight: Weight, layers: Layers) -> Phases | None:
    """None if something else than transposed convolutions of one form reads the weight."""
    found: set[Phases | None] = set()
    for value in weight.values:
        for use in value.uses:
            op = use.operation
            if isinstance(op, CallOp) and op.callee.root_reference.data in layers.functions:
                continue
            found |= {_phases_of(inner, index) for inner, index in readers_of(op, use.index)}
    return found.pop() if len(found) == 1 else None


def _phases_of(op: Operation, index: int) -> Phases | None:
    if not isinstance(op, ConvTransposeOp) or index != 1 or any(d != 1 for d in op.dilation.data):
        return None
    if isinstance(op.parent_op(), FusedOp) and op.input.owner is not op.parent_block():
        return None
    if types.dtype(op.input) not in types.FLOATS or not types.is_contiguous(op.weight):
        return None
    shape = [extent for extent in types.shape(op.weight) if isinstance(extent, int)]
    if len(shape) != types.rank(op.weight) or 0 in shape:
        return None
    taken, made, *kernel = shape
    steps = list(zip(kernel, op.strides.data, op.output_padding.data, op.padding.data, strict=True))
    if any(k % s or more > p for k, s, more, p in steps):
        return None  # a kernel filled up with zeros would make NaN of what is infinite
    taps = tuple(k // s for k, s, _, _ in steps)
    return Phases(op.groups.data, taken // op.groups.data, made, tuple(kernel), tuple(op.strides.data), taps)


def _take(weight: Weight, phases: Phases, module: ModuleOp, layers: Layers, params: dict[str, ParamOp]) -> None:
    made = {
        name: computed_param(
            module, params, params[name], "phases", lambda emit, stored, _: _weight(emit, stored, phases)
        )
        for name in weight.names
    }
    for group, positions, value in Replacement(layers, made).readers(weight):
        for position in positions:
            _rewrite(group, position, value, phases)
        drop_unused(group)


def _weight(emit: Emitter, stored: SSAValue, phases: Phases) -> SSAValue:
    """[O * prod(strides), C / groups, *taps]: of each channel, and each of the strides, the places, last ones first."""
    count, groups = len(phases.kernel), phases.groups
    split = [extent for taps, s in zip(phases.taps, phases.strides, strict=True) for extent in (taps, s)]
    found = emit.reshape(stored, (groups, phases.taken, phases.made, *split))
    taps, strides = range(3, 3 + 2 * count, 2), range(4, 4 + 2 * count, 2)
    if any(extent > 1 for extent in phases.taps):
        found = emit(FlipOp, found, dims=IntsAttr(list(taps)))
    found = emit(TransposeOp, found, permutation=IntsAttr([0, 2, *strides, 1, *taps]))
    return emit.reshape(found, (groups * phases.made * prod(phases.strides), phases.taken, *phases.taps))


def _rewrite(group: FusedOp, position: int, weight: SSAValue, phases: Phases) -> None:
    """Replace the transposed convolutions of a group that take an operand for their weight: the convolution stands
    before the group, which takes its result apart.
    """
    block = group.body.block
    outside = dict(zip(block.args, group.operands, strict=True))
    count, each = len(phases.kernel), prod(phases.strides)
    channels = phases.groups * phases.made
    for op in [use.operation for use in block.args[position].uses]:
        assert isinstance(op, ConvTransposeOp), "seen before"
        emit = Emitter(Builder(InsertPoint.before(group)), op)
        bias = None
        if op.bias is not None:
            given = outside.get(op.bias, op.bias)  # type: ignore[call-overload] - an argument of the group
            bias = emit.reshape(
                emit.broadcast(emit.reshape(given, (channels, 1)), (channels, each)), (channels * each,)
            )
        ones = IntsAttr([1] * count)
        settings = {
            "strides": ones, "padding": IntsAttr([taps - 1 for taps in phases.taps]), "dilation": ones,
            "groups": IntAttr(phases.groups),
        }  # fmt: skip
        image = outside[op.input]  # type: ignore[index] - an argument of the group
        found = emit(ConvolutionOp, image, weight, *([] if bias is None else [bias]), **settings)
        batch, _, *spots = types.shape(found)
        inner = Emitter(Builder(InsertPoint.before(op)), op)
        value = inner.reshape(add_argument(group, found), (batch, channels, *phases.strides, *spots))
        order = [axis for n in range(count) for axis in (2 + count + n, 2 + n)]
        value = inner(TransposeOp, value, permutation=IntsAttr([0, 1, *order]))
        spread = [spot * s for spot, s in zip(spots, phases.strides, strict=True)]
        value = inner.reshape(value, (batch, channels, *spread))
        for dim, (first, extent) in enumerate(zip(op.padding.data, types.shape(op.result)[2:], strict=True), 2):
            if types.shape(value)[dim] != extent:
                value = inner.slice(value, dim, first, extent)
        op.result.replace_all_uses_with(value)
        Rewriter.erase_op(op)
