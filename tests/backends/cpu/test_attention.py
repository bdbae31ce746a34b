"""Attention as machine code: single queries and groups of heads, split into parts or not, with every modifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import forgec
from forgec.backends.cpu.tile_to_llvm import kernel_module
from forgec.ir import types
from forgec.ir.context import context
from forgec.ir.interpreter import interpret
from forgec.ir.tile import interpreter
from forgec.ir.tile.kernel import KernelOp, LaunchOp
from forgec.ir.tile.types import block_type
from forgec.passes.manager import run_pipeline
from tests.backends.cpu.launch import launch
from tests.backends.cpu.native import Native
from tests.ir.build import parse

TEXT = """
func.func @forward(%q: {Q}, %k: {K}, %v: {K}, %p: {P}, %f: {F}, %s: {S}) -> {Q} {{
  %0 = forge.attention %q, %k, %v {modifiers} : ({Q}, {K}, {K}{others}) -> {Q}
  func.return %0 : {Q}
}}
"""


def attention(
    modifiers: str, batch: int, heads: int, shared: int, rows: int, columns: int, size: int = 16
) -> tuple[str, list[torch.Tensor]]:
    """The text of an attention of ``heads`` to ``shared`` heads of keys, and its inputs: queries, keys, values, kept
    columns (``%p``), a mask that slopes (``%f``), sinks (``%s``).
    """
    kinds = {
        "Q": f"tensor<{batch}x{heads}x{rows}x{size}xf32>", "K": f"tensor<{batch}x{shared}x{columns}x{size}xf32>",
        "P": f"tensor<{batch}x{columns}xi1>", "F": f"tensor<1x{heads}x1x{columns}xf32>", "S": f"tensor<{heads}xf32>",
    }  # fmt: skip
    used = [kinds[kind] for name, kind in (("%f", "F"), ("%s", "S"), ("%p", "P")) if name in modifiers]
    text = TEXT.format(modifiers=modifiers, others="".join(f", {kind}" for kind in used), **kinds)
    torch.manual_seed(0)
    q, k, v = torch.randn(batch, heads, rows, size), *(torch.randn(2, batch, shared, columns, size))
    keys = torch.arange(columns) < torch.tensor([[columns - 7 - 40 * number] for number in range(batch)])
    keys[-1] &= torch.rand(columns) > 0.2
    slope = torch.arange(columns) * -0.01 * torch.arange(1, heads + 1)[:, None, None]
    return text, [q, k, v, keys, slope[None], torch.randn(heads)]


def results(text: str, inputs: Sequence[torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, int]:
    """What the attention is, what its kernels make of it as machine code, and how many launches there are."""
    module = parse(text)
    (wanted,) = interpret(module, list(inputs))
    run_pipeline(module, 'lower-to-tile,bind-tiles{target="cpu:x86-64-v3"}', context=context())
    kernels = [op for op in module.ops if isinstance(op, KernelOp)]
    native = Native(kernel_module(kernels, vector_bytes=32), "x86-64-v3")

    def run(op: LaunchOp, ev: Any, operands: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        kernel = next(each for each in kernels if each.sym_name.data == op.kernel.string_value())
        given = iter(operands)
        shapes = [types.shape(block_type(parameter)) for parameter in kernel.parameters]
        tensors = [
            torch.full(shape, torch.nan) if operand is None else next(given)
            for shape, (operand, _) in zip(shapes, op.parameters(), strict=True)
        ]
        code, held = launch(native, kernel, tensors, ())
        assert code == 0
        return tuple(held[number].clone() for number in op.writes.data)

    monkeypatch.setattr(interpreter, "run_launch", run)
    (found,) = interpret(module, list(inputs))
    return wanted, found, sum(isinstance(op, LaunchOp) for op in module.walk())


@pytest.mark.parametrize(
    ("modifiers", "columns", "heads", "shared", "batch"),
    [
        ("", 300, 6, 2, 1),
        ("keys %p", 384, 7, 1, 2),
        ("causal offset 250", 300, 3, 3, 1),
        ("causal offset 290 window 40 keys %p", 310, 6, 2, 1),
        ("causal offset 299 chunk 70", 300, 6, 3, 2),
        ("mask %f keys %p softcap 5.0", 260, 6, 2, 1),
        ("mask %f sinks %s keys %p", 260, 6, 2, 1),
        ("window 30 offset 100", 300, 2, 1, 3),
    ],
)
def test_single_queries_in_parts(
    modifiers: str, columns: int, heads: int, shared: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, inputs = attention(modifiers, batch, heads, shared, 1, columns)
    wanted, found, launches = results(text, inputs, monkeypatch)
    assert launches == 2
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-6)


def test_columns_that_no_parts_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    text, inputs = attention("keys %p", 1, 6, 2, 1, 307)
    wanted, found, launches = results(text, inputs, monkeypatch)
    assert launches == 1
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("empty_row", ["zero", "nan", "uniform"])
def test_parts_without_a_column(empty_row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one batch nothing is kept, of the other a few columns of the last part."""
    text, inputs = attention(f'keys %p empty_row "{empty_row}"', 2, 4, 2, 1, 400)
    inputs[3] = torch.zeros_like(inputs[3])
    inputs[3][1, 390:395] = True
    wanted, found, launches = results(text, inputs, monkeypatch)
    assert launches == (1 if empty_row == "uniform" else 2)
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-6, equal_nan=True)


