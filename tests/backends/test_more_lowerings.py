"""Activations, images, order and places: forge ops that the ATen backend lowers, against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from xdsl.dialects.builtin import StringAttr
from xdsl.utils.exceptions import VerifyException

from forgec.ir.attributes import ExtentsAttr, IntsAttr, ScalarAttr
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.spatial import AvgPoolOp, MaxPoolOp, PadOp
from tests.backends.operands import (
    DTYPES,
    FLOATS,
    INTEGERS,
    Many,
    accepted,
    check,
    every_dtype,
    layouts,
    numbers,
    pairs,
)
from tests.capture.compare import agree
from tests.ir.build import run_op
from tests.oracle import Forms


def check_values(function: Callable[..., Any], operands: list[tuple[Any, ...]], *names: str) -> None:
    """The same for operators whose results torch.export foretells with other strides than eager PyTorch's have: the
    compiled program keeps to what it was told.
    """
    fit = accepted(function, operands)
    inputs = [v for given in fit for v in given if isinstance(v, torch.Tensor)]
    forms = agree(lambda: Many(function, fit), inputs, calls=1, sharing=False)
    assert {f"forge.{name}" for name in names} <= {op.name for op in forms.captured.module.walk()}


UNARY: dict[str, Callable[..., Any]] = {
    "tan": torch.tan, "asin": torch.asin, "acos": torch.acos, "atan": torch.atan, "sinh": torch.sinh,
    "cosh": torch.cosh, "log10": torch.log10, "erfc": torch.erfc, "hardswish": F.hardswish, "mish": F.mish,
    "hardsigmoid": F.hardsigmoid, "log_sigmoid": F.logsigmoid, "pow": torch.square,
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_operand(name: str) -> None:
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 3e38, -1.0, 0.5, 25.0])
    check(UNARY[name], [*every_dtype(), (special,)], name)


def test_activations_with_constants() -> None:
    check(lambda a: (F.softplus(a), F.softplus(a, 2.0, 1.0)), every_dtype(), "softplus")
    check(lambda a: (F.elu(a), F.elu(a, 0.5), F.selu(a), F.celu(a, 1.3)), every_dtype(), "elu")
    check(lambda a: (F.leaky_relu(a), F.leaky_relu(a, -0.3)), every_dtype(), "leaky_relu")
    check(lambda a: (F.relu6(a), F.hardtanh(a, -0.5, 1.5)), every_dtype(), "clamp")
    check(lambda a: (F.glu(a), F.glu(a, 0)), [(numbers((4, 6)),), (numbers((6, 4)).t(),)], "sigmoid", "mul")


def test_infinities() -> None:
    check(lambda a: (torch.isinf(a), torch.isfinite(a)),
          [*every_dtype(), (torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0]),)], "abs", "eq", "lt")  # fmt: skip


def test_remainders_and_shifts() -> None:
    nonzero = [(a, torch.where(b == 0, torch.ones_like(b), b)) for a, b in pairs()]
    check_values(torch.fmod, nonzero, "fmod")
    check(lambda a: (a.fmod(2), a.fmod(-3)), every_dtype(), "fmod")
    amounts = [(numbers((2, 3), d), numbers((3,), d, 5).abs() % 4) for d in INTEGERS]
    check(lambda a, b: (a << b, a >> b, a << 2, a >> 1), amounts, "shift_left", "shift_right")
    whole = [(a, b) for a, b in nonzero if a.dtype != torch.bool and b.dtype != torch.bool]
    check_values(lambda a, b: torch.div(a, b, rounding_mode="floor"), whole, "floor_div")


def test_bounds_that_are_tensors() -> None:
    operands = [(a, numbers((), seed=2), numbers((), seed=4)) for a in layouts()]
    check(lambda a, low, high: (a.clamp(low, high), a.clamp(min=low), a.clamp(max=high)), operands,
          "maximum", "minimum")  # fmt: skip
    check(lambda a, v: a.masked_fill(a > 0, v), [(a, torch.tensor(3.5)) for a in layouts()], "where")


def test_triangles() -> None:
    matrices = [(t,) for t in layouts() if t.dim() >= 2] + [(numbers((3, 4), d),) for d in DTYPES]
    check(lambda a: (a.tril(), a.tril(-1), a.triu(), a.triu(2)), matrices, "tril", "triu")


def test_deviations_and_norms() -> None:
    full = [(t,) for t in layouts() if t.dim() == 2 and t.numel()]
    check(lambda a: (a.std(), a.std(0), a.std((0, 1), keepdim=True, correction=0), a.var()), full, "std", "var")
    orders = (2, 1, 0, 3, float("inf"), -float("inf"))
    check(lambda a: [torch.linalg.vector_norm(a, n, dim=1) for n in orders], full, "vector_norm")
    check(lambda a: (a.norm(), a.norm(dim=0, keepdim=True), torch.linalg.vector_norm(a)), full, "vector_norm")
    check(lambda a: (a.logsumexp(0), a.logsumexp((0, 1), keepdim=True)), full, "logsumexp")
    check(lambda a: (a.cumprod(0), a.cumprod(-1)), every_dtype(), "cumprod")
    check(lambda a: (a.sum(0, dtype=torch.int32), a.cumsum(0, dtype=torch.int32)),
          [(numbers((3, 4), torch.int32),)], "sum", "cumsum")  # fmt: skip


def test_products_over_several_dimensions() -> None:
    module = Forms(lambda a: a.prod(1), [numbers((2, 3, 4))])
    assert "forge.prod" in {op.name for op in module.function.walk()}


def test_order() -> None:
    distinct = [torch.randperm(24).float().reshape(4, 6), torch.randperm(24).reshape(6, 4).t()]
    operands = [(t,) for t in distinct]
    check(lambda a: (*a.sort(), *a.sort(0, descending=True), *a.sort(dim=1, stable=True)), operands, "sort")
    check(lambda a: (a.argsort(), a.argsort(0, descending=True), a.argsort(dim=0, stable=True)), operands, "sort")
    check(lambda a: (*a.topk(2), *a.topk(3, 0, largest=False)), operands, "topk")
    check(lambda a: (*a.max(1), *a.min(0, keepdim=True), a.argmax()), operands, "max", "min", "argmax")
    check(lambda a: (*a.sort(), *a.max(0)), [(numbers(()),)])


three = [numbers((2, 3, 4)), numbers((4, 3, 2)).permute(2, 1, 0), numbers((2, 3, 8))[..., ::2]]


def test_repetition_and_rotation() -> None:
    operands = [(t,) for t in three]
    check(lambda a: (a.repeat(2, 1, 3), a.repeat(2, 1, 1, 1), a.tile(2, 1), a.repeat(1, 0, 1)), operands, "broadcast")
    check(lambda a: (a.repeat_interleave(3, 1), a.repeat_interleave(2), a.repeat_interleave(1, 0)), operands, "copy")
    check(lambda a: (a.roll(1, 2), a.roll((1, -2), (0, 1)), a.roll(5), a.roll(0, 1), a.roll(-7, 2)), operands, "concat")
    check(lambda a: (a.flip(0), a.flip(1, 2), a.flip(())), operands, "flip")
    check(lambda a: (torch.fliplr(a), torch.flipud(a)), operands, "flip")
    line = numbers((3,), seed=2)
    check(lambda a, b: (*torch.meshgrid(a, b, indexing="ij"), *torch.meshgrid(a, b, indexing="xy"), torch.outer(a, b)),
          [(numbers((4,)), line)], "broadcast", "mul")  # fmt: skip


def test_what_repeats_is_memory_of_its_own() -> None:
    """The caller may write into a result; a view that repeats its operand's elements would not do."""
    forms = Forms(lambda a: (a.repeat(3, 1), a.repeat_interleave(2, 0)), [numbers((1, 4))])
    assert [op.name for op in forms.function.walk()].count("forge.copy") == 2


