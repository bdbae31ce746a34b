"""Parameters that layers take as arguments: which parameters and arguments are one weight, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.builder import Builder
from xdsl.dialects.builtin import ModuleOp, StringAttr, SymbolRefAttr
from xdsl.dialects.func import CallOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import ParamOp, ParamRefOp, YieldOp
from forgec.passes.layers import Layers
from forgec.passes.patterns import made_by
from forgec.passes.rewriting import blocks, erase_unused
from forgec.passes.tiles.group import alone

Key = str | SSAValue
"""A parameter by its name, or an argument of a layer."""


@dataclass(eq=False)
class Weight:
    """Parameters, and arguments of layers, that calls pass to one another: all are changed, or none is."""

    names: list[str] = field(default_factory=list)
    values: list[SSAValue] = field(default_factory=list)
    is_fixed: bool = False
    """True if a call passes something else."""


def weights_of(module: ModuleOp, layers: Layers) -> list[Weight]:
    """The weights of a module, each parameter in one of them."""
    found: dict[Key, Weight] = {}
    for block in blocks(module):
        for op in block.ops:
            if isinstance(op, ParamRefOp):
                name = op.param.root_reference.data
                found.setdefault(name, Weight([name])).values.append(op.result)
    arguments = [argument for layer in layers.functions.values() for argument in layer.body.block.args]
    found.update({argument: Weight(values=[argument]) for argument in arguments})
    for layer in layers.functions.values():
        for call in layers.calls_of(layer):
            for operand, argument in zip(call.operands, layer.body.block.args, strict=True):
                passed = found.get(_key(operand))
                if passed is None:
                    found[argument].is_fixed = True
                else:
                    _unite(found, passed, found[argument])
    return [weight for weight in dict.fromkeys(found.values()) if weight.names]


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


class Replacement:
    """Parameters that are computed from those of a weight, and what stands for them wherever the weight is read."""

    def __init__(self, layers: Layers, made: Mapping[str, ParamOp]) -> None:
        """``made`` are the new parameters by the names of the weight's."""
        self.layers = layers
        self.made = made
        self._known: dict[SSAValue, SSAValue] = {}

    def of(self, value: SSAValue) -> SSAValue:
        """The new parameter, or the new argument of the layer, beside a value of the weight."""
        if value not in self._known:
            layer = self.layers.layer_of(value)
            if layer is None:
                self._known[value] = self._reference(value)
            else:
                index = list(layer.body.block.args).index(value)  # type: ignore[arg-type] - it is one of them
                passed = [self.of(call.operands[index]) for call in self.layers.calls_of(layer)]
                self._known[value] = self.layers.add_argument(layer, passed, value.name_hint or "weight")
        return self._known[value]

    def readers(self, weight: Weight) -> Iterator[tuple[FusedOp, list[int], SSAValue]]:
        """Every op but calls that reads a weight, as a group: where among its operands, and what stands for it now.
        When all have been seen, readings of the weight that nothing uses any more are erased.
        """
        for value in weight.values:
            self.of(value)
        for value in weight.values:
            for use in list(value.uses):
                op = use.operation
                if not isinstance(op, CallOp):
                    group = op if isinstance(op, FusedOp) else grouped(op)
                    yield group, [n for n, operand in enumerate(group.operands) if operand is value], self.of(value)
        for value in weight.values:
            erase_unused(value, ParamRefOp)

    def _reference(self, value: SSAValue) -> SSAValue:
        ref = made_by(value, ParamRefOp)
        assert ref is not None, "a weight is a parameter or an argument of a layer"
        found = reference_to(self.made[ref.param.root_reference.data])
        found.location = ref.location
        found.result.name_hint = value.name_hint
        block = ref.parent_block()
        assert block is not None
        block.insert_op_before(found, ref)
        return found.result


def computed_param(
    module: ModuleOp,
    params: dict[str, ParamOp],
    stored: ParamOp,
    suffix: str,
    compute: Callable[[Emitter, SSAValue, list[SSAValue]], SSAValue],
    others: Sequence[ParamOp] = (),
) -> ParamOp:
    """A parameter, which joins ``params``, that is computed from a stored one and ``others``."""
    body = Block()
    emit = Emitter(Builder(InsertPoint.at_end(body)), stored)
    first, *rest = (emit.insert(reference_to(param)) for param in (stored, *others))
    result = compute(emit, first, rest)
    end = YieldOp.create(operands=[result])
    end.location = stored.location
    body.add_op(end)
    own = f"{stored.sym_name.data}.{suffix}"
    while own in params:
        own += "_"
    properties = {"sym_name": StringAttr(own), "type": result.type}
    made = ParamOp.create(properties=properties, regions=[Region(body)])
    made.location = stored.location
    module.body.block.insert_op_after(made, list(params.values())[-1])
    params[own] = made
    return made


def reference_to(param: ParamOp) -> ParamRefOp:
    """A reading of a parameter."""
    return ParamRefOp.create(properties={"param": SymbolRefAttr(param.sym_name.data)}, result_types=[param.type])


def grouped(op: Operation) -> FusedOp:
    """An op as a group of its own, in its place."""
    group = alone(op)
    block = op.parent_block()
    assert block is not None
    block.insert_op_before(group, op)
    for old, new in zip(op.results, group.results, strict=True):
        old.replace_all_uses_with(new)
    Rewriter.erase_op(op)
    return group
