"""Dynamic extents: declared by position and by name, with labels, ranges and derived extents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import forgec
from forgec.diagnostics import ForgeError
from forgec.ir.ops.module import SymbolOp
from tests.oracle import Forms, assert_close, lower, tensor_leaves


class Mixer(nn.Module):
    """Reshapes, attention, concatenation and slices over batch and sequence."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        batch, length, width = x.shape
        q, k, v = self.project(x).view(batch, length, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(batch, length, width)
        if mask is not None:
            y = y * mask[..., None]
        positions = torch.arange(length)
        longer = torch.cat([y, x[:, :1]], 1)
        return y, longer + positions.sum(), x[:, -1], x[:, 1:] - x[:, :-1], y.flatten(0, 1), torch.zeros(length, 3)


def batch_and_length() -> tuple[Any, Any]:
    return forgec.Dim("batch", min=1, max=8), forgec.Dim("length", min=3, max=32)


def symbols(forms: Forms) -> dict[str, tuple[int, int | None]]:
    """Label → range."""
    found = {}
    for op in forms.captured.module.ops:
        if isinstance(op, SymbolOp):
            found[op.label.data] = (op.minimum.data, None if op.maximum is None else op.maximum.data)
    return found


def check(forms: Forms, model: Any, sizes: list[tuple[int, int]], masked: bool = False) -> None:
    """Compiled with and without passes against eager, for several sizes."""
    for pipeline in ("", "@O2"):
        module = forms.optimized(pipeline)
        lowered = lower(module)
        program = forms.program(lowered)
        for batch, length in sizes:
            inputs = [torch.randn(batch, length, 8)]
            kwargs = {"mask": torch.rand(batch, length)} if masked else {}
            with torch.no_grad():
                expected = tensor_leaves(model(*inputs, **kwargs))
            given = [*inputs, *kwargs.values()]
            assert_close(tensor_leaves(program(*inputs, **kwargs)), expected, f"{pipeline} {batch}x{length}")
            assert_close(forms.plan_results(lowered, *given), expected, f"plan {pipeline} {batch}x{length}")


SIZES = [(1, 3), (3, 17), (8, 32), (1, 9), (8, 3)]


def test_dimensions_by_position() -> None:
    batch, length = batch_and_length()
    forms = Forms(Mixer(), [torch.randn(2, 5, 8)], None, ({0: batch, 1: length},))
    assert symbols(forms) == {"batch": (1, 8), "length": (3, 32)}
    check(forms, Mixer(), SIZES)


def test_dimensions_by_name() -> None:
    batch, length = batch_and_length()
    shapes = {"x": {0: batch, 1: length}, "mask": {0: batch, 1: length}}
    forms = Forms(Mixer(), [torch.randn(2, 5, 8)], {"mask": torch.rand(2, 5)}, shapes)
    assert symbols(forms) == {"batch": (1, 8), "length": (3, 32)}
    for pipeline in ("", "@O2"):
        program = forms.program(lower(forms.optimized(pipeline)))
        for rows, columns in SIZES:
            x, mask = torch.randn(rows, columns, 8), torch.rand(rows, columns)
            with torch.no_grad():
                expected = tensor_leaves(Mixer()(x, mask))
            assert_close(tensor_leaves(program(x, mask=mask)), expected)


def test_dimensions_as_lists() -> None:
    batch, length = batch_and_length()
    forms = Forms(Mixer(), [torch.randn(2, 5, 8)], None, {"x": [batch, length, None]})
    assert symbols(forms) == {"batch": (1, 8), "length": (3, 32)}


def test_dimensions_inside_containers() -> None:
    rows = forgec.Dim("rows", min=2, max=9)
    function = lambda pair, named: pair[0] @ pair[1].t() + named["bias"]  # noqa: E731
    args = ((torch.randn(3, 4), torch.randn(5, 4)), {"bias": torch.randn(5)})
    shapes = (({0: rows}, None), {"bias": None})
    forms = Forms(function, args, None, shapes)
    assert symbols(forms) == {"rows": (2, 9)}
    program = forms.program(lower(forms.optimized("@O2")))
    for count in (2, 9):
        given = ((torch.randn(count, 4), args[0][1]), args[1])
        assert_close([program(*given)], [function(*given)])


def test_dimensions_without_a_name_are_called_by_their_input() -> None:
    forms = Forms(lambda tokens: tokens * 2, [torch.randn(3, 4)], None, ({0: torch.export.Dim.DYNAMIC},))
    assert list(symbols(forms)) == ["tokens.0"]


def test_a_derived_dimension() -> None:
    half = forgec.Dim("half", min=2, max=16)
    forms = Forms(lambda a: a.view(-1, 2, 3).sum(1), [torch.randn(8, 3)], None, ({0: 2 * half},))
    assert symbols(forms) == {"half": (2, 16)}
    program = forms.program(lower(forms.optimized("@O2")))
    for count in (4, 10, 32):
        a = torch.randn(count, 3)
        assert_close([program(a)], [a.view(-1, 2, 3).sum(1)])
    with pytest.raises(ForgeError) as raised:
        program(torch.randn(7, 3))
    assert raised.value.code == "FORGE-R003"


def test_a_dimension_shared_by_two_inputs_must_agree() -> None:
    rows = forgec.Dim("rows", min=2, max=9)
    forms = Forms(lambda a, b: a + b, [torch.randn(3, 4), torch.randn(3, 4)], None, ({0: rows}, {0: rows}))
    program = forms.program(lower(forms.optimized("")))
    with pytest.raises(ForgeError) as raised:
        program(torch.randn(3, 4), torch.randn(4, 4))
    assert raised.value.code == "FORGE-R003"
    assert "rows" in str(raised.value)


def test_a_value_outside_its_range_is_refused() -> None:
    rows = forgec.Dim("rows", min=2, max=9)
    program = forgec.compile(lambda a: a * 2, (torch.randn(3, 4),), dynamic_shapes=({0: rows},))
    for count in (1, 10):
        with pytest.raises(ForgeError) as raised:
            program(torch.randn(count, 4))
        assert raised.value.code == "FORGE-R004"
        assert "rows" in str(raised.value)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: a / a.shape[0],
        lambda a: a * a.shape[0] + a.shape[1],
        lambda a: a.shape[0] - a,
        lambda a: a.sum(0) / (a.shape[0] - 1),
        lambda a: a > a.shape[0],
        lambda a: a.new_full((a.shape[0], 2), 3.0),
        lambda a: torch.full((2, a.shape[0]), 1.5),
        lambda a: torch.arange(a.shape[0], dtype=torch.float32) + a[:, 0],
        lambda a: torch.arange(0, 2 * a.shape[0], 2) + a[:, :1].long(),
        lambda a: a[: a.shape[0] - 1],
        lambda a: a.expand(2, -1, -1),
        lambda a: a.repeat(2, 1),
        lambda a: a.view(-1)[: a.shape[0]],
        lambda a: a.reshape(a.shape[0] * 2, 2),
        lambda a: torch.ones(a.shape[0], a.shape[0]).tril(),
        lambda a: nn.functional.pad(a, (0, 0, 1, 2)),
        lambda a: a.t().contiguous().view(2, 2, -1),
        lambda a: a.roll(1, 0),
        lambda a: a.split(2, 1),
        lambda a: torch.stack([a, a], 1).flatten(0, 1),
        lambda a: a.clone().index_copy_(0, torch.tensor([0]), a[-1:]),
        lambda a: a.mul_(2)[1:],
        lambda a: a[1:].add_(1),
        lambda a: a.diagonal(),
        lambda a: a.topk(2, 0)[0],
        lambda a: a.softmax(0) @ a.t(),
        lambda a: a.cumsum(0).flip(0),
        lambda a: torch.cat([a, a[:2]], 0).mean(0),
        lambda a: nn.functional.layer_norm(a, (4,)),
        lambda a: a.unsqueeze(0).transpose(1, 2).bmm(a.unsqueeze(0)),
        lambda a: a.new_zeros(a.shape[0] * 3 + 1).sum() + a.amax(0),
    ],
)
def test_functions_of_a_dynamic_extent(function: Any) -> None:
    rows = forgec.Dim("rows", min=3, max=40)
    forms = Forms(function, [torch.randn(5, 4)], None, ({0: rows},))
    for pipeline in ("", "@O2"):
        lowered = lower(forms.optimized(pipeline))
        program = forms.program(lowered)
        for count in (3, 4, 17):
            a = torch.randn(count, 4)
            given, expected = a.clone(), tensor_leaves(function(a))
            assert_close(tensor_leaves(program(given)), expected, f"{pipeline} {count}")
            assert_close([given], [a], "the input afterwards")