def test_shuffles() -> None:
    images = [(numbers((2, 8, 4, 6)),), (numbers((2, 4, 6, 8)).permute(0, 3, 1, 2),)]
    check(lambda a: (F.pixel_shuffle(a, 2), F.pixel_unshuffle(a, 2)), images, "transpose")
    check_values(lambda a: F.channel_shuffle(a, 4), images, "transpose")


def test_places() -> None:
    ids = torch.tensor([[0, 2], [1, 1]])
    check(lambda i: (F.one_hot(i, 4), F.one_hot(i[0, 0], 3)), [(ids,), (ids.t(),)], "scatter")
    sources = [numbers((3, 4)), numbers((4, 3)).t(), numbers((3, 8))[:, ::2]]
    operands = [(t,) for t in sources]
    check(lambda a: (a.scatter(1, ids, 2.5), a.scatter_add(1, ids, a[:2, :2] * 2)), operands, "scatter", "scatter_add")
    check(lambda a: (a.index_add(0, ids[0], a[:2] * 1), (a * 2).index_add(1, ids[1], a[:, :2])), operands, "index_add")
    check(lambda a: (a.scatter(0, ids, 1), a.scatter_add(1, ids, a)), [(numbers((3, 4), d),) for d in DTYPES])


def images(*shape: int) -> list[tuple[torch.Tensor]]:
    """Row-major, channels last, strided."""
    plain = numbers(shape)
    last = plain.movedim(1, -1).contiguous().movedim(-1, 1)
    wide = numbers((*shape[:-1], 2 * shape[-1]))[..., ::2]
    return [(plain,), (last,), (wide,)]


