"""Matrix products, convolutions and normalisations against eager PyTorch."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from xdsl.dialects.builtin import IntAttr, StringAttr
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.contraction import ConvolutionOp, LinearOp, MatmulOp
from forgec.ir.ops.norm import GroupNormOp, LayerNormOp, RmsNormOp
from tests.ir.build import module_of_op, run_op

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = TOLERANCE[expected.dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def flops(cls: type[ForgeOp], inputs: list[torch.Tensor], properties: dict[str, Attribute] | None = None) -> Any:
    (op,) = (op for op in module_of_op(cls, inputs, properties).walk() if isinstance(op, cls))
    return op.flops()


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (6, 3, 4)),
        ((5, 6, 2, 3), (3,)),
        ((3,), (5, 6, 3, 4)),
        ((0, 3), (3, 4)),
        ((2, 0), (0, 4)),
    ],
)
@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64])
def test_matmul(left: tuple[int, ...], right: tuple[int, ...], dtype: torch.dtype) -> None:
    x, y = torch.randn(left).mul(3).to(dtype), torch.randn(right).mul(3).to(dtype)
    found = run_op(MatmulOp, [x, y])
    torch.testing.assert_close(found, torch.matmul(x, y), rtol=0, atol=0)
    assert flops(MatmulOp, [x, y]) == 2 * found.numel() * x.shape[-1]


def test_matmul_refuses_what_does_not_fit() -> None:
    x = torch.ones(2, 3)
    for other, message in (
        (torch.ones(2, 3), "summed extents 3 and 2 differ"),
        (torch.ones(()), "rank 1 at least"),
        (torch.ones(3, 4).double(), "operands of one dtype, found f32, f64"),
    ):
        with pytest.raises(VerifyException, match=message):
            run_op(MatmulOp, [x, other])
    with pytest.raises(VerifyException, match="do not broadcast"):
        run_op(MatmulOp, [torch.ones(2, 2, 3), torch.ones(3, 3, 4)])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)])
def test_linear(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(shape).to(dtype), torch.randn(5, 3).to(dtype), torch.randn(5).to(dtype)
    close(run_op(LinearOp, [x, weight, bias]), F.linear(x, weight, bias))
    close(run_op(LinearOp, [x, weight, None]), F.linear(x, weight))
    close(run_op(LinearOp, [x, weight], float64=True), F.linear(x.double(), weight.double()))
    assert flops(LinearOp, [x, weight]) == 2 * x.numel() * 5
    assert flops(LinearOp, [x, weight, bias]) == 2 * x.numel() * 5 + x.numel() // 3 * 5


def test_linear_refuses_what_does_not_fit() -> None:
    x, weight = torch.ones(2, 3), torch.ones(5, 3)
    for operands, message in (
        ([x, torch.ones(3)], "weight of rank 2"),
        ([x, torch.ones(5, 4)], "summed extents 3 and 4 differ"),
        ([x, weight, torch.ones(4)], "bias must have 5 elements"),
        ([x, weight, torch.ones(5).half()], "operands of one dtype"),
    ):
        with pytest.raises(VerifyException, match=message):
            run_op(LinearOp, operands)


def steps(strides: list[int], padding: list[int], dilation: list[int], groups: int) -> dict[str, Attribute]:
    return {
        "strides": IntsAttr(strides),
        "padding": IntsAttr(padding),
        "dilation": IntsAttr(dilation),
        "groups": IntAttr(groups),
    }


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (1, 2, 2, 4)])
def test_convolution(spatial: int, stride: int, padding: int, dilation: int, groups: int) -> None:
    x, weight, bias = torch.randn(2, 4, *[7] * spatial), torch.randn(8, 4 // groups, *[3] * spatial), torch.randn(8)
    properties = steps([stride] * spatial, [padding] * spatial, [dilation] * spatial, groups)
    function = getattr(F, f"conv{spatial}d")
    expected = function(x, weight, bias, stride, padding, dilation, groups)
    close(run_op(ConvolutionOp, [x, weight, bias], properties), expected)
    unbiased = function(x, weight, None, stride, padding, dilation, groups)
    close(run_op(ConvolutionOp, [x, weight], properties), unbiased)
    assert flops(ConvolutionOp, [x, weight], properties) == 2 * expected.numel() * (4 // groups) * 3**spatial


def test_convolution_refuses_what_does_not_fit() -> None:
    x, weight, plain = torch.ones(1, 4, 8), torch.ones(6, 2, 3), steps([1], [0], [1], 2)
    for operands, properties, message in (
        ([x, weight[0]], plain, "one rank from 3 to 5"),
        ([x, weight], steps([1, 1], [0], [1], 2), "need 1 values each"),
        ([x, weight], steps([0], [0], [1], 2), "must be positive"),
        ([x, weight], steps([1], [-1], [1], 2), "must not be negative"),
        ([x, weight], steps([1], [0], [1], 1), "4 input channels do not fit"),
        ([x, torch.ones(5, 2, 3)], plain, "do not divide into 2 groups"),
        ([x, weight, torch.ones(5)], plain, "bias must have 6 elements"),
        ([x[..., :1], weight], plain, "larger than the padded input"),
    ):
        with pytest.raises(VerifyException, match=message):
            run_op(ConvolutionOp, operands, properties)


def norm(axes: int, eps: float | None = 1e-5) -> dict[str, Attribute]:
    return {"axes": IntAttr(axes), **({} if eps is None else {"eps": ScalarAttr.of(eps)})}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axes", [1, 2])
def test_layer_norm(dtype: torch.dtype, axes: int) -> None:
    x = torch.randn(2, 5, 6).to(dtype)
    weight, bias = (torch.randn(x.shape[-axes:]).to(dtype) for _ in range(2))
    for w, b in ((weight, bias), (weight, None), (None, bias), (None, None)):
        expected = F.layer_norm(x, x.shape[-axes:], w, b, 1e-5)
        close(run_op(LayerNormOp, [x, w, b], norm(axes)), expected)
        wide_w, wide_b = (None if t is None else t.double() for t in (w, b))
        expected = F.layer_norm(x.double(), x.shape[-axes:], wide_w, wide_b, 1e-5)
        close(run_op(LayerNormOp, [x, w, b], norm(axes), float64=True), expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("eps", [1e-6, None])
def test_rms_norm(dtype: torch.dtype, axes: int, eps: float | None) -> None:
    x = torch.randn(2, 5, 6).to(dtype)
    weight = torch.randn(x.shape[-axes:]).to(dtype)
    close(run_op(RmsNormOp, [x, weight], norm(axes, eps)), F.rms_norm(x, x.shape[-axes:], weight, eps))
    close(run_op(RmsNormOp, [x], norm(axes, eps)), F.rms_norm(x, x.shape[-axes:], None, eps))


@pytest.mark.parametrize("dtype", FLOATS)
def test_rms_norm_without_eps_uses_that_of_torch(dtype: torch.dtype) -> None:
    tiny = torch.full((2, 8), 1e-4).to(dtype)
    close(run_op(RmsNormOp, [tiny], norm(1, None)), F.rms_norm(tiny, (8,)))
    if dtype == torch.float32:  # the epsilon is float32's also where the oracle computes in float64
        exact = tiny.double() / (tiny.double() ** 2 + torch.finfo(torch.float32).eps).sqrt()
        close(run_op(RmsNormOp, [tiny], norm(1, None), float64=True), exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norms_of_narrow_inputs_take_float32_parameters(dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(3, 8).to(dtype), torch.randn(8), torch.randn(8)
    close(run_op(LayerNormOp, [x, weight, bias], norm(1)), F.layer_norm(x, (8,), weight, bias))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that its fused kernel does not take these
        close(run_op(RmsNormOp, [x, weight], norm(1)), F.rms_norm(x, (8,), weight, 1e-5))
    with pytest.raises(VerifyException, match="a parameter has dtype"):
        run_op(LayerNormOp, [x.float(), weight.to(dtype), None], norm(1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_group_norm(dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(2, 6, 3, 4).to(dtype), torch.randn(6).to(dtype), torch.randn(6).to(dtype)
    properties: dict[str, Attribute] = {"groups": IntAttr(3), "eps": ScalarAttr.of(1e-5)}
    for w, b in ((weight, bias), (weight, None), (None, bias), (None, None)):
        close(run_op(GroupNormOp, [x, w, b], properties), F.group_norm(x, 3, w, b, 1e-5))


def test_group_norm_of_single_numbers() -> None:
    x = torch.randn(1, 3, 1)
    properties = {"groups": IntAttr(3), "eps": ScalarAttr.of(1e-5)}
    assert torch.equal(run_op(GroupNormOp, [x, None, None], properties), torch.zeros(1, 3, 1))


def test_norms_refuse_what_does_not_fit() -> None:
    x = torch.ones(2, 6, 4)
    groups: dict[str, Attribute] = {"groups": IntAttr(4), "eps": ScalarAttr.of(1e-5)}
    for cls, operands, properties, message in (
        (LayerNormOp, [x], norm(0), "cannot normalise 0 of 3"),
        (RmsNormOp, [x], norm(4), "cannot normalise 4 of 3"),
        (RmsNormOp, [x, torch.ones(6)], norm(1), "a parameter has shape"),
        (LayerNormOp, [x, None, torch.ones(6, 4)], norm(1), "a parameter has shape"),
        (RmsNormOp, [x.long()], norm(1), "takes floating-point numbers"),
        (
            RmsNormOp,
            [x],
            {**norm(1), "rounding": StringAttr("twice")},
            "rounding must be one of result, normalized, scale",
        ),
        (LayerNormOp, [x], {**norm(1), "rounding": StringAttr("scale")}, "rounding must be one of result, normalized,"),
        (
            RmsNormOp,
            [x.half(), torch.ones(4)],
            {**norm(1), "rounding": StringAttr("scale")},
            "of the input's dtype f16",
        ),
        (RmsNormOp, [x], {**norm(1), "weight_offset": ScalarAttr.of(1.0)}, "no weight to add weight_offset to"),
        (GroupNormOp, [x], groups, "do not divide into 4 groups"),
        (GroupNormOp, [x, torch.ones(4)], {**groups, "groups": IntAttr(3)}, "a parameter has shape"),
    ):
        with pytest.raises(VerifyException, match=message):
            run_op(cls, operands, properties)