def test_state_of_a_model_with_dynamic_inputs() -> None:
    class Cache(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("held", torch.zeros(8, 4))

        def forward(self, new: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            self.held.index_copy_(0, at, new)
            return self.held.sum(0)

    rows = forgec.Dim("rows", min=1, max=8)
    compiled = forgec.compile(
        Cache(), (torch.randn(2, 4), torch.tensor([0, 1])), dynamic_shapes={"new": {0: rows}, "at": {0: rows}}
    )
    model, session = Cache(), compiled.session()
    for count in (2, 5, 1):
        new, at = torch.randn(count, 4), torch.arange(count)
        assert_close([session(new, at)], [model(new, at)])


def test_the_report_of_a_dynamic_model_is_for_the_largest_extents() -> None:
    rows = forgec.Dim("rows", min=1, max=64)
    compiled = forgec.compile(lambda a: (a * 2).exp() @ a.t(), (torch.randn(5, 4),), dynamic_shapes=({0: rows},))
    report = compiled.report.to_dict()
    assert report["bindings"] == {"s0": 64}
    assert report["peak_bytes"] >= 64 * 64 * 4


def test_dim_refuses_an_empty_range() -> None:
    with pytest.raises(ForgeError) as raised:
        forgec.Dim("rows", min=5, max=4)
    assert raised.value.code == "FORGE-U005"


def test_shapes_that_do_not_fit_the_arguments_are_refused() -> None:
    rows = forgec.Dim("rows", min=2, max=9)
    with pytest.raises(ForgeError) as raised:
        forgec.compile(lambda a: a * 2, (torch.randn(3, 4),), dynamic_shapes=({0: rows}, {0: rows}))
    assert raised.value.code == "FORGE-U005"


ROWS = forgec.Dim("rows", max=9)
UNFIT: list[tuple[Any, str, str]] = [
    ({"c": {0: ROWS}}, "names 'c', which", "'a', 'b', 'n'"),
    ({"a": {0: ROWS}}, "lacks 'b', 'n'", "say None"),
    (({0: ROWS},), "has 1 items for 3 example inputs", "one item for each of 'a', 'b', 'n'"),
    (3, "must be a dict by argument", "'a', 'b', 'n'"),
    (({2: ROWS}, None, None), "names dimension 2 of 'a'", "from 0 to 1"),
    (({0: "rows"}, None, None), "says 'rows' of dimension 0 of 'a'", 'forgec.Dim("rows")'),
    ((ROWS, None, None), "of 'a', a tensor of 2 dimensions", "{dimension: forgec.Dim(...)}"),
    (([ROWS], None, None), "1 of the dimensions of 'a'", "{dimension: forgec.Dim(...)}"),
    (({0: 7}, None, None), "fixes dimension 0 of 'a' to 7, the example has 3", "leave the dimension out"),
    ((None, {0: ROWS}, None), "a dict for 'b', which is a list of 2", "a list with one item"),
    ((None, [{5: ROWS}, {"k": {0: ROWS}}], None), "names dimension 5 of 'b'[0]", "from 0 to 1"),
    ((None, [None, {"x": {0: ROWS}}], None), "which is a dict with the keys ['k']", "the same keys"),
    ((None, None, {0: ROWS}), "gives dimensions to 'n', which is a number", "Dim.DYNAMIC"),
]


@pytest.mark.parametrize(("shapes", "text", "remedy"), UNFIT, ids=[text for _, text, _ in UNFIT])
def test_what_does_not_fit_is_named(shapes: Any, text: str, remedy: str) -> None:
    def model(a: torch.Tensor, b: Any, n: int) -> torch.Tensor:
        return a * n + b[0] + b[1]["k"]

    x = torch.randn(3, 4)
    with pytest.raises(ForgeError) as raised:
        forgec.compile(model, (x, [x + 1, {"k": x + 2}]), {"n": 3}, dynamic_shapes=shapes)
    found = raised.value.diagnostics[0]
    assert found.code == "FORGE-U005"
    assert text in found.message
    assert remedy in str(found.help)


def test_an_extent_that_the_model_fixes_is_refused_by_torch() -> None:
    rows = forgec.Dim("rows", min=2, max=9)
    with pytest.raises(ForgeError) as raised:
        forgec.compile(lambda a: a + torch.ones(3, 4), (torch.randn(3, 4),), dynamic_shapes=({0: rows},))
    assert raised.value.code == "FORGE-C001"


def branching(a: torch.Tensor) -> torch.Tensor:
    if a.shape[0] > 5:
        return a * 2
    return a


def tiled(a: torch.Tensor) -> torch.Tensor:
    return a.reshape(4, -1)


def compared(a: torch.Tensor) -> torch.Tensor:
    return a if 3 * a.shape[0] >= 7 else a + 1


@pytest.mark.parametrize(
    ("model", "texts", "help"),
    [
        (branching, ("'m'", "6 <= m"), 'forgec.Dim("m", min=6)'),
        (tiled, ("'m'", "(m % 4) == 0"), '4*forgec.Dim("_m")'),
        (lambda a: a + torch.ones(8, 4), ("'m'",), "leave 'm' fixed"),
        (compared, ("cannot work out",), "Dim.AUTO"),
    ],
)
def test_what_a_model_needs_of_extents(model: Any, texts: tuple[str, ...], help: str) -> None:
    with pytest.raises(ForgeError) as raised:
        forgec.compile(model, (torch.randn(8, 4),), dynamic_shapes=({0: forgec.Dim("m")},))
    (found,) = raised.value.diagnostics
    assert found.code == "FORGE-C001"
    assert all(text in str(raised.value) for text in texts)
    assert help in str(found.help)
    assert "Dim.AUTO" in str(found.help)
    assert found.location is not None
    assert found.location.line >= model.__code__.co_firstlineno
    assert "L['" not in str(raised.value)


def test_extents_that_must_be_equal() -> None:
    shapes = ({0: forgec.Dim("m")}, {0: forgec.Dim("n")})
    with pytest.raises(ForgeError) as raised:
        forgec.compile(lambda a, b: a + b, (torch.randn(8, 4), torch.randn(8, 4)), dynamic_shapes=shapes)
    assert "the same Dim ('m' for 'n')" in str(raised.value)


def test_a_bound_that_tracing_found() -> None:
    program = forgec.compile(branching, (torch.randn(8, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    with pytest.raises(ForgeError) as raised:
        program(torch.randn(4, 4))
    (found,) = raised.value.diagnostics
    assert found.code == "FORGE-R004"
    assert "compile another artifact" in str(found.help)


@pytest.mark.parametrize(("given", "text"), [(12, "at most 9"), (-2, "at least 0")])
def test_a_number_outside_its_range(given: int, text: str) -> None:
    def model(a: torch.Tensor, start: int) -> torch.Tensor:
        return a[:, start:] * 2

    program = forgec.compile(
        model, (torch.ones(3, 9), 4), dynamic_shapes={"a": None, "start": torch.export.Dim.DYNAMIC}
    )
    with pytest.raises(ForgeError) as raised:
        program(torch.ones(3, 9), given)
    (found,) = raised.value.diagnostics
    assert found.message == f"start is {given}, the artifact accepts {text}"
    assert "start is in [0, 9]" in found.notes[0]


def test_assertions_name_extents() -> None:
    def model(a: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return a.narrow(0, 0, n.item()) + 1

    shapes = {"a": {0: forgec.Dim("m")}, "n": None}
    program = forgec.compile(model, (torch.ones(4, 3), torch.tensor(2)), dynamic_shapes=shapes)
    with pytest.raises(ForgeError, match=r"item\(n\) <= m is required"):
        program(torch.ones(4, 3), torch.tensor(9))


class ExtentsAsNumbers(torch.nn.Module):
    """Extents that bound, fill and are numbers of tensors."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        length = x.shape[0]
        places = (torch.arange(length) * 3 - 5).clamp(0, length - 1)
        filled = torch.full((2, length), length, dtype=torch.float32)
        return places, filled, torch.scalar_tensor(length, dtype=torch.int64), x.clamp(max=length)


def test_extents_bound_and_fill() -> None:
    model = ExtentsAsNumbers()
    compiled = forgec.compile(
        model, (torch.randn(4, 3),), dynamic_shapes=({0: forgec.Dim("length")},), target="cpu:host"
    )
    launches = [launch.op for entry in compiled._exported.entries for launch in entry.launches]
    assert all(op.startswith("kernel::") for op in launches)
    for length in (4, 1, 9):
        x = 5 * torch.randn(length, 3)
        x[0, 0] = float("nan")
        torch.testing.assert_close(compiled(x), model(x), equal_nan=True)