def test_padding() -> None:
    check(lambda a: (F.pad(a, (1, 2)), F.pad(a, (0, 1, 2, 0), value=1.5), F.pad(a, (0, 0, 1, 1, 2, 3))),
          images(2, 3, 4, 5), "pad")  # fmt: skip
    check(lambda a: F.pad(a, (1, 2), value=-1), [(numbers((2, 3), d),) for d in DTYPES], "pad")
    for mode in ("reflect", "replicate"):
        check(lambda a, m=mode: (F.pad(a, (1, 2, 0, 1), mode=m), F.pad(a[0], (1, 1, 2, 0), mode=m)),
              images(2, 3, 4, 5), "pad")  # fmt: skip
        check(lambda a, m=mode: F.pad(a, (1, 2), mode=m), images(2, 3, 4), "pad")
    check(lambda a: (F.pad(a, (-1, 2)), F.pad(a, (1, 1), mode="circular")), images(2, 3, 4))


def test_pooling() -> None:
    check(lambda a: (F.max_pool2d(a, 2), F.max_pool2d(a, (3, 2), 1, 1, 2), F.max_pool2d(a, 3, 2, 1, ceil_mode=True)),
          images(2, 3, 8, 9), "max_pool")  # fmt: skip
    check(lambda a: (F.avg_pool2d(a, 2), F.avg_pool2d(a, 3, 2, 1), F.avg_pool2d(a, 3, 2, 1, True, False),
                     F.avg_pool2d(a, 2, divisor_override=3)), images(2, 3, 8, 9), "avg_pool")  # fmt: skip
    check_values(lambda a: (F.max_pool1d(a, 3, 2), F.avg_pool1d(a, 3, 2, 1), F.adaptive_avg_pool1d(a, 3)),
          images(2, 3, 9), "max_pool", "avg_pool", "adaptive_avg_pool")  # fmt: skip
    check(lambda a: (F.max_pool3d(a, 2), F.avg_pool3d(a, 2, 1), F.adaptive_avg_pool3d(a, (2, 1, 3))),
          images(1, 2, 4, 5, 6), "max_pool", "avg_pool", "adaptive_avg_pool")  # fmt: skip
    check(lambda a: (F.adaptive_avg_pool2d(a, 1), F.adaptive_avg_pool2d(a, (3, None)), F.max_pool2d(a[0], 2)),
          images(2, 3, 8, 9), "adaptive_avg_pool")  # fmt: skip


def test_resizing() -> None:
    def resized(mode: str, corners: bool | None = None) -> Callable[..., Any]:
        by = {"mode": mode, "align_corners": corners}
        return lambda a: (
            F.interpolate(a, scale_factor=2, **by),
            F.interpolate(a, scale_factor=1.7, **by),
            F.interpolate(a, size=(5,) * (a.dim() - 2), **by),
        )

    for mode in ("nearest", "nearest-exact"):
        check(resized(mode), [*images(2, 3, 4), *images(2, 3, 4, 5), *images(1, 2, 3, 4, 2)], "resize")
    for corners in (False, True):
        check(resized("linear", corners), images(2, 3, 4), "resize")
        check(resized("bilinear", corners), images(2, 3, 4, 5), "resize")
        check(resized("bicubic", corners), images(2, 3, 4, 5), "resize")
        check(resized("trilinear", corners), images(1, 2, 3, 4, 2), "resize")


