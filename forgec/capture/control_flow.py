"""torch.cond, while_loop, scan and map → ``scf``; asserts → ``forge.assert``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from xdsl.dialects import scf
from xdsl.dialects.builtin import AnyTensorType, IndexType, IntAttr, StringAttr, i1
from xdsl.ir import Block, Region, SSAValue

from forgec.capture import numbers
from forgec.capture.aliasing import Handle, fresh
from forgec.capture.checks import Check
from forgec.capture.numbers import Number, Step
from forgec.capture.places import place_of
from forgec.capture.symbols import Unknown
from forgec.capture.values import Blocked
from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.locations import to_attribute
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.control import AssertOp, ExtentOp, FromIndexOp, ItemOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.index import IndexCopyOp, IndexSelectOp
from forgec.ir.ops.shape import CopyOp, ReshapeOp
from forgec.runtime.symbolic import Extent, symbol

if TYPE_CHECKING:
    from forgec.capture.operators import Operators

ASSERTS = (
    "aten::_assert_scalar",
    "aten::_assert_async",
    "aten::_assert_async.msg",
    "aten::_functional_assert_scalar",
    "aten::_functional_assert_async.msg",
)


def convert(c: Operators, node: Any) -> bool:
    """Convert a node that calls a control flow operator; False if it is another one."""
    converter = CONVERTERS.get(getattr(node.target, "__name__", ""))
    if converter is None or not isinstance(node.target, torch._ops.HigherOrderOperator):
        return False
    c.location = to_attribute(place_of(node))
    c.handles[node] = converter(c, node)
    return True


# Regions
# ---------------------------------------------------------------------------------------------------------------------


def _given(c: Operators, operand: Any) -> Any:
    """An operand as a region sees it: its value now, from outside."""
    held = _held(c, operand)
    if isinstance(held, Handle):
        return fresh(held.value(c.builder.insert))
    if isinstance(held, Step):
        return Number(numbers.compute(c, held))
    return held


def _body(c: Operators, body: Any, operands: Sequence[Any]) -> list[Any]:
    """Convert the nodes of a part of the graph, here and now; returns its results (handles, numbers, literals)."""
    rest = list(operands)
    for node in c.handles[body].graph.nodes:
        c.numbers.pop(node, None)  # of an earlier call of the same part
        c.blocked.discard(node)
        if node.op == "placeholder":
            c.handles[node] = _argument(c, node, rest.pop(0))
        elif node.op == "call_function":
            c.call(node)
        elif node.op == "get_attr":
            c.get_attr(node)
        elif node.op == "output":
            if c.blocked.intersection(node.all_input_nodes):
                raise Blocked
            found = node.args[0] if isinstance(node.args[0], (list, tuple)) else [node.args[0]]
            return [_held(c, value) for value in found]
    return []


def _held(c: Operators, value: Any) -> Any:
    """What a node has become, or the literal itself."""
    return c.handles[value] if isinstance(value, torch.fx.Node) else value


def _fill(c: Operators, node: Any, body: Any, block: Block, operands: Sequence[Any]) -> list[Any]:
    """Convert a body into a block; returns what it yields."""
    with c.inside(block):
        results = _body(c, body, operands)
    for position, operand in enumerate(operands):
        if isinstance(operand, Handle) and operand.storage.written:
            raise error(
                "FORGE-C005",
                f"the body of a branch or loop writes {_name(c, node, position)}, which is not its own",
                location=place_of(node),
                help="yield the new value from every branch (a loop carries it) and write it after that, with copy_",
            )
    return results


def _name(c: Operators, node: Any, position: int) -> str:
    """An operand of an operator that has bodies, by the name that the model has for it."""
    operands = [operand for part in node.args if isinstance(part, (list, tuple)) for operand in part]
    name = operands[position].name if position < len(operands) else "a tensor"
    targets = {spec.arg.name: spec.target for spec in c.program.graph_signature.input_specs if spec.target}
    return repr(targets.get(name, name))


def _argument(c: Operators, placeholder: Any, given: Any) -> Any:
    """What a placeholder stands for; a number that shapes speak of becomes an extent."""
    value = placeholder.meta.get("val")
    if isinstance(value, torch.SymInt) and isinstance(given, Number):
        try:
            return c.symbols.extent(value)
        except Unknown:
            if c.symbols.is_in_shapes(value):
                return numbers.defined(c, given.value, value)
    return given


def _yielded(c: Operators, held: Any, kind: AnyTensorType, node: Any) -> SSAValue:
    """A result of a body in the type that all bodies of the op yield."""
    if isinstance(held, Handle):
        value = held.value(c.builder.insert)
    else:
        value = numbers.compute(c, held)
        value = numbers.cast(c, value, types.dtype(kind)) if types.rank(kind) == 0 else value
    told = c.symbols.undefined(types.shape(kind))
    if told and types.rank(value) == types.rank(kind):  # the bodies yield different shapes: the run tells which
        defines = [symbol(name) for name in told]
        op = AtenOp.of("aten::alias", [value], [], [kind], defines=defines, location=c.location)
        return c.insert(op)
    if types.shape(value) != types.shape(kind) or types.dtype(value) != types.dtype(kind):
        raise error("FORGE-C003", "the bodies of a branch or loop yield different shapes", location=place_of(node))
    if value.type == kind:
        return value
    return c.insert(CopyOp.create(operands=[value], result_types=[kind], location=c.location))


def _kind(c: Operators, value: Any) -> AnyTensorType:
    """The type that a value has between bodies: row-major."""
    if isinstance(value, torch.Tensor):
        kind = c.type_of(value)
        return types.tensor(types.dtype(kind), types.shape(kind))
    return types.tensor(numbers.KINDS[type(value)], ())


def _results(c: Operators, node: Any, values: Sequence[SSAValue]) -> list[Any]:
    """The handles of an op's results; integers that shapes speak of become extents."""
    found: list[Any] = []
    c.symbols.known.update(c.symbols.undefined(e for v in values for e in types.shape(v)))
    for value, meta in zip(values, node.meta["val"], strict=True):
        if isinstance(meta, torch.Tensor):
            found.append(fresh(value))
        else:
            found.append(numbers.result(c, value, meta))
    c.name_results(node, values)
    return found


