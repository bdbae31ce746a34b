"""The reference interpreter: executes forge modules on CPU tensors, op by op, in the simplest way that can be right.

It is the oracle of the compiler: a pass is correct when the interpreter gives the same results before and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xdsl.dialects import arith, builtin, scf
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.traits import SymbolTable

from forgec.diagnostics import ForgeError, Location, error
from forgec.ir import types
from forgec.ir.attributes import StateType
from forgec.ir.evaluator import Evaluator
from forgec.ir.extents import bind
from forgec.ir.locations import location_of
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.control import ControlOp, ItemOp
from forgec.ir.ops.module import ConstraintOp, StateReadOp, StateWriteOp, SymbolOp, YieldOp
from forgec.ir.params import ParamValues
from forgec.runtime.plan import PREDICATE_SIGNS

Observer = Callable[[Operation, Sequence[Any]], None]


def interpret(
    module: ModuleOp,
    inputs: Sequence[Any],
    params: Mapping[str, Any] | None = None,
    *,
    function: str = "forward",
    float64: bool = False,
    symbols: Mapping[str, int] | None = None,
    observe: Observer | None = None,
) -> list[Any]:
    """Run a function of a module on CPU tensors and return its results.

    ``inputs`` has one tensor for each argument, those of state type included; the last version of each state is among
    the results, and no input is written. ``params`` holds the data of ``forge.param`` ops by name. With ``float64`` all
    floating-point inputs, parameters and intermediate values are float64. ``observe(op, results)`` is called after
    every op. ``symbols`` are values of symbols that no tensor's shape tells (numbers among the caller's arguments).

    Raises FORGE-R001 to FORGE-R004 if the inputs do not fit the function's type, FORGE-I003 for an op without a
    reference implementation, and FORGE-R007 if an op fails.
    """
    import torch

    callee = SymbolTable.lookup_symbol(module, function)
    if not isinstance(callee, FuncOp):
        raise error("FORGE-R001", f"the module has no function {function}")
    with torch.no_grad():
        run = Interpretation(module, Evaluator({}, ParamValues(module, params or {}), float64), observe)
        return run.start(callee, [run.ev.widen(tensor.detach()) for tensor in inputs], symbols or {})


class Interpretation:
    """One execution of a module. Symbols mean the same in all its functions, because func.call wants equal types.

    A value is forgotten after its last use. Subclasses may compute with other things than tensors (``execute``), if
    they say what of them decides about control flow (``decision``), and may look at blocks as they begin (``block``).
    """

    def __init__(self, module: ModuleOp, ev: Evaluator, observe: Observer | None = None) -> None:
        self.module = module
        self.ev = ev
        self.observe = observe
        self._dying: dict[Block, dict[Operation, list[SSAValue]]] = {}

    def start(self, function: FuncOp, inputs: Sequence[Any], symbols: Mapping[str, int]) -> list[Any]:
        """Execute the function that the caller named: its arguments say what the symbols are."""
        self.check_inputs(function, inputs, symbols)
        return self.call(function, inputs)

    def check_inputs(self, function: FuncOp, inputs: Sequence[Any], symbols: Mapping[str, int]) -> None:
        """Give the symbols their values; FORGE-R001 to R004 for tensors that do not fit the function's type."""
        arguments = list(function.function_type.inputs.data)
        if len(inputs) != len(arguments):
            raise error("FORGE-R001", f"{function.sym_name.data} takes {len(arguments)} tensors, found {len(inputs)}")
        self.ev.symbols = {**symbols, **self._bind(arguments, inputs)}
        for index, (argument, tensor) in enumerate(zip(arguments, inputs, strict=True)):
            _check(self.ev, held_type(argument), tensor, f"input {index} of {function.sym_name.data}")

    def call(self, function: FuncOp, inputs: Sequence[Any]) -> list[Any]:
        """Execute a function's body."""
        if function.is_declaration:
            raise error("FORGE-I003", f"function {function.sym_name.data} has no body", location=location_of(function))
        return self.block(function.body.block, inputs, {})

    def block(self, block: Block, inputs: Sequence[Any], values: dict[SSAValue, Any]) -> list[Any]:
        """Execute a block and return what its terminator takes; ``values`` are those of the blocks around it."""
        if block not in self._dying:
            self._dying[block] = last_uses(block)
        dying = self._dying[block]
        values.update(zip(block.args, inputs, strict=True))
        for op in block.ops:
            operands = [values[operand] for operand in op.operands]
            if isinstance(op, (ReturnOp, scf.YieldOp, scf.ConditionOp, YieldOp)):
                return operands
            control = op.regions and not isinstance(op, ForgeOp)
            results = self._control(op, operands, values) if control else self.execute(op, operands)
            values.update(zip(op.results, results, strict=True))
            if self.observe is not None:
                self.observe(op, results)
            for value in dying.get(op, ()):
                del values[value]
        raise error("FORGE-I002", "a block has no terminator", location=_place_of(block))

    def decision(self, value: Any) -> Any:
        """What a value that control flow takes says: a condition, a bound of a loop."""
        return value

    def _control(self, op: Operation, operands: list[Any], values: dict[SSAValue, Any]) -> list[Any]:
        """Structured control flow."""
        match op:
            case scf.IfOp():
                taken = op.true_region if self.decision(operands[0]) else op.false_region
                return self.block(taken.block, [], values)
            case scf.WhileOp():
                carried = operands
                while True:
                    go_on, *carried = self.block(op.before_region.block, carried, values)
                    if not self.decision(go_on):
                        return carried
                    carried = self.block(op.after_region.block, carried, values)
            case scf.ForOp():
                lower, upper, step, *carried = operands
                for counter in range(self.decision(lower), self.decision(upper), self.decision(step)):
                    carried = self.block(op.body.block, [counter, *carried], values)
                return carried
        raise error("FORGE-I003", f"{op.name} has no reference implementation", location=location_of(op))

    def _bind(self, arguments: Sequence[Attribute], inputs: Sequence[Any]) -> dict[str, int]:
        shapes = [types.shape(held_type(argument)) for argument in arguments]
        for index, (shape, tensor) in enumerate(zip(shapes, inputs, strict=True)):
            if len(shape) != tensor.dim():
                raise error("FORGE-R003", f"input {index} has rank {tensor.dim()}, {len(shape)} is needed")
        symbols = bind(shapes, [tuple(tensor.shape) for tensor in inputs])
        self._admit(symbols)
        return symbols

    def _admit(self, symbols: Mapping[str, int]) -> None:
        """FORGE-R004 for a value outside its symbol's declared range."""
        for op in self.module.ops:
            value = symbols.get(op.sym_name.data) if isinstance(op, SymbolOp) else None
            if isinstance(op, SymbolOp) and value is not None and not op.admits(value):
                name, label = op.sym_name.data, op.label.data
                raise error("FORGE-R004", f"extent {name} ({label}) is {value}, outside {op.range_text}")
            if isinstance(op, ConstraintOp):
                relation = op.constraint
                if relation.symbols <= symbols.keys() and not relation.holds(symbols):
                    text = f"{relation.left} {PREDICATE_SIGNS[relation.predicate]} {relation.right}"
                    raise error("FORGE-R003", f"the extents do not fulfil {text}", location=location_of(op))

    def execute(self, op: Operation, operands: list[Any]) -> list[Any]:
        """The results of an op without regions of control flow, checked against their types."""
        try:
            results = self._results(op, operands)
        except ForgeError as failure:
            raise failure.at(location_of(op)) from failure
        except Exception as failure:
            text = str(failure).strip().splitlines()
            reason = f"{type(failure).__name__}: {text[0]}" if text else type(failure).__name__
            raise error("FORGE-R007", f"{op.name} failed: {reason}", location=location_of(op)) from failure
        self._define(op, results)
        for result, tensor in zip(op.results, results, strict=True):
            if isinstance(held_type(result.type), TensorType):
                _check(self.ev, held_type(result.type), tensor, f"the result of {op.name}", op)
        return results

    def _define(self, op: Operation, results: Sequence[Any]) -> None:
        """Extents that only the run of an op tells."""
        found: dict[str, int] = {}
        if isinstance(op, ItemOp) and op.symbol is not None:
            found[op.symbol] = results[0]
        elif isinstance(op, AtenOp) and op.defines is not None:
            for result, tensor in zip(op.results, results, strict=True):
                pairs = zip(types.shape(result), tensor.shape, strict=True)
                found.update((str(e), size) for e, size in pairs if e in op.defines.data)
        if found:
            self._admit(found)
            self.ev.symbols = {**self.ev.symbols, **found}

    def _results(self, op: Operation, operands: list[Any]) -> list[Any]:
        match op:
            case ForgeOp() | ControlOp():
                results = op.reference(self.ev, *operands)
                if not op.results:
                    return []
                return list(results) if isinstance(results, (tuple, list)) else [results]
            case arith.ConstantOp(value=builtin.IntegerAttr(value=number)):
                return [number.data]
            case StateReadOp():
                return operands
            case StateWriteOp():
                return operands[1:]
            case CallOp():
                callee = SymbolTable.lookup_symbol(self.module, op.callee)
                if isinstance(callee, FuncOp):
                    return self.call(callee, operands)
        raise error("FORGE-I003", f"{op.name} has no reference implementation", location=location_of(op))


