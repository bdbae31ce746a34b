"""Linears of one input become one, whose weight is computed when the program is compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, LocationAttr, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.ir import Block, BlockArgument, Operation, Region, SSAValue
from xdsl.irdl import AttrSizedOperandSegments
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.locations import fuse
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import ParamOp, ParamRefOp, YieldOp
from forgec.ir.ops.shape import ConcatOp, ReshapeOp, SliceOp, TransposeOp, is_free
from forgec.ir.ops.unary import CastOp
from forgec.passes.layers import Layers
from forgec.passes.layouts import give_layout, passes_on
from forgec.passes.outlining import at_call
from forgec.passes.patterns import applied, made_by, missed, through
from forgec.passes.rewriting import blocks, erase_unused, replace

SEGMENTS = AttrSizedOperandSegments.attribute_name
NOT_MERGED = "this linear shares its input with others, but is not merged with them"
LAST = "the weight is read elsewhere too, so that the artifact would hold it twice"
APART = "some of their weights go with others elsewhere"
TURNING = (ReshapeOp, TransposeOp)
"""What a weight may go through that is stored in another order or shape than a linear takes it."""
SHARED = "results of the function share the memory of its result"


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

    Its weight is a ``forge.param`` whose region concatenates the weights: the artifact holds it instead of them. Where
    some have a bias, the others get one of zeros. A weight that something else reads as well stays on its own. One that
    the model stores as [in, out] is turned on the way.
    Linears of quantised weights are merged with those that are quantised alike; their scales and zero points are
    concatenated too.

    In a layer, where weights are arguments, calls pass the merged weights instead; what calls share stays shared.

    Order: after ``fuse-glu``, which looks for gate and up as linears of their own, and before ``fuse-epilogue``.
    """

    name = "merge-linears"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        merger = _Merger(op)
        for block in [block for block in blocks(op) if not isinstance(block.parent_op(), FusedOp)]:
            for linears in _sharing_input(block, merger):
                merger.merge([linear for linear in linears if merger.may_merge(linear)])
        for layer in merger.layers.callees_first():
            merger.layers.drop_unused(layer)


def _sharing_input(block: Block, merger: _Merger) -> Iterator[list[LinearOp]]:
    """The linears of a block whose weights are parameters, those of one input and one kind of weight together."""
    found: dict[tuple[object, ...], list[LinearOp]] = {}
    for op in block.ops:
        if isinstance(op, LinearOp) and merger.has_parameters(op):
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


def _base(value: SSAValue) -> SSAValue:
    """What a value is, but for its dtype and shape."""
    return through(value, *TURNING, CastOp)


def _only(weight: SSAValue) -> SSAValue | None:
    """What a weight is, but for its shape; None if it is read in between."""
    while (op := made_by(weight, *TURNING)) is not None:
        if len(list(weight.uses)) != 1:
            return None
        weight = op.operands[0]
    return weight