def test_batch_norm() -> None:
    mean, var, weight, bias = numbers((3,)), numbers((3,), seed=1).abs() + 0.5, numbers((3,), seed=2), numbers((3,))
    for shape in ((2, 3), (2, 3, 4), (2, 3, 4, 5)):
        operands = [(a, mean, var, weight, bias) for (a,) in images(*shape)]
        check_values(lambda a, m, v, w, c: (F.batch_norm(a, m, v, w, c), F.batch_norm(a, m, v, eps=0.1)), operands,
              "batch_norm")  # fmt: skip
    mixed = [(numbers((2, 3, 4), d), *(t.to(d) for t in (mean, var, weight, bias))) for d in FLOATS]
    check(F.batch_norm, mixed, "batch_norm", exactly=False)
    check(lambda a, w: F.batch_norm(a, None, None, w, training=True), [(numbers((4, 3)), weight)])


def test_convolutions_that_are_not_plain() -> None:
    image, kernel, bias = numbers((2, 4, 7, 6)), numbers((4, 3, 3, 2), seed=1), numbers((6,), seed=2)
    turned = image.to(memory_format=torch.channels_last)
    check(lambda a, w, c: (F.conv_transpose2d(a, w, c, (2, 1), 1, (1, 0), 2, (1, 2)), F.conv_transpose2d(a, w)),
          [(image, kernel, bias), (turned, kernel, bias)], "conv_transpose", exactly=False)  # fmt: skip
    check(lambda a, w: F.conv_transpose1d(a, w, stride=2), [(numbers((2, 4, 9)), numbers((4, 3, 3)))], "conv_transpose",
          exactly=False)  # fmt: skip
    check(F.conv_transpose3d, [(numbers((1, 2, 3, 3, 3)), numbers((2, 3, 2, 2, 2)))], "conv_transpose", exactly=False)
    check(lambda a, w: (F.conv2d(a, w, padding="same"), F.conv2d(a, w, padding="valid", stride=2)),
          [(image, numbers((3, 4, 3, 5)))], "convolution", exactly=False)  # fmt: skip


def test_names_that_are_others() -> None:
    def aliased(a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = torch.multiply(a, a), torch.true_divide(a, 2), torch.subtract(a, 1), torch.absolute(a), torch.clip(a, 0)
        return *found, torch.greater(a, 0), torch.special.expit(a), torch.concat([a, a]), torch.arccos(a)

    forms = Forms(aliased, [numbers((3, 4))])
    assert not [op for op in forms.function.walk() if isinstance(op, AtenOp)]
    check(aliased, [(t,) for t in layouts() if t.dim()], "mul", "div", "sub", "abs", "clamp", "gt", "sigmoid", "acos")


def test_what_does_not_fit_is_refused() -> None:
    x = numbers((1, 2, 4, 4))

    def pool(**settings: list[int]) -> dict[str, IntsAttr]:
        usual = {"kernel": [2, 2], "strides": [2, 2], "padding": [0, 0], "dilation": [1, 1]}
        return {name: IntsAttr(values) for name, values in {**usual, **settings}.items()}

    for settings in (pool(padding=[2, 0]), pool(kernel=[5, 5]), pool(strides=[0, 1]), pool(kernel=[2])):
        with pytest.raises(VerifyException):
            run_op(MaxPoolOp, [x], settings)
    one = {**{name: IntsAttr([2]) for name in ("kernel", "strides")}, "padding": IntsAttr([0])}
    with pytest.raises(VerifyException, match="takes no divisor"):
        run_op(AvgPoolOp, [x[0]], {**one, "divisor": ScalarAttr.of(2)})
    refused = [("reflect", [0, 4], None), ("reflect", [1, 0], None), ("reflect", [0, 1], 0), ("wrap", [0], 0)]
    for mode, low, value in refused:
        properties = {"mode": StringAttr(mode), "low": ExtentsAttr(low), "high": ExtentsAttr([0, 0])}
        if value is not None:
            properties["value"] = ScalarAttr.of(value)
        with pytest.raises(VerifyException):
            run_op(PadOp, [numbers((3, 4))], properties)