# Operators
# ---------------------------------------------------------------------------------------------------------------------


def _condition(c: Operators, held: Any) -> SSAValue:
    number = numbers.cast(c, numbers.compute(c, held), "i1")
    return c.insert(ItemOp.create(operands=[number], result_types=[i1], location=c.location))


def _cond(c: Operators, node: Any) -> list[Any]:
    predicate, true_body, false_body, operands = node.args
    given = [_given(c, operand) for operand in operands]
    kinds = [_kind(c, value) for value in node.meta["val"]]
    condition = _condition(c, _held(c, predicate))
    regions: list[Region] = []
    for body in (true_body, false_body):
        block = Block()
        results = _fill(c, node, body, block, given)
        with c.inside(block):
            yielded = [_yielded(c, held, kind, node) for held, kind in zip(results, kinds, strict=True)]
            c.builder.insert(scf.YieldOp(*yielded))
        regions.append(Region(block))
    op = scf.IfOp(condition, kinds, regions[0], regions[1])
    op.location = c.location
    c.builder.insert(op)
    return _results(c, node, list(op.results))


def _while_loop(c: Operators, node: Any) -> list[Any]:
    cond_body, body, carried, additional = node.args
    kinds = [_kind(c, value) for value in node.meta["val"]]
    given = [_given(c, operand) for operand in additional]
    initial = [_yielded(c, _given(c, v), kind, node) for v, kind in zip(carried, kinds, strict=True)]
    before, after = Block(arg_types=kinds), Block(arg_types=kinds)
    results = _fill(c, node, cond_body, before, [*_carried(carried, before.args, c), *given])
    with c.inside(before):
        c.builder.insert(scf.ConditionOp(_condition(c, results[0]), *before.args))
    results = _fill(c, node, body, after, [*_carried(carried, after.args, c), *given])
    with c.inside(after):
        c.builder.insert(scf.YieldOp(*(_yielded(c, r, kind, node) for r, kind in zip(results, kinds, strict=True))))
    op = scf.WhileOp(initial, kinds, Region(before), Region(after))
    op.location = c.location
    c.builder.insert(op)
    return _results(c, node, list(op.results))