class _Merger:
    """Makes weights of weights: parameters of parameters, and in a layer arguments of arguments."""

    def __init__(self, module: ModuleOp) -> None:
        self.module = module
        self.layers = Layers(module)
        self.params = {child.sym_name.data: child for child in module.ops if isinstance(child, ParamOp)}
        self.readers: dict[str, int] = {}
        """How often each parameter is read or passed on."""
        for block in blocks(module):
            for found in block.ops:
                if isinstance(found, ParamRefOp):
                    name = found.param.root_reference.data
                    self.readers[name] = self.readers.get(name, 0) + sum(1 for _ in found.result.uses)

    def has_parameters(self, linear: LinearOp) -> bool:
        """True if the weight is a parameter, perhaps transposed or in another shape, and the rest, perhaps cast too, as
        well.
        """
        weight = through(linear.weight, *TURNING)
        return self.is_parameter(weight) and all(self.is_parameter(_base(v)) for v in _parameters(linear))

    def is_parameter(self, value: SSAValue) -> bool:
        """True for a parameter, and for an argument of a layer whose calls all pass parameters."""
        layer = self.layers.layer_of(value)
        if layer is None:
            return made_by(value, ParamRefOp) is not None
        calls = self.layers.calls_of(layer)
        return bool(calls) and all(self.is_parameter(call.operands[_index(value)]) for call in calls)

    def may_merge(self, linear: LinearOp) -> bool:
        """True if nothing else reads the linear's weight, it has a fixed number of rows, and no two things that
        leave the function share its memory.
        """
        if not self._is_private(_only(linear.weight)):
            missed(linear, NOT_MERGED, LAST)
            return False
        if _leavings(linear.result) > 1:
            missed(linear, NOT_MERGED, SHARED)
            return False
        return isinstance(types.shape(linear.weight)[0], int)

    def _is_private(self, value: SSAValue | None, uses: int = 1) -> bool:
        """True if a parameter, or each that calls pass for an argument, has only so many uses, or those of the same
        argument of other calls.
        """
        if value is None:
            return False
        layer = self.layers.layer_of(value)
        if layer is None:
            return self.readers[str(_identity(value))] == uses
        operands = [call.operands[_index(value)] for call in self.layers.calls_of(layer)]
        passed = Counter(map(_identity, operands))
        values = {_identity(operand): operand for operand in operands}
        return sum(1 for _ in value.uses) == uses and all(
            self._is_private(values[one], count) for one, count in passed.items()
        )

    def _are_together(self, values: Sequence[SSAValue]) -> bool:
        """True if calls that pass one of these parameters pass the others beside it, all the way out."""
        layer = self.layers.layer_of(values[0])
        if any(self.layers.layer_of(value) is not layer for value in values):
            return False
        if layer is None:
            return True
        passed = [[call.operands[_index(value)] for value in values] for call in self.layers.calls_of(layer)]
        rows = {tuple(map(_identity, row)) for row in passed}
        return all(len({row[column] for row in rows}) == len(rows) for column in range(len(values))) and all(
            self._are_together(row) for row in passed
        )

    def merge(self, linears: Sequence[LinearOp]) -> None:
        """Make one linear of several, and slices of its result of theirs."""
        if len(linears) < 2:
            return
        used = [_base(value) for linear in linears for value in (linear.weight, *_parameters(linear))]
        if not self._are_together(used):
            missed(linears[0], NOT_MERGED, APART)
            return
        first, source = linears[0], linears[0].input
        location = fuse(linear.location for linear in linears)

        def joined(values: Sequence[SSAValue | None]) -> SSAValue | None:
            """One value of those of all linears: the same if they share it, else a parameter made of them."""
            given = [(value, linear) for value, linear in zip(values, linears, strict=True) if value is not None]
            if not given or not _is_of_rows(*given[0]):
                return given[0][0] if given else None
            weights = [linear.weight for linear in linears]
            parts = [weight if value is None else value for value, weight in zip(values, weights, strict=True)]
            return self._joined(parts, Form(types.rank(given[0][0]), types.dtype(given[0][0]), location), first)

        columns = [[getattr(linear, name) for linear in linears] for name in ("weight", "bias", "scales", "zeros")]
        properties = {name: value for name, value in first.properties.items() if name != SEGMENTS}
        dtype, count = types.dtype(first.result), sum(types.shape(linear.result)[-1] for linear in linears)
        kind = types.tensor(dtype, (*types.shape(first.result)[:-1], count))
        merged = LinearOp.make([source, *map(joined, columns)], properties, [kind], location)
        block = first.parent_block()
        assert block is not None
        block.insert_op_before(merged, first)
        parts = " + ".join(str(types.shape(linear.result)[-1]) for linear in linears)
        applied(merged, f"{len(linears)} linears of one input are computed as one, of {parts} features")
        along, start = types.rank(merged.result) - 1, 0
        strides = types.strides(merged.result)
        for linear in linears:
            shape = types.shape(linear.result)
            properties = {"dim": IntAttr(along), "start": ExtentAttr(start), "step": ExtentAttr(1)}
            kind = types.tensor(types.dtype(linear.result), shape, strides)
            part = SliceOp.create(operands=[merged.result], properties=properties, result_types=[kind])
            start += shape[-1]
            wanted, weight = linear.result.type, linear.weight
            replace(linear, part.results, [part])
            erase_unused(weight, *TURNING)
            give_layout(part.result, wanted)

    def _joined(self, values: Sequence[SSAValue], form: Form, before: Operation) -> SSAValue:
        """The values one after the other, as a parameter that is read ``before`` an op, or as an argument."""
        layer = self.layers.layer_of(_base(values[0]))
        block = before.parent_block()
        assert block is not None
        if layer is None:
            param = _concatenated(self.module, self.params, values, form)
            properties = {"param": SymbolRefAttr(param.sym_name.data)}
            ref = ParamRefOp.create(properties=properties, result_types=[param.type], location=form.location)
            block.insert_op_before(ref, before)
            return ref.result
        made: dict[tuple[object, ...], SSAValue] = {}
        passed: list[SSAValue] = []
        for call in self.layers.calls_of(layer):
            operands = [call.operands[_index(_base(value))] for value in values]
            key = tuple(map(_identity, operands))
            if key not in made:
                parts = [_computed(v, call, {_base(v): operand}) for v, operand in zip(values, operands, strict=True)]
                made[key] = self._joined(parts, form.at(at_call(form.location, layer, call)), call)
            passed.append(made[key])
        hints = [(value.name_hint or "weight").split("_") for value in values]
        hint = _united(hints, "_", "_")
        return self.layers.add_argument(layer, passed, f"w{hint}" if hint[:1].isdecimal() else hint)


