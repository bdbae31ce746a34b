"""Linears of one input become one, whose weight is computed when the program is compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, LocationAttr, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.irdl import AttrSizedOperandSegments
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.locations import fuse
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.module import ParamOp, ParamRefOp, YieldOp
from forgec.ir.ops.shape import ConcatOp, ReshapeOp, SliceOp
from forgec.ir.ops.unary import CastOp
from forgec.passes.layouts import give_layout
from forgec.passes.patterns import made_by, missed, through
from forgec.passes.rewriting import blocks, replace

SEGMENTS = AttrSizedOperandSegments.attribute_name
LAST = "the weight is read elsewhere too, so that the artifact would hold it twice"


@dataclass(frozen=True)
class MergeLinears(ModulePass):
    """Compute linears that share their input (queries, keys and values; gate and up) as one, and slice its result.

    Before::

        %q = forge.linear %x, %wq : (tensor<9x64xf32>, tensor<64x64xf32>) -> tensor<9x64xf32>
        %k = forge.linear %x, %wk : (tensor<9x64xf32>, tensor<32x64xf32>) -> tensor<9x32xf32>

    After::

        %0 = forge.linear %x, %w : (tensor<9x64xf32>, tensor<96x64xf32>) -> tensor<9x96xf32>
        %q = forge.slice %0 dim 1 from 0 step 1 : (tensor<9x96xf32>) -> tensor<9x64xf32, …>
        %k = forge.slice %0 dim 1 from 64 step 1 : (tensor<9x96xf32>) -> tensor<9x32xf32, …>

    ``%w`` is a ``forge.param`` whose region concatenates the weights: the artifact holds it instead of them. Where some
    have a bias, the others get one of zeros. A weight that something else reads as well stays on its own. Linears of
    quantised weights are merged with those that are quantised alike; their scales and zero points are concatenated too.
    """

    name = "merge-linears"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        readers: dict[str, int] = {}
        for block in blocks(op):
            for found in block.ops:
                if isinstance(found, ParamRefOp):
                    name = found.param.root_reference.data
                    readers[name] = readers.get(name, 0) + sum(1 for _ in found.result.uses)
        params = {child.sym_name.data: child for child in op.ops if isinstance(child, ParamOp)}
        for block in list(blocks(op)):
            for linears in _sharing_input(block):
                _merge(op, params, [linear for linear in linears if _is_alone(linear, readers)])


def _sharing_input(block: Block) -> Iterator[list[LinearOp]]:
    """The linears of a block whose weights are parameters, those of one input and one kind of weight together."""
    found: dict[tuple[object, ...], list[LinearOp]] = {}
    for op in block.ops:
        if isinstance(op, LinearOp) and made_by(op.weight, ParamRefOp) and all(map(_is_param, _parameters(op))):
            found.setdefault((op.input, *_kind(op)), []).append(op)
    yield from (linears for linears in found.values() if len(linears) > 1)


def _parameters(linear: LinearOp) -> list[SSAValue]:
    """Bias, scales and zero points, but for numbers that are for the whole weight."""
    return [v for v in (linear.bias, linear.scales, linear.zeros) if v is not None and types.rank(v)]


def _kind(linear: LinearOp) -> tuple[object, ...]:
    """What linears have in common that can be one: how their weights are quantised, in which blocks."""
    if not linear.is_quantized:
        return ()
    properties = {name: value for name, value in linear.properties.items() if name != SEGMENTS}
    blocks = [_blocks(value, linear) for value in (linear.scales, linear.zeros)]
    return types.dtype(linear.weight), frozenset(properties.items()), *blocks


def _blocks(value: SSAValue | None, linear: LinearOp) -> object:
    """In which blocks scales or zero points are given that can be concatenated; others fit none but themselves."""
    if value is None:
        return None
    return (types.dtype(value), types.shape(value)[1:]) if _is_of_rows(value, linear) else value


def _is_of_rows(value: SSAValue, linear: LinearOp) -> bool:
    """True if a value has an element, or several, for each row of the weight."""
    return types.rank(value) > 0 and types.shape(value)[0] == types.shape(linear.weight)[0]


def _is_param(value: SSAValue) -> bool:
    """True for a parameter, perhaps cast or in another shape."""
    return made_by(through(value, ReshapeOp, CastOp), ParamRefOp) is not None


def _is_alone(linear: LinearOp, readers: dict[str, int]) -> bool:
    """True if nothing else reads the linear's weight, and it has a fixed number of rows."""
    weight = made_by(linear.weight, ParamRefOp)
    assert weight is not None, "it is a parameter"
    if readers[weight.param.root_reference.data] > 1:
        missed(linear, "this linear shares its input with others, but is not merged with them", LAST)
        return False
    return isinstance(types.shape(linear.weight)[0], int)


