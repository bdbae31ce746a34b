"""State: sessions are independent, start from their initial values, and never go on silently after a failure."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from forgec.diagnostics import ForgeError
from forgec.runtime import LiveWeights, Program
from forgec.runtime.plan import TensorSpec
from tests.runtime.build import EntryBuilder, f32, plan_of
from tests.runtime.examples import CACHE_ROWS, cache, counter


def step(value: float) -> torch.Tensor:
    return torch.tensor(float(value))


def test_sessions_are_independent() -> None:
    p = Program(counter(), LiveWeights({}))
    first, second = p.session(), p.session()
    assert [first(step(n)).item() for n in (1, 2, 3)] == [1, 3, 6]
    assert second(step(5)).item() == 5
    assert p(step(7)).item() == 7
    assert p(step(7)).item() == 14
    assert first(step(0)).item() == 6


def test_a_returned_state_is_a_copy() -> None:
    s = Program(counter(), LiveWeights({})).session()
    kept = s(step(1))
    s(step(1))
    assert kept.item() == 1
    kept.fill_(99)
    assert s(step(1)).item() == 3


def test_initial_values_from_the_weights() -> None:
    b = EntryBuilder()
    amount = b.input("amount", f32(2))
    total = b.state("total", f32(2), zeros=False)
    b.inplace("aten::add_.Tensor", total, amount)
    start = torch.tensor([10.0, 20.0])
    p = Program(plan_of(b.build(total)), LiveWeights({"total": start}))
    s = p.session()
    assert s(torch.ones(2)).tolist() == [11, 21]
    assert start.tolist() == [10, 20]
    assert s.state_dict()["total"].tolist() == [11, 21]
    s.reset()
    assert s(torch.ones(2)).tolist() == [11, 21]
    assert s.nbytes == 8


def test_entries_share_the_state() -> None:
    p = Program(cache(), LiveWeights({}))
    sessions = [p.session() for _ in range(3)]
    for index, s in enumerate(sessions):
        for position in range(CACHE_ROWS):
            row = torch.full((1, 3), float(index + position))
            assert s(row, torch.tensor([position]), entry="append") == ()
    for index, s in enumerate(sessions):
        total, first = s(entry="read")
        assert total.tolist() == [sum(index + position for position in range(CACHE_ROWS))] * 3
        assert first.tolist() == [index] * 3
        first.fill_(100)
        assert torch.equal(s(entry="read")[0], total)


def test_no_copy_of_the_state_is_made() -> None:
    p = Program(cache(), LiveWeights({}))
    s = p.session()
    memory = s._states["rows"].data_ptr()
    s(torch.ones(1, 3), torch.tensor([2]))
    assert s._states["rows"].data_ptr() == memory
    assert s._states["rows"][2].tolist() == [1, 1, 1]


def failing(write_first: bool) -> Program:
    """Adds to a counter and looks up a row; fails for an index out of range."""
    b = EntryBuilder()
    index = b.input("index", TensorSpec.contiguous("i64", (1,)))
    table = b.param("table", f32(3, 2))
    count = b.state("count", f32())
    row = b.output("row", f32(1, 2))
    if write_first:
        b.inplace("aten::add_.Scalar", count, 1)
    b.out("aten::index_select.out", table, 0, index, out=row)
    if not write_first:
        b.inplace("aten::add_.Scalar", count, 1)
    return Program(plan_of(b.build((row, count))), LiveWeights({"table": torch.ones(3, 2)}))


@pytest.mark.parametrize("warm", [False, True])
def test_a_failure_after_a_write_breaks_the_session(warm: bool) -> None:
    p = failing(write_first=True)
    s, other = p.session(), p.session()
    if warm:
        s(torch.tensor([0]))
    with pytest.raises(ForgeError, match="FORGE-R007"):
        s(torch.tensor([3]))
    with pytest.raises(ForgeError, match="FORGE-R009"):
        s(torch.tensor([0]))
    assert other(torch.tensor([0]))[1].item() == 1
    s.reset()
    assert s(torch.tensor([0]))[1].item() == 1


@pytest.mark.parametrize("warm", [False, True])
def test_a_failure_before_any_write_leaves_the_session_alone(warm: bool) -> None:
    s = failing(write_first=False).session()
    if warm:
        s(torch.tensor([0]))
    with pytest.raises(ForgeError, match="FORGE-R007"):
        s(torch.tensor([3]))
    assert s(torch.tensor([0]))[1].item() == 1 + warm


def test_refused_arguments_leave_the_session_alone() -> None:
    s = Program(counter(), LiveWeights({})).session()
    s(step(1))
    with pytest.raises(ForgeError, match="FORGE-R003"):
        s(torch.ones(2))
    assert s(step(1)).item() == 2


def test_a_session_that_is_gone_frees_its_state() -> None:
    p = Program(counter(), LiveWeights({}))
    s = p.session()
    s(step(1))
    reference = weakref.ref(s._states["count"])
    del s
    gc.collect()
    assert reference() is None


def test_states_in_inference_mode() -> None:
    p = Program(counter(), LiveWeights({}))
    with torch.inference_mode():
        s = p.session()
        s(step(1))
    assert s(step(1)).item() == 2


def test_a_state_with_other_strides() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(2, 3))
    total = b.state("total", TensorSpec("f32", (2, 3), (1, 2)))
    b.inplace("aten::add_.Tensor", total, x)
    s = Program(plan_of(b.build(total)), LiveWeights({})).session()
    x = torch.randn(2, 3)
    result = s(x)
    assert torch.equal(result, x)
    assert result.stride() == (1, 2)


def test_the_default_session_is_reset_with_the_program() -> None:
    p = failing(write_first=True)
    p.reset()  # before there is one
    with pytest.raises(ForgeError, match="FORGE-R007"):
        p(torch.tensor([3]))
    with pytest.raises(ForgeError, match="FORGE-R009"):
        p(torch.tensor([0]))
    p.reset()
    assert p(torch.tensor([0]))[1] == 1
