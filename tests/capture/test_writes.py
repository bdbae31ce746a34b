"""Writes through views, in place and into ``out=`` arguments become values and state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from forgec.diagnostics import ForgeError
from tests.capture.compare import agree, eager_calls, input_names, states_of
from tests.capture.random_programs import Holder, accepted, draw_program, example_inputs
from tests.chooser import Drawn
from tests.oracle import Forms

x34 = torch.arange(12.0).reshape(3, 4) - 5


class Buffered(torch.nn.Module):
    """A buffer ``b`` [3, 4] and a body."""

    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        self.register_buffer("b", torch.linspace(-1, 1, 12).reshape(3, 4))
        self.body = body

    def forward(self, *args: Any) -> Any:
        return self.body(self.b, *args)


def program(text: str, result: str = "b") -> Callable[[], Buffered]:
    """A model whose forward runs statements on the buffer b and the inputs x and y, and returns an expression."""
    code = compile(text, "<statements>", "exec")

    def body(b: torch.Tensor, x: torch.Tensor | None = None, y: torch.Tensor | None = None) -> Any:
        names = {"b": b, "x": x, "y": y, "torch": torch, "F": F}
        exec(code, names)
        return eval(result, names)

    return lambda: Buffered(body)


VIEWS = [
    "b[1:]",
    "b[:, ::2]",
    "b[-1]",
    "b[1, 2]",
    "b.t()",
    "b.T",
    "b.mT",
    "b.transpose(0, 1)[1:3]",
    "b.permute(1, 0)",
    "b.view(2, 6)",
    "b.view(12)[3:9]",
    "b.reshape(4, 3)",
    "b.flatten()",
    "b.t().flatten()",
    "b.ravel()",
    "b[:, 1].ravel()",
    "b.unsqueeze(1)",
    "b.unsqueeze(0).squeeze(0)",
    "b.narrow(1, 1, 2)",
    "b.select(1, -1)",
    "b.split(2, 1)[1]",
    "b.split([1, 2])[1]",
    "b.chunk(2, 1)[0]",
    "b.tensor_split([2, 1, 3], 1)[2]",
    "b.unbind(1)[2]",
    "b.expand(3, 4)",
    "b.expand_as(x)",
    "b.broadcast_to((3, 4))",
    "b.view_as(x)",
    "b.movedim(0, 1)",
    "b.swapaxes(0, 1)",
    "b.unflatten(1, (2, 2))[:, 1]",
    "b.diagonal()",
    "b.diagonal(1)",
    "b.view(3, 2, 2).diagonal(0, 2, 1)",
    "b.detach()",
    "b.contiguous()",
    "b.t().contiguous()",
    "b.to(torch.float32)",
    "b.to(torch.float32, copy=True)",
    "b.to(torch.float64)",
    "b.type_as(x)",
    "b.real",
    "b.clone()",
    "b[[0, 2]]",
    "F.dropout(b, 0.5, training=False)",
    "torch.atleast_3d(b)",
    "torch.broadcast_tensors(b, x)[0]",
    "b[1:][:, 1:][:1]",
    "b.t()[1:].view(3, 3, 1)[1]",
    "b.view(2, 2, 3).transpose(0, 2)[1].t()",
]


@pytest.mark.parametrize("view", VIEWS)
def test_a_write_through_a_view_writes_what_eager_writes(view: str) -> None:
    agree(program(f"v = {view}\nv.mul_(2)\nw = b + 1\nv.add_(0.5)", "(v, w, b * 1)"), [x34])


@pytest.mark.parametrize("view", [view for view in VIEWS if "expand_as" not in view])
def test_a_view_taken_before_a_write_shows_it(view: str) -> None:
    agree(program(f"v = {view}\nb.mul_(2)\nb[1:, 1:3] = 7", "v + 1"), [x34])


WRITES = [
    "b.add_(x)",
    "b.add_(1)",
    "b.sub_(x, alpha=2)",
    "b += x[0]",
    "b *= 2",
    "b /= 2",
    "b.div_(x + 9)",
    "b.pow_(2)",
    "b.copy_(x)",
    "b.copy_(x[0])",
    "b.copy_(x.to(torch.int64))",
    "b.copy_(torch.tensor(3))",
    "b.zero_()",
    "b.fill_(2.5)",
    "b.fill_(x[0, 0])",
    "b.masked_fill_(x > 0, -1)",
    "b.masked_fill_(x > 0, torch.tensor(2.0))",
    "b.neg_()",
    "b.relu_()",
    "b.sigmoid_()",
    "b.clamp_(-0.5, 0.5)",
    "b.clamp_(min=0.1)",
    "b.logical_not_()",
    "b.lerp_(x, 0.25)",
    "b.addcmul_(x, x, value=0.5)",
    "b.addmm_(torch.ones(3, 4), torch.ones(4, 4))",
    "b.index_copy_(0, torch.tensor([2, 0]), x[:2])",
    "b.index_copy_(1, torch.tensor([3]), x[:, :1])",
    "b.index_add_(0, torch.tensor([1, 1]), x[:2])",
    "b.index_fill_(1, torch.tensor([0, 3]), 5)",
    "b.scatter_(1, torch.tensor([[0], [3], [1]]), 9.0)",
    "b.scatter_(1, torch.tensor([[0], [3], [1]]), x)",
    "b.scatter_add_(0, torch.zeros(3, 4, dtype=torch.int64), x)",
    "b[1] = 3",
    "b[1:, ::2] = x[1:, 1::2]",
    "b[:, 1] += x[:, 0]",
    "b[torch.tensor([0, 2])] = x[:2]",
    "b[:, torch.tensor([1, 3])] = 0",
    "b[torch.tensor([0, 1]), torch.tensor([2, 3])] += 1",
    "b[b > 0] = 0",
    "b[None] = x",
    "b[...] = 4",
    "b.view(-1).put_(torch.tensor([1, 5]), torch.tensor([3.0, 4.0]))",
    "torch.add(x, x, out=b)",
    "torch.mul(x, 2, out=b)",
    "torch.exp(x, out=b)",
    "torch.clamp(x, -1, 1, out=b)",
    "torch.cat([x[:1], x[1:]], out=b)",
    "torch.matmul(x, torch.ones(4, 4), out=b)",
    "torch.sum(x[None], 0, out=b)",
    "torch.add(x.to(torch.float64), 1, out=b)",
    "torch.add(x, 1, out=b[:, :]); b[1:].add_(1)",
    "torch.where(x > 0, x, b, out=b)",
    "b.copy_(b.t().reshape(3, 4))",
    "b.view(2, 2, 3).copy_(b.view(2, 2, 3).transpose(0, 1).clone())",
    "b[1:] = b[:-1].clone()",
    "b[:, 1:] = b[:, :-1].clone()",
    "b.copy_(torch.cat([b[1:], x[:1]]))",
    "b.copy_(b.flip(0))",
    "b.copy_(torch.roll(b, 1, 0))",
]


@pytest.mark.parametrize("statement", WRITES)
def test_a_buffer_is_written_as_eager_writes_it(statement: str) -> None:
    forms = agree(program(statement, "b.sum(1)"), [x34])
    assert [info.name for info in states_of(forms.captured.module)] == ["b"]


@pytest.mark.parametrize("statement", [w for w in WRITES if "detach_" not in w])
def test_an_input_is_written_as_eager_writes_it(statement: str) -> None:
    agree(lambda: lambda b, x: program(statement, "b.sum(1)")().body(b, x), [x34 * 0.1, x34])


@pytest.mark.parametrize(
    ("dtype", "statement"),
    [
        (torch.float32, "z.add_(x.double())"),
        (torch.float32, "z.mul_(torch.tensor(2, dtype=torch.int64))"),
        (torch.float64, "z.add_(x)"),
        (torch.bfloat16, "z.add_(x)"),
        (torch.bfloat16, "z.mul_(0.1)"),
        (torch.float16, "z.copy_(x)"),
        (torch.int64, "z.add_(2)"),
        (torch.int64, "z.copy_(x)"),
        (torch.int32, "z.add_(torch.ones(3, 4, dtype=torch.int8))"),
        (torch.int64, "z.mul_(True)"),
        (torch.bool, "z.copy_(x)"),
        (torch.bool, "z.logical_or_(x > 1)"),
        (torch.bool, "z.bitwise_xor_(x > 1)"),
        (torch.uint8, "z.add_(1)"),
        (torch.float64, "torch.add(x, 1, out=z)"),
        (torch.int64, "torch.eq(x, x, out=z)"),
    ],
)
def test_the_written_tensor_keeps_its_dtype(dtype: torch.dtype, statement: str) -> None:
    agree(program(f"z = b.to(torch.{str(dtype).removeprefix('torch.')})\n{statement}", "z"), [x34])


@pytest.mark.parametrize(
    "statement", ["y.unsqueeze_(0)", "y.t_()", "y.squeeze_()", "y.transpose_(0, 1)", "y.swapaxes_(0, 1)", "y.detach_()"]
)
def test_a_change_of_shape_in_place_is_a_view(statement: str) -> None:
    agree(program(f"y = x * 2\nz = y[1:]\n{statement}\ny.add_(1)", "(y, z)"), [x34])


def test_what_is_only_read_is_no_state() -> None:
    forms = agree(program("z = b * 2\nz.add_(x)\nz[1:].zero_()", "(z, b)"), [x34])
    assert states_of(forms.captured.module) == []


def test_detaching_in_place_writes_nothing() -> None:
    forms = agree(program("c = torch.tensor([1.0, 2.0, 3.0, 4.0])\nc.add_(1)", "x + c"), [x34])
    assert states_of(forms.captured.module) == []


def test_an_input_that_is_written_is_inout_and_others_are_not() -> None:
    forms = agree(lambda: lambda x, y: (x.add_(y), y * 2), [x34, x34])
    assert [(info.name, info.inout) for info in states_of(forms.captured.module)] == [("x", True)]
    assert input_names(forms.captured.module) == ["x", "y"]


def test_an_input_with_strides_is_written_in_place() -> None:
    agree(lambda: lambda x: x.add_(1) if x.shape else x, [torch.arange(12.0).reshape(4, 3).t()])
    agree(lambda: lambda x: x[:, 1:].mul_(2), [torch.arange(24.0).reshape(4, 6)[:, ::2]])


def test_two_buffers_exchange_their_values() -> None:
    class Swap(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("a", torch.zeros(3))
            self.register_buffer("b", torch.arange(3.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            old = self.a.clone()
            self.a.copy_(self.b)
            self.b.copy_(old + x)
            return self.a - self.b

    agree(Swap, [torch.ones(3)], calls=3)


def test_old_and_new_value_of_a_buffer_are_returned() -> None:
    agree(program("old = b * 1\nv = b[1:].clone()\nb.add_(x)", "(old, b, v, b[0], b.t())"), [x34])
    agree(program("old = b.clone()\nb.mul_(2)\nmiddle = b.clone()\nb.add_(1)", "(old, middle, b, b)"), [x34])


def test_a_buffer_is_written_with_its_own_transpose() -> None:
    """The copy must not read what it has written."""

    def make() -> torch.nn.Module:
        model = Buffered(lambda b, x: b.copy_(b.t() * 1).sum() + x.sum())
        model.b = torch.arange(9.0).reshape(3, 3)
        return model

    agree(make, [x34], calls=3)


def test_a_buffer_becomes_a_permutation_of_itself() -> None:
    def make() -> torch.nn.Module:
        model = Buffered(lambda b, x: b.copy_(b.t().clone(memory_format=torch.preserve_format)) + x.sum())
        model.b = torch.arange(9.0).reshape(3, 3)
        return model

    agree(make, [x34], calls=3)


@pytest.mark.parametrize(
    "statement",
    [
        "x.unfold(0, 2, 1).add_(1)",
        "x.as_strided((2, 2), (1, 1)).add_(1)",
        "x.as_strided((3, 2), (2, 3)).add_(1)",
        "torch._foreach_add_([x, x], 1.0)",
    ],
)
def test_a_write_to_elements_that_share_memory_is_refused(statement: str) -> None:
    assert accepted(statement, {"x": x34.clone(), "torch": torch}), "eager PyTorch does it"
    with pytest.raises(ForgeError) as raised:
        Forms(program(statement, "x * 1")(), [x34])
    assert raised.value.code == "FORGE-C005"
    place = raised.value.diagnostics[0].location
    assert place is not None
    assert place.line > 0


def test_memory_addressed_by_strides_is_a_gather() -> None:
    agree(program("v = x.as_strided((2, 3), (4, 2), 1)\nw = x[1:].as_strided((2, 2), (0, 1))", "v.sum() + w"), [x34])
    agree(lambda: lambda x: x.t().as_strided((2, 2), (1, 2)), [x34])
    agree(lambda: lambda x: x[1:].as_strided((2, 2), (2, 1), 1), [x34.t()])


def test_a_scatter_by_strides_writes_into_a_copy_of_the_memory() -> None:
    """Beside the elements of the operand it writes what lies between them, which only its views show."""

    def scattered(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.as_strided_scatter(x.t()[:, 1:], torch.ones(2, 2, dtype=torch.int64), (2, 2), (3, 1))
        return y, y.as_strided((12,), (1,), 0) * 1, torch.as_strided_scatter(y, x[0], (4,), (1,), 0), y.mul_(2), x

    agree(lambda: scattered, [x34])
    with pytest.raises(ForgeError) as raised:
        Forms(lambda x: torch.as_strided_scatter(x[:1].expand(3, 4), x[0], (4,), (1,)), [x34])
    assert raised.value.code == "FORGE-C005"


def test_an_empty_out_argument_gets_the_shape_of_the_result() -> None:
    def resizing(x: torch.Tensor) -> torch.Tensor:
        found = torch.empty(0)
        torch.cat([x, x], out=found)
        return found.add_(1)

    agree(lambda: resizing, [x34])


REFUSABLE = (
    "unfold",
    "as_strided",
    "out=",
    "expand",
    "broadcast_tensors",
    "meshgrid",
    "_foreach",
    "resize_",
    "set_",
    "view_as",
    "conj",
    "view(torch.int32)",
    "einsum",
)
"""What random programs may use in ways that capture refuses."""

COPIED = ("einsum", "view(torch.int32)", "view_as_complex", "view_as_real", "imag", "conj", "real", "> 0]")
"""Views of which forgec returns copies (see docs/architecture.md)."""


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_programs_agree_with_eager(data: st.DataObject) -> None:
    source, results = draw_program(Drawn(data))
    assume(source)
    assume(accepted("run()", {"run": lambda: eager_calls(Holder(source, results), example_inputs(1), {}, 2)}))
    refusal = ""
    try:
        sharing = not any(word in source for word in COPIED)
        agree(lambda: Holder(source, results), example_inputs(1), exactly=False, sharing=sharing)
    except ForgeError as failure:
        refusal = failure.code
    # torch.export itself refuses a few (C001), such as indexing with a condition of rank 0
    allowed = ("", "FORGE-C001", *(["FORGE-C003", "FORGE-C005"] if any(w in source for w in REFUSABLE) else []))
    assert refusal in allowed, source
