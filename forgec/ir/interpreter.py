"""The reference interpreter: executes forge modules on CPU tensors, op by op, in the simplest way that can be right.

It is the oracle of the compiler: a pass is correct when the interpreter gives the same results before and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.traits import SymbolTable

from forgec.diagnostics import ForgeError, error
from forgec.ir import types
from forgec.ir.attributes import StateType
from forgec.ir.evaluator import Evaluator
from forgec.ir.extents import bind
from forgec.ir.locations import location_of
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.module import StateReadOp, StateWriteOp, SymbolOp

Observer = Callable[[Operation, Sequence[Any]], None]


def interpret(
    module: ModuleOp,
    inputs: Sequence[Any],
    params: Mapping[str, Any] | None = None,
    *,
    function: str = "forward",
    float64: bool = False,
    observe: Observer | None = None,
) -> list[Any]:
    """Run a function of a module on CPU tensors and return its results.

    ``inputs`` has one tensor for each argument, those of state type included; the last version of each state is among
    the results, and no input is written. ``params`` holds the data of ``forge.param`` ops by name. With ``float64`` all
    floating-point inputs, parameters and intermediate values are float64. ``observe(op, results)`` is called after
    every op.

    Raises FORGE-R001 to FORGE-R004 if the inputs do not fit the function's type, FORGE-I003 for an op without a
    reference implementation, and FORGE-R007 if an op fails.
    """
    import torch

    callee = SymbolTable.lookup_symbol(module, function)
    if not isinstance(callee, FuncOp):
        raise error("FORGE-R001", f"the module has no function {function}")
    with torch.no_grad():
        run = _Run(module, params or {}, float64, observe)
        return run.call(callee, [run.evaluator({}).widen(tensor.detach()) for tensor in inputs], {})


class _Run:
    """One execution of a module."""

    def __init__(self, module: ModuleOp, params: Mapping[str, Any], float64: bool, observe: Observer | None) -> None:
        self.module = module
        self.params = params
        self.float64 = float64
        self.observe = observe
        self.ranges = {op.sym_name.data: op for op in module.ops if isinstance(op, SymbolOp)}

    def evaluator(self, symbols: Mapping[str, int]) -> Evaluator:
        return Evaluator(symbols, self.params, self.float64)

    def call(self, function: FuncOp, inputs: Sequence[Any], outer: Mapping[str, int]) -> list[Any]:
        """Execute a function's body; ``outer`` are the caller's symbols, which the arguments' extents may bind anew."""
        if function.is_declaration:
            raise error("FORGE-I003", f"function {function.sym_name.data} has no body", location=location_of(function))
        block = function.body.block
        if len(inputs) != len(block.args):
            raise error("FORGE-R001", f"{function.sym_name.data} takes {len(block.args)} tensors, found {len(inputs)}")
        ev = self.evaluator({**outer, **self._bind(function, inputs)})
        for index, (argument, tensor) in enumerate(zip(block.args, inputs, strict=True)):
            _check(ev, held_type(argument), tensor, f"input {index} of {function.sym_name.data}")
        values: dict[SSAValue, Any] = dict(zip(block.args, inputs, strict=True))
        for op in block.ops:
            operands = [values[operand] for operand in op.operands]
            if isinstance(op, ReturnOp):
                return operands
            results = self._execute(ev, op, operands)
            values.update(zip(op.results, results, strict=True))
            if self.observe is not None:
                self.observe(op, results)
        raise error("FORGE-I002", f"{function.sym_name.data} does not return", location=location_of(function))

    def _bind(self, function: FuncOp, inputs: Sequence[Any]) -> dict[str, int]:
        shapes = [types.shape(held_type(argument)) for argument in function.body.block.args]
        for index, (shape, tensor) in enumerate(zip(shapes, inputs, strict=True)):
            if len(shape) != tensor.dim():
                raise error("FORGE-R003", f"input {index} has rank {tensor.dim()}, {len(shape)} is needed")
        symbols = bind(shapes, [tuple(tensor.shape) for tensor in inputs])
        for name, value in symbols.items():
            declared = self.ranges.get(name)
            if declared is not None and not declared.admits(value):
                raise error(
                    "FORGE-R004", f"extent {name} ({declared.label.data}) is {value}, outside {declared.range_text}"
                )
        return symbols

    def _execute(self, ev: Evaluator, op: Operation, operands: list[Any]) -> list[Any]:
        try:
            results = self._results(ev, op, operands)
        except ForgeError as failure:
            raise _located(failure, op) from failure
        except Exception as failure:
            text = str(failure).strip().splitlines()
            reason = f"{type(failure).__name__}: {text[0]}" if text else type(failure).__name__
            raise error("FORGE-R007", f"{op.name} failed: {reason}", location=location_of(op)) from failure
        for result, tensor in zip(op.results, results, strict=True):
            _check(ev, held_type(result), tensor, f"the result of {op.name}", op)
        return results

    def _results(self, ev: Evaluator, op: Operation, operands: list[Any]) -> list[Any]:
        match op:
            case ForgeOp():
                results = op.reference(ev, *operands)
                return list(results) if isinstance(results, (tuple, list)) else [results]
            case StateReadOp():
                return operands
            case StateWriteOp():
                return operands[1:]
            case CallOp():
                callee = SymbolTable.lookup_symbol(self.module, op.callee)
                if isinstance(callee, FuncOp):
                    return self.call(callee, operands, ev.symbols)
        raise error("FORGE-I003", f"{op.name} has no reference implementation", location=location_of(op))


def held_type(value: SSAValue) -> Attribute:
    """The tensor type of a value, or of what a state holds."""
    return value.type.value if isinstance(value.type, StateType) else value.type


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


def _located(failure: ForgeError, op: Operation) -> ForgeError:
    from dataclasses import replace

    place = location_of(op)
    return ForgeError([d if d.location is not None else replace(d, location=place) for d in failure.diagnostics])
