"""Spelled-out attention becomes one op that gives what the spelling gives, and says what its mask says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as sdpa
from xdsl.dialects.builtin import ModuleOp

import forgec
from forgec.capture.capture import export_model, import_program
from forgec.ir import context, types
from forgec.ir.interpreter import interpret
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.reduction import SoftmaxOp
from forgec.passes import pipelines
from forgec.passes.manager import run_pipeline

BATCH, HEADS, LENGTH, FEATURES = 2, 4, 7, 8
INFINITY = math.inf
Spelling = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Model(nn.Module):
    """A function of query, key, value [B, H, S, D] and padding [B, S]; with the buffers that spellings use."""

    def __init__(self, spelling: Callable[..., Tensor]) -> None:
        super().__init__()
        self.spelling = spelling
        self.register_buffer("lower", torch.ones(24, 24).tril().view(1, 1, 24, 24))
        self.register_buffer("triangle", torch.ones(24, 24, dtype=torch.bool).tril(), persistent=False)
        self.sinks = nn.Parameter(torch.linspace(-1, 1, HEADS), requires_grad=False)
        self.bias = nn.Parameter(torch.linspace(-2, 2, HEADS * 576).view(1, HEADS, 24, 24), requires_grad=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
        return self.spelling(self, q, k, v, pad)


def causal(n: int) -> Tensor:
    place = torch.arange(n)
    return place[None, :] <= place[:, None]


def product(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-1, -2)


def least(x: Tensor) -> float:
    return torch.finfo(x.dtype).min


def added(keep: Tensor, like: Tensor, fill: float | None = None) -> Tensor:
    """0 where it keeps, and the fill (the least finite number) elsewhere."""
    return torch.zeros_like(keep, dtype=like.dtype).masked_fill(~keep, least(like) if fill is None else fill)


def plain(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    return torch.softmax(product(q, k) / math.sqrt(FEATURES), -1) @ v


def scaled_query_and_key(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    return torch.softmax(product(q * 0.5, k * 0.7), -1) @ v


def einsum(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    weights = torch.softmax(torch.einsum("bqhd,bkhd->bhqk", q, k) * 0.3, -1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v).transpose(1, 2)


def three_dimensions(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    b, h, s, d = q.shape
    q, k, v = (t.reshape(b * h, s, d) for t in (q, k, v))
    scores = torch.bmm(q, k.transpose(1, 2)).view(b, h, s, s) + added(causal(s), q)
    weights = torch.softmax(scores.view(b * h, s, s), -1)
    return torch.bmm(weights, v).view(b, h, s, d)


def bias_in_product(m: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    b, h, s, d = q.shape
    bias = m.bias[0, :, :1, :s].repeat(b, 1, 1)
    q, k, v = (t.reshape(b * h, s, d) for t in (q, k, v))
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), beta=0.5, alpha=0.25)
    return torch.bmm(torch.softmax(scores, -1), v).view(b, h, s, d)


def nano(m: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    s = q.shape[-2]
    scores = product(q, k) * (1.0 / math.sqrt(FEATURES))
    scores = scores.masked_fill(m.lower[:, :, :s, :s] == 0, -INFINITY)
    return torch.softmax(scores, -1) @ v


def triangle_where(m: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    s = q.shape[-2]
    scores = torch.where(m.triangle[:s, :s], product(q, k), torch.tensor(least(q), dtype=q.dtype))
    return torch.softmax(scores, -1) @ v


def triu(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    s = q.shape[-2]
    return torch.softmax(product(q, k) + torch.full((s, s), -INFINITY).triu(1).to(q.dtype), -1) @ v


def padded(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    mask = (1.0 - pad[:, None, None, :].to(q.dtype)) * least(q)
    return torch.softmax(product(q, k) * 0.5 + mask, -1) @ v


def padded_causal(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    keep = causal(q.shape[-2]) & pad[:, None, None, :]
    scores = product(q, k) * 0.5 + added(keep, q)
    return torch.softmax(scores.float(), -1).to(q.dtype) @ v


def window(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    place = torch.arange(q.shape[-2])
    keep = causal(q.shape[-2]) & (place[None, :] > place[:, None] - 3) & pad[:, None, None, :]
    return torch.softmax(product(q, k).masked_fill(~keep, least(q)), -1) @ v


def both_sides(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    place = torch.arange(q.shape[-2])
    far = (place[None, :] - place[:, None]).abs() > 2
    return torch.softmax(product(q, k).masked_fill(far, -INFINITY), -1) @ v


def chunks(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    place = torch.arange(q.shape[-2])
    keep = causal(q.shape[-2]) & (place[None, :] // 3 == place[:, None] // 3)
    return torch.softmax(product(q, k) + added(keep, q, -INFINITY), -1) @ v


def capped(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = torch.tanh(product(q, k) * 0.4 / 5.0) * 5.0
    return torch.softmax(scores.masked_fill(~causal(q.shape[-2]), least(q)), -1) @ v


def sinks(m: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = product(q, k) * 0.3 + added(causal(q.shape[-2]) & pad[:, None, None, :], q)
    column = m.sinks.reshape(1, -1, 1, 1).expand(q.shape[0], -1, q.shape[-2], -1)
    scores = torch.cat([scores, column], -1)
    scores = scores - scores.max(-1, keepdim=True).values
    return torch.softmax(scores, -1)[..., :-1] @ v


def biased(m: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    s = q.shape[-2]
    mask = added(pad[:, None, None, :], q)
    return torch.softmax(product(q, k) + (m.bias[:, :, :s, :s] + mask), -1) @ v


def clamped(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = product(q, k) + added(causal(q.shape[-2]), q, -INFINITY)
    return torch.softmax(torch.max(scores, torch.tensor(least(q))), -1) @ v


def shifted(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = product(q / 2, k) / 32
    return torch.softmax((scores - scores.amax(-1, keepdim=True)) * 32, -1) @ v


def grouped(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    k, v = (t[:, :2].repeat_interleave(2, 1) for t in (k, v))
    return torch.softmax(product(q, k), -1) @ v


def head_scale(m: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    return torch.softmax(product(q, k) * m.sinks.exp().view(-1, 1, 1), -1) @ v


def differential(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    weights = torch.softmax(product(q, k) * 0.3, -1)
    first, second = v.chunk(2, 1)
    first, second = first.repeat(1, 2, 1, 1), second.repeat(1, 2, 1, 1)
    return weights @ first - 0.5 * (weights @ second)


def weak_mask(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    return torch.softmax(product(q, k).masked_fill(~causal(q.shape[-2]), -100.0) * 0.5, -1) @ v


def own(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    return sdpa(q, k, v, attn_mask=causal(q.shape[-2]) & pad[:, None, None, :])


SPELLINGS: list[tuple[Callable[..., Tensor], str]] = [
    (plain, ""),
    (scaled_query_and_key, ""),
    (einsum, ""),
    (three_dimensions, "causal"),
    (bias_in_product, "bias"),
    (nano, "causal"),
    (triangle_where, "causal"),
    (triu, "causal"),
    (padded, "keys uniform"),
    (padded_causal, "causal keys uniform"),
    (window, "causal window=3 keys uniform"),
    (both_sides, "window=3"),
    (chunks, "causal chunk=3"),
    (capped, "causal softcap"),
    (sinks, "causal keys sinks"),
    (biased, "keys bias uniform"),
    (clamped, "causal"),
    (shifted, ""),
    (grouped, ""),
    (head_scale, ""),
    (differential, ""),
    (weak_mask, "bias replaced"),
    (own, "causal keys"),
]
CASES = [pytest.param(spelling, words, id=spelling.__name__) for spelling, words in SPELLINGS]
LENGTH_DIM = forgec.Dim("length", min=2, max=16)


def inputs(length: int = LENGTH, dtype: torch.dtype = torch.float32, batch: int = BATCH) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(batch, HEADS, length, FEATURES, generator=generator).to(dtype) for _ in range(3))
    pad = torch.ones(batch, length, dtype=torch.bool)
    pad[-1, -2:] = False
    return [q, k, v, pad]


def captured(spelling: Callable[..., Tensor], dynamic: bool, dtype: torch.dtype = torch.float32) -> tuple[Model, Any]:
    model = Model(spelling).to(dtype)
    arguments = inputs(dtype=dtype)
    shapes = None
    if dynamic:
        shapes = tuple({0: forgec.Dim("batch", min=1, max=4), (2 if t.ndim == 4 else 1): LENGTH_DIM} for t in arguments)
    program = export_model(model, tuple(arguments), {}, shapes)
    return model, import_program(program, model, tuple(arguments), {}, shapes)


def attentions(module: ModuleOp) -> list[AttentionOp]:
    return [op for op in module.walk() if isinstance(op, AttentionOp)]


def words_of(op: AttentionOp) -> set[str]:
    """What the op says of its scores."""
    said = {name for name in ("causal", "softcap") if name in op.properties}
    said |= {f"{name}={op.properties[name].data}" for name in ("window", "chunk") if name in op.properties}  # type: ignore[attr-defined]
    said |= {name for name in ("prefix", "keys", "sinks", "replaced") if getattr(op, name) is not None}
    said |= {"uniform"} if op.empty_row.data == "uniform" else set()
    if op.mask is not None:
        said.add("mask" if types.dtype(op.mask) == "i1" else "bias")
    return said


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(("spelling", "words"), CASES)
def test_becomes_one_op_that_gives_the_same(spelling: Callable[..., Tensor], words: str, dynamic: bool) -> None:
    model, found = captured(spelling, dynamic)
    module = found.module
    run_pipeline(module, pipelines.parse("@O2"), context=context())
    module.verify()
    (op,) = attentions(module)
    assert not any(isinstance(other, SoftmaxOp) for other in module.walk())
    assert words_of(op) == set(words.split())
    for length in (LENGTH, 2, 16) if dynamic else (LENGTH,):
        arguments = inputs(length)
        (result,) = interpret(module, arguments, found.tensors)
        torch.testing.assert_close(result, model(*arguments), rtol=2.1e-5, atol=2.1e-5)


NARROW = [plain, scaled_query_and_key, three_dimensions, nano, triangle_where, window, own]


@pytest.mark.parametrize(
    ("spelling", "dtype"),
    [*((f, dtype) for f in NARROW for dtype in (torch.float16, torch.bfloat16)), (padded_causal, torch.bfloat16)],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_narrow_floats(spelling: Callable[..., Tensor], dtype: torch.dtype) -> None:
    model, found = captured(spelling, False, dtype)
    run_pipeline(found.module, pipelines.parse("@O2"), context=context())
    assert len(attentions(found.module)) == 1
    arguments = inputs(dtype=dtype)
    (result,) = interpret(found.module, arguments, found.tensors)
    assert result.dtype == dtype
    wide = Model(spelling).double()(*(t.double() if t.is_floating_point() else t for t in arguments))
    ours, eager = ((r.double() - wide).abs().max() for r in (result, model(*arguments)))
    assert ours <= 1.5 * eager + 1e-3


@pytest.mark.parametrize("spelling", [padded, padded_causal, window, sinks, biased], ids=lambda f: f.__name__)
@pytest.mark.parametrize("side", ["left", "right", "all"])
def test_rows_with_nothing_left(spelling: Callable[..., Tensor], side: str) -> None:
    model, found = captured(spelling, True)
    run_pipeline(found.module, pipelines.parse("@O2"), context=context())
    q, k, v, pad = inputs()
    pad[:] = True
    pad[0, {"left": slice(0, 3), "right": slice(4, 7), "all": slice(0, 7)}[side]] = False
    (result,) = interpret(found.module, [q, k, v, pad], found.tensors)
    torch.testing.assert_close(result, model(q, k, v, pad), rtol=2.1e-5, atol=2.1e-5)
    compiled = forgec.compile(model, (q, k, v, pad))
    torch.testing.assert_close(compiled(q, k, v, pad), model(q, k, v, pad), rtol=2.1e-5, atol=2.1e-5)


@pytest.mark.parametrize("spelling", [padded_causal, window, sinks, own], ids=lambda f: f.__name__)
def test_masked_keys_and_values_are_not_read(spelling: Callable[..., Tensor]) -> None:
    model, found = captured(spelling, True)
    run_pipeline(found.module, pipelines.parse("@O2"), context=context())
    q, k, v, pad = inputs()
    expected = model(q, k, v, pad)
    dirty = [t.masked_fill(~pad[:, None, :, None], math.nan) for t in (k, v)]
    (result,) = interpret(found.module, [q, *dirty, pad], found.tensors)
    torch.testing.assert_close(result, expected, rtol=2.1e-5, atol=2.1e-5)


@pytest.mark.parametrize(("spelling", "words"), CASES)
def test_compiled(spelling: Callable[..., Tensor], words: str) -> None:
    model, arguments = Model(spelling), inputs()
    compiled = forgec.compile(model, tuple(arguments))
    torch.testing.assert_close(compiled(*arguments), model(*arguments), rtol=2.1e-5, atol=2.1e-5)


def filled_infinite(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    return torch.softmax(product(q, k).masked_fill(~pad[:, None, None], -INFINITY), -1) @ v


def filled_and_multiplied(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    return torch.softmax(product(q, k).masked_fill(~pad[:, None, None], least(q)) * 8, -1) @ v


def filled_twice(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = product(q, k).masked_fill(~pad[:, None, None], least(q))
    return torch.softmax(scores.masked_fill(~causal(q.shape[-2]), least(q)), -1) @ v


def filled_otherwise(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = product(q, k).masked_fill(~pad[:, None, None], least(q))
    return torch.softmax(scores.masked_fill(~causal(q.shape[-2]), -INFINITY), -1) @ v


def added_infinite(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = product(q, k) + added(pad[:, None, None], q, -INFINITY)
    return torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype) @ v


def capped_infinite(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = 5 * torch.tanh(product(q, k) / 5)
    return torch.softmax(scores.masked_fill(~pad[:, None, None], -INFINITY), -1) @ v


def capped_least(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = 5 * torch.tanh(product(q, k) / 5)
    return torch.softmax(scores.masked_fill(~pad[:, None, None], least(q)), -1) @ v


def own_bias(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    return sdpa(q, k, v, attn_mask=added(pad[:, None, None], q))


EMPTY_ROWS = [filled_infinite, filled_and_multiplied, filled_twice, filled_otherwise, added_infinite, padded_causal,
              capped_infinite, capped_least, own_bias]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spelling", EMPTY_ROWS, ids=lambda f: f.__name__)
def test_rows_of_which_nothing_is_kept_are_what_eager_gives(
    spelling: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    q, k, v, pad = inputs(dtype=dtype)
    pad[0] = False
    pad[1, :2] = False
    arguments = (q * 3, k, v, pad)
    model, tolerance = Model(spelling), 2.1e-5 if dtype == torch.float32 else 5e-2
    compiled = forgec.compile(model, arguments)
    expected = model(*arguments)
    torch.testing.assert_close(compiled(*arguments), expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def shifted_before_a_cap(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = product(q, k)
    return torch.softmax(5 * torch.tanh((scores - scores.amax(-1, keepdim=True)) / 5), -1) @ v


def shifted_before_sinks(m: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = product(q, k) * 0.3
    column = m.sinks.reshape(1, -1, 1, 1).expand(q.shape[0], -1, q.shape[-2], -1)
    scores = torch.cat([scores - scores.amax(-1, keepdim=True), column], -1)
    return torch.softmax(scores, -1)[..., :-1] @ v


def shifted_by_other_rows(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    scores = product(q, k)
    return torch.softmax(scores - scores.amax(-1).unsqueeze(-2), -1) @ v


def shifted_by_numbers(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    keep = torch.full((q.shape[-2], 1), 3.0) >= torch.arange(q.shape[-2])
    return sdpa(q, k, v, attn_mask=keep)


def bytes_that_wrap(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    place = torch.arange(q.shape[-2]).to(torch.uint8)
    return sdpa(q, k, v, attn_mask=place[:, None] - place[None] >= 0)


def a_sum_of_more_than_its_last(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    place = torch.arange(q.shape[-2])
    first = torch.cumsum((place == 0).long(), 0)[3:4][:, None]
    return sdpa(q, k, v, attn_mask=first + place[:, None] >= place[None])


LOOKALIKES = [shifted_before_a_cap, shifted_before_sinks, shifted_by_other_rows, shifted_by_numbers, bytes_that_wrap,
              a_sum_of_more_than_its_last]  # fmt: skip


@pytest.mark.parametrize("spelling", LOOKALIKES, ids=lambda f: f.__name__)
def test_what_looks_alike_keeps_its_value(spelling: Callable[..., Tensor]) -> None:
    model, found = captured(spelling, False)
    run_pipeline(found.module, pipelines.parse("@O2"), context=context())
    arguments = inputs()
    (result,) = interpret(found.module, arguments, found.tensors)
    torch.testing.assert_close(result, model(*arguments), rtol=2.1e-5, atol=2.1e-5)


def capped_twice(_: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    return torch.softmax(torch.tanh(torch.tanh(product(q, k))), -1) @ v


def bias_before_cap(m: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    s = q.shape[-2]
    return torch.softmax(torch.tanh(product(q, k) + m.bias[:, :, :s, :s]), -1) @ v


def infinite_fill(m: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
    return torch.softmax(product(q, k).masked_fill(~causal(q.shape[-2]), INFINITY), -1) @ v


def returned_weights(m: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Any:
    weights = torch.softmax(product(q, k), -1)
    return weights @ v, weights


def multiplied(m: Any, q: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Any:
    s = q.shape[-2]
    return torch.softmax(product(q, k) * m.bias[:, :, :s, :s], -1) @ v


@pytest.mark.parametrize(
    ("spelling", "reason"),
    [
        (capped_twice, "capped twice"),
        (bias_before_cap, "before they are capped"),
        (infinite_fill, "masked scores get inf"),
        (returned_weights, "weights have other uses"),
        (multiplied, "multiplied by a tensor"),
        (padded_causal, "float16 does not lose the scores"),
        (shifted_before_a_cap, "shifted by their maximum before"),
    ],
    ids=lambda x: x.__name__ if callable(x) else "",
)
def test_refused(spelling: Callable[..., Any], reason: str) -> None:
    _, found = captured(spelling, False, torch.float16 if "float16" in reason else torch.float32)
    reports = run_pipeline(found.module, pipelines.parse("@O2"), context=context())
    assert not attentions(found.module)
    assert any(reason in remark.message for report in reports for remark in report.remarks)
