"""Running plans: results, what the caller may keep, memory that is given back, errors with their place."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from forgec.diagnostics import ForgeError
from forgec.runtime import LiveWeights, Program
from forgec.runtime.plan import Literal, Plan, TensorSpec
from tests.runtime.build import PLACE, EntryBuilder, f32, plan_of
from tests.runtime.examples import MLP_WEIGHTS, SEQ, attention, dynamic_mlp, mlp, s0, weights


def run(plan: Plan, *args: Any, **tensors: torch.Tensor) -> Any:
    return Program(plan, LiveWeights(tensors))(*args)


def test_mlp() -> None:
    w = weights(*MLP_WEIGHTS)
    p = Program(mlp(), LiveWeights(w))
    for seed in range(3):
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(p(x), torch.relu(x @ w["up"]) @ w["down"])


def test_attention_owns_its_results() -> None:
    p = Program(attention(), LiveWeights({}))
    for _ in range(3):
        q, k, v = torch.randn(3, 1, 2, 5, 4)
        (y,) = p(q, k, v)
        context = scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.testing.assert_close(y, layer_norm(context.transpose(1, 2).reshape(1, 5, 8), (8,)), rtol=0, atol=0)


def test_softmax_in_place() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(2, 5))
    t = b.buffer("t", f32(2, 5), 0, 0, 3)
    y = b.output("y", f32(2, 5))
    b.out("aten::mul.Scalar_out", x, 0.5, out=t)
    b.inplace("aten::sub_.Scalar", t, 1)
    b.out("aten::_softmax.out", t, -1, False, out=y)
    x = torch.randn(2, 5)
    torch.testing.assert_close(run(plan_of(b.build(y, arena=64)), x), torch.softmax(x * 0.5, -1))


def test_lists_of_tensors_and_several_results() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(2, 6))
    joined = b.buffer("joined", f32(4, 6), 0, 0, 3)
    values, indices = (
        b.external("values", f32(4, 2), 1, 2),
        b.external("indices", TensorSpec.contiguous("i64", (4, 2)), 1, 3),
    )
    parts = [b.external(f"part{i}", TensorSpec("f32", (4, 2), (2, 1)), 2, 3) for i in range(3)]
    b.out("aten::cat.out", (x, x), 0, out=joined)
    b.call("aten::topk", joined, 2, -1, True, True, results=(values, indices))
    b.call("aten::split.Tensor", joined, 2, 1, results=(parts[0], None, parts[2]))
    x = torch.randn(2, 6)
    first, last, chosen = run(plan_of(b.build([parts[0], parts[2], indices], arena=128)), x)
    whole = torch.cat((x, x))
    assert torch.equal(first, whole[:, :2])
    assert torch.equal(last, whole[:, 4:])
    assert torch.equal(chosen, whole.topk(2).indices)


@pytest.mark.parametrize(
    ("op", "args"), [("aten::reshape", ((3,),)), ("aten::contiguous", ()), ("aten::dropout", (0.5, False))]
)
def test_results_never_alias_the_arena(op: str, args: tuple[Any, ...]) -> None:
    b = EntryBuilder()
    x = b.input("x", f32(3))
    t = b.buffer("t", f32(3), 0, 0, 2)
    kept = b.external("kept", f32(3), 1, 2)
    b.out("aten::neg.out", x, out=t)
    b.call(op, t, *args, results=(kept,))
    p = Program(plan_of(b.build(kept, arena=64)), LiveWeights({}))
    first = p(torch.ones(3))
    p(torch.zeros(3))
    assert first.tolist() == [-1, -1, -1]


def test_results_are_brought_into_the_compiled_layout() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(2, 3))
    y = b.external("y", f32(3, 2), 0, 2)
    flat = b.view("flat", f32(6), y)
    z = b.output("z", f32(6))
    b.call("aten::t", x, results=(y,))
    b.out("aten::neg.out", flat, out=z)
    x = torch.randn(2, 3)
    assert torch.equal(run(plan_of(b.build(z)), x), -x.t().reshape(-1))


def test_a_result_of_another_shape_is_refused() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(4))
    y = b.external("y", TensorSpec.contiguous("i64", (4, 1)), 0, 1)
    b.call("aten::nonzero", x, results=(y,))
    p = Program(plan_of(b.build(y)), LiveWeights({}))
    assert p(torch.ones(4)).shape == (4, 1)
    for _ in range(2):
        with pytest.raises(ForgeError, match=r"FORGE-R007.*returned torch.int64\[3, 1\], the plan expects i64\[4, 1\]"):
            p(torch.tensor([1.0, 0, 1, 1]))


def test_an_output_that_would_be_resized_is_refused() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(4))
    t = b.buffer("t", f32(2), 0, 0, 1)
    b.out("aten::nonzero.out", x, out=t)
    y = b.output("y", f32(4))
    b.out("aten::neg.out", x, out=y)
    p = Program(plan_of(b.build(y, arena=64)), LiveWeights({}))
    with pytest.raises(ForgeError, match="FORGE-R007"):
        p(torch.ones(4))


def test_dynamic_extents() -> None:
    w = weights(*MLP_WEIGHTS)
    p = Program(dynamic_mlp(), LiveWeights(w))
    for rows in (3, 1, 64, 3, 7):
        x = torch.randn(rows, 8)
        result = p(x)
        assert torch.equal(result["y"], torch.relu(x @ w["up"]) @ w["down"])
        assert result["flat"].data_ptr() == result["y"].data_ptr()
        assert result["flat"].shape == (rows * 8,)
        assert result["rows"] == rows


def test_more_signatures_than_are_kept() -> None:
    w = weights(*MLP_WEIGHTS)
    p = Program(dynamic_mlp(), LiveWeights(w))
    for rows in [*range(1, 65), 1, 64, 30]:
        x = torch.randn(rows, 8)
        assert torch.equal(p(x)["y"], torch.relu(x @ w["up"]) @ w["down"])


def test_symbols_in_arguments() -> None:
    b = EntryBuilder()
    b.input("x", f32(s0, 4))
    y = b.external("y", f32(s0 + 1), 0, 1)
    b.call("aten::full", (s0 + 1,), 2.0, results=(y,))
    assert run(plan_of(b.build(y), symbols=(SEQ,)), torch.ones(3, 4)).tolist() == [2.0] * 4


def test_what_the_caller_keeps() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(2, 3))
    w = b.param("w", f32(2, 3))
    row = b.view("row", f32(3), x, 3)
    part = b.view("part", f32(2), w, 1)
    y = b.output("y", f32(2, 3))
    bits = b.view("bits", TensorSpec.contiguous("i32", (6,)), y)
    b.out("aten::add.out", x, w, out=y)
    weight = torch.randn(2, 3)
    p = Program(plan_of(b.build([x, row, w, part, y, bits, Literal(None), Literal(1.5)])), LiveWeights({"w": weight}))
    x = torch.randn(2, 3)
    before = weight.clone()
    same, row, param, part, y, bits, none, number = p(x)
    assert same is x
    assert row.data_ptr() == x[1].data_ptr()
    assert torch.equal(param, weight)
    assert torch.equal(part, weight.reshape(-1)[1:3])
    param.zero_()
    part.zero_()
    assert torch.equal(weight, before)
    assert torch.equal(bits, y.view(torch.int32).reshape(-1))
    assert (none, number) == (None, 1.5)
    kept = y.clone()
    p(torch.randn(2, 3))
    assert torch.equal(y, kept)


def test_views_of_another_dtype_in_the_arena() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(4))
    t = b.buffer("t", f32(5), 64, 0, 2)
    half = b.view("half", TensorSpec.contiguous("c64", (2,)), t)
    first = b.view("first", f32(4), t)
    y = b.output("y", TensorSpec.contiguous("c64", (2,)))
    b.out("aten::neg.out", x, out=first)
    b.out("aten::mul.out", half, half, out=y)
    result = run(plan_of(b.build(y, arena=128)), torch.tensor([1.0, 2, 3, 4]))
    assert result.tolist() == [(-1 - 2j) ** 2, (-3 - 4j) ** 2]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_results_are_ordinary_tensors(mode: Callable[[], Any]) -> None:
    p = Program(mlp(), LiveWeights(weights(*MLP_WEIGHTS)))
    with mode():
        x = torch.ones(4, 8)
        y = p(x)
    assert not y.requires_grad
    assert not y.is_inference()
    y.requires_grad_().sum().backward()


def test_autocast_does_not_reach_inside() -> None:
    p = Program(mlp(), LiveWeights(weights(*MLP_WEIGHTS)))
    x = torch.randn(4, 8)
    expected = p(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(p(x), expected)
        assert torch.is_autocast_enabled("cpu")


def test_parameters_that_require_grad() -> None:
    w = {name: torch.nn.Parameter(value) for name, value in weights(*MLP_WEIGHTS).items()}
    assert not Program(mlp(), LiveWeights(w))(torch.ones(4, 8)).requires_grad


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    library = torch.library.Library("forgec_test_threads", "DEF")
    library.define("look(Tensor x) -> Tensor")

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return x.clone()

    library.impl("look", look, "CPU")
    b = EntryBuilder()
    x = b.input("x", f32(2))
    y = b.external("y", f32(2), 0, 1)
    b.call("forgec_test_threads::look", x, results=(y,))
    plan = plan_of(b.build(y))
    for threads in (1, 2, 3):
        Program(plan, LiveWeights({}), threads=threads)(torch.ones(2))
        assert torch.get_num_threads() == before
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_bad_numbers_of_threads(threads: Any) -> None:
    with pytest.raises(ForgeError, match="FORGE-U005"):
        Program(mlp(), LiveWeights(weights(*MLP_WEIGHTS)), threads=threads)


def test_an_operation_that_fails_names_its_place() -> None:
    b = EntryBuilder()
    x = b.input("x", TensorSpec.contiguous("i64", (2,)))
    w = b.param("w", f32(3, 4))
    y = b.output("y", f32(2, 4))
    b.out("aten::index_select.out", w, 0, x, out=y)
    p = Program(plan_of(b.build(y)), LiveWeights({"w": torch.ones(3, 4)}))
    for _ in range(2):
        p(torch.tensor([0, 1]))
        with pytest.raises(ForgeError) as caught:
            p(torch.tensor([0, 7]))
        (diagnostic,) = caught.value.diagnostics
        assert diagnostic.code == "FORGE-R007"
        assert diagnostic.location == PLACE
        assert diagnostic.message.startswith("aten::index_select.out failed: ")
        assert diagnostic.notes == ("launch 0 of entry 'main'", "it comes from forge.test")


def test_memory_is_given_back() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(1000))
    a = b.external("a", f32(1000), 0, 2)
    c = b.external("c", f32(1000), 1, 3)
    y = b.output("y", f32(1000))
    b.call("aten::neg", x, results=(a,))
    b.call("aten::exp", a, results=(c,))
    b.out("aten::sin.out", c, out=y)
    p = Program(plan_of(b.build(y)), LiveWeights({}))
    x = torch.ones(1000)
    references = [weakref.ref(x), weakref.ref(p(x)), weakref.ref(p(x))]
    del x
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]


def test_nothing_is_kept_after_a_failure() -> None:
    b = EntryBuilder()
    x = b.input("x", TensorSpec.contiguous("i64", (2,)))
    y = b.output("y", f32(2, 4))
    w = b.param("w", f32(3, 4))
    b.out("aten::index_select.out", w, 0, x, out=y)
    p = Program(plan_of(b.build(y)), LiveWeights({"w": torch.ones(3, 4)}))
    x = torch.tensor([0, 7])
    reference = weakref.ref(x)
    with pytest.raises(ForgeError):
        p(x)
    del x
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("op", "args", "kwargs", "reason"),
    [
        ("aten::no_such_op", (), {}, "has no such operation"),
        ("aten::neg.no_such_overload", (), {}, "has no such operation"),
        ("nowhere::op", (), {}, "has no such operation"),
        ("load_library::x", (), {}, "no such namespace"),
        ("import_module::x", (), {}, "no such namespace"),
        ("aten::save", (), {}, "no kernel"),
        ("aten::from_file", (), {}, "not allowed"),
        ("aten::set_.source_Tensor", (), {}, "not allowed"),
        ("aten::item", (), {}, "something else than tensors"),
    ],
)  # fmt: skip
def test_operations_that_cannot_be_called(op: str, args: tuple[Any, ...], kwargs: dict[str, Any], reason: str) -> None:
    b = EntryBuilder()
    x = b.input("x", f32(4))
    b.call(op, x, *args, results=(), **kwargs)
    with pytest.raises(ForgeError) as caught:
        Program(plan_of(b.build(x)), LiveWeights({}))
    assert caught.value.code == "FORGE-A006"
    assert reason in str(caught.value)
    own = op.startswith("aten::")
    assert ("torch 2.11" if own else "import the library that registers") in str(caught.value)


@pytest.mark.parametrize(
    ("op", "args", "kwargs", "reason"),
    [
        ("aten::neg", ("x", "x"), {}, "takes 1 positional"),
        ("aten::neg", (), {}, "needs argument 'self'"),
        ("aten::neg", ("x",), {"out": "x"}, "has no argument 'out'"),
        ("aten::pow.Tensor_Scalar", ("x", 2), {"exponent": 2}, "argument 'exponent' twice"),
        ("aten::neg", ("text",), {}, "'self' of aten::neg is a tensor"),
        ("aten::neg", (None,), {}, "'self' of aten::neg is a tensor"),
        ("aten::cat", ("x",), {}, "list of tensors"),
        ("aten::cat", ((1,),), {}, "list of tensors"),
        ("aten::relu_", ("x",), {}, "not declared so"),
        ("aten::neg.out", ("x",), {"out": "x"}, "not declared so"),
        ("aten::add.Tensor", ("x", "x"), {"alpha": "x"}, "is a number"),
        ("aten::clamp", ("x", ("x",)), {}, "is not a tensor"),
    ],
)
def test_arguments_that_do_not_fit(op: str, args: tuple[Any, ...], kwargs: dict[str, Any], reason: str) -> None:
    b = EntryBuilder()
    x = b.input("x", f32(4))

    def value(part: Any) -> Any:
        return x if part == "x" else tuple(map(value, part)) if isinstance(part, tuple) else part

    b.call(op, *map(value, args), results=(), **{name: value(part) for name, part in kwargs.items()})
    with pytest.raises(ForgeError) as caught:
        Program(plan_of(b.build(x)), LiveWeights({}))
    assert caught.value.code == "FORGE-A004"
    assert reason in str(caught.value)


def test_more_results_than_the_operation_has() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(4))
    y, z = b.external("y", f32(4), 0, 1), b.external("z", f32(4), 0, 1)
    b.call("aten::neg", x, results=(y, z))
    with pytest.raises(ForgeError, match="returns 1 tensors, not 2"):
        Program(plan_of(b.build([y, z])), LiveWeights({}))


def test_weights_that_are_not_like_the_plan() -> None:
    good = weights(*MLP_WEIGHTS)
    for name, other in {
        "up": torch.ones(8, 15), "down": good["down"].double(), "up ": torch.ones(1),
    }.items():  # fmt: skip
        broken = {**good, name.strip(): other}
        if name.endswith(" "):
            del broken[name.strip()]
        with pytest.raises(ForgeError, match="FORGE-X001"):
            Program(mlp(), LiveWeights(broken))
    with pytest.raises(ForgeError, match="strides"):
        Program(mlp(), LiveWeights({**good, "up": torch.ones(16, 8).t()}))


def test_an_arena_that_is_too_large() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(1))
    t = b.buffer("t", f32(1 << 46), 0, 0, 1)
    part = b.view("part", f32(1), t)
    b.out("aten::neg.out", x, out=part)
    p = Program(plan_of(b.build(x, arena=4 << 46)), LiveWeights({}))
    with pytest.raises(ForgeError, match="FORGE-R010"):
        p(torch.ones(1))


def test_an_output_that_is_too_large() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(1))
    y = b.output("y", f32(1 << 46))
    part = b.view("part", f32(1), y)
    b.out("aten::neg.out", x, out=part)
    with pytest.raises(ForgeError, match="FORGE-R010"):
        run(plan_of(b.build(part)), torch.ones(1))


def test_entries() -> None:
    p = Program(mlp(), LiveWeights(weights(*MLP_WEIGHTS)))
    assert p.entries == ("main",)
    with pytest.raises(ForgeError, match="there is no entry 'other'"):
        p(torch.ones(4, 8), entry="other")


def test_a_plan_that_breaks_for_some_extents() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(s0, 4))
    y = b.output("y", f32(s0 - 3))
    tail = b.view("tail", f32(s0 - 3), x, 4)
    b.out("aten::neg.out", tail, out=y)
    p = Program(plan_of(b.build(y), symbols=(SEQ,)), LiveWeights({}))
    assert p(torch.ones(5, 4)).shape == (2,)
    with pytest.raises(ForgeError, match=r"FORGE-A004.*s0 = 2.*'s0 - 3' is -1"):
        p(torch.ones(2, 4))


def test_release_memory() -> None:
    p = Program(mlp(), LiveWeights(weights(*MLP_WEIGHTS)))
    x = torch.randn(4, 8)
    expected = p(x)
    p.release_memory()
    assert torch.equal(p(x), expected)