def _merge(module: ModuleOp, params: dict[str, ParamOp], linears: Sequence[LinearOp]) -> None:
    if len(linears) < 2:
        return
    first, source = linears[0], linears[0].input
    location = fuse(linear.location for linear in linears)
    refs: list[ParamRefOp] = []

    def joined(values: Sequence[SSAValue | None]) -> SSAValue | None:
        """One value of those of all linears: the same if they share it, else a parameter made of them."""
        present = [value for value in values if value is not None]
        if not present or not _is_of_rows(present[0], first):
            return present[0] if present else None
        weights = [linear.weight for linear in linears]
        given = [weight if value is None else value for value, weight in zip(values, weights, strict=True)]
        dtype = types.dtype(present[0])
        refs.append(_reference(_concatenated(module, params, given, types.rank(present[0]), dtype, location)))
        return refs[-1].result

    columns = [[getattr(linear, name) for linear in linears] for name in ("weight", "bias", "scales", "zeros")]
    properties = {name: value for name, value in first.properties.items() if name != SEGMENTS}
    dtype, count = types.dtype(first.result), sum(types.shape(linear.result)[-1] for linear in linears)
    kind = types.tensor(dtype, (*types.shape(first.result)[:-1], count))
    merged = LinearOp.make([source, *map(joined, columns)], properties, [kind], location)
    block = first.parent_block()
    assert block is not None
    for op in (*refs, merged):
        op.location = location
        block.insert_op_before(op, first)
    along, start = types.rank(merged.result) - 1, 0
    strides = types.strides(merged.result)
    for linear in linears:
        shape = types.shape(linear.result)
        properties = {"dim": IntAttr(along), "start": ExtentAttr(start), "step": ExtentAttr(1)}
        kind = types.tensor(types.dtype(linear.result), shape, strides)
        part = SliceOp.create(operands=[merged.result], properties=properties, result_types=[kind])
        start += shape[-1]
        wanted = linear.result.type
        replace(linear, part.results, [part])
        give_layout(part.result, wanted)


def _reference(param: ParamOp) -> ParamRefOp:
    return ParamRefOp.create(properties={"param": SymbolRefAttr(param.sym_name.data)}, result_types=[param.type])


def _concatenated(
    module: ModuleOp,
    params: dict[str, ParamOp],
    values: Sequence[SSAValue],
    rank: int,
    dtype: str,
    location: LocationAttr,
) -> ParamOp:
    """A parameter made of others along their first dimension. A weight among biases stands for a bias of zeros."""
    body = Block()
    parts: list[SSAValue] = []
    names: list[str] = []
    for value in values:
        if types.rank(value) > rank:
            zeros = types.tensor(dtype, types.shape(value)[:1])
            part: Operation = FullOp.create(properties={"value": ScalarAttr.of(0.0)}, result_types=[zeros])
            body.add_op(part)
        else:
            ref = made_by(through(value, ReshapeOp, CastOp), ParamRefOp)
            assert ref is not None, "it is a parameter"
            names.append(ref.param.root_reference.data)
            part = _computed(value, body)
        parts.append(part.results[0])
    joined = ConcatOp.make(parts, {"dim": IntAttr(0)})
    body.add_op(joined)
    body.add_op(YieldOp.create(operands=[joined.result]))
    for op in body.ops:
        op.location = location
    name = _free(_joined(names), params)
    made = ParamOp.create(properties={"sym_name": StringAttr(name), "type": joined.result.type}, regions=[Region(body)])
    module.body.block.insert_op_after(made, list(params.values())[-1])
    params[name] = made
    return made


def _computed(value: SSAValue, body: Block) -> Operation:
    """In ``body``, the ops that make a value of a parameter."""
    op = made_by(value, ParamRefOp, ReshapeOp, CastOp)
    assert op is not None, "nothing else is looked through"
    inside: dict[SSAValue, SSAValue] = {v: _computed(v, body).results[0] for v in op.operands}
    copy = op.clone(inside)
    body.add_op(copy)
    return copy


def _joined(names: Sequence[str]) -> str:
    """``layers.0.q_proj+k_proj.weight`` of ``layers.0.q_proj.weight`` and ``layers.0.k_proj.weight``."""
    parts = [name.split(".") for name in names]
    least = min(map(len, parts))
    first = next((i for i in range(least) if len({part[i] for part in parts}) > 1), least)
    last = next((i for i in range(least - first) if len({part[-1 - i] for part in parts}) > 1), 0)
    start, end = parts[0][:first], parts[0][len(parts[0]) - last :]
    inner = [".".join(part[first : len(part) - last]) for part in parts]
    return ".".join(part for part in (*start, "+".join(inner), *end) if part)


def _free(name: str, params: dict[str, ParamOp]) -> str:
    return name if name not in params else _free(f"{name}_", params)
