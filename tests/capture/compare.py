"""A model against eager PyTorch at every level: results, mutated inputs and state, over several calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from forgec.capture.attributes import held_tensors
from forgec.ir.attributes import StateType
from forgec.ir.entry import ArgumentInfo, argument_info
from forgec.ir.ops.module import AtenOp, ParamOp
from tests.oracle import Forms, assert_close, assert_equal, assert_located, clones, lower, tensor_leaves

Assertion = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], str], None]


def agree(
    make: Callable[[], Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    calls: int = 2,
    pipelines: Sequence[str] = ("", "@O2"),
    exactly: bool = True,
) -> Forms:
    """Assert that a model (``make`` builds a fresh one) gives what eager gives, at every level and for each pipeline.

    Every call gets inputs as they were given. Compared are the results, the inputs after the call, and the model's
    tensors after the call; the runtime's results bit by bit if ``exactly``.
    """
    kwargs = dict(kwargs or {})
    expected = eager_calls(make(), args, kwargs, calls)
    forms = Forms(make(), clones(tuple(args)), clones(kwargs))
    compare: Assertion = assert_equal if exactly else assert_close
    for pipeline in pipelines:
        module = forms.optimized(pipeline)
        lowered = lower(module)
        assert_located(module, f"forge {pipeline!r}")
        assert_located(lowered, f"plan {pipeline!r}")
        _compare_interpreters(forms, module, lowered, expected[0])
        session = forms.program(lowered).session()
        for number, (results, inputs, held) in enumerate(expected):
            what = f"runtime {pipeline!r}, call {number}"
            given = clones((tuple(args), kwargs))
            found = [t.clone() for t in tensor_leaves(session(*given[0], **given[1]))]
            compare(found, results, what)
            compare(tensor_leaves(given), inputs, f"{what}, inputs")
            for name, state in session.state_dict().items():
                compare([state], [held[name]], f"{what}, state {name}")
    return forms


Expected = tuple[list[torch.Tensor], list[torch.Tensor], dict[str, torch.Tensor]]


def eager_calls(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], calls: int) -> list[Expected]:
    """For each call: results, inputs after it, and the model's tensors (parameters too) after it."""
    found = []
    for _ in range(calls):
        given = clones((tuple(args), dict(kwargs)))
        with torch.no_grad():
            results = [t.clone() for t in tensor_leaves(model(*given[0], **given[1]))]
        held: dict[str, torch.Tensor] = {}
        if isinstance(model, torch.nn.Module):
            held = {**held_tensors(model), **dict(model.named_parameters())}
        found.append((results, tensor_leaves(given), clones(held)))
    return found


def _compare_interpreters(forms: Forms, module: ModuleOp, lowered: ModuleOp, expected: Expected) -> None:
    """The interpreters of forge and of the plan run one call; their last results are the new states."""
    results, inputs, held = expected
    names = iter(input_names(module))
    by_name = dict(zip(names, inputs, strict=True))
    after = [by_name[info.name] if info.inout else held[info.name] for info in states_of(module)]
    given = clones(forms.args)
    assert_close(forms.forge_results(module, *given), [*results, *after], "forge interpreter")
    assert_close(forms.plan_results(lowered, *given), [*results, *after], "plan interpreter")


def function_of(module: ModuleOp) -> FuncOp:
    """The module's function."""
    return next(op for op in module.ops if isinstance(op, FuncOp))


def argument_infos(module: ModuleOp) -> list[tuple[ArgumentInfo, bool]]:
    """For each argument of the function, what is said about it, and whether it is state."""
    function = function_of(module)
    return [
        (argument_info(function, position), isinstance(argument.type, StateType))
        for position, argument in enumerate(function.body.block.args)
    ]


def states_of(module: ModuleOp) -> list[ArgumentInfo]:
    """The arguments of the function that are state, those that are the caller's tensors included."""
    return [info for info, is_state in argument_infos(module) if is_state]


def input_names(module: ModuleOp) -> list[str]:
    """Names of the arguments that the caller passes."""
    return [info.name for info, is_state in argument_infos(module) if info.inout or not is_state]


def param_names(module: ModuleOp) -> list[str]:
    """Names of the parameters."""
    return [op.sym_name.data for op in module.ops if isinstance(op, ParamOp)]


def op_names(module: ModuleOp) -> list[str]:
    """Names of the ops in the function, ATen operators by theirs."""
    return [_name(op) for op in function_of(module).body.block.ops]


def _name(op: Operation) -> str:
    return op.callee.data if isinstance(op, AtenOp) else op.name
