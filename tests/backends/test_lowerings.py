"""Every forge op that the ATen backend lowers, against eager PyTorch: shapes, layouts, dtypes, numbers, nothing at all.

A case is a function of torch and the forge ops that it must reach. It is applied to many operands in one program, so
that one export covers them; operands that eager PyTorch refuses are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import forgec
from forgec.ir.interpreter import interpret
from forgec.ir.plan_interpreter import interpret_plan
from tests.backends.operands import DTYPES, FLOATS, check, every_dtype, layouts, numbers, pairs, with_numbers
from tests.ir.build import parse
from tests.oracle import assert_close, lower, program_of

UNARY: dict[str, Callable[..., Any]] = {
    "neg": torch.neg, "abs": torch.abs, "sign": torch.sign, "exp": torch.exp, "exp2": torch.exp2,
    "expm1": torch.expm1, "log": torch.log, "log2": torch.log2, "log1p": torch.log1p, "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal, "sin": torch.sin, "cos": torch.cos, "tanh": torch.tanh,
    "erf": torch.erf, "sigmoid": torch.sigmoid, "silu": F.silu, "relu": torch.relu, "floor": torch.floor,
    "ceil": torch.ceil, "round": torch.round, "trunc": torch.trunc, "logical_not": torch.logical_not,
    "bitwise_not": torch.bitwise_not, "isnan": torch.isnan, "gelu": F.gelu,
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    check(UNARY[name], every_dtype(), name)


@pytest.mark.parametrize("name", UNARY)
def test_unary_of_special_numbers(name: str) -> None:
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 3e38, -1.0, 0.5, 2.5])
    least = torch.tensor([-(2**63), 2**63 - 1])
    check(UNARY[name], [(special,), (special.double(),), (least,)])


def test_gelu_by_tanh() -> None:
    check(lambda a: F.gelu(a, approximate="tanh"), every_dtype(), "gelu")


def test_relu_leaves_its_operand_alone() -> None:
    check(lambda a: torch.relu(a) + a, every_dtype(), "relu")


BINARY: dict[str, Callable[..., Any]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow, "eq": torch.eq,
    "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge, "remainder": torch.remainder,
    "floor_div": torch.floor_divide, "maximum": torch.maximum, "minimum": torch.minimum,
    "logical_and": torch.logical_and, "logical_or": torch.logical_or, "logical_xor": torch.logical_xor,
    "bitwise_and": torch.bitwise_and, "bitwise_or": torch.bitwise_or, "bitwise_xor": torch.bitwise_xor,
    "rsub": torch.rsub,
}  # fmt: skip


@pytest.mark.parametrize("name", BINARY)
def test_binary(name: str) -> None:
    operands = pairs()
    if name in ("remainder", "floor_div"):  # integers divided by zero trap
        operands = [(a, torch.where(b == 0, torch.ones_like(b), b)) for a, b in operands]
    check(BINARY[name], operands, name)


@pytest.mark.parametrize("name", [n for n in BINARY if not n.startswith("logical") and n not in ("maximum", "minimum")])
def test_binary_with_a_number(name: str) -> None:
    operands = with_numbers()
    if name in ("remainder", "floor_div"):
        operands = [(a, n) for a, n in operands if n]
    if name == "pow":  # torch.export says that a power of booleans is int64, eager PyTorch that it is boolean
        operands = [(a, n) for a, n in operands if a.dtype != torch.bool]
    check(BINARY[name], operands, name)


def test_a_number_on_the_left() -> None:
    check(lambda a: (1 - a, 2 / a, 0.5 * a, 3 + a), [(t,) for t in layouts()], "rsub", "reciprocal")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("forge.maximum %x, 0.5", lambda x: x.clamp(min=0.5)),
        ("forge.minimum %x, 0.5", lambda x: x.clamp(max=0.5)),
        ("forge.logical_and %x, 2", lambda x: x != 0),
        ("forge.logical_and %x, 0", lambda x: torch.zeros_like(x, dtype=torch.bool)),
        ("forge.logical_or %x, 2", lambda x: torch.ones_like(x, dtype=torch.bool)),
        ("forge.logical_or %x, 0.0", lambda x: x != 0),
        ("forge.logical_xor %x, true", lambda x: x == 0),
        ("forge.logical_xor %x, false", lambda x: x != 0),
    ],
)
def test_numbers_that_aten_does_not_take(text: str, expected: Callable[..., Any]) -> None:
    kind = "tensor<4xi1>" if "logical" in text else "tensor<4xf32>"
    module = parse(
        f"func.func @forward(%x: tensor<4xf32>) -> {kind} {{\n"
        f"  %r = {text} : (tensor<4xf32>) -> {kind}\n  func.return %r : {kind}\n}}"
    )
    x = torch.tensor([0.0, -1.0, float("nan"), 3.0])
    lowered = lower(module)
    for found in (interpret(module, [x]), interpret_plan(lowered, [x], {}), [program_of(lowered, {})(x)]):
        assert_close(found, [expected(x)])


def test_casts() -> None:
    whole = [numbers((2, 3), dtype) for dtype in DTYPES]
    check(lambda a: [a.to(dtype) for dtype in DTYPES], [(t,) for t in [*layouts(), *whole]], "cast")


def test_clamp() -> None:
    check(lambda a: (a.clamp(-1, 0.5), a.clamp(min=0), a.clamp(max=1)), every_dtype(), "clamp")
    check(lambda a: a.clamp(float("-inf"), float("nan")), [(numbers((4,)),)])


def test_where() -> None:
    operands = [(a > 0, a, b) for a, b in pairs() if a.dtype == b.dtype or a.dim()]
    check(torch.where, operands, "where")
    check(lambda c, a: (torch.where(c, a, 0.0), torch.where(c, 1, a), torch.where(c, 1.5, 2.5)),
          [(t > 0, t) for t in layouts()], "where")  # fmt: skip


def test_masked_fill() -> None:
    operands = [(a, b > 0) for a, b in pairs() if b.dtype == torch.float32]
    check(lambda a, m: a.masked_fill(m, 2), operands, "masked_fill")
    check(lambda a, m: a.masked_fill(m, -float("inf")) + a, operands, "masked_fill")
    check(lambda a, m: (a * 1).masked_fill(m, 1), operands, "masked_fill")


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": torch.sum, "mean": torch.mean, "amax": torch.amax, "amin": torch.amin, "any": torch.any, "all": torch.all,
}  # fmt: skip


def reductions(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction over all, over one dimension, over several, kept or not: what fits the operand."""

    def apply(a: torch.Tensor) -> list[torch.Tensor]:
        found = [function(a)]
        if a.dim() >= 1:
            found += [function(a, dim=-1), function(a, dim=0, keepdim=True)]
        if a.dim() >= 2:
            found += [function(a, dim=(0, 1)), function(a, dim=(-1, 0), keepdim=True), function(a, dim=1)]
        return found

    return apply


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    check(reductions(REDUCTIONS[name]), every_dtype(), name)


