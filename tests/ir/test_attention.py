"""``forge.attention`` against torch's scaled_dot_product_attention, and against eager code for what that lacks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa
from xdsl.dialects.builtin import IntAttr, StringAttr, UnitAttr
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.ops.attention import AttentionOp
from tests.ir.build import module_of_op, run_op

INFINITY = math.inf


def properties(**values: Any) -> dict[str, Attribute]:
    """Properties from Python values."""
    attributes: dict[str, Attribute] = {}
    for name, value in values.items():
        if name in ("scale", "query_scale", "softcap"):
            attributes[name] = ScalarAttr.of(value)
        elif isinstance(value, str):
            attributes[name] = StringAttr(value)
        elif value is True:
            attributes[name] = UnitAttr()
        elif name == "offset":
            attributes[name] = ExtentAttr(value)
        else:
            attributes[name] = IntAttr(value)
    return attributes


def attend(*operands: torch.Tensor | None, float64: bool = False, **values: Any) -> torch.Tensor:
    return run_op(AttentionOp, operands, properties(**values), float64=float64)


def heads(
    heads: int = 4, kv_heads: int = 4, rows: int = 5, columns: int = 5, dtype: torch.dtype = torch.float64
) -> list:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, heads, rows, 8), (2, kv_heads, columns, 8), (2, kv_heads, columns, 6))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (3, 7), (7, 3), (1, 6)])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_agrees_with_torch(dtype: torch.dtype, causal: bool, rows: int, columns: int, kv_heads: int) -> None:
    q, k, v = heads(4, kv_heads, rows, columns, dtype)
    flags = {"causal": True} if causal else {}
    expected = sdpa(q, k, v, is_causal=causal, enable_gqa=True)
    close(attend(q, k, v, **flags), expected, {torch.bfloat16: 2e-2, torch.float16: 2e-3}.get(dtype, 1e-6))
    wide = sdpa(q.double(), k.double(), v.double(), is_causal=causal, enable_gqa=True)
    close(attend(q, k, v, float64=True, **flags), wide, 1e-12)


MASKS = [(5, 5), (1, 5), (5, 1), (1, 1, 5, 5), (2, 1, 1, 5), (1, 4, 5, 5), (2, 4, 5, 5)]


@pytest.mark.parametrize("shape", MASKS)
@pytest.mark.parametrize("causal", [False, True])
def test_masks_broadcast(shape: tuple[int, ...], causal: bool) -> None:
    q, k, v = heads()
    flags = {"causal": True} if causal else {}
    lower = torch.ones(5, 5, dtype=torch.bool).tril() if causal else torch.ones(5, 5, dtype=torch.bool)
    keep = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.4
    close(attend(q, k, v, keep, **flags), sdpa(q, k, v, attn_mask=keep & lower))
    bias = torch.randn(shape, dtype=torch.float64)
    expected = sdpa(q, k, v, attn_mask=bias.expand(2, 4, 5, 5).masked_fill(~lower, -INFINITY))
    close(attend(q, k, v, bias, **flags), expected)


def test_scale_and_query_scale() -> None:
    q, k, v = heads()
    close(attend(q, k, v, scale=0.3), sdpa(q, k, v, scale=0.3))
    close(attend(q, k, v, scale=1.0, query_scale=0.3), sdpa(q, k, v, scale=0.3))
    close(attend(q, k, v, query_scale=2.0), sdpa(2 * q, k, v))


def test_query_scale_rounds_to_the_query_dtype_before_the_product() -> None:
    q, k, v = heads(dtype=torch.bfloat16)
    rounded = sdpa((q * 0.3).double(), k.double(), v.double(), scale=1.0)
    close(attend(q, k, v, query_scale=0.3, scale=1.0).double(), rounded, 1e-2)
    near = attend(q, k, v, query_scale=0.3, scale=1.0, float64=True)
    close(near, sdpa(q.double() * 0.3, k.double(), v.double(), scale=1.0), 1e-12)


def eager(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scores_of: Any, keep: torch.Tensor | None = None) -> Any:
    scores = scores_of(q @ k.transpose(-1, -2))
    if keep is not None:
        scores = scores.masked_fill(~keep, -INFINITY)
    return scores.softmax(-1) @ v


def test_softcap_comes_after_the_scale_and_before_the_mask() -> None:
    q, k, v = heads()
    bias = 50 * torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = eager(q, k, v, lambda s: 2.0 * torch.tanh(s * 0.7 / 2.0) + bias)
    close(attend(q, k, v, bias, scale=0.7, softcap=2.0), expected)


@pytest.mark.parametrize("window", [1, 2, 4, 9])
@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (3, 7), (7, 3)])
def test_window(window: int, rows: int, columns: int) -> None:
    q, k, v = heads(rows=rows, columns=columns)
    ahead = torch.arange(rows)[:, None] - torch.arange(columns)
    keep = (ahead >= 0) & (ahead < window)
    close(attend(q, k, v, causal=True, window=window), sdpa(q, k, v, attn_mask=keep))


@pytest.mark.parametrize("offset", [0, 2, -1])
@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (3, 7)])
def test_positions_start_at_the_offset(rows: int, columns: int, offset: int) -> None:
    q, k, v = heads(rows=rows, columns=columns)
    place = torch.arange(rows)[:, None] + offset
    ahead = place - torch.arange(columns)
    close(attend(q, k, v, causal=True, offset=offset), sdpa(q, k, v, attn_mask=ahead >= 0))
    close(attend(q, k, v, window=2, offset=offset), sdpa(q, k, v, attn_mask=ahead.abs() < 2))
    both = (ahead >= 0) & (ahead < 3)
    close(attend(q, k, v, causal=True, window=3, offset=offset), sdpa(q, k, v, attn_mask=both))
    same = place // 2 == torch.arange(columns) // 2
    close(attend(q, k, v, chunk=2, offset=offset), sdpa(q, k, v, attn_mask=same))


def test_keys_keep_columns_of_a_batch() -> None:
    q, k, v = heads()
    keys = torch.tensor([[True, True, False, True, False], [False, True, True, True, True]])
    expected = sdpa(q, k, v, attn_mask=keys[:, None, None])
    close(attend(q, k, v, None, None, keys), expected)
    dirty = [t.masked_fill(~keys[:, None, :, None], math.nan) for t in (k, v)]
    close(attend(q, *dirty, None, None, keys), expected)
    close(attend(q, k, v, None, None, keys[:1]), sdpa(q, k, v, attn_mask=keys[:1, None, None]))


def test_a_prefix_is_kept_whatever_positions_say() -> None:
    q, k, v = heads(rows=3, columns=5)
    prefix = torch.tensor([[True, False, False, False, True], [False, False, True, False, False]])
    lower = torch.ones(3, 5, dtype=torch.bool).tril()
    expected = sdpa(q, k, v, attn_mask=lower | prefix[:, None, None])
    close(attend(q, k, v, None, None, None, prefix, causal=True), expected)
    keys = torch.tensor([[True, True, False, True, False], [True, True, True, True, True]])
    expected = sdpa(q, k, v, attn_mask=(lower | prefix[:, None, None]) & keys[:, None, None])
    close(attend(q, k, v, None, None, keys, prefix, causal=True), expected)


def test_the_mask_takes_the_place_of_scores() -> None:
    q, k, v = heads()
    gone = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(1)) > 0.6
    bias = torch.full((5, 5), -2.0, dtype=torch.float64).triu(1)
    scores = (q @ k.mT * 8**-0.5).masked_fill(gone, 0.0) + bias
    close(attend(q, k, v, bias, None, None, None, gone), torch.softmax(scores, -1) @ v)


def test_sinks_take_part_in_the_softmax_and_have_no_value() -> None:
    q, k, v = heads()
    sinks = torch.tensor([0.0, 3.0, -INFINITY, 50.0], dtype=torch.float64)
    scores = q @ k.transpose(-1, -2) * 8**-0.5
    column = sinks[:, None, None].expand(2, 4, 5, 1)
    expected = torch.cat([scores, column], -1).softmax(-1)[..., :-1] @ v
    close(attend(q, k, v, None, sinks), expected)
    close(attend(q, k, v, None, sinks)[:, 2], sdpa(q, k, v)[:, 2])
    keep = torch.ones(5, 5, dtype=torch.bool).tril(-1)
    masked = torch.cat([scores.masked_fill(~keep, -INFINITY), column], -1)
    finite = masked.softmax(-1)[:, [0, 1, 3], :, :-1] @ v[:, [0, 1, 3]]
    close(attend(q, k, v, keep, sinks)[:, [0, 1, 3]], finite)


@pytest.mark.parametrize("empty_row", ["zero", "uniform", "nan"])
def test_rows_with_nothing_to_attend(empty_row: str) -> None:
    q, k, v = heads()
    keep = torch.ones(5, 5, dtype=torch.bool)
    keep[2] = False
    found = attend(q, k, v, keep, empty_row=empty_row)
    others = [0, 1, 3, 4]
    close(found[:, :, others], sdpa(q, k, v)[:, :, others])
    mean = v.mean(-2)
    expected = {"zero": torch.zeros_like(mean), "uniform": mean, "nan": torch.full_like(mean, math.nan)}
    torch.testing.assert_close(found[:, :, 2], expected[empty_row], equal_nan=True)
    assert not attend(q, k, v, keep, torch.zeros(4).double(), empty_row=empty_row)[:, :, 2].any()


def test_torch_gives_zero_for_empty_rows_of_boolean_and_infinite_masks_and_the_mean_for_finite_ones() -> None:
    """What ``empty_row`` captures; should a new torch change it, capture must change too."""
    q, k, v = heads(dtype=torch.float32)
    keep = torch.ones(5, 5, dtype=torch.bool)
    keep[2] = False
    assert not sdpa(q, k, v, attn_mask=keep)[:, :, 2].any()
    infinite = torch.zeros(5, 5).masked_fill(~keep, -INFINITY)
    assert not sdpa(q, k, v, attn_mask=infinite)[:, :, 2].any()
    finite = torch.zeros(5, 5).masked_fill(~keep, torch.finfo(torch.float32).min)
    close(sdpa(q, k, v, attn_mask=finite)[:, :, 2], v.mean(-2))
    for mask in (keep, infinite, finite):
        close(attend(q, k, v, mask), sdpa(q, k, v, attn_mask=mask), 1e-5)


@pytest.mark.parametrize("garbage", [math.nan, INFINITY, -INFINITY])
@pytest.mark.parametrize("kind", ["boolean", "bias", "causal", "window"])
def test_masked_positions_are_not_read(garbage: float, kind: str) -> None:
    q, k, v = heads()
    keep = torch.ones(5, 5, dtype=torch.bool)
    flags: dict[str, Any] = {}
    mask = None
    if kind in ("causal", "window"):
        keep = keep.tril()
        flags["causal"] = True
        if kind == "window":
            keep, flags["window"] = keep.triu(-1), 2
        read = slice(0, 4)
        column = 4
    else:
        keep[:, 2] = False
        mask = keep if kind == "boolean" else torch.zeros(5, 5).double().masked_fill(~keep, -INFINITY)
        read, column = slice(0, 5), 2
    clean = sdpa(q, k, v, attn_mask=keep)
    for dirty_key, dirty_value in ((True, False), (False, True), (True, True)):
        key, value = k.clone(), v.clone()
        if dirty_key:
            key[:, :, column] = garbage
        if dirty_value:
            value[:, :, column] = garbage
        close(attend(q, key, value, mask, **flags)[:, :, read], clean[:, :, read])


def test_what_is_not_finite_and_is_read_shows() -> None:
    q, k, v = heads()
    v[:, :, 4] = math.nan
    found = attend(q, k, v, causal=True)
    assert not found[:, :, :4].isnan().any()
    assert found[:, :, 4].isnan().all()


def test_no_keys_give_zero_as_in_torch() -> None:
    q, k, v = heads()
    close(attend(q, k[:, :, :0], v[:, :, :0]), sdpa(q, k[:, :, :0], v[:, :, :0]))


def test_softmax_dtype() -> None:
    q, k, v = heads(dtype=torch.bfloat16)
    narrow = attend(q, k, v, softmax_dtype="bf16").double()
    wide = attend(q, k, v).double()
    exact = attend(q, k, v, float64=True)
    assert (wide - exact).abs().max() <= (narrow - exact).abs().max()
    q, k, v = heads(dtype=torch.float64)
    close(attend(q, k, v, softmax_dtype="f64"), sdpa(q, k, v), 1e-12)


def test_batch_dimensions_may_be_absent_or_many() -> None:
    q, k, v = heads()
    close(attend(q[0], k[0], v[0]), sdpa(q[0], k[0], v[0]))
    close(attend(*(t[:, None, None] for t in (q, k, v))), sdpa(q, k, v)[:, None, None])
    with pytest.raises(VerifyException, match="3 at least"):
        attend(q[0, 0], k[0, 0], v[0, 0])


def test_cost_counts_both_products() -> None:
    q, k, v = heads(rows=5, columns=7)
    module = module_of_op(AttentionOp, [q, k, v])
    (op,) = (op for op in module.walk() if isinstance(op, AttentionOp))
    assert op.flops() == 2 * 4 * 5 * 7 * (2 * 8 + 2 * 6 + 5)


@pytest.mark.parametrize(
    ("change", "values", "message"),
    [
        (lambda q, k, v: [q[..., :4], k, v], {}, "query has 4 features, key 8"),
        (lambda q, k, v: [q, k[:, :, :3], v], {}, "differ in heads or in length"),
        (lambda q, k, v: [q, k[:, :3], v[:, :3]], {}, "no multiple of 3 key heads"),
        (lambda q, k, v: [q, k.float(), v], {}, "operands of one dtype"),
        (lambda q, k, v: [q.long(), k.long(), v.long()], {}, "takes floating-point numbers"),
        (lambda q, k, v: [q, k, v, torch.ones(5, 4)], {}, "do not broadcast"),
        (lambda q, k, v: [q, k, v, torch.ones(3, 1, 1, 1, 1)], {}, "does not broadcast"),
        (lambda q, k, v: [q, k, v, torch.ones(5, 5).long()], {}, "boolean or floating-point"),
        (lambda q, k, v: [q, k, v, None, torch.ones(3)], {}, "sinks must have 4 elements"),
        (lambda q, k, v: [q, k, v, *[None] * 3, torch.ones(2, 5).bool()], {}, "a prefix needs causal, a window"),
        (
            lambda q, k, v: [q, k, v, *[None] * 3, torch.ones(2, 4).bool()],
            {"causal": True},
            "prefix must have the shape",
        ),
        (lambda q, k, v: [q, k, v, *[None] * 4, torch.ones(5, 5).bool()], {}, "beside a floating-point mask"),
        (lambda q, k, v: [q, k, v], {"offset": 3}, "needs causal"),
        (lambda q, k, v: [q, k, v], {"chunk": 0}, "must be positive"),
        (lambda q, k, v: [q, k, v, None, None, torch.ones(2, 5)], {}, "must be boolean"),
        (lambda q, k, v: [q, k, v, None, None, torch.ones(2, 4).bool()], {}, "must have the shape"),
        (lambda q, k, v: [q, k, v], {"window": 0, "causal": True}, "must be positive"),
        (lambda q, k, v: [q, k, v], {"empty_row": "mean"}, "empty_row must be"),
        (lambda q, k, v: [q, k, v], {"softmax_dtype": "i64"}, "softmax_dtype must be"),
    ],
)
def test_what_does_not_fit_is_refused(change: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(VerifyException, match=message):
        attend(*change(*heads()), **values)
