"""Norms written as arithmetic become one op each, with the same rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import forgec
from forgec.ir.ops.norm import RmsNormOp
from tests.passes.spellings import Fused

X, W = torch.randn(5, 3, 16, generator=torch.Generator().manual_seed(0)), torch.linspace(0.5, 1.5, 16)
B = torch.linspace(-1, 1, 16)
EPS = 1e-6
ALL = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
WIDE = [torch.float32, torch.float64]
Function = Callable[..., torch.Tensor]


def root(x: torch.Tensor) -> torch.Tensor:
    return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)


def llama(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    wide = x.to(torch.float32)
    return w * (wide * root(wide)).to(x.dtype)


def gemma(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide * root(wide) * (1.0 + w.float())).type_as(x)


def gemma_narrow_weight(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide * root(wide) * (1.0 + w).float()).type_as(x)


def olmo(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    wide = x.to(torch.float32)
    return (w * (wide * root(wide))).to(x.dtype)


def t5(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
    x = x * torch.rsqrt(variance + EPS)
    return w * (x.to(w.dtype) if w.dtype in (torch.float16, torch.bfloat16) else x)


def power(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide * torch.pow(wide.pow(2).mean(-1, keepdim=True) + EPS, -0.5) * w.float()).type_as(x)


def products(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide * torch.rsqrt((wide * wide).mean(-1).unsqueeze(-1) + EPS)).to(x.dtype) * w


def divided(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide / torch.sqrt(torch.mean(torch.square(wide), -1, keepdim=True) + EPS) * w).to(x.dtype)


def reciprocal(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide * (1.0 / torch.sqrt(wide.pow(2).sum(-1, keepdim=True) / 16 + EPS)) * w).to(x.dtype)


def unweighted(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide * root(wide)).type_as(x)


def rounded_scale(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + EPS).to(x.dtype)


def wide_result(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return wide * root(wide) * w


RMS: list[tuple[Function, str]] = [
    (llama, "normalized"), (gemma, "result"), (gemma_narrow_weight, "result"), (olmo, "result"), (t5, "normalized"),
    (power, "result"), (products, "normalized"), (divided, "result"), (reciprocal, "result"), (unweighted, "result"),
    (rounded_scale, "scale"), (wide_result, "result"),
]  # fmt: skip


def narrow(dtype: torch.dtype) -> bool:
    return dtype in (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("function", "rounding"), RMS, ids=lambda value: getattr(value, "__name__", value))
def test_rms_norm(function: Function, rounding: str, dtype: torch.dtype, dynamic: bool) -> None:
    fused = Fused(function, [X.to(dtype), W.to(dtype)], "fuse-norm", dynamic=dynamic)
    assert fused.ops["rms_norm"] == 1
    assert fused.ops.keys() & {"rsqrt", "sqrt", "pow", "mean", "mul", "div"} == set()
    assert fused.ops["cast"] == (2 if narrow(dtype) and function is wide_result else 0)
    (op,) = (op for op in fused.module.walk() if op.name == "forge.rms_norm")
    assert op.rounding.data == (rounding if narrow(dtype) else "result")  # pyright: ignore[reportAttributeAccessIssue]
    more = torch.randn(2, 3, 16).to(dtype) * 30
    fused.check(others=[[more, W.to(dtype)]] if dynamic else [])


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_rms_norm_with_the_weight_multiplied_first(dtype: torch.dtype) -> None:
    for function in (
        lambda x, w: w * x * root(x),
        lambda x, w: x * (w * root(x)),
        lambda x, w: (root(x) * w) * x,
    ):
        fused = Fused(function, [X.to(dtype), W.to(dtype)], "fuse-norm", dynamic=True)
        assert fused.ops["rms_norm"] == 1
        assert fused.ops["mul"] == 0
        fused.check()


def cohere(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    mean = wide.mean(-1, keepdim=True)
    variance = (wide - mean).pow(2).mean(-1, keepdim=True)
    return (w.float() * ((wide - mean) * torch.rsqrt(variance + EPS))).to(x.dtype)


def deberta(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    mean = wide.mean(-1, keepdim=True)
    variance = (wide - mean).pow(2).mean(-1, keepdim=True)
    return w * ((wide - mean) / torch.sqrt(variance + EPS)).to(x.dtype) + b


def by_variance(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    centred = wide - wide.mean(-1, keepdim=True)
    return (centred * torch.rsqrt(wide.var(-1, unbiased=False, keepdim=True) + EPS) * w + b).to(x.dtype)


def narrow_numerator(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    mean = x.float().mean(-1, keepdim=True)
    spread = (x - mean).square().mean(-1, keepdim=True)
    return ((x - mean) / torch.sqrt(spread + EPS) + b).to(x.dtype)


@pytest.mark.parametrize("clean", ["canonicalize,cse,canonicalize", "canonicalize"], ids=["cse", "repeated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("function", [cohere, deberta, by_variance, narrow_numerator])
def test_layer_norm(function: Function, dtype: torch.dtype, clean: str) -> None:
    inputs = [X.to(dtype), W.to(dtype), B.to(dtype)]
    fused = Fused(function, inputs, "fuse-norm", dynamic=True, clean=clean)
    assert fused.ops["layer_norm"] == 1
    assert fused.ops.keys() & {"rsqrt", "sqrt", "pow", "mean", "mul", "div", "cast", "add", "var", "sub"} == set()
    fused.check(others=[[torch.randn(7, 3, 16).to(dtype) * 9 + 4, *inputs[1:]]])


def test_a_norm_over_channels_that_are_first_stands_between_transposes() -> None:
    def function(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(1, keepdim=True)
        x = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + EPS)
        return w[:, None, None] * x + b[:, None, None]

    fused = Fused(function, [torch.randn(2, 16, 3, 4), W, B], "fuse-norm", dynamic=True)
    assert {k: n for k, n in fused.ops.items() if k in ("layer_norm", "transpose")} == {"layer_norm": 1, "transpose": 2}
    assert fused.ops.keys() & {"reshape", "mul", "add"} == set()
    fused.check(others=[[torch.randn(5, 16, 3, 4), W, B]])


def test_results_of_a_norm_over_channels_that_are_first_keep_their_layout_and_share_memory() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        normal = x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + EPS)
        return normal, normal.flatten(1)

    x = torch.randn(2, 8, 3, 4)
    for run in (function, forgec.compile(function, (x,))):
        normal, flat = run(x)
        assert normal.is_contiguous()
        flat.fill_(7)
        assert (normal == 7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_group_norm(dtype: torch.dtype) -> None:
    def function(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        groups = x.float().reshape(x.shape[0], 4, -1)
        mean, variance = groups.mean(-1, keepdim=True), groups.var(-1, unbiased=False, keepdim=True)
        normal = ((groups - mean) / torch.sqrt(variance + EPS)).reshape(x.shape)
        return (normal * w.view(1, -1, 1, 1) + b.view(1, -1, 1, 1)).to(x.dtype)

    fused = Fused(function, [torch.randn(2, 16, 3, 4).to(dtype), W.to(dtype), B.to(dtype)], "fuse-norm", dynamic=True)
    assert fused.ops["group_norm"] == 1
    assert fused.ops.keys() & {"reshape", "mul", "add", "div", "cast"} == set()
    fused.check()


def test_rows_regrouped_for_a_norm_stay_as_they_are() -> None:
    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, 16)
        return w * (rows * root(rows)).view(x.shape)

    fused = Fused(function, [X, W], "fuse-norm", dynamic=True)
    assert fused.ops["reshape"] == 0
    assert fused.ops["mul"] == 0
    fused.check()


def test_a_norm_of_parts_of_rows_keeps_its_reshapes() -> None:
    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        parts = x.reshape(*x.shape[:-1], 4, 4)
        return w * (parts * root(parts)).reshape(x.shape)

    fused = Fused(function, [X, W], "fuse-norm", dynamic=True)
    assert (fused.ops["rms_norm"], fused.ops["reshape"], fused.ops["mul"]) == (1, 2, 1)
    fused.check()


LENGTHS: dict[str, tuple[Callable[..., Any], str]] = {
    "sum": (lambda x, w: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + EPS), "inside"),
    "length": (lambda x, w: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True), "inside"),
    "normalize": (lambda x, w: torch.nn.functional.normalize(x, dim=-1) * w, "least"),
    "normalize, scaled": (lambda x, w: torch.nn.functional.normalize(x, dim=-1) * x.shape[-1] ** 0.5 * w, "least"),
    "weight before number": (lambda x, w: torch.nn.functional.normalize(x, dim=-1) * w * 4.0, "least"),
    "eps beside": (lambda x, w: w * (x / (x.norm(dim=-1, keepdim=True) * x.shape[-1] ** -0.5 + 1e-3)), "outside"),
    "eps before": (lambda x, w: x / ((x.norm(dim=-1, keepdim=True) + 1e-3) * 0.25) * w, "outside"),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", LENGTHS)
def test_rows_divided_by_their_length(case: str, dynamic: bool) -> None:
    function, form = LENGTHS[case]
    fused = Fused(function, [X, W], "fuse-norm", dynamic=dynamic)
    assert fused.ops["rms_norm"] == 1
    assert not {"vector_norm", "rsqrt", "div", "clamp"} & fused.ops.keys()
    (norm,) = [op for op in fused.module.walk() if isinstance(op, RmsNormOp)]
    assert norm.eps_form.data == form
    fused.check()


NO: dict[str, tuple[Callable[..., Any], str]] = {
    "other rows": (lambda x, w: x.flip(0) * root(x), "not what the mean of squares"),
    "unbiased": (lambda x, w: (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.var(-1, keepdim=True) + EPS), ""),
    "statistics used twice": (lambda x, w: (x * root(x)) + root(x), "other ops use its statistics"),
    "sum of rows": (lambda x, w: x * torch.rsqrt(x.pow(2).sum(0, keepdim=True) + EPS), ""),
    "wrong count": (lambda x, w: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) / 15 + EPS), ""),
    "cubes": (lambda x, w: x * torch.rsqrt(x.pow(3).mean(-1, keepdim=True) + EPS), ""),
    "length of rows": (lambda x, w: x / torch.linalg.vector_norm(x, dim=0, keepdim=True), ""),
    "sum of sizes": (lambda x, w: x / torch.linalg.vector_norm(x, ord=1, dim=-1, keepdim=True), ""),
    "length of another": (lambda x, w: x.flip(0) / torch.linalg.vector_norm(x, dim=-1, keepdim=True), ""),
    "mean of other dimensions": (
        lambda x, w: (x - x.mean((0, 1, 2), keepdim=True)) * torch.rsqrt(x.var(-1, unbiased=False, keepdim=True)), "",
    ),
    "root multiplied": (lambda x, w: x * torch.sqrt(x.pow(2).mean(-1, keepdim=True) + EPS), ""),
    "divided by": (lambda x, w: torch.sqrt(x.pow(2).mean(-1, keepdim=True) + EPS) / x, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", NO)
def test_what_is_no_norm_stays(case: str) -> None:
    function, reason = NO[case]
    fused = Fused(function, [X, W], "fuse-norm", dynamic=False)
    assert not {"rms_norm", "layer_norm"} & fused.ops.keys()
    assert any(reason in remark.message for remark in fused.remarks) or not reason


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_statistics_in_half_precision_stay(dtype: torch.dtype) -> None:
    fused = Fused(lambda x, w: w * x * root(x), [X.to(dtype), W.to(dtype)], "fuse-norm", dynamic=False)
    assert fused.ops["rms_norm"] == 0
    assert any("computed in" in remark.message for remark in fused.remarks)


def test_a_norm_that_is_used_before_its_weight_keeps_the_product() -> None:
    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        normal = x * root(x)
        return normal * w + normal

    fused = Fused(function, [X, W], "fuse-norm", dynamic=False)
    assert (fused.ops["rms_norm"], fused.ops["mul"], fused.ops["add"]) == (1, 1, 1)
    fused.check()


def test_a_gate_is_no_weight() -> None:
    fused = Fused(lambda x, g: x * root(x) * g, [X, torch.randn(5, 3, 16)], "fuse-norm", dynamic=False)
    assert (fused.ops["rms_norm"], fused.ops["mul"]) == (1, 1)
    fused.check()


def test_extreme_rows() -> None:
    x = torch.zeros(6, 2, 16)
    x[1], x[2], x[3, 0, 0], x[4, 1, 3], x[5] = 1e18, 1e-30, torch.nan, torch.inf, torch.randn(2, 16) * 1e-4
    for function in (llama, gemma, divided):
        Fused(function, [x, W], "fuse-norm", dynamic=False).check()


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_random_compositions_keep_their_value(data: st.DataObject) -> None:
    """A chain of norms, weights, biases, casts and sums with what came before, in any order."""
    steps = data.draw(st.lists(st.sampled_from(["rms", "layer", "weight", "bias", "cast", "back", "residual", "gate"]),
                               min_size=2, max_size=7))  # fmt: skip
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))

    def function(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        first = x
        for step in steps:
            match step:
                case "rms":
                    x = x * root(x)
                case "layer":
                    centred = x - x.mean(-1, keepdim=True)
                    x = centred * torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + EPS)
                case "weight":
                    x = w * x
                case "bias":
                    x = x + b
                case "cast":
                    x = x.float()
                case "back":
                    x = x.to(dtype)
                case "residual":
                    x = first + x
                case _:
                    x = x * first
        return x

    inputs = [X.to(dtype), W.to(dtype), B.to(dtype)]
    fused = Fused(function, inputs, "fuse-norm", dynamic=False)
    expected, found = (fused.forms.forge_results(m, *inputs)[0] for m in (fused.before, fused.module))
    tolerance = 1e-5 if found.dtype == dtype == torch.float32 else 0.05
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
