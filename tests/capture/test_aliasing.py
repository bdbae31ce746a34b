"""What a caller can see of memory: which results share it with inputs and with one another, and what is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import forgec
from forgec.diagnostics import ForgeError
from tests.capture.compare import agree

x34 = torch.arange(12.0).reshape(3, 4) - 5
complex34 = torch.complex(x34, x34.flip(0))

RETURNED: dict[str, Callable[..., Any]] = {
    "an input": lambda x: x,
    "an input twice": lambda x: (x, x),
    "a copy of an input": lambda x: x.clone(),
    "a copy and the input": lambda x: (x.clone(), x),
    "two copies": lambda x: (x.clone(), x.clone()),
    "a copy and its view": lambda x: (lambda y: (y, y[1:]))(x.clone()),
    "a product by one": lambda x: x * 1,
    "a sum with zero, which is no copy of -0.0": lambda x: x + 0,
    "one value computed twice": lambda x: (x + 1, x + 1),
    "one value twice": lambda x: (lambda y: (y, y))(x + 1),
    "a value and views of it": lambda x: (lambda y: (y, y.t(), y[1:], y.view(-1)))(x + 1),
    "only a view of a value": lambda x: (x + 1)[:, 1],
    "a constant twice": lambda x: (lambda y: (y, y[1:], x))(torch.zeros(3)),
    "two equal constants": lambda x: (torch.zeros(3), torch.zeros(3)),
    "slices": lambda x: (x[1:], x[:, ::2], x[-1]),
    "parts that do not overlap": lambda x: x.chunk(2, 1),
    "rows": lambda x: x.unbind(0),
    "numpy's splits": lambda x: (*x.hsplit(2), *x.vsplit((1, 2))),
    "transposes": lambda x: (x.t(), x.mT, x.permute(1, 0)),
    "reshapes": lambda x: (x.view(2, 6), x.reshape(12), x.flatten(), x.t().reshape(12)),
    "a diagonal": lambda x: (x.diagonal(), x.diagonal(1)),
    "sliding windows": lambda x: (x.unfold(0, 2, 1), x.unfold(1, 2, 2)),
    "memory by strides": lambda x: (x.as_strided((2, 2), (1, 2)), x.t().as_strided((3,), (5,), 1)),
    "broadcasts": lambda x: (x.expand(2, 3, 4), (x + 1).unsqueeze(0).expand(2, 3, 4)),
    "a grid": lambda x: torch.meshgrid(x[0], x[1, :2], indexing="xy"),
    "no operation": lambda x: (x.contiguous(), x.to(torch.float32), x.detach(), x.data, x.view_as(x)),
    "a change of layout": lambda x: (x.t().contiguous(), x.t().clone()),
    "another dtype": lambda x: x.to(torch.float64),
    "dropout in evaluation": lambda x: F.dropout(x, 0.5, training=False),
    "a written input": lambda x: x.add_(1),
    "views of a written input": lambda x: (x[1:], x.add_(1).t(), x),
    "a view taken before the write": lambda x: (lambda v: (x.add_(1), v)[1])(x.t()),
    "copies around a write": lambda x: (x.clone(), x.add_(1).clone(), x),
    "a written copy": lambda x: x.clone().add_(1),
}


@pytest.mark.parametrize("what", RETURNED)
def test_results_share_memory_where_eagers_do(what: str) -> None:
    agree(lambda: RETURNED[what], [x34])
    agree(lambda: RETURNED[what], [torch.arange(24.0).reshape(3, 8)[:, ::2]]) if "memory" not in what else None


STATEMENTS = [
    "x.diagonal().fill_(2.0)",
    "x.unfold(0, 2, 2).add_(1)",
    "x.unfold(1, 2, 3).mul_(2)",
    "x.as_strided((2, 2), (1, 4), 1).mul_(2)",
    "x[1:].as_strided((2, 2), (4, 1)).fill_(9)",
    "x.t().as_strided((3,), (5,)).zero_()",
    "x.expand(2, 3, 4)[0].add_(1)",
    "x[:, :1].expand(3, 4)[:, 2].add_(1)",
    "torch.einsum('ij->ji', x).add_(1)",
    "torch.linalg.diagonal(x[:, :3]).zero_()",
    "x.hsplit(2)[1].zero_()",
    "x.vsplit(3)[1].zero_()",
    "x.view(torch.int32).add_(1)",
    "x.data[1:] = 3",
    "x[:] = 5",
    "x[:] = torch.arange(4)",
    "x[x > 4] = 0",
    "x[torch.tensor([0, 2])] += 1",
    "x[torch.tensor([0, 0])] += 1",
    "x[:, torch.tensor([0, 2])] *= 2",
    "x[0].copy_(torch.tensor(2, dtype=torch.bfloat16))",
    "x.copy_(torch.arange(4))",
    "torch._foreach_add_([x[0], x[1]], 1.0)",
    "torch._foreach_mul_([x[0], x[1]], [x[2], x[2]])",
    "torch._foreach_copy_([x[0]], [x[1]])",
    "torch._foreach_zero_([x[0], x[2]])",
    "x.fill_diagonal_(3.0)",
    "x.masked_scatter_(x > 4, torch.ones(12))",
    "for row in x: row.mul_(2)",
    "x.movedim(0, 1)[0].zero_()",
    "y = x * 1\ny.set_(x)\ny.add_(1)",
    "y = x * 1\ny.resize_(2, 3)\nx[:2, :3] += y",
    "y = x * 1\ny.resize_as_(x)\nx += y",
    "y = x * 1\ny.as_strided_((2, 2), (1, 2))\nx[:2, :2] += y",
    "a, b = torch.empty(3), torch.empty(3, dtype=torch.int64)\ntorch.max(x, 1, out=(a, b))\nx[0, :3] = a + b",
    "a = torch.zeros(2, 3, 4)\ntorch.add(x, 1, out=a[1])\nx += a[1]",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_statements_write_what_eager_writes(statement: str) -> None:
    code = compile(statement, "<statement>", "exec")

    def run(x: torch.Tensor) -> torch.Tensor:
        exec(code, {"x": x, "torch": torch})
        return x

    agree(lambda: run, [x34])
    agree(lambda: lambda x: run(x * 1), [x34])


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.real.add_(1),
        lambda x: x.imag.mul_(2),
        lambda x: x.t().real[1:].zero_(),
        lambda x: torch.view_as_real(x)[..., 1].zero_(),
        lambda x: x.conj().add_(1j),
        lambda x: x.conj().imag.add_(1),
        lambda x: x.mH[0].zero_(),
        lambda x: (lambda v: (x.mul_(1j), v * 1)[1])(x.real),
    ],
)
def test_writes_through_parts_of_complex_numbers(write: Callable[..., Any]) -> None:
    agree(lambda: lambda x: (write(x), x)[1], [complex34], sharing=False)
    agree(lambda: lambda x: (lambda y: (write(y), y)[1])(x * 1), [complex34], sharing=False)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.uint8, torch.bfloat16, torch.float64])
def test_writes_through_other_dtypes(dtype: torch.dtype) -> None:
    agree(lambda: lambda x: (x.view(dtype)[..., :1].zero_(), x)[1], [x34], sharing=False)


def test_views_of_other_dtypes_are_returned_as_copies() -> None:
    """The documented difference: a result that shows the bytes of an input as another dtype is a copy."""
    views = [lambda x: x.real, lambda x: x.imag, torch.view_as_real, lambda x: x.conj()]
    for view in views:
        given = complex34.clone()
        found = forgec.compile(view, (given,))(given)
        torch.testing.assert_close(found, view(given))
        found.zero_()
        assert torch.equal(given, complex34)


def test_what_belongs_to_the_model_is_returned_as_copies() -> None:
    """The documented difference: writing a result changes neither weights nor state."""

    class Held(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> Any:
            self.count.add_(x)
            count: torch.Tensor = self.get_buffer("count")
            return self.weight.detach(), count, count[1:]

    model = forgec.compile(Held(), (torch.ones(3),))
    for result in model(torch.ones(3)):
        result.fill_(7)
    weight, count, _ = model(torch.ones(3))
    assert weight.tolist() == [1, 1, 1]
    assert count.tolist() == [2, 2, 2]


def test_an_input_of_another_layout_is_copied_and_written_back() -> None:
    model = forgec.compile(lambda x: (x.add_(1), x[1:]), (x34.clone(),))
    given = torch.arange(24.0).reshape(3, 8)[:, ::2]
    expected = given + 1
    results = model(given)
    assert torch.equal(given, expected)
    assert torch.equal(results[0], expected)
    assert torch.equal(results[1], expected[1:])


def test_inputs_that_overlap_are_accepted_if_none_is_written() -> None:
    model = forgec.compile(lambda x, y: (x + y, x[1:], y), (x34, x34))
    found = model(x34, x34)
    assert torch.equal(found[0], x34 * 2)
    assert found[1].data_ptr() == x34[1:].data_ptr()
    assert found[2] is x34


def test_a_written_input_must_not_overlap_another() -> None:
    model = forgec.compile(lambda x, y: x.add_(1) * y, (x34.clone(), x34.clone()))
    given = torch.arange(24.0).reshape(2, 3, 4)
    with pytest.raises(ForgeError) as raised:
        model(given[0], given[0])
    assert raised.value.code == "FORGE-R008"
    assert "x is written by the call, and shares memory with y" in str(raised.value)
    model(given[0], given[1])
    interleaved = torch.arange(24.0).reshape(3, 2, 4)
    expected = (interleaved[:, 0] + 1) * interleaved[:, 1]
    assert torch.equal(model(interleaved[:, 0], interleaved[:, 1]), expected)


def test_an_expanded_input_cannot_be_written() -> None:
    model = forgec.compile(lambda x: x.add_(1), (x34.clone(),))
    with pytest.raises(ForgeError) as raised:
        model(torch.zeros(1, 4).expand(3, 4))
    assert raised.value.code == "FORGE-R008"
