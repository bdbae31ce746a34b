"""Mixtures of experts become one op each, however rows are grouped and combined."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.passes.spellings import Fused

EXPERTS, FEATURES, HIDDEN = 4, 8, 16
Tensor = torch.Tensor
PIPELINE = "fuse-activation,canonicalize,fuse-glu,canonicalize,fuse-moe"


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 3).to(dtype)


UP, DOWN, GATE = (numbers(EXPERTS, *s, seed=i) for i, s in enumerate(((2 * HIDDEN, 8), (8, HIDDEN), (2 * HIDDEN, 8))))
BIAS_UP, BIAS_DOWN = numbers(EXPERTS, 2 * HIDDEN, seed=3), numbers(EXPERTS, FEATURES, seed=4)


def grouped_mm(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Torch exports its own operator for bfloat16 alone."""
    pytest.importorskip("transformers.integrations.moe")
    if rows.dtype == torch.bfloat16:
        return torch.ops.aten._grouped_mm(rows, weight, ends)
    return torch.ops.transformers.grouped_mm_fallback(rows, weight, ends)


def halves(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, -1)
    return F.silu(gate) * up


def by_turns(both: Tensor) -> Tensor:
    gate, up = both[..., ::2].clamp(max=0.5), both[..., 1::2].clamp(-0.5, 0.5)
    return (up + 1) * (gate * torch.sigmoid(gate * 1.702))


def squared(up: Tensor) -> Tensor:
    return F.relu(up).square()


def grouped(
    x: Tensor, indices: Tensor, weights: Tensor, unit: Callable[[Tensor], Tensor], *, bias: bool = False
) -> Tensor:
    """As transformers writes it: pairs sorted by their experts, products of groups, the sum over each row's choices."""
    k, dtype = indices.shape[-1], x.dtype
    experts, order = torch.sort(indices.reshape(-1))
    rows, scale = x[order // k], weights.reshape(-1)[order]
    counts = torch.histc(experts.float(), bins=EXPERTS, min=0, max=EXPERTS - 1)
    ends = torch.cumsum(counts, 0, dtype=torch.int32)
    hidden = grouped_mm(rows, UP.to(dtype).mT, ends)
    hidden = unit(hidden + BIAS_UP.to(dtype)[experts] if bias else hidden)
    down = DOWN if hidden.shape[-1] == HIDDEN else torch.cat([DOWN, DOWN], -1)
    y = grouped_mm(hidden, down.to(dtype).mT, ends)
    y = (y + BIAS_DOWN.to(dtype)[experts] if bias else y) * scale[:, None]
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.shape[0])
    return y[inverse].view(x.shape[0], k, -1).sum(1)


def stacked(
    x: Tensor, indices: Tensor, weights: Tensor, unit: Callable[[Tensor], Tensor], *, bias: bool = False
) -> Tensor:
    """Weights taken for each pair."""
    k, experts, dtype = indices.shape[-1], indices.reshape(-1), x.dtype
    rows = x.repeat_interleave(k, dim=0)
    hidden = torch.bmm(UP.to(dtype)[experts], rows.unsqueeze(-1)).squeeze(-1)
    hidden = unit(hidden + BIAS_UP.to(dtype)[experts] if bias else hidden)
    down = DOWN if hidden.shape[-1] == HIDDEN else torch.cat([DOWN, DOWN], -1)
    y = torch.bmm(hidden.unsqueeze(1), down.to(dtype)[experts].mT).squeeze(1)
    y = (y + BIAS_DOWN.to(dtype)[experts] if bias else y) * weights.reshape(-1, 1)
    return y.view(x.shape[0], k, -1).sum(1)


