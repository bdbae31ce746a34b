"""Rows of attention with nothing to attend, as each backend form has them: their mean is that of all values."""

from __future__ import annotations

import pytest
import torch

from forgec.ir.context import context
from forgec.ir.interpreter import interpret
from forgec.passes.decompose import Decompose
from forgec.passes.manager import run_pipeline
from forgec.passes.materialize_masks import MaterializeMasks
from tests.ir.build import parse

ATTENTION = """
func.func @forward(%q: Q, %k: Q, %v: Q, %p: tensor<2x3xi1>) -> Q {
  %0 = forge.attention %q, %k, %v MODIFIERS : (Q, Q, Q, tensor<2x3xi1>) -> Q
  func.return %0 : Q
}
"""
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64}


@pytest.mark.parametrize("modifiers", ["causal keys %p", "keys %p softcap 5.0", "keys %p query_scale 0.5"])
@pytest.mark.parametrize("empty_row", ["uniform", "zero"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_column_is_kept(dtype: str, empty_row: str, modifiers: str) -> None:
    form = f'{modifiers} empty_row "{empty_row}"'
    module = parse(ATTENTION.replace("MODIFIERS", form).replace("Q", f"tensor<2x1x3x8x{dtype}>"))
    torch.manual_seed(0)
    query, key, value = (5 * torch.randn(2, 1, 3, 8, dtype=DTYPES[dtype]) for _ in range(3))
    keys = torch.tensor([[False, True, True], [False, False, False]])
    (expected,) = interpret(module, [query, key, value, keys])
    mean = value[1].double().mean(-2, keepdim=True).expand(1, 3, 8)
    wanted = mean if empty_row == "uniform" else torch.zeros_like(mean)
    torch.testing.assert_close(expected[1].double(), wanted, rtol=2e-2, atol=2e-2)
    run_pipeline(module, [MaterializeMasks("cpu:aten"), Decompose("cpu:aten")], context=context())
    (found,) = interpret(module, [query, key, value, keys])
    # The softmax is one of float32, whatever the dtype of the query: that is what float64 agrees to.
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == "f64" else {}
    torch.testing.assert_close(found, expected, **tolerance)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_an_added_mask_may_hold_the_least_number(dtype: str) -> None:
    """Columns of -inf are not kept, those of the least finite number are, though they leave nothing of the scores."""
    form = f'mask %p softcap 5.0 softmax_dtype "{dtype}" empty_row "nan"'
    text = ATTENTION.replace("MODIFIERS", form).replace("2x3xi1", f"1x1x3x3x{dtype}")
    module = parse(text.replace("Q", f"tensor<2x1x3x8x{dtype}>"))
    torch.manual_seed(0)
    query, key, value = (5 * torch.randn(2, 1, 3, 8, dtype=DTYPES[dtype]) for _ in range(3))
    least = torch.finfo(DTYPES[dtype]).min
    mask = torch.full((3, 3), least, dtype=DTYPES[dtype]).masked_fill(torch.ones(3, 3).triu(1) == 1, -torch.inf)
    (expected,) = interpret(module, [query, key, value, mask[None, None]])
    torch.testing.assert_close(expected[:, :, 0], value[:, :, 0])
    run_pipeline(module, [Decompose("cpu:aten")], context=context())
    (found,) = interpret(module, [query, key, value, mask[None, None]])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("spoiled", [float("nan"), float("inf")])
def test_a_query_that_is_not_finite_shows(spoiled: float) -> None:
    """As where a mask is added to its scores; keys that no row attends do not show."""
    text = ATTENTION.replace("MODIFIERS", 'keys %p empty_row "zero"')
    module = parse(text.replace("Q", "tensor<2x1x3x8xf32>"))
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 1, 3, 8) for _ in range(3))
    query[1, 0, 2, 3], key[1] = spoiled, float("nan")
    keys = torch.tensor([[False, True, True], [False, False, False]])
    kept = keys[:, None, None, :].expand(2, 1, 3, 3)
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key.nan_to_num(0.5), value, attn_mask=kept)
    assert wanted[1, 0, 2].isnan().all()
    for passes in ([], [MaterializeMasks("cpu:aten"), Decompose("cpu:aten")], "lower-to-tile"):
        form = module.clone()
        run_pipeline(form, passes, context=context())
        (found,) = interpret(form, [query, key, value, keys])
        torch.testing.assert_close(found, wanted, equal_nan=True)
