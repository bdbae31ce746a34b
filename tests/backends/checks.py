"""What must hold for every graph: at each level the same values, no shared bytes, no lost locations."""

from __future__ import annotations

from typing import Any

import torch
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from forgec.ir import plan, types
from forgec.ir.context import context
from forgec.ir.interpreter import interpret
from forgec.ir.locations import is_known
from forgec.ir.plan_interpreter import interpret_plan
from forgec.passes.manager import run_pipeline
from tests.backends.graphs import Graph
from tests.oracle import assert_close, assert_located, lower, program_of, tensor_leaves

PASSES = ("canonicalize", "constant-fold", "cse", "dce", "infer-shapes", "group-query-heads", "@O1", "@O2")


def check_graph(graph: Graph, passes: tuple[str, ...] = PASSES) -> None:
    """All properties, for the graph as it is and after each pass alone."""
    expected = interpret(graph.module, graph.arguments(), graph.params)
    check_lowered(graph, graph.module, expected, "no passes")
    for name in passes:
        module = graph.module.clone()
        run_pipeline(module, name, context=context())
        module.verify()
        assert_located(module, name)
        assert_close(interpret(module, graph.arguments(), graph.params), expected, f"forge after {name}")
        check_lowered(graph, module, expected, name)


def check_lowered(graph: Graph, module: ModuleOp, expected: list[torch.Tensor], what: str) -> None:
    """The plan of a module, in its interpreter and in the runtime."""
    lowered = lower(module)
    assert all(is_known(op) for op in lowered.walk() if isinstance(op, plan.LaunchOp)), what
    assert_no_shared_bytes(lowered)
    inputs = [t.clone() for t in graph.inputs]
    assert_close(interpret_plan(lowered, inputs, graph.params), expected, f"plan after {what}")
    session = program_of(lowered, graph.params).session()
    count = len(expected) - len(session.state_dict())
    for _ in range(2):
        session.reset()
        found = tensor_leaves(session(*inputs))
        assert_close([*found, *session.state_dict().values()], expected, f"runtime after {what}")
    assert count == len(found)
    assert_close(inputs, graph.inputs, f"inputs after {what}")


def assert_no_shared_bytes(module: ModuleOp) -> None:
    """No byte of the arena belongs to two buffers at one time, by the launches that touch them and not by what is
    declared; views stay inside; what is declared covers what is touched.
    """
    for entry in module.ops:
        if isinstance(entry, plan.EntryOp):
            touched = _touched(entry)
            buffers = [op for op in entry.body.block.ops if isinstance(op, plan.BufferOp)]
            for position, op in enumerate(buffers):
                first, last = touched[op.result]
                assert op.live is not None
                assert op.live.data[0] <= first <= last < op.live.data[1], f"{op} is touched in [{first}, {last}]"
                for other in buffers[:position]:
                    assert not _clash(op, touched[op.result], other, touched[other.result]), f"{op} and {other}"
            for op in entry.body.block.ops:
                if isinstance(op, plan.ViewOp):
                    _check_inside(op)


def _touched(entry: plan.EntryOp) -> dict[SSAValue, tuple[int, int]]:
    """For each register the first and the last launch that uses it or a view of it."""
    found: dict[SSAValue, tuple[int, int]] = {}
    for number, launch in enumerate(entry.launches):
        for operand in (*launch.operands, *launch.results):
            owner = operand.owner
            base = owner.base if isinstance(owner, plan.ViewOp) else operand
            found[base] = (found.get(base, (number, number))[0], number)
    return found


def _clash(op: plan.BufferOp, live: tuple[int, int], other: plan.BufferOp, lived: tuple[int, int]) -> bool:
    (start, end), (begin, stop) = _bytes(op), _bytes(other)
    return start < stop and begin < end and live[0] <= lived[1] and lived[0] <= live[1]


def _bytes(op: plan.BufferOp) -> tuple[int, int]:
    assert op.offset is not None
    start, size = op.offset.data, op.nbytes.data
    assert isinstance(start, int)
    assert isinstance(size, int)
    assert start % 64 == 0
    assert size >= _span(op.result)
    return start, start + size


def _span(value: SSAValue) -> int:
    """Bytes from the first to the last element, computed by enumerating."""
    shape: Any = types.shape(value)
    strides: Any = types.strides(value)
    if 0 in shape:
        return 0
    return (sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1) * types.ITEM_BYTES[types.dtype(value)]


def _check_inside(view: plan.ViewOp) -> None:
    offset = view.offset.data
    assert isinstance(offset, int)
    end = offset * types.ITEM_BYTES[types.dtype(view.result)] + _span(view.result)
    capacity = view.base.owner.nbytes.data if isinstance(view.base.owner, plan.BufferOp) else _span(view.base)
    assert offset >= 0
    assert not _span(view.result) or end <= capacity, f"{view} ends at byte {end} of {capacity}"
