"""Programs that a check of the format lets pass only if it knows what kernels do: what the fuzzers found."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import forgec
from forgec.diagnostics import ForgeError
from forgec.runtime import LiveWeights, Program, write_artifact
from forgec.runtime.loader import load
from forgec.runtime.plan import DType, Input, Param, Plan, State, TensorSpec
from tests.runtime.build import EntryBuilder, f32, plan_of
from tests.runtime.examples import SEQ, s0


def program(plan: Plan, **weights: Any) -> Program:
    return Program(plan, LiveWeights(weights), threads=1)


def summed(dtype: Any) -> Plan:
    b = EntryBuilder()
    x = b.input("x", f32(3, 4))
    y = b.output("y", f32(4))
    b.out("aten::sum.IntList_out", x, (0,), False, dtype=dtype, out=y)
    return plan_of(b.build(y))


def test_a_number_is_no_dtype() -> None:
    """torch takes any number for an enumeration, and a kernel for a dtype that does not exist leaves its memory."""
    assert program(summed(DType("f32")))(torch.ones(3, 4)).tolist() == [3.0] * 4
    with pytest.raises(ForgeError, match=r"FORGE-A004.*argument 'dtype' of aten::sum.IntList_out is a DType"):
        program(summed((1 << 31) - 1))


def softmax(spec: TensorSpec, rows: Any) -> Plan:
    b = EntryBuilder()
    x = b.input("x", f32(rows, 4))
    y = b.output("y", spec)
    b.out("aten::_softmax.out", x, 1, False, out=y)
    return plan_of(b.build(y), symbols=() if isinstance(rows, int) else (SEQ,))


def test_what_is_written_does_not_overlap_itself() -> None:
    """A kernel that writes one element after the other would leave a tensor that spans fewer than it has."""
    with pytest.raises(ForgeError, match=r"FORGE-A004.*its elements share memory"):
        program(softmax(TensorSpec("f32", (6, 4), (1, 1)), 6))
    dynamic = program(softmax(TensorSpec("f32", (s0, 4), (1, 1)), s0))
    with pytest.raises(ForgeError, match=r"FORGE-A004.*its elements share memory"):
        dynamic(torch.ones(6, 4))


@pytest.mark.parametrize("device", ["meta", "hpu", "privateuseone", "mkldnn", "cuda:99"])
def test_devices_that_are_not_there(device: str) -> None:
    b = EntryBuilder()
    x = b.add("x", Input(f32(2), 0, "x", device=device))
    b.inputs, b.args, b.parameters = [x.id], [0], ["x"]
    with pytest.raises(ForgeError, match=f"FORGE-A006.*device '{device}'"):
        program(plan_of(b.build(x)))


HUGE = TensorSpec("f32", (2, 2), (1 << 44, 1))


def test_memory_that_is_not_there(tmp_path: Any) -> None:
    b = EntryBuilder()
    write_artifact(tmp_path / "m.forge", plan_of(b.build(b.add("w", Param(HUGE, "w")))), {"w": bytes(16)})
    with pytest.raises(ForgeError, match=r"FORGE-R010.*the weights"):
        load(tmp_path / "m.forge")
    b = EntryBuilder()
    stateful = program(plan_of(b.build(b.add("s", State(HUGE, "s", True)))))
    with pytest.raises(ForgeError, match=r"FORGE-R010.*the states"):
        stateful.session()
    b = EntryBuilder()
    wide = program(plan_of(b.build(b.input("x", HUGE))))
    with pytest.raises(ForgeError, match=r"FORGE-R010.*the arguments"):
        wide(torch.ones(2, 2))


def test_arguments_whose_elements_share_memory() -> None:
    b = EntryBuilder()
    repeated = program(plan_of(b.build(b.input("x", TensorSpec("f32", (3, 2), (0, 1))))))
    assert repeated(torch.ones(2).expand(3, 2)).shape == (3, 2)
    with pytest.raises(ForgeError, match="FORGE-R008"):
        repeated(torch.ones(3, 2))
    b = EntryBuilder()
    x = b.input("x", f32(3, 2), inout=True)
    b.inplace("aten::add_.Tensor", x, 1.0)
    written = program(plan_of(b.build(x)))
    with pytest.raises(ForgeError, match="FORGE-R008"):
        written(torch.ones(2).expand(3, 2))


def test_example_inputs_whose_elements_share_memory() -> None:
    """The layout that ``expand`` makes is not part of what was compiled."""
    model = torch.nn.Linear(2, 2).eval()
    compiled = forgec.compile(model, (torch.ones(1, 2).expand(3, 2),))
    x = torch.randn(3, 2)
    torch.testing.assert_close(compiled(x), model(x).detach())


def test_ranks_that_an_operation_refuses() -> None:
    b = EntryBuilder()
    x, w = b.input("x", f32(3)), b.input("w", f32(2, 3, 3, 3))
    y = b.external("y", f32(1, 2, 4, 4), 0, 1)
    b.call("aten::conv2d", x, w, None, (1, 1), (0, 0), (1, 1), 1, results=(y,))
    assert program(plan_of(b.build(y))).peak_bytes().total_bytes > 0
