"""Indices out of range, zeros that divide: kernels raise where eager PyTorch does, and wrap indices where it does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import forgec
from forgec.diagnostics import DivisionByZeroError, ForgeError, OutOfRangeError
from forgec.runtime.kernels import is_kernel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="machine code is for Linux on x86-64")


def along(index: torch.Tensor) -> torch.Tensor:
    return index[:, None].expand(-1, 6)


OPS: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "embedding": lambda x, i: F.embedding(i, x),
    "index_select": lambda x, i: x.index_select(0, i),
    "index": lambda x, i: x[i],
    "two indices": lambda x, i: x[i, i.clamp(0, 5)],
    "gather": lambda x, i: x.gather(0, along(i)),
    "cross_entropy": lambda x, i: F.cross_entropy(x[:3], i),
    "nll_loss": lambda x, i: F.nll_loss(x[:3, :5].repeat(1, 2), i, reduction="none"),
    "index_put": lambda x, i: torch.index_put(x, (i,), x[:3] * 2),
    "index_put, added": lambda x, i: torch.index_put(x, (i,), x[:3] * 2, accumulate=True),
    "scatter": lambda x, i: x.scatter(0, along(i), x[:3]),
    "scatter of a number": lambda x, i: x.scatter(0, along(i), 1.5),
    "scatter_add": lambda x, i: x.scatter_add(0, along(i), x[:3]),
    "index_add": lambda x, i: x.index_add(0, i, x[:3]),
    "index_copy": lambda x, i: x.index_copy(0, i, x[:3]),
    "one_hot": lambda x, i: F.one_hot(i, 10) * x[:3, :1],
}  # fmt: skip
"""Of ten rows, three are named."""
INDICES = (9, 10, 1010, -1, -10, -11, 1 << 40, -(1 << 62))


class Model(torch.nn.Module):
    def __init__(self, op: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> Any:
        return self.op(x, index)


@pytest.mark.parametrize("name", OPS)
def test_what_eager_refuses_is_refused(name: str) -> None:
    model, x = Model(OPS[name]), torch.randn(10, 6)
    compiled = forgec.compile(model, (x, torch.tensor([1, 2, 3])), target="cpu:host")
    assert all(is_kernel(launch.op) for entry in compiled.plan.entries for launch in entry.launches)
    raised = 0
    for number in INDICES:
        index, before = torch.tensor([1, number, 3]), x.clone()
        try:
            expected = model(x, index)
        except (IndexError, RuntimeError):
            raised += 1
            with pytest.raises(IndexError, match=r"FORGE-R014\]: index out of range") as caught:
                compiled(x, index)
            assert isinstance(caught.value, OutOfRangeError)
            assert caught.value.diagnostics[0].location is not None
        else:
            torch.testing.assert_close(compiled(x, index), expected)
        assert torch.equal(x, before)
    assert raised >= 4


class Appending(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(4, 6))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor, index: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        picked = table[index]
        self.rows.index_copy_(0, index, x + picked)
        self.calls.add_(1)
        return self.rows * 1.0


def test_states_of_a_call_that_failed() -> None:
    """They are what they were, or the session has to be reset; never something between."""
    x, table = torch.ones(1, 6), torch.zeros(9, 6)
    compiled = forgec.compile(Appending().eval(), (x, torch.tensor([0]), table), target="cpu:host")
    session = compiled.session()
    session(x, torch.tensor([1]), table)
    for outside in (9, -10, 7):  # of the table, of which 7 is a row, and of the state
        with pytest.raises(OutOfRangeError):
            session(x, torch.tensor([outside]), table)
        states = session.state_dict()
        if session._broken:
            with pytest.raises(ForgeError, match="FORGE-R009"):
                session(x, torch.tensor([1]), table)
        else:
            assert (states["rows"].sum(), states["calls"].item()) == (6, 1)
        session.reset()
        session(x, torch.tensor([1]), table)
    session.reset()
    assert session(x, torch.tensor([2]), table).sum() == 6


def whole_quotients(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return left // right, left % right, torch.fmod(left, right)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8])
@pytest.mark.parametrize("shape", [(5, 11), (11,), (5, 1), (2, 5, 64)])
def test_integers_divided_by_what_is_zero_only_beyond_the_end(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    left, right = (
        torch.randint(0, 50, (5, 1 if shape[-1] == 64 else 11)).to(dtype),
        torch.randint(1, 9, shape).to(dtype),
    )
    compiled = forgec.compile(whole_quotients, (left, right), target="cpu:host")
    assert all(is_kernel(launch.op) for entry in compiled.plan.entries for launch in entry.launches)
    for given, expected in zip(compiled(left, right), whole_quotients(left, right), strict=True):
        torch.testing.assert_close(given, expected, rtol=0, atol=0)
    right.view(-1)[-1] = 0
    with pytest.raises(DivisionByZeroError, match="ZeroDivisionError") as raised:
        compiled(left, right)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        whole_quotients(left, right)
    assert isinstance(raised.value, RuntimeError)
    assert not isinstance(raised.value, IndexError)