def test_what_is_not_kept_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text, inputs = attention("keys %p", 1, 4, 2, 1, 400)
    for value in inputs[1:3]:
        value[:, :, ~inputs[3][0]] = float("nan")
    wanted, found, _ = results(text, inputs, monkeypatch)
    assert found.isfinite().all()
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("place", [0, 1])
def test_nan_shows(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a query, or in a key that is kept."""
    text, inputs = attention("keys %p", 1, 4, 2, 1, 400)
    inputs[place][0, 0, 0, 3] = float("nan")
    inputs[3][0, 0] = True
    wanted, found, _ = results(text, inputs, monkeypatch)
    assert wanted.isnan().any()
    assert not wanted.isnan().all()
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-6, equal_nan=True)


@pytest.mark.parametrize(("heads", "shared", "size"), [(16, 8, 8), (15, 5, 40), (8, 8, 80), (64, 8, 16), (14, 2, 24)])
def test_groups_of_heads(heads: int, shared: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text, inputs = attention("causal offset 30 keys %p", 1, heads, shared, 1, 70, size)
    wanted, found, launches = results(text, inputs, monkeypatch)
    assert launches == 1
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "modifiers",
    ["causal", "causal keys %p", "causal window 20", "window 9 offset 3", "chunk 24 causal", "mask %f keys %p"],
)
def test_many_rows(modifiers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, inputs = attention(modifiers, 2, 4, 2, 70, 75)
    wanted, found, launches = results(text, inputs, monkeypatch)
    assert launches == 1
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-6)


class _Decode(torch.nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=kept, enable_gqa=True)


def test_threads_make_no_difference() -> None:
    torch.manual_seed(0)
    kept = (torch.arange(2000) < 1900)[None, None, None]
    inputs = (torch.randn(1, 9, 1, 64), torch.randn(1, 3, 2000, 64), torch.randn(1, 3, 2000, 64), kept)
    program = forgec.compile(_Decode(), inputs, target="cpu:host")
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            found.append(program(*inputs))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    wanted = _Decode()(*(value.double() for value in inputs[:3]), kept)
    torch.testing.assert_close(found[0].double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("modifiers", "first", "end"),
    [("causal", 0, 20), ("causal offset 30 window 8", 23, 50), ("window 4 offset 9", 6, 32)],
)
def test_what_no_row_keeps_is_not_read(modifiers: str, first: int, end: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text, inputs = attention(modifiers, 1, 4, 2, 20, 75)
    inputs[2][:, :, :first] = inputs[2][:, :, end:] = torch.nan
    wanted, found, _ = results(text, inputs, monkeypatch)
    assert found.isfinite().all()
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-6)