def scaled_before(x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Rows scaled in float32, gate and up with weights of their own, results added to their rows."""
    k, dtype = indices.shape[-1], x.dtype
    order = torch.argsort(indices.reshape(-1), stable=True)
    row = order // k
    ends = torch.cumsum((indices.reshape(-1, 1) == torch.arange(EXPERTS)).sum(0), 0, dtype=torch.int32)
    rows = (x[row].float() * weights.reshape(-1)[order].reshape(-1, 1).float()).to(dtype)
    gate, up, down = (w.to(dtype).mT for w in (GATE, UP, torch.cat([DOWN, DOWN], -1)))
    hidden = F.silu(grouped_mm(rows, gate, ends)) * grouped_mm(rows, up, ends)
    y = grouped_mm(hidden, down, ends)
    return torch.zeros_like(x).scatter_add(0, row.reshape(-1, 1).expand(-1, x.shape[1]), y)


def sorted_back_first(x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Results are sorted back by the sort of the order, then weighted."""
    k = indices.shape[-1]
    experts, order = torch.sort(indices.reshape(-1))
    ends = torch.searchsorted(experts, torch.arange(EXPERTS), right=True, out_int32=True)
    rows = x.repeat_interleave(k, dim=0)[order]
    hidden = halves(grouped_mm(rows, UP.to(x.dtype).mT, ends))
    y = grouped_mm(hidden, DOWN.to(x.dtype).mT, ends)[torch.argsort(order)]
    return (y.view(-1, k, FEATURES) * weights.unsqueeze(-1)).sum(1)


def dense(x: Tensor, logits: Tensor, *, elsewhere: float = -torch.inf) -> Tensor:
    """As in Llama 4: every expert on every row, scaled by what is zero but for the chosen experts."""
    values, indices = torch.topk(logits, 2, dim=1)
    scores = torch.sigmoid(torch.full_like(logits, elsewhere).scatter(1, indices, values).float()).to(x.dtype)
    rows = x.repeat(EXPERTS, 1) * scores.transpose(0, 1).reshape(-1, 1)
    hidden = halves(torch.bmm(rows.view(EXPERTS, -1, FEATURES), UP.to(x.dtype).mT.contiguous()))
    return torch.bmm(hidden, DOWN.to(x.dtype).mT.contiguous()).view(-1, FEATURES).reshape(EXPERTS, -1, FEATURES).sum(0)


UNITS = {"halves": halves, "by turns": by_turns, "squared": squared}
FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    **{f"grouped {name}": lambda x, i, w, f=f: grouped(x, i, w, f) for name, f in UNITS.items()},
    **{f"stacked {name}": lambda x, i, w, f=f: stacked(x, i, w, f) for name, f in UNITS.items()},
    "grouped with biases": lambda x, i, w: grouped(x, i, w, by_turns, bias=True),
    "stacked with biases": lambda x, i, w: stacked(x, i, w, by_turns, bias=True),
    "scaled before": scaled_before,
    "sorted back first": sorted_back_first,
}


def routed(rows: int, top_k: int, dtype: torch.dtype = torch.float32, experts: int = EXPERTS) -> list[Tensor]:
    """Rows, the experts chosen for each, and their weights."""
    weights, indices = numbers(rows, experts, seed=rows + top_k).softmax(-1).topk(top_k, -1)
    return [numbers(rows, FEATURES, seed=9, dtype=dtype), indices, weights.to(dtype)]


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, top_k: int) -> None:
    """For any number of rows, one row included; some experts have none."""
    fused = Fused(FORMS[form], routed(6, top_k), PIPELINE, dynamic=3)
    assert fused.ops["moe"] == 1
    assert not fused.ops.keys() & {"grouped_matmul", "matmul", "sort", "histc", "glu", "sum"}
    fused.check(others=[routed(33, top_k), routed(2, top_k, experts=3)])


@pytest.mark.parametrize("form", ["grouped halves", "stacked with biases", "scaled before"])
def test_one_row(form: str) -> None:
    fused = Fused(FORMS[form], routed(1, 2), PIPELINE, dynamic=False)
    assert fused.ops["moe"] == 1
    fused.check()


