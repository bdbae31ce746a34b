"""Products whose extents are 1 or little more, in every combination: the edges of lanes and blocks."""

from __future__ import annotations

import sys
from itertools import product

import pytest
import torch
import torch.nn.functional as F

import forgec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="machine code is for Linux on x86-64")

TOTALS, COLUMNS = (1, 2, 5), (1, 2, 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_products_of_all_small_extents(turned: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    pairs = []
    for rows, total, columns in product((1, 3), TOTALS, COLUMNS):
        right = torch.randn(columns, total).t() if turned else torch.randn(total, columns)
        pairs.append((torch.randn(rows, total).to(dtype), right.to(dtype)))

    def products(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        return [left @ right for left, right in pairs]

    found = forgec.compile(products, (pairs,), target="cpu:host")(pairs)
    for ours, (left, right) in zip(found, pairs, strict=True):
        tolerance = 1e-6 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(ours.double(), left.double() @ right.double(), rtol=tolerance, atol=tolerance)


def test_attention_of_all_small_extents() -> None:
    torch.manual_seed(0)
    triples = [
        (torch.randn(1, 2, queries, head), torch.randn(1, 2, keys, head), torch.randn(1, 2, keys, head))
        for queries, keys, head in product((1, 9), (1, 2, 17), (1, 8))
    ]

    def attend(triples: list[tuple[torch.Tensor, ...]]) -> list[torch.Tensor]:
        return [F.scaled_dot_product_attention(*each) for each in triples]

    found = forgec.compile(attend, (triples,), target="cpu:host")(triples)
    for ours, each in zip(found, triples, strict=True):
        expected = F.scaled_dot_product_attention(*(tensor.double() for tensor in each))
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("queries", [1, 3])
def test_attention_over_no_keys_is_zeros(queries: int) -> None:
    query, key = torch.randn(1, 2, queries, 8), torch.randn(1, 2, 0, 8)
    compiled = forgec.compile(F.scaled_dot_product_attention, (query, key, key), target="cpu:host")
    assert torch.equal(compiled(query, key, key), torch.zeros_like(query))
