"""Random graphs: every level gives the same values, live buffers share no bytes, passes keep values and locations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forgec.ir import plan
from forgec.ir.attributes import ExtentAttr, IntsAttr
from forgec.ir.interpreter import interpret
from forgec.ir.plan_interpreter import interpret_plan
from tests.backends.checks import assert_no_shared_bytes, check_graph
from tests.backends.graphs import Graph, GraphAuthor
from tests.chooser import Drawn, Seeded
from tests.ir.build import parse
from tests.oracle import assert_close, lower


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_graphs(data: st.DataObject) -> None:
    check_graph(GraphAuthor(Drawn(data)).draw(12), passes=("@O2",))


@pytest.mark.parametrize("seed", range(40))
def test_larger_graphs_and_every_pass(seed: int) -> None:
    check_graph(GraphAuthor(Seeded(seed)).draw(30))


# The checks themselves must find what is wrong.


CHAIN = """
func.func @forward(%x: tensor<8xf64>) -> tensor<8xf64> {
  %0 = forge.neg %x : (tensor<8xf64>) -> tensor<8xf64>
  %1 = forge.exp %0 : (tensor<8xf64>) -> tensor<8xf64>
  %2 = forge.mul %0, %1 : (tensor<8xf64>, tensor<8xf64>) -> tensor<8xf64>
  %3 = forge.cos %2 : (tensor<8xf64>) -> tensor<8xf64>
  func.return %3 : tensor<8xf64>
}
"""


def chain() -> tuple[Graph, Any, list[plan.BufferOp]]:
    graph = Graph(parse(CHAIN), [torch.linspace(-1, 1, 8, dtype=torch.float64)], {})
    lowered = lower(graph.module)
    return graph, lowered, [op for op in lowered.walk() if isinstance(op, plan.BufferOp)]


def test_shared_bytes_are_found_and_give_a_wrong_result() -> None:
    graph, lowered, (first, second, *_) = chain()
    assert_no_shared_bytes(lowered)
    expected = interpret(graph.module, graph.inputs)
    assert_close(interpret_plan(lowered, graph.inputs, {}), expected)
    second.offset = first.offset
    with pytest.raises(AssertionError):
        assert_no_shared_bytes(lowered)
    with pytest.raises(AssertionError):
        assert_close(interpret_plan(lowered, graph.inputs, {}), expected)


def test_a_live_range_that_is_too_short_is_found() -> None:
    _, lowered, (first, *_) = chain()
    first.live = IntsAttr([0, 1])
    with pytest.raises(AssertionError):
        assert_no_shared_bytes(lowered)


def test_a_partial_overlap_is_found() -> None:
    _, lowered, (first, second, *_) = chain()
    assert first.offset is not None
    first.offset, second.offset = ExtentAttr(0), ExtentAttr(0)
    first.nbytes = second.nbytes = ExtentAttr(64)
    second.offset = ExtentAttr(64)
    assert_no_shared_bytes(lowered)
    first.nbytes = ExtentAttr(65)
    with pytest.raises(AssertionError):
        assert_no_shared_bytes(lowered)


def test_memory_that_nobody_wrote_is_nan() -> None:
    text = CHAIN.replace("%0 = forge.neg %x : (tensor<8xf64>)", '%0 = forge.aten "aten::empty.memory_format"([8]) : ()')
    lowered = lower(parse(text))
    for op in list(lowered.walk()):
        if isinstance(op, plan.LaunchOp) and op.callee.data == "aten::exp.out":
            op.detach()
            op.erase()
    (found,) = interpret_plan(lowered, [torch.ones(8, dtype=torch.float64)], {})
    assert found.isnan().all()


def test_dynamic_plans_are_allocated_for_each_size() -> None:
    text = CHAIN.replace("tensor<8xf64>", "tensor<?xf64, #forge.tensor<[s0]>>")
    module = parse(f'forge.symbol @s0 "n" min 0 max 64\n{text}')
    lowered = lower(module)
    assert all(op.offset is None for op in lowered.walk() if isinstance(op, plan.BufferOp))
    for count in (0, 1, 17):
        inputs = [torch.linspace(-1, 1, count, dtype=torch.float64)]
        assert_close(interpret_plan(lowered, inputs, {}), interpret(module, inputs))