def _carried(operands: Sequence[Any], values: Sequence[SSAValue], c: Operators) -> list[Any]:
    """Carried values inside a body: tensors, and numbers where the operands are numbers."""

    held = [_held(c, operand) for operand in operands]
    return [fresh(v) if isinstance(h, Handle) else Number(v) for h, v in zip(held, values, strict=True)]


def _scan(c: Operators, node: Any) -> list[Any]:
    combine, initial, elements, additional = node.args
    return _loop(c, node, combine, list(initial), list(elements), list(additional))


def _map(c: Operators, node: Any) -> list[Any]:
    body, elements, additional = node.args
    return _loop(c, node, body, [], list(elements), list(additional))


def _loop(
    c: Operators, node: Any, body: Any, initial: list[Any], elements: list[Any], additional: list[Any]
) -> list[Any]:
    """A counted loop over the first dimension of ``elements``: carries ``initial``, and collects the other results."""
    metas = node.meta["val"]
    kinds = [_kind(c, value) for value in metas]
    carried, stacked = kinds[: len(initial)], kinds[len(initial) :]
    given = [_given(c, operand) for operand in additional]
    sources = [_given(c, operand).value(c.builder.insert) for operand in elements]
    count: Extent = types.shape(sources[0])[0]
    values = [_yielded(c, _given(c, v), kind, node) for v, kind in zip(initial, carried, strict=True)]
    for kind in stacked:
        zero = {"value": ScalarAttr.of(0)}
        values.append(c.insert(FullOp.create(properties=zero, result_types=[kind], location=c.location)))
    bounds = [
        c.insert(ExtentOp.create(properties={"value": ExtentAttr(v)}, result_types=[IndexType()], location=c.location))
        for v in (0, count, 1)
    ]
    block = Block(arg_types=[IndexType(), *kinds])
    counter, *inner = block.args
    with c.inside(block):
        scalar = [types.tensor("i64", ())]
        number = c.insert(FromIndexOp.create(operands=[counter], result_types=scalar, location=c.location))
        place = c.insert(
            ReshapeOp.create(operands=[number], result_types=[types.tensor("i64", (1,))], location=c.location)
        )
        parts = [fresh(_part(c, source, place)) for source in sources]
    results = _fill(c, node, body, block, [*map(fresh, inner[: len(initial)]), *parts, *given])
    with c.inside(block):
        yielded = [_yielded(c, r, k, node) for r, k in zip(results[: len(initial)], carried, strict=True)]
        for held, kind, into in zip(results[len(initial) :], stacked, inner[len(initial) :], strict=True):
            part = _yielded(c, held, types.tensor(types.dtype(kind), types.shape(kind)[1:]), node)
            one = types.tensor(types.dtype(kind), (1, *types.shape(kind)[1:]))
            part = c.insert(ReshapeOp.create(operands=[part], result_types=[one], location=c.location))
            put = IndexCopyOp.make([into, place, part], {"dim": IntAttr(0)}, [kind], c.location)
            yielded.append(c.insert(put))
        c.builder.insert(scf.YieldOp(*yielded))
    lower, upper, step = bounds
    op = scf.ForOp(lower, upper, step, values, block)
    op.location = c.location
    c.builder.insert(op)
    return _results(c, node, list(op.results))


def _part(c: Operators, source: SSAValue, place: SSAValue) -> SSAValue:
    """The slice of a tensor at the loop's counter."""
    chosen = IndexSelectOp.make([source, place], {"dim": IntAttr(0)}, None, c.location)
    c.insert(chosen)
    kind = types.tensor(types.dtype(source), types.shape(source)[1:])
    return c.insert(ReshapeOp.create(operands=[chosen.result], result_types=[kind], location=c.location))


