"""What a call accepts: structure, names, dtypes, shapes, ranges, layouts; and how refusals read."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from forgec.diagnostics import ForgecWarning, ForgeError
from forgec.runtime import LiveWeights, Program
from forgec.runtime.plan import Device, DType, Literal, SymbolDecl, TensorSpec
from forgec.runtime.symbolic import symbol
from tests.runtime.build import EntryBuilder, f32, plan_of
from tests.runtime.examples import MLP_WEIGHTS, SEQ, dynamic_mlp, mlp, s0, weights


def program(plan: Any = None) -> Program:
    return Program(plan or mlp(), LiveWeights(weights(*MLP_WEIGHTS)))


def refused(call: Any, *codes: str) -> str:
    with pytest.raises(ForgeError) as caught:
        call()
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == list(codes)
    return str(caught.value)


def two_inputs() -> Program:
    """x + y, where y may be passed by name and mode is fixed."""
    b = EntryBuilder()
    x, y = b.input("x", f32(s0, 4)), b.input("y", f32(s0 + 1, 4))
    b.fixed("mode", "sum")
    top = b.view("top", f32(s0, 4), y)
    z = b.output("z", f32(s0, 4))
    b.out("aten::add.out", x, top, out=z)
    return Program(plan_of(b.build(z), symbols=(SEQ,)), LiveWeights({}))


def test_by_position_and_by_name() -> None:
    p = two_inputs()
    x, y = torch.ones(2, 4), torch.ones(3, 4)
    for result in (p(x, y, mode="sum"), p(x, y=y, mode="sum"), p(mode="sum", y=y, x=x)):
        assert torch.equal(result, torch.full((2, 4), 2.0))


def test_structure() -> None:
    p = two_inputs()
    x, y = torch.ones(2, 4), torch.ones(3, 4)
    text = refused(lambda: p(x, mode="sum"), "FORGE-R001")
    assert "'y' is missing" in text
    assert "compiled for (x: f32[seq, 4], y: f32[seq + 1, 4], mode='sum')" in text
    assert "called with (f32[2, 4], mode='sum')" in text
    assert "'mode' is missing" in refused(lambda: p(x, y), "FORGE-R001")
    assert "'other' was not passed" in refused(lambda: p(x, y, mode="sum", other=1), "FORGE-R001")
    assert "'x' is passed twice" in refused(lambda: p(x, y, x=x, mode="sum"), "FORGE-R001")
    assert "positional argument 3" in refused(lambda: p(x, y, "sum"), "FORGE-R001")
    assert "another structure" in refused(lambda: p((x,), y, mode="sum"), "FORGE-R001")
    assert "x is 3, the artifact was compiled for a tensor" in refused(
        lambda: p(3, y, mode="sum"), "FORGE-R001", "FORGE-R003"
    )
    assert "mode is 'mean'" in refused(lambda: p(x, y, mode="mean"), "FORGE-R006")


def test_everything_is_told_at_once() -> None:
    text = refused(
        lambda: two_inputs()(torch.ones(2, 4, 1), torch.ones(3, 5, dtype=torch.int32), mode=None),
        "FORGE-R003", "FORGE-R002", "FORGE-R006", "FORGE-R003", "FORGE-R003",
    )  # fmt: skip
    assert "y is i32[3, 5]" in text


def test_dtype_shape_and_device() -> None:
    p = program()
    assert "x is f64[4, 8], the artifact was compiled for f32[4, 8]" in refused(
        lambda: p(torch.ones(4, 8, dtype=torch.float64)), "FORGE-R002"
    )
    assert "extent 0 of x is 5, the artifact was compiled for 4" in refused(lambda: p(torch.ones(5, 8)), "FORGE-R003")
    assert "x is f32[4], the" in refused(lambda: p(torch.ones(4)), "FORGE-R003")
    assert "x is on meta" in refused(lambda: p(torch.ones(4, 8, device="meta")), "FORGE-R005")
    assert "layout torch.sparse_coo" in refused(lambda: p(torch.ones(4, 8).to_sparse()), "FORGE-R008")
    assert "another structure" in refused(lambda: p([1]), "FORGE-R001")


def test_ranges_of_symbols() -> None:
    p = program(dynamic_mlp())
    text = refused(lambda: p(torch.ones(65, 8)), "FORGE-R004")
    assert "extent 0 of x is 65, the artifact accepts at most 64" in text
    assert "note: extent 0 of x is 'seq' in [1, 64]" in text
    assert 'help: compile with forgec.Dim("seq", max=65), or split the input' in text
    assert "at least 1" in refused(lambda: p(torch.ones(0, 8)), "FORGE-R004")


def test_equal_symbols() -> None:
    text = refused(lambda: two_inputs()(torch.ones(2, 4), torch.ones(2, 4), mode="sum"), "FORGE-R003")
    assert "extent 0 of y is 2, but 'seq + 1' is 3" in text
    assert "extent 0 of x makes 'seq' 2" in text


def test_symbols_from_multiples_and_ints() -> None:
    n = symbol("n")
    b = EntryBuilder()
    x = b.input("x", f32(2 * s0 + 1))
    b.inputs.append(n * 3)
    b.args.append(0)
    b.parameters.append("count")
    total = b.output("total", f32(1))
    b.out("aten::sum.IntList_out", x, (0,), True, out=total)
    p = Program(plan_of(b.build((s0, n, total)), symbols=(SEQ, SymbolDecl("n", "n", 1, 5))), LiveWeights({}))
    assert p(torch.ones(7), 6)[:2] == (3, 2)
    assert "is not of the form seq * 2 + 1" in refused(lambda: p(torch.ones(6), 6), "FORGE-R003")
    assert "'n' is 6" in refused(lambda: p(torch.ones(7), 18), "FORGE-R004")
    assert "not of the form n * 3" in refused(lambda: p(torch.ones(7), 7), "FORGE-R003")
    assert "an int is needed" in refused(lambda: p(torch.ones(7), True), "FORGE-R001")


def test_fixed_values() -> None:
    b = EntryBuilder()
    b.input("x", f32(1))
    values = {
        "none": None, "flag": True, "count": 1, "rate": 0.5, "nan": float("nan"), "name": "a", "dtype": DType("bf16"),
        "device": Device("cpu"),
    }  # fmt: skip
    for name, value in values.items():
        b.fixed(name, value)
    p = Program(plan_of(b.build([Literal(value) for value in values.values()])), LiveWeights({}))
    given: dict[str, Any] = {**values, "dtype": torch.bfloat16, "device": torch.device("cpu")}
    result = p(torch.ones(1), **given)
    assert result[-2:] == [torch.bfloat16, torch.device("cpu")]
    assert result[:4] == [None, True, 1, 0.5]
    for name, value in {"none": 0, "flag": 1, "count": True, "rate": 1, "nan": 0.0, "dtype": torch.float16}.items():
        assert name in refused(lambda name=name, value=value: p(torch.ones(1), **{**given, name: value}), "FORGE-R006")


def test_other_layouts_are_copied_into_the_compiled_one() -> None:
    p = program()
    x = torch.randn(8, 4)
    expected = p(x.t().contiguous())
    assert torch.equal(p(x.t()), expected)
    assert torch.equal(p(torch.randn(8, 8)[::2].copy_(x.t())), expected)
    row = torch.randn(1, 8)
    assert torch.equal(p(row.expand(4, 8)), p(row.repeat(4, 1)))


def test_compiled_for_a_transposed_input() -> None:
    b = EntryBuilder()
    x = b.input("x", TensorSpec("f32", (3, 5), (1, 3)))
    flat = b.view("flat", f32(15), x)
    y = b.output("y", f32(15))
    b.out("aten::neg.out", flat, out=y)
    p = Program(plan_of(b.build(y)), LiveWeights({}))
    x = torch.randn(3, 5)
    assert torch.equal(p(x), -x.t().reshape(-1))
    assert torch.equal(p(x.t().contiguous().t()), -x.t().reshape(-1))


def inout() -> Program:
    b = EntryBuilder()
    x = b.input("x", f32(3, 2), inout=True)
    b.inplace("aten::mul_.Scalar", x, 2.0)
    return Program(plan_of(b.build(x)), LiveWeights({}))


def test_inout_arguments_are_written() -> None:
    p = inout()
    x = torch.ones(3, 2)
    assert p(x) is x
    assert torch.equal(x, torch.full((3, 2), 2.0))
    transposed = torch.ones(2, 3).t()
    p(transposed)
    assert torch.equal(transposed, torch.full((3, 2), 2.0))
    array = np.ones((3, 2), np.float32)
    p(array)
    assert (array == 2).all()
    flipped = np.ones((3, 2), np.float32)[::-1]
    p(flipped)
    assert (flipped == 2).all()
    with torch.inference_mode():
        inference = torch.ones(2, 3).t()
    p(inference)
    assert torch.equal(inference, torch.full((3, 2), 2.0))


def test_inputs_are_not_changed() -> None:
    x = torch.randn(4, 8, requires_grad=True)
    before = x.detach().clone()
    with pytest.warns(ForgecWarning, match="x requires grad"):
        y = program()(x)
    assert torch.equal(x, before)
    assert not y.requires_grad
    assert x.grad_fn is None


def test_arrays_in_arrays_out() -> None:
    p = program()
    x = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    y = p(x)
    assert isinstance(y, np.ndarray)
    np.testing.assert_array_equal(y, p(torch.from_numpy(x)).numpy())
    x.flags.writeable = False
    np.testing.assert_array_equal(p(x), y)
    np.testing.assert_array_equal(p(x[::-1])[::-1], y)
    assert "compiled for f32" in refused(lambda: p(x.astype(">f4")), "FORGE-R002")
    assert "compiled for f32" in refused(lambda: p(x.astype(object)), "FORGE-R002")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("bf16", ml_dtypes.bfloat16), ("f8e4m3fn", ml_dtypes.float8_e4m3fn), ("f16", np.float16), ("i1", np.bool_)],
)
def test_arrays_of_every_kind(name: str, dtype: Any) -> None:
    b = EntryBuilder()
    x = b.input("x", TensorSpec.contiguous(name, (2, 3)))
    y = b.output("y", TensorSpec.contiguous(name, (2, 3)))
    b.inplace("aten::copy_", y, x)
    array = (np.arange(6) % 2).reshape(2, 3).astype(dtype)
    result = Program(plan_of(b.build(y)), LiveWeights({}))(array)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, array)


def test_arrays_and_tensors_together() -> None:
    result = two_inputs()(torch.ones(2, 4), np.ones((3, 4), np.float32), mode="sum")
    assert isinstance(result, torch.Tensor)


def test_scalars_of_numpy() -> None:
    b = EntryBuilder()
    x = b.input("x", f32())
    y = b.output("y", f32())
    b.out("aten::neg.out", x, out=y)
    assert Program(plan_of(b.build(y)), LiveWeights({}))(np.float32(3)) == -3


def test_conjugate_and_negative_views() -> None:
    b = EntryBuilder()
    x = b.input("x", TensorSpec.contiguous("c64", (2,)))
    real = b.view("real", f32(4), x)
    y = b.output("y", f32(4))
    b.out("aten::neg.out", real, out=y)
    p = Program(plan_of(b.build(y)), LiveWeights({}))
    value = torch.tensor([1 + 2j, 3 + 4j])
    assert p(value.conj()).tolist() == [-1, 2, -3, 4]