def last_uses(block: Block) -> dict[Operation, list[SSAValue]]:
    """For each op of a block the block's own values that nothing uses after it, what stands in regions included."""
    last: dict[SSAValue, Operation] = {}
    for op in block.ops:
        last.update(dict.fromkeys(op.results, op))
        if op.regions:
            inner = (operand for nested in op.walk() for operand in nested.operands)
            last.update((operand, op) for operand in inner if operand.owner is block or operand in last)
        else:
            last.update(dict.fromkeys(op.operands, op))
    ending = block.last_op
    dying: dict[Operation, list[SSAValue]] = {}
    for value, op in last.items():
        owner = value.owner
        if op is not ending and (owner is block or (isinstance(owner, Operation) and owner.parent is block)):
            dying.setdefault(op, []).append(value)
    return dying


def _place_of(block: Block) -> Location | None:
    parent = block.parent_op()
    return None if parent is None else location_of(parent)


def held_type(attribute: Attribute) -> Attribute:
    """A tensor type, or the type of what a state holds."""
    return attribute.value if isinstance(attribute, StateType) else attribute


def _check(ev: Evaluator, expected: Attribute, tensor: Any, what: str, op: Operation | None = None) -> None:
    """Raises FORGE-R002 or FORGE-R003 (FORGE-X001 for an op's result) unless a tensor has the dtype and shape of its
    type.
    """
    place = None if op is None else location_of(op)
    if tensor.dtype != ev.dtype(expected):
        code = "FORGE-R002" if op is None else "FORGE-X001"
        raise error(code, f"{what} has dtype {tensor.dtype}, the IR says {types.dtype(expected)}", location=place)
    if tuple(tensor.shape) != ev.shape(expected):
        code = "FORGE-R003" if op is None else "FORGE-X001"
        shape = list(ev.shape(expected))
        raise error(code, f"{what} has shape {list(tensor.shape)}, the IR says {shape}", location=place)