def test_products() -> None:
    check(lambda a: [a.prod(), *([a.prod(0), a.prod(-1, keepdim=True)] if a.dim() else [])], every_dtype(), "prod")


def test_sums_in_another_dtype() -> None:
    check(lambda a: (a.sum(dtype=torch.float64), a.mean(dtype=torch.float32), a.prod(dtype=torch.float32)),
          every_dtype(), "sum", "mean", "cast")  # fmt: skip


def test_variance() -> None:
    check(lambda a: (a.var(0), a.var(-1, correction=0, keepdim=True), a.var((0, 1), correction=2)),
          [(t,) for t in layouts() if t.dim() == 2 and t.numel()], "var")  # fmt: skip


def test_variance_over_dimensions_that_are_large_together() -> None:
    x = torch.randn(600, 500)
    compiled = forgec.compile(lambda x: (x.var(), x.std((0, 1)), x.mean()), (x,), target="cpu:host")
    for given, expected in zip(compiled(x), (x.var(), x.std(), x.mean()), strict=True):
        torch.testing.assert_close(given, expected)


def test_places_of_extremes() -> None:
    check(lambda a: (a.argmax(-1), a.argmin(0, keepdim=True)), every_dtype(), "argmax", "argmin")


def test_running_sums() -> None:
    check(lambda a: (a.cumsum(-1), a.cumsum(0)), every_dtype(), "cumsum")
    check(lambda a: a.cumsum(0, dtype=torch.float64), every_dtype(), "cumsum")


