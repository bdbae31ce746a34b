"""What a module computes, whichever level it is at, and steps of compilation that should not change it."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass

from forgec.backends.base import backend_for
from forgec.diagnostics import ForgeError
from forgec.ir import plan
from forgec.ir.attributes import StateType
from forgec.ir.context import context as forge_context
from forgec.ir.entry import EntryInfo, argument_info
from forgec.ir.interpreter import interpret
from forgec.ir.literals import to_tensor
from forgec.ir.params import ParamValues
from forgec.ir.plan_export import export_plan
from forgec.ir.plan_interpreter import interpret_plan
from forgec.passes.lower_to_plan import LowerToPlan
from forgec.passes.lowering import plan_passes, tile_passes
from forgec.passes.pipelines import text_of
from forgec.report.build import referenced
from forgec.runtime.plan import Reg
from forgec.runtime.processor import best
from forgec.runtime.program import LiveWeights, Program
from forgec.verify.calls import entry_function
from forgec.verify.tolerance import Deviation, Tolerance, deviation


@dataclass(frozen=True)
class Data:
    """What a function is run on: a tensor for each of its arguments, weights, values of symbols."""

    inputs: Sequence[Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    symbols: Mapping[str, int] = field(default_factory=dict)

    def of(self, module: ModuleOp) -> Data:
        """The same with the weights that a module computes from others, which a plan made of it reads."""
        return Data(self.inputs, ParamValues(module, self.params), self.symbols)


def evaluate(module: ModuleOp, data: Data, name: str, *, float64: bool = False, shape: FuncOp | None = None) -> list:
    """The tensors that an entry returns, in the caller's order, then the last version of each state.

    ``module`` is forge IR or a plan; for a plan ``shape`` is the function that it was made of, which says which of the
    inputs are states of a session.
    """
    options: dict[str, Any] = {"float64": float64, "symbols": data.symbols}
    entry = next((op for op in module.ops if isinstance(op, plan.EntryOp) and op.sym_name.data == name), None)
    if entry is None:
        results = interpret(module, data.inputs, data.params, function=name, **options)
        return in_caller_order(entry_function(module, name), results)
    inputs, params = list(data.inputs), data.params
    if shape is not None:
        session = [_is_session_state(shape, position) for position in range(len(inputs))]
        held = {argument_info(shape, p).name: inputs[p] for p, is_held in enumerate(session) if is_held}
        inputs = [tensor for tensor, is_held in zip(inputs, session, strict=True) if not is_held]
        params = ChainMap(held, params)  # type: ignore[arg-type] - only read
    return interpret_plan(module, inputs, params, entry=name, **options)


def target_of(passes: Sequence[ModulePass], default: str = "cpu:aten") -> str:
    """The target that a pipeline makes a plan for."""
    return next((pass_.target for pass_ in reversed(passes) if isinstance(pass_, LowerToPlan)), default)


def execute(module: ModuleOp, data: Data, name: str, target: str = "cpu:aten") -> list[Any]:
    """As ``evaluate``, by the runtime, for a plan whose states are all the caller's."""
    exported = export_plan(module)
    constants = {key: to_tensor(value) for key, value in exported.constants.items()}
    weights: dict[str, Any] = {key: constants.get(key, data.params.get(key)) for key in referenced(exported.plan)}
    program = Program(exported.plan, LiveWeights(weights), kernels=best(backend_for(target).native(module, target)))
    arguments = [tensor.clone() for tensor in data.inputs]
    result = program(*arguments)
    found = list(result) if isinstance(result, (tuple, list)) else [result]
    entry = next(op for op in module.ops if isinstance(op, plan.EntryOp) and op.sym_name.data == name)
    written = sorted(op.index.data for op in entry.body.block.ops if isinstance(op, plan.InputOp) and op.inout)
    return [value for value in found if hasattr(value, "dtype")] + [arguments[index] for index in written]


@dataclass(frozen=True)
class Step:
    """Passes that should keep what a module computes. ``at_run_time``: not the passes, but the runtime after them."""

    name: str
    passes: tuple[ModulePass, ...]
    at_run_time: bool = False
    context: Context = field(default_factory=forge_context)

    @staticmethod
    def lowering(target: str) -> tuple[ModulePass, ...]:
        """The passes from forge to a plan."""
        return (*tile_passes(target), *plan_passes(target))

    @property
    def pipeline(self) -> str:
        """The text of the passes."""
        return text_of(self.passes)

    def before(self, module: ModuleOp, data: Data, name: str, *, float64: bool) -> list[Any]:
        """What should be computed."""
        data, shape = data.of(module), entry_function(module, name)
        before = self._applied(module) if self.at_run_time else module
        return evaluate(before, data, name, float64=float64, shape=shape)

    def after(self, module: ModuleOp, data: Data, name: str, *, float64: bool) -> list[Any]:
        """What is computed."""
        return self.computed(module, self._applied(module), data, name, float64=float64)

    def computed(self, module: ModuleOp, applied: ModuleOp, data: Data, name: str, *, float64: bool) -> list[Any]:
        """What is computed, where ``applied`` is what the passes make of ``module``."""
        data, shape = data.of(module), entry_function(module, name)
        if self.at_run_time:
            return execute(applied, data, name, target_of(self.passes))
        return evaluate(applied, data, name, float64=float64, shape=shape)

    def made_of(self, module: ModuleOp) -> ModuleOp | None:
        """What the passes make of a module; None if they leave it as it is, so that nothing has to be computed."""
        applied = self._applied(module)
        return applied if self.at_run_time or not applied.is_structurally_equivalent(module) else None

    def _applied(self, module: ModuleOp) -> ModuleOp:
        copy = module.clone()
        for pass_ in self.passes:
            pass_.apply(self.context, copy)
        return copy


def differences(
    expected: Sequence[Any], found: Sequence[Any], tolerance: Tolerance | Sequence[Tolerance]
) -> dict[int, Deviation]:
    """The tensors that differ, by their positions. The tolerance is one for all, or one for each."""
    if len(expected) != len(found):
        return {0: Deviation(problem=f"{len(expected)} results became {len(found)}")}
    each = [tolerance] * len(expected) if isinstance(tolerance, Tolerance) else tolerance
    triples = enumerate(zip(expected, found, each, strict=True))
    compared = {index: deviation(old, new, allowed) for index, (old, new, allowed) in triples}
    return {index: error for index, error in compared.items() if not error.agrees}


def failure_text(failure: Exception) -> str:
    """One line on why something cannot be computed."""
    if isinstance(failure, ForgeError):
        return f"{failure.code}: {failure.diagnostics[0].message}"
    return f"{type(failure).__name__}: {next(iter(str(failure).splitlines()), '')}"


def _is_session_state(function: FuncOp, position: int) -> bool:
    argument = function.body.block.args[position]
    return isinstance(argument.type, StateType) and not argument_info(function, position).inout


def in_caller_order(function: FuncOp, results: Sequence[Any]) -> list[Any]:
    """Results of a function as the contract of its entry returns them, then the last version of each state."""
    states = sum(isinstance(argument.type, StateType) for argument in function.body.block.args)
    count = len(results) - states
    leaves = EntryInfo.of(function).leaves(count)
    numbers = [leaf[0] if isinstance(leaf, tuple) and leaf else leaf for leaf in leaves]
    return [results[leaf.id] for leaf in numbers if isinstance(leaf, Reg)] + list(results[count:])
