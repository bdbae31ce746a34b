"""Branches and loops that torch.export keeps, and assertions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as torch_map
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim
from xdsl.dialects import scf

import forgec
from forgec import ForgeError
from forgec.ir import plan
from tests.capture.compare import agree
from tests.capture.test_run_time_extents import Wrapped
from tests.oracle import Forms, lower

x = torch.linspace(-2, 2, 12).view(4, 3)


def branch(a: torch.Tensor) -> torch.Tensor:
    return torch.cond(a.sum() > 0, lambda a: a.sin(), lambda a: a.cos() + 1, (a,))


def loop(a: torch.Tensor) -> Any:
    return while_loop(lambda i, a: i < 5, lambda i, a: (i + 1, a * 1.5), (torch.tensor(0), a))


def loop_until(a: torch.Tensor) -> Any:
    """A loop whose end depends on what it computes."""
    return while_loop(lambda a: a.abs().max() < 50, lambda a: (a * 2 + 0.1,), (a,))


def loop_with_a_number(a: torch.Tensor) -> Any:
    return while_loop(lambda i, a: i < 4, lambda i, a: (i + 1, a + i), (0, a))


def running(a: torch.Tensor) -> Any:
    return scan(lambda carry, row: (carry + row, carry * row), torch.zeros(3), a)


def several(a: torch.Tensor) -> Any:
    """A scan over a tree, with a tensor from outside."""
    weight = torch.arange(3.0)

    def step(carry: Any, row: Any) -> Any:
        total, count = carry
        return (total + row["a"] * weight, count + 1), {"double": row["a"] * 2, "b": row["b"] + total}

    return scan(step, (torch.zeros(3), torch.zeros((), dtype=torch.int64)), {"a": a, "b": a.flip(0)})


def mapped(a: torch.Tensor) -> Any:
    return torch_map(lambda row, other: row.sin() + other, a, a.sum(0))


def nested(a: torch.Tensor) -> Any:
    def inner(i: torch.Tensor, a: torch.Tensor) -> Any:
        return i + 1, torch.cond(a.sum() > 0, lambda a: a - 1, lambda a: a * 1.5 + 2, (a,))

    def then(a: torch.Tensor) -> torch.Tensor:
        return while_loop(lambda i, a: i < 3, inner, (torch.tensor(0), a))[1]

    return torch.cond(a.mean() > -1, then, lambda a: a.cos(), (a,))


def selecting(a: torch.Tensor) -> torch.Tensor:
    """An extent that only the run tells, in a branch."""
    return torch.cond(a.sum() > 0, lambda a: a[a > 0].sum() + a, lambda a: a.clone(), (a,))


FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "cond": branch,
    "while_loop": loop,
    "while_loop until": loop_until,
    "while_loop with a number": loop_with_a_number,
    "scan": running,
    "scan of trees": several,
    "map": mapped,
    "nested": nested,
    "selecting": selecting,
    "associative_scan": lambda a: associative_scan(lambda p, q: p + q, a, 0, combine_mode="generic"),
    "vmap": lambda a: torch.vmap(lambda row: row.sum() * row)(a),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_level_gives_what_eager_gives(name: str) -> None:
    agree(lambda: Wrapped(FUNCTIONS[name]), [x + 0.5], sharing=False)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_program_takes_all_ways(name: str) -> None:
    compiled = forgec.compile(Wrapped(FUNCTIONS[name]), (x,))
    for given_ in (x, x + 3, x - 3, x.flip(0) * 0.1):
        torch.testing.assert_close(compiled(given_), FUNCTIONS[name](given_))


@pytest.mark.parametrize("name", ["cond", "while_loop", "scan", "scan of trees", "map", "nested"])
def test_dynamic_extents(name: str) -> None:
    compiled = forgec.compile(Wrapped(FUNCTIONS[name]), (x,), dynamic_shapes=({0: Dim.DYNAMIC},))
    for rows in (4, 2, 9):
        given_ = torch.randn(rows, 3) + 1
        torch.testing.assert_close(compiled(given_), FUNCTIONS[name](given_))


def test_a_branch_on_an_extent() -> None:
    function = Wrapped(lambda a: torch.cond(a.shape[0] > 5, lambda a: a.sin(), lambda a: a.cos(), (a,)))
    compiled = forgec.compile(function, (x,), dynamic_shapes=({0: Dim.DYNAMIC},))
    for rows in (4, 5, 6, 9):
        given_ = torch.randn(rows, 3)
        torch.testing.assert_close(compiled(given_), function(given_))


def test_weights_in_branches_and_loops() -> None:
    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

        def forward(self, a: torch.Tensor) -> torch.Tensor:
            a = torch.cond(a.sum() > 0, self.first, self.second, (a,))
            return while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, self.first(a).tanh()), (torch.tensor(0), a))[1]

    agree(Layers, [x])


def test_regions_of_scf_and_private_entries() -> None:
    forms = Forms(Wrapped(nested), [x])
    names = {type(op) for op in forms.captured.module.walk()}
    assert {scf.IfOp, scf.WhileOp} <= names
    lowered = lower(forms.captured.module)
    entries = [op for op in lowered.ops if isinstance(op, plan.EntryOp)]
    assert [op.sym_name.data for op in entries if op.private is None] == ["forward"]
    assert len(entries) == 7, "two branches, twice, and the parts of the loop"


def test_a_loop_updates_what_it_collects_in_place() -> None:
    lowered = lower(Forms(Wrapped(running), [x]).captured.module)
    body = next(op for op in lowered.ops if isinstance(op, plan.EntryOp) and op.sym_name.data.endswith("body"))
    inputs = [op for op in body.body.block.ops if isinstance(op, plan.InputOp)]
    assert [op.inout is not None for op in inputs] == [False, False, True, False]
    copies = [op for op in body.launches if op.callee.data == "aten::copy_"]
    assert copies == []


def test_saved_and_loaded(tmp_path: Any) -> None:
    forgec.compile(Wrapped(nested), (x,)).save(tmp_path / "m.forge")
    loaded = forgec.load(tmp_path / "m.forge")
    for given_ in (x + 1, x - 9):
        torch.testing.assert_close(loaded(given_), nested(given_))
    with pytest.raises(ForgeError, match="FORGE-U005"):
        loaded.program(x, entry="forward.if0.then")


def asserting(a: torch.Tensor) -> torch.Tensor:
    torch._assert(a.sum() > 0, "the sum has to be positive")
    return a + 1


def test_assertions_are_checked_with_the_models_message() -> None:
    compiled = forgec.compile(Wrapped(asserting), (x + 1,))
    torch.testing.assert_close(compiled(x + 1), x + 2)
    with pytest.raises(ForgeError, match="the sum has to be positive") as raised:
        compiled(x - 1)
    assert raised.value.code == "FORGE-R011"
    place = raised.value.diagnostics[0].location
    assert place is not None
    assert place.file.endswith("test_control_flow.py")


def test_assertions_about_extents_are_checked() -> None:
    def function(a: torch.Tensor) -> torch.Tensor:
        torch._check(a.shape[0] % 2 == 0, lambda: "an even number of rows")
        return a.reshape(2, -1) + 1

    compiled = forgec.compile(Wrapped(function), (x,), dynamic_shapes=({0: Dim.AUTO},))
    torch.testing.assert_close(compiled(torch.ones(6, 3)), torch.full((2, 9), 2.0))
    with pytest.raises(ForgeError, match="FORGE-R0"):
        compiled(torch.ones(5, 3))


def test_an_assertion_that_holds_by_its_range_costs_nothing() -> None:
    lowered = lower(Forms(Wrapped(lambda a: a[a > 0].sum()), [x]).captured.module)
    launches = [op for op in lowered.walk() if isinstance(op, plan.LaunchOp)]
    assert not any(op.callee.data == "forge::assert" for op in launches)


def test_branches_that_yield_different_shapes() -> None:
    function = Wrapped(lambda a: torch.cond(a.sum() > 0, lambda a: a + 1, lambda a: a[:2] * 2, (a,)) * 3)
    compiled = forgec.compile(function, (x,))
    for given_ in (x + 1, x - 1):
        torch.testing.assert_close(compiled(given_), function(given_))


def test_bodies_that_torch_refuses_are_refused_with_its_reason() -> None:
    with pytest.raises(ForgeError) as raised:
        forgec.compile(Wrapped(lambda a: torch.cond(a.sum() > 0, lambda a: a, lambda a: a.long(), (a,))), (x,))
    assert raised.value.code == "FORGE-C001"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**30))
def test_random_nests_of_branches_and_loops(seed: int) -> None:
    import random

    def build(depth: int, choose: random.Random, rows: bool = True) -> Callable[[torch.Tensor], torch.Tensor]:
        kind = choose.choice(["op", "op", "cond", "while", *["scan"] * rows] if depth else ["op"])
        if kind == "op":
            scale = choose.uniform(-1.5, 1.5)
            return choose.choice([torch.sin, torch.tanh, lambda a: a * scale, lambda a: a + scale])
        inner, other = (build(depth - 1, choose, rows and kind != "scan") for _ in range(2))
        if kind == "cond":
            bound = choose.uniform(-1, 1)
            return lambda a: torch.cond(a.mean() > bound, lambda a: inner(a) + 0, lambda a: other(a) + 1, (a,))
        if kind == "while":
            count = choose.randint(0, 3)

            def turn(i: torch.Tensor, a: torch.Tensor) -> Any:
                return i + 1, inner(a) + 0

            return lambda a: other(while_loop(lambda i, a: i < count, turn, (torch.tensor(0), a))[1])
        return lambda a: scan(lambda c, row: (inner(c) + row, other(c) * row), torch.ones(3), a)[1] + a

    choose = random.Random(seed)
    function = build(2, choose)
    model = Wrapped(lambda a: function(a) * 1.0)
    inputs = (x, x * 0.3 + 1)
    try:
        expected = [model(given_) for given_ in inputs]
        compiled = forgec.compile(model, (x,))
    except Exception as failure:  # torch traces some nests of bodies wrongly, also when it runs them
        assume(isinstance(failure, ForgeError) and failure.code != "FORGE-C001")
        raise
    for given_, wanted in zip(inputs, expected, strict=True):
        torch.testing.assert_close(compiled(given_), wanted)


def test_a_region_that_is_called_twice() -> None:
    """Both calls share their nodes, but not what these have become."""
    region = torch.compiler.nested_compile_region(lambda a: torch.relu(a) * a.sum().item())
    agree(lambda: Wrapped(lambda a: region(a) + region(a * 2 + 1)), [x + 1])


def test_what_cannot_be_captured_inside_a_region_is_reported_once() -> None:
    def function(a: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            held, other = a.to_sparse(), a * 2
        return held.to_dense() + other

    with pytest.raises(ForgeError) as raised:
        forgec.compile(Wrapped(function), (x,))
    assert [d.code for d in raised.value.diagnostics] == ["FORGE-C004"]