def test_softmax() -> None:
    check(lambda a: (a.softmax(-1), a.log_softmax(0)), every_dtype(), "softmax", "log_softmax")
    check(lambda a: (a.softmax(-1, dtype=torch.float64), a.log_softmax(0, torch.float32)), every_dtype(), "cast")
    check(lambda a: (a.t() * 1).softmax(0), [(numbers((3, 4)),)])
    check(lambda a: a.softmax(-1), [(torch.full((2, 3), -float("inf")),)])


def matrices() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Operands of a product: vectors, matrices and stacks, in several layouts."""
    left = [numbers((3, 4)), numbers((4, 3)).t(), numbers((3, 8))[:, ::2], numbers((4,)), numbers((2, 3, 4))]
    left += [numbers((2, 4, 3)).transpose(1, 2), numbers((2, 1, 3, 4)), numbers((5, 2, 3, 4)), numbers((0, 4))]
    left += [
        numbers((4, 2, 3)).permute(1, 2, 0),
        numbers((1, 3, 4)).expand(2, 3, 4),
        numbers((5, 3, 2, 4)).transpose(1, 2),
    ]
    right = [numbers((4, 2), seed=1), numbers((2, 4), seed=1).t(), numbers((4,), seed=1), numbers((2, 4, 5), seed=1)]
    right += [numbers((2, 5, 4), seed=1).mT, numbers((5, 2, 4, 3), seed=1), numbers((4, 0)), numbers((5, 2, 3, 4)).mT]
    yield from product(left, right)
    yield numbers((3, 0)), numbers((0, 2))
    yield numbers((2, 3, 0)), numbers((2, 0, 4))
    yield numbers((0, 3, 4)), numbers((0, 4, 2))


def test_matmul() -> None:
    check(torch.matmul, matrices(), "matmul")
    for dtype in (torch.float64, torch.bfloat16, torch.int64):
        check(torch.matmul, [(a.to(dtype), b.to(dtype)) for a, b in matrices()], "matmul")
    check(
        lambda a, b: (a.mm(b), torch.dot(a[0], b[:, 0]), a.mv(b[:, 1])), [(numbers((3, 4)), numbers((4, 2)))], "matmul"
    )
    check(torch.bmm, [(numbers((2, 3, 4)), numbers((2, 4, 5)))], "matmul")


def test_linear() -> None:
    inputs = [numbers((3, 4)), numbers((4, 3)).t(), numbers((2, 3, 4)), numbers((2, 3, 2, 4)), numbers((4,))]
    inputs += [
        numbers((0, 4)),
        numbers((2, 4, 3)).transpose(1, 2),
        numbers((3, 8))[:, ::2],
        numbers((1, 4)).expand(3, 4),
    ]
    weights = [numbers((5, 4), seed=2), numbers((4, 5), seed=2).t(), numbers((0, 4)), numbers((1, 4), seed=4)]
    check(F.linear, product(inputs, weights), "linear")
    check(F.linear, [(x, w, numbers((w.shape[0],), seed=3)) for x, w in product(inputs, weights)], "linear")
    check(F.linear, [(numbers((3, 0)), numbers((2, 0)), numbers((2,))), (numbers((3, 0)), numbers((2, 0)))], "linear")
    check(F.linear, [(numbers((2, 3, 4), d), numbers((5, 4), d), numbers((5,), d)) for d in FLOATS], "linear")


def test_addmm() -> None:
    operands = [
        (numbers((2,)), numbers((3, 4)), numbers((4, 2), seed=1)),
        (numbers((2,)), numbers((3, 4)), numbers((2, 4)).t()),
    ]
    check(torch.addmm, operands, "linear", "transpose")
    check(torch.addmm, [(numbers((3, 2)), numbers((3, 4)), numbers((4, 2)))])


def test_convolutions() -> None:
    image, kernel, bias = numbers((2, 4, 7, 6)), numbers((6, 2, 3, 2), seed=1), numbers((6,), seed=2)
    turned = image.to(memory_format=torch.channels_last)

    def grouped(a: torch.Tensor, w: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return F.conv2d(a, w, c, stride=(2, 1), padding=1, dilation=(1, 2), groups=2)

    check(grouped, [(image, kernel, bias), (turned, kernel, bias)], "convolution", exactly=False)
    line = (numbers((2, 4, 9)), numbers((3, 4, 3)))
    check(lambda a, w: F.conv1d(a, w, padding=1), [line], "convolution", exactly=False)
    check(F.conv3d, [(numbers((1, 2, 4, 4, 4)), numbers((3, 2, 2, 2, 2)))], "convolution", exactly=False)
    check(lambda a, w: F.conv2d(a, w, padding="same"), [(image, numbers((3, 4, 3, 3)))], exactly=False)
    check(F.conv2d, [(image[0], numbers((3, 4, 2, 2)))], exactly=False)


def test_norms() -> None:
    x = [
        numbers((2, 3, 4)),
        numbers((2, 4, 3)).transpose(1, 2),
        numbers((3, 8))[:, ::2],
        numbers((0, 4)),
        numbers((4,)),
    ]
    w, c = numbers((4,), seed=1), numbers((4,), seed=2)
    check(lambda a, w, c: (F.layer_norm(a, (4,), w, c), F.layer_norm(a, (4,), w), F.layer_norm(a, (4,), None, c, 0.1)),
          [(a, w, c) for a in x], "layer_norm")  # fmt: skip
    check(lambda a: F.layer_norm(a, a.shape[-2:]), [(a,) for a in x[:2]], "layer_norm")
    check(lambda a, w: (F.rms_norm(a, (4,), w, 1e-6), F.rms_norm(a, (4,)), F.rms_norm(a, (4,), None, 0.1)),
          [(a, w) for a in x], "rms_norm")  # fmt: skip
    check(lambda a, w, c: (F.group_norm(a, 2, w, c), F.group_norm(a, 4)),
          [(numbers((2, 4, 3, 3)), w, c), (numbers((2, 4)), w, c)], "group_norm")  # fmt: skip
    check(lambda a: F.layer_norm(a, (4,)), [(numbers((2, 4), dtype),) for dtype in FLOATS], "layer_norm")


def test_attention() -> None:
    q, k = numbers((2, 4, 3, 8)), numbers((2, 4, 5, 8), seed=1)
    turned = numbers((2, 3, 4, 8)).transpose(1, 2)
    grouped = numbers((2, 2, 5, 8), seed=2)
    boolean, additive = numbers((3, 5), seed=3) > -1, numbers((2, 1, 3, 5), seed=4)
    sdpa = F.scaled_dot_product_attention
    check(lambda q, k: (sdpa(q, k, k), sdpa(q, k, k, is_causal=True), sdpa(q, k, k, scale=0.3)),
          [(q, k), (turned, k), (q[0], k[0])], "attention")  # fmt: skip
    check(lambda q, k, m: (sdpa(q, k, k, m), sdpa(q, k, k, m, scale=0.2)),
          [(q, k, boolean), (q, k, additive), (q, k, boolean.expand(2, 1, 3, 5))], "attention")  # fmt: skip
    check(lambda q, k: sdpa(q, k, k, enable_gqa=True), [(q, grouped)], "attention")
    check(lambda q, k: sdpa(q, k, k), [(q.double(), k.double())], "attention")
    check(lambda q, k: sdpa(q[0, 0], k[0, 0], k[0, 0]), [(q, k)])
    nothing = torch.tensor([[True] * 5, [False] * 5, [True] * 5])
    check(
        lambda q, k, m: sdpa(q, k, k, m), [(q, k, nothing), (q, k, torch.zeros(3, 5).masked_fill(~nothing, -torch.inf))]
    )


ids = torch.tensor([[0, 2], [1, 1]])


def test_embedding() -> None:
    tables = [numbers((4, 3)), numbers((3, 4)).t(), numbers((4, 6))[:, ::2]]
    places = [ids, ids.t(), ids.int(), ids[0], ids[0, 0], ids[:0]]
    check(lambda w, i: F.embedding(i, w), product(tables, places), "embedding")
    check(lambda w, i: F.embedding(i, w, padding_idx=1), [(numbers((4, 3)), ids)], "embedding")


def test_gathers() -> None:
    sources = [t for t in layouts() if t.dim() and t.numel()]
    check(lambda a: a.index_select(-1, torch.tensor([0, 2, 0])), [(t,) for t in sources], "index_select")
    check(
        lambda a, i: a.gather(1, i),
        [(numbers((2, 3)), ids), (numbers((3, 2)).t(), ids), (numbers((2, 3)), ids[:1])],
        "gather",
    )
    check(
        lambda a: (a[ids], a[ids, ids.t()], a[:, ids], a[ids, None], a[..., ids[0]]), [(numbers((3, 4, 5)),)], "index"
    )
    check(lambda a: (a[ids, :, ids], a[:, ids[0], ids], a[-ids], a[ids.int()]), [(numbers((3, 4, 5)),)], "index")
    check(lambda a: a[ids[:0]], [(numbers((3, 4)),)], "index")


def test_updates_by_index() -> None:
    sources = [numbers((3, 4)), numbers((4, 3)).t(), numbers((3, 8))[:, ::2]]
    first = torch.tensor([2, 0])
    check(lambda a: a.index_put((first,), numbers((2, 4), seed=2)), [(t,) for t in sources], "index_put")
    check(lambda a: a.index_put((ids,), torch.tensor(1.0), accumulate=True), [(t,) for t in sources], "index_put")
    check(lambda a: a.index_put((first, first), numbers((2,), seed=2)) + a, [(t,) for t in sources], "index_put")
    check(lambda a: a.index_copy(1, first, a[:, 2:] * 1), [(t,) for t in sources], "index_copy")
    check(lambda a: a.index_copy(0, first, a[:2]), [(t,) for t in sources], "index_copy")
    check(lambda a: a.scatter(1, ids, a[:2, :2] * 2), [(t[:2],) for t in sources], "scatter")
    check(lambda a: (a * 1).index_put((first,), a[:2]), [(t,) for t in sources], "index_put")


def test_views_and_copies() -> None:
    three = [numbers((2, 3, 4)), numbers((4, 3, 2)).permute(2, 1, 0), numbers((2, 3, 8))[..., ::2]]
    cases: list[Callable[..., Any]] = [
        lambda a: (a.reshape(6, 4), a.reshape(-1), a.reshape(2, 12), a.reshape(4, 3, 2), a.reshape(1, 24, 1)),
        lambda a: (a.transpose(0, 1) * 2, a.permute(2, 0, 1) + 1, a.mT.reshape(8, 3)),
        lambda a: (a[:, 1:] * 2, a[..., ::2] + 1, a[1:1], a[-1, :, 1:3].reshape(-1)),
        lambda a: (a[:, :1].expand(2, 5, 4) + 1, a[0].expand(3, 3, 4).sum(0), a[..., :1].expand(2, 3, 0)),
        lambda a: (a.contiguous(), a.mT.contiguous() + 1, a.clone(memory_format=torch.contiguous_format)),
        lambda a: (torch.cat([a, a], 1), torch.cat([a[:, 1:], a[:, :1]], 1), torch.stack([a, a * 2], -1)),
        lambda a: (torch.cat([a, a[:0]]), torch.cat([a, a.double()], 2), torch.cat([a])),
        lambda a: (a.slice_scatter(a[:, :2] * 3, 1, 1, 3), a.select_scatter(a[:, 0], 1, 2), a.slice_scatter(a, 1)),
        lambda a: a.slice_scatter(a[..., :2], 2, 0, 4, 2) + a,
        lambda a: [*a.split(2, -1), *a.unbind(1), *a.chunk(3, 1)],
    ]
    for case in cases:
        check(case, [(t,) for t in three])


def test_creation() -> None:
    def filled(a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.zeros(2, 3), a.new_ones(3), torch.full((2,), 1.5), torch.full_like(a, 2), a.new_full((2,), 7)

    def counted(a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.arange(4) + a, torch.arange(1, 9, 2).int() + a, torch.arange(5, 1, -1) + a, torch.arange(0)

    def special(a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.zeros(()), torch.ones(0, 3), torch.full((2, 2), True), torch.zeros(3, dtype=torch.bool), a

    check(filled, [(numbers((3, 4), dtype),) for dtype in DTYPES], "full")
    check(counted, [(numbers((4,)),)], "iota")
    check(special, [(numbers((1,)),)], "full")