def _called(body: int) -> Callable[[Operators, Any], list[Any]]:
    """A part of the graph that is called in place: the argument number ``body``, and its operands after that."""
    return lambda c, node: _body(c, node.args[body], [_held(c, operand) for operand in node.args[body + 1 :]])


def _named(c: Operators, node: Any) -> list[Any]:
    """A part that torch knows by a name, which follows it."""
    body, _, *operands = node.args
    return _body(c, body, [_held(c, operand) for operand in operands])


def _autocast(c: Operators, node: Any) -> list[Any]:
    """Autocast that is switched off; that which is on, capture has resolved."""
    if node.args[2]:
        raise error("FORGE-C003", "autocast was not resolved before capture", location=place_of(node))
    return _called(4)(c, node)


CONVERTERS: dict[str, Callable[[Operators, Any], list[Any]]] = {
    "cond": _cond,
    "while_loop": _while_loop,
    "scan": _scan,
    "map_impl": _map,
    "invoke_subgraph": _named,
    "tag_activation_checkpoint": _called(0),
    "wrap_with_set_grad_enabled": _called(1),
    "wrap_with_autocast": _autocast,
}


# Asserts
# ---------------------------------------------------------------------------------------------------------------------

_DEFERRED = re.compile(r"Runtime assertion failed for expression (.*) on node '.*'", re.DOTALL)


def check(c: Operators, node: Any) -> None:
    """An assertion of the model, unless the symbols' ranges say that it holds."""
    condition, *rest = node.args
    held = _held(c, condition)
    said = _said(c, condition)
    if (
        held is True
        or said in c.asserted
        or (said is None and (_holds(c, condition) or numbers.is_about_offsets(condition)))
    ):
        return
    message = said.message if said is not None else str(rest[0]) if rest else "a tensor is not true"
    deferred = _DEFERRED.fullmatch(message)
    message = f"{c.symbols.in_words(deferred[1])} is required" if deferred else message
    number = numbers.cast(c, numbers.compute(c, held), "i1")
    c.location = to_attribute(place_of(node) if said is None else said.place)
    properties = {"message": StringAttr(message)}
    c.builder.insert(AssertOp.create(operands=[number], properties=properties, location=c.location))


def _expression(condition: Any) -> Any:
    """Torch's expression for a condition, None where it has none."""
    value = condition.meta.get("val") if isinstance(condition, torch.fx.Node) else None
    return value.node.expr if isinstance(value, torch.SymBool) else None


def _said(c: Operators, condition: Any) -> Check | None:
    """The model's own check of a condition."""
    expression = _expression(condition)
    if expression is None:
        return None
    return next((known for known in c.checks if _normal(known.expression) == _normal(expression)), None)


def _normal(expression: Any) -> Any:
    """A comparison of integers as ``(…, 0)``, for "at most 0"; anything else as it is."""
    relation = getattr(expression, "rel_op", None)
    if relation not in ("<=", "<", ">=", ">"):
        return expression
    left, right = expression.args if relation in ("<=", "<") else reversed(expression.args)
    difference = left - right + (1 if relation in ("<", ">") else 0)
    return difference.expand(), 0


def _holds(c: Operators, condition: Any) -> bool:
    """True if a comparison of extents follows from their ranges, which are checked where they get their values."""
    expression = _expression(condition)
    relation = getattr(expression, "rel_op", None)
    if expression is None or relation is None:
        return False
    try:
        left, right = (c.symbols.extent_of(side) for side in expression.args)
    except Unknown:
        return False
    low, high = c.symbols.bounds_of(left - right)
    match relation:
        case ">=":
            return low is not None and low >= 0
        case ">":
            return low is not None and low > 0
        case "<=":
            return high is not None and high <= 0
        case "<":
            return high is not None and high < 0
        case "==":
            return low == high == 0
        case "!=":
            return (low is not None and low > 0) or (high is not None and high < 0)
    return False