@pytest.mark.parametrize("form", ["grouped by turns", "stacked squared", "scaled before", "sorted back first"])
def test_bfloat16(form: str) -> None:
    fused = Fused(FORMS[form], routed(16, 2, torch.bfloat16), PIPELINE, dynamic=False)
    assert fused.ops["moe"] == 1
    fused.check(exact=0.9)


def test_wide_weights_of_narrow_rows() -> None:
    x, indices, weights = routed(16, 2, torch.bfloat16)
    fused = Fused(FORMS["grouped halves"], [x, indices, weights.float()], PIPELINE, dynamic=False)
    assert fused.ops["moe"] == 1
    fused.check()


def test_rows_of_one_expert_are_not_read_by_others() -> None:
    """An expert that nobody chose may hold anything."""
    x, indices, weights = routed(6, 2, experts=3)
    fused = Fused(FORMS["grouped halves"], [x, indices, weights], PIPELINE, dynamic=False)
    found = fused.forms.forge_results(fused.module, x, indices.clamp(max=1), weights)[0]
    torch.testing.assert_close(found, FORMS["grouped halves"](x, indices.clamp(max=1), weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_expert_on_every_row(dtype: torch.dtype) -> None:
    logits = numbers(6, EXPERTS, seed=7, dtype=dtype) * 9
    fused = Fused(dense, [numbers(6, FEATURES, seed=9, dtype=dtype), logits], PIPELINE, dynamic=False)
    assert fused.ops["moe"] == 1
    assert not fused.ops.keys() & {"matmul", "scatter", "glu"}
    fused.check(exact=0.9)


def test_experts_whose_scores_are_not_zero_are_chosen() -> None:
    x, logits = numbers(6, FEATURES, seed=9), numbers(6, EXPERTS, seed=7)
    fused = Fused(lambda x, logits: dense(x, logits, elsewhere=-3.0), [x, logits], PIPELINE, dynamic=False)
    assert fused.ops["moe"] == 0
    fused.check()


def lost(form: Callable[..., Tensor], reason: str) -> None:
    fused = Fused(form, routed(6, 2), PIPELINE, dynamic=False)
    assert fused.ops["moe"] == 0
    assert [r.message for r in fused.remarks if "mixture" in r.message] == [f"no mixture of experts was made: {reason}"]
    fused.check()


def test_experts_with_more_than_the_op_has_are_left_alone() -> None:
    lost(
        lambda x, i, w: grouped(x, i, w, lambda both: halves(both) + 1),
        "the rows come from forge.add, which is no activation or gated unit of a product with weights",
    )
    lost(
        lambda x, i, w: grouped(x, i, w, lambda both: F.silu(both[:, HIDDEN:]) * both[:, :HIDDEN]),
        "gate and up are neither the halves of a product nor its columns by turns",
    )


def test_rows_of_a_longer_tensor_are_left_alone() -> None:
    """Experts are chosen for the first half of the rows."""

    def form(x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        experts, order = torch.sort(indices.reshape(-1))
        ends = torch.searchsorted(experts, torch.arange(EXPERTS), right=True, out_int32=True)
        hidden = halves(grouped_mm(torch.cat([x, x])[order // 2], UP.mT, ends))
        y = grouped_mm(hidden, DOWN.mT, ends)[torch.argsort(order)].view(-1, 2, FEATURES)
        return (y * weights.unsqueeze(-1)).sum(1)

    lost(form, "the rows are not all rows of a tensor, each as often as experts are chosen for it")


def test_weights_of_other_choices_are_no_weights() -> None:
    def form(x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        experts, order = torch.sort(indices.reshape(-1))
        ends = torch.searchsorted(experts, torch.arange(EXPERTS), right=True, out_int32=True)
        hidden = halves(grouped_mm(x[order // 2], UP.mT, ends))
        y = grouped_mm(hidden, DOWN.mT, ends) * weights.reshape(-1)[:, None]  # not in this order
        return y[torch.argsort(order)].view(-1, 2, FEATURES).sum(1)

    lost(form, "after the products no weighted sum over the experts of each row was found: forge.mul follows")
