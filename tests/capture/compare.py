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
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.module import ParamOp
from forgec.runtime.overlap import share_elements
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
    sharing: bool = True,
) -> Forms:
    """Assert that a model (``make`` builds a fresh one) gives what eager gives, at every level and for each pipeline.

    Every call gets inputs as they were given. Compared are the results, the inputs after the call, and the model's
    tensors after the call; the runtime's results bit by bit if ``exactly``. Results must share memory with inputs and
    with one another where eager's do (at most there if not ``sharing``), and lie as eager's do.
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
        for number, (results, inputs, held, layout) in enumerate(expected):
            what = f"runtime {pipeline!r}, call {number}"
            given = clones((tuple(args), kwargs))
            returned = tensor_leaves(session(*given[0], **given[1]))
            _compare_layouts(layout_of(returned, tensor_leaves(given), ()), layout, sharing, what)
            found = [t.clone() for t in returned]
            compare(found, results, what)
            compare(tensor_leaves(given), inputs, f"{what}, inputs")
            for name, state in session.state_dict().items():
                compare([state], [held[name]], f"{what}, state {name}")
    return forms


Layout = tuple[set[tuple[str, int, int]], list[tuple[int, ...] | None]]
"""Which results share elements with which input or other result; the strides of the results (of extents that matter),
None for those in the model's own memory."""
Expected = tuple[list[torch.Tensor], list[torch.Tensor], dict[str, torch.Tensor], Layout]


def eager_calls(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], calls: int) -> list[Expected]:
    """For each call: results, inputs after it, the model's tensors (parameters too) after it, how the results lie."""
    found = []
    for _ in range(calls):
        given = clones((tuple(args), dict(kwargs)))
        with torch.no_grad():
            returned = tensor_leaves(model(*given[0], **given[1]))
        results = [t.clone() for t in returned]
        held: dict[str, torch.Tensor] = {}
        if isinstance(model, torch.nn.Module):
            held = {**held_tensors(model), **dict(model.named_parameters())}
        layout = layout_of(returned, tensor_leaves(given), tuple(held.values()))
        found.append((results, tensor_leaves(given), clones(held), layout))
    return found


def layout_of(results: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor], held: Sequence[torch.Tensor]) -> Layout:
    """Results that are in the memory of the model's own tensors count as separate: the runtime returns copies."""
    own = [not any(share_elements(result, tensor) for tensor in held) for result in results]
    pairs: set[tuple[str, int, int]] = set()
    for i, result in enumerate(results):
        others = [("input", j, t) for j, t in enumerate(inputs)]
        others += [("result", j, t) for j, t in enumerate(results[:i]) if own[j]]
        pairs |= {(what, i, j) for what, j, tensor in others if own[i] and share_elements(result, tensor)}
    lying = [tuple(s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1 and t.numel()) for t in results]
    return pairs, [strides if free else None for strides, free in zip(lying, own, strict=True)]


def _compare_layouts(found: Layout, expected: Layout, sharing: bool, what: str) -> None:
    free = [strides is not None for strides in expected[1]]
    pairs = {(kind, i, j) for kind, i, j in found[0] if free[i] and (kind == "input" or free[j])}
    if sharing:
        assert pairs == expected[0], f"{what}: results share memory {pairs}, expected {expected[0]}"
        strides = [found[1][i] if known is not None else None for i, known in enumerate(expected[1])]
        assert strides == expected[1], f"{what}: the results' strides are {strides}, expected {expected[1]}"
    assert pairs <= expected[0], f"{what}: results share memory {pairs}, expected at most {expected[0]}"


def _compare_interpreters(forms: Forms, module: ModuleOp, lowered: ModuleOp, expected: Expected) -> None:
    """The interpreters of forge and of the plan run one call; their last results are the new states."""
    results, inputs, held, _ = expected
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