@dataclass(frozen=True)
class Form:
    """Rank and dtype of a parameter that is made of others, and where it comes from."""

    rank: int
    dtype: str
    location: LocationAttr

    def at(self, location: LocationAttr) -> Form:
        """The same from elsewhere."""
        return Form(self.rank, self.dtype, location)


def _computed(value: SSAValue, before: Operation, known: dict[SSAValue, SSAValue]) -> SSAValue:
    """A value of a parameter once more ``before`` an op, made of ``known`` values."""
    if value in known:
        return known[value]
    op = made_by(value, ParamRefOp, CastOp, *TURNING)
    assert op is not None, "nothing else is looked through"
    copy = op.clone({operand: _computed(operand, before, known) for operand in op.operands})
    block = before.parent_block()
    assert block is not None
    block.insert_op_before(copy, before)
    return copy.results[0]


def _leavings(value: SSAValue) -> int:
    """How often a value, or a rearrangement that shares its memory, leaves the function or is shown to others as it
    lies.
    """
    count = 0
    for use in value.uses:
        op = use.operation
        if is_free(op):
            count += _leavings(op.results[0])
        else:
            count += passes_on(op)
    return count


def _index(value: SSAValue) -> int:
    assert isinstance(value, BlockArgument), "it is an argument of a layer"
    return value.index


def _identity(value: SSAValue) -> object:
    """What is equal for values that are the same parameter."""
    ref = made_by(value, ParamRefOp)
    return value if ref is None else ref.param.root_reference.data


def _concatenated(module: ModuleOp, params: dict[str, ParamOp], values: Sequence[SSAValue], form: Form) -> ParamOp:
    """A parameter made of others along their first dimension. A weight among biases stands for a bias of zeros."""
    body = Block()
    end = YieldOp.create()
    body.add_op(end)
    parts: list[SSAValue] = []
    names: list[str] = []
    for value in values:
        if types.rank(value) > form.rank:
            zeros = types.tensor(form.dtype, types.shape(value)[:1])
            full = FullOp.create(properties={"value": ScalarAttr.of(0.0)}, result_types=[zeros])
            body.insert_op_before(full, end)
            parts.append(full.result)
        else:
            names.append(str(_identity(_base(value))))
            parts.append(_computed(value, end, {}))
    joined = ConcatOp.make(parts, {"dim": IntAttr(0)})
    body.insert_op_before(joined, end)
    end.operands = [joined.result]
    for op in body.ops:
        op.location = form.location
    name = _free(_united([name.split(".") for name in names], ".", "+"), params)
    made = ParamOp.create(properties={"sym_name": StringAttr(name), "type": joined.result.type}, regions=[Region(body)])
    module.body.block.insert_op_after(made, list(params.values())[-1])
    params[name] = made
    return made


def _united(names: Sequence[Sequence[str]], separator: str, plus: str) -> str:
    """``layers.0.q_proj+k_proj.weight`` of ``layers.0.q_proj.weight`` and ``layers.0.k_proj.weight``."""
    least = min(map(len, names))
    first = next((i for i in range(least) if len({name[i] for name in names}) > 1), least)
    last = next((i for i in range(least - first) if len({name[-1 - i] for name in names}) > 1), 0)
    start, end = names[0][:first], names[0][len(names[0]) - last :]
    inner = [separator.join(name[first : len(name) - last]) for name in names]
    return separator.join(part for part in (*start, plus.join(inner), *end) if part)


def _free(name: str, params: dict[str, ParamOp]) -> str:
    return name if name not in params else _free(f"{name}_", params)
