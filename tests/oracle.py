"""A model at every level: eager, the forge interpreter, the plan interpreter (fresh memory is NaN) and the runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils import _pytree as pytree
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation

from forgec.backends.base import backend_for
from forgec.capture.capture import Captured, export_model, import_program
from forgec.ir import plan
from forgec.ir.attributes import StateType
from forgec.ir.context import context
from forgec.ir.entry import argument_info
from forgec.ir.interpreter import interpret
from forgec.ir.literals import to_tensor
from forgec.ir.locations import is_known
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.module import ParamRefOp, StateReadOp, StateWriteOp
from forgec.ir.params import ParamValues
from forgec.ir.plan_export import export_plan
from forgec.ir.plan_interpreter import interpret_plan
from forgec.passes.lowering import plan_passes, tile_passes
from forgec.passes.manager import run_pipeline
from forgec.report.build import referenced
from forgec.runtime.processor import best
from forgec.runtime.program import LiveWeights, Program


class Forms:
    """One captured model; ``args`` and ``kwargs`` are its example inputs."""

    def __init__(
        self, model: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, dynamic_shapes: Any = None
    ) -> None:
        self.args, self.kwargs = tuple(args), dict(kwargs or {})
        program = export_model(model, self.args, self.kwargs, dynamic_shapes)
        self.captured: Captured = import_program(program, model, self.args, self.kwargs, dynamic_shapes)
        self.captured.module.verify()

    @cached_property
    def function(self) -> FuncOp:
        """The captured function."""
        return next(op for op in self.captured.module.ops if isinstance(op, FuncOp))

    def optimized(self, pipeline: str) -> ModuleOp:
        """A fresh forge module after a pipeline, verified."""
        module = self.captured.module.clone()
        run_pipeline(module, pipeline, context=context())
        module.verify()
        return module

    def forge_results(self, module: ModuleOp, *inputs: Any, float64: bool = False) -> list[torch.Tensor]:
        """The forge interpreter's leaves, then the last version of each state."""
        given = iter(tensor_leaves((inputs or self.args, self.kwargs)))
        function = next(op for op in module.ops if isinstance(op, FuncOp))
        arguments: list[torch.Tensor] = []
        for position, argument in enumerate(function.body.block.args):
            info = argument_info(function, position)
            held = isinstance(argument.type, StateType) and not info.inout
            arguments.append(self.captured.tensors[info.name] if held else next(given))
        results = interpret(module, arguments, self.captured.tensors, float64=float64)
        return in_caller_order(function, results)

    def plan_results(self, lowered: ModuleOp, *inputs: Any, float64: bool = False) -> list[torch.Tensor]:
        """The plan interpreter's leaves, then the last version of each state."""
        given = tensor_leaves((inputs or self.args, self.kwargs))
        return interpret_plan(lowered, given, self.captured.tensors, float64=float64)

    def program(self, lowered: ModuleOp, target: str = "cpu:aten") -> Program:
        """A lowered module in the runtime."""
        return program_of(lowered, self.captured.tensors, target)


def lower(module: ModuleOp, target: str = "cpu:aten") -> ModuleOp:
    """The plan of a forge module for a target, verified; the forge module stays."""
    lowered = module.clone()
    run_pipeline(lowered, tile_passes(target), context=context())
    tiled = lowered.clone()
    run_pipeline(lowered, plan_passes(target), context=context())
    lowered.verify()
    _TILED[lowered] = tiled
    return lowered


_TILED: WeakKeyDictionary[ModuleOp, ModuleOp] = WeakKeyDictionary()
"""Of the plans that ``lower`` has made, what they were made of: it says how weights are computed."""


def program_of(lowered: ModuleOp, tensors: Mapping[str, torch.Tensor], target: str = "cpu:aten") -> Program:
    """A lowered module in the runtime, with these weights and initial states; for a target with the machine code of its
    kernels.
    """
    exported = export_plan(lowered)
    known = {**tensors, **{name: to_tensor(value) for name, value in exported.constants.items()}}
    values = ParamValues(_TILED[lowered], known)
    weights = LiveWeights({name: values[name] for name in referenced(exported.plan)})
    return Program(exported.plan, weights, kernels=best(backend_for(target).native(lowered, target)))


def in_caller_order(function: FuncOp, results: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Results of a function whose contract may return a tensor twice, in other order, or not at all."""
    from forgec.ir.entry import EntryInfo
    from forgec.runtime.plan import Reg

    states = sum(isinstance(argument.type, StateType) for argument in function.body.block.args)
    count = len(results) - states
    leaves = EntryInfo.of(function).leaves(count)
    return [results[leaf.id] for leaf in leaves if isinstance(leaf, Reg)] + list(results[count:])


def tensor_leaves(value: Any) -> list[torch.Tensor]:
    """The tensors of a structure, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def clones(value: Any) -> Any:
    """The structure with every tensor cloned, strides included."""
    return pytree.tree_map(lambda x: x.detach().clone() if isinstance(x, torch.Tensor) else x, value)


def assert_equal(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], what: str = "") -> None:
    """The same dtypes, shapes and bits (any NaN equals any NaN)."""
    assert len(found) == len(expected), f"{what}: {len(found)} tensors, {len(expected)} expected"
    for position, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{what}, tensor {position}: {a.dtype}{list(a.shape)}, {b}"
        same = (a == b) | ((a != a) & (b != b))
        assert bool(same.all()), f"{what}, tensor {position}:\n{a}\nexpected\n{b}"


def assert_close(
    found: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    what: str = "",
    rtol: float = 1e-5,
    atol: float = 1e-6,
) -> None:
    """The same dtypes and shapes, values within tolerances (NaNs in the same places)."""
    assert len(found) == len(expected), f"{what}: {len(found)} tensors, {len(expected)} expected"
    for position, (a, b) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(
            a, b, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text, at=position: f"{what}, tensor {at}: {text}"
        )


def computations(module: ModuleOp) -> Iterator[Operation]:
    """The ops that must say where they come from: all of forge's but reads that no line uses, and all launches."""
    for op in module.walk():
        if isinstance(op, (ParamRefOp, StateReadOp)):
            if any(not isinstance(use.operation, ReturnOp) for use in op.results[0].uses):
                yield op
        elif isinstance(op, (ForgeOp, StateWriteOp, plan.LaunchOp)):
            yield op


def assert_located(module: ModuleOp, what: str = "") -> None:
    """Every op has a known location."""
    lost = [op for op in computations(module) if not is_known(op)]
    assert not lost, f"{what}: {len(lost)} ops without location, first {lost[0]}"
