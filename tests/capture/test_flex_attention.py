"""flex_attention against eager PyTorch: functions of scores, masks, grouped heads, both results, dynamic extents."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import forgec
from forgec.diagnostics import ForgeError
from tests.capture.compare import agree

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without", "ignore:return_lse is deprecated")

torch.manual_seed(0)
DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2], [0] * 6 + [1] * 6])


def qkv(heads: int = 4, batch: int = 2, length: int = 12, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    q = torch.randn(batch, 4, length, 8, dtype=dtype)
    return q, *(torch.randn(batch, heads, length, 8, dtype=dtype) for _ in range(2))


class Attention(torch.nn.Module):
    """Biases by head, chosen from a parameter, and a mask of documents, chosen from a buffer."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.bias = torch.nn.Parameter(torch.linspace(-1, 1, 4))
        self.register_buffer("documents", DOCUMENTS)

    def forward(self, q: Any, k: Any, v: Any) -> Any:
        def biased(score: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
            return torch.where(i >= j, score + self.bias[h] * (i - j), -math.inf)

        def one_document(b: Any, h: Any, i: Any, j: Any) -> Any:
            return (self.documents[b][i] == self.documents[b, j]) & (i != 5)

        mask = create_block_mask(one_document, q.shape[0], None, q.shape[2], k.shape[2], device="cpu")
        return flex_attention(q, k, v, score_mod=biased, block_mask=mask, **self.options)


def plain(q: Any, k: Any, v: Any) -> Any:
    return flex_attention(q, k, v)


def sliding(q: Any, k: Any, v: Any) -> Any:
    mask = create_block_mask(lambda b, h, i, j: (i >= j) & (i - j < 5), None, None, q.shape[2], k.shape[2], "cpu")
    return flex_attention(q, k, v, block_mask=mask)


def capped(q: Any, k: Any, v: Any) -> Any:
    return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: 5 * torch.tanh(s / 5) * (h + b + 1), scale=0.25)


def transposed(q: Any, k: Any, v: Any) -> Any:
    return flex_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2).reshape(2, 4, -1)


MODELS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "plain": (plain, qkv()),
    "a mask": (sliding, qkv()),
    "a function of scores": (capped, qkv()),
    "both": (Attention(), qkv()),
    "grouped heads": (Attention(enable_gqa=True, scale=0.5), qkv(2)),
    "sums": (Attention(return_lse=True), qkv()),
    "one batch of keys": (Attention(), (qkv()[0], *qkv(batch=1)[1:])),
    "transposed operands": (transposed, qkv()),
}


@pytest.mark.parametrize("what", MODELS)
def test_results(what: str) -> None:
    model, args = MODELS[what]
    agree(lambda: model, args, exactly=False)


def test_half_precision() -> None:
    args = qkv(dtype=torch.bfloat16)
    torch.testing.assert_close(forgec.compile(capped, args)(*args), capped(*args))


def test_autocast() -> None:
    def model(q: Any, k: Any, v: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return flex_attention(q, k, v)

    args = qkv()
    torch.testing.assert_close(forgec.compile(model, args)(*args), model(*args))


@pytest.mark.parametrize("model", [plain, capped])
def test_dynamic_extents(model: Any) -> None:
    shape = {0: forgec.Dim("b"), 2: forgec.Dim("s")}
    program = forgec.compile(model, qkv(), dynamic_shapes=(shape,) * 3)
    for batch, length in ((2, 12), (3, 150), (5, 7)):
        args = qkv(batch=batch, length=length)
        torch.testing.assert_close(program(*args), model(*args))


@pytest.mark.parametrize(("example", "others"), [(12, (9, 128)), (140, (129, 300))])
def test_dynamic_extents_of_a_mask(example: int, others: tuple[int, ...]) -> None:
    shape = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}  # blocks of 128: one or several
    program = forgec.compile(sliding, qkv(length=example), dynamic_shapes=(shape,) * 3)
    for length in others:
        args = qkv(batch=3, length=length)
        torch.testing.assert_close(program(*args), sliding(*args))


def test_the_operator_of_a_program_that_came_exported(tmp_path: Path) -> None:
    with pytest.raises(ForgeError) as raised:
        forgec.compile(torch.export.export(_Module(), qkv(), strict=False), qkv())
    (found,) = raised.value.diagnostics
    assert found.code == "FORGE-C003"
    assert "flex_attention" in found.message
    assert "compile the model" in str(found.help)


class _Module(torch.nn.Module):
    def forward(self, q: Any, k: Any, v: Any) -> Any:
        return plain(q, k, v)
