"""What attention masks is not read: NaN in padding does not show in the rows of what is no padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

import forgec

SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
DECODER = {
    **SMALL,
    "num_key_value_heads": 2,
    "use_cache": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
MODELS = {
    "LlamaModel": DECODER,
    "Gemma2Model": {**DECODER, "head_dim": 8, "sliding_window": 4},
    "GptOssModel": {**DECODER, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    "BertModel": SMALL,
}


SDPA = ("LlamaModel", "BertModel")
"""The models that have an implementation with it."""


@pytest.mark.parametrize(
    ("name", "implementation"), [*((name, "eager") for name in MODELS), *((name, "sdpa") for name in SDPA)]
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_read(name: str, side: str, implementation: str) -> None:
    torch.manual_seed(0)
    cls: Any = getattr(transformers, name)
    model = cls(cls.config_class(**MODELS[name], attn_implementation=implementation)).eval()
    embeds, mask = torch.randn(2, 9, 32), torch.ones(2, 9, dtype=torch.long)
    mask[1, slice(0, 3) if side == "left" else slice(6, 9)] = 0
    kept = mask.bool()
    call = {"inputs_embeds": embeds, "attention_mask": mask}
    compiled = forgec.compile(model, (), call)
    with torch.no_grad():
        expected = model(**call)[0]
    poisoned = embeds.masked_fill(~kept[..., None], float("nan"))
    found = next(iter(compiled(inputs_embeds=poisoned, attention_mask=mask).values()))
    torch.testing.assert_close(found[kept], expected[kept], rtol=0, atol=2.1e-5)


class Masked(nn.Module):
    """Attention whose mask comes from the caller."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = (q @ k.transpose(-1, -2) / 4.0).masked_fill(~mask, -1e30)
        return scores.softmax(-1) @ v


def test_columns_that_no_row_keeps_are_not_read() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 16) for _ in range(3))
    mask = torch.rand(2, 1, 5, 5) > 0.4
    mask[..., 0] = True
    mask[0, :, :, 3] = False
    expected = Masked()(q, k, v, mask)
    compiled = forgec.compile(Masked(), (q, k, v, mask))
    k[0, :, 3], v[0, :, 3] = float("nan"), float("inf")
    torch.testing.assert_close(compiled(q, k, v, mask), expected)


class _Added(nn.Module):
    """A great but finite number is added to masked scores, in their dtype; the softmax is of ``dtype``."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pad: torch.Tensor) -> torch.Tensor:
        scores = q @ k.mT * 0.3
        scores = scores + (1.0 - pad[:, None, None, :].to(scores.dtype)) * -10000.0
        return scores.softmax(-1, dtype=self.dtype).to(v.dtype) @ v


@pytest.mark.parametrize("pipeline", ["@O2", "@attention"])
@pytest.mark.parametrize("softmax", [None, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_sum_leaves_of_scores_is_that_of_the_models_dtype(
    dtype: torch.dtype, softmax: torch.dtype | None, pipeline: str
) -> None:
    """In bfloat16, -10000 leaves nothing of the scores of a row that is all padding; in float32 it leaves them."""
    torch.manual_seed(0)
    model = _Added(softmax).eval()
    inputs = (*(torch.randn(2, 4, 9, 8, dtype=dtype) for _ in range(3)), torch.tensor([[1] * 9, [0] * 9]))
    compiled = forgec.compile(model, inputs, pipeline=pipeline)
    assert "forge.attention" in compiled.ir()
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 2e-4, "atol": 2e-4}
    torch.testing.assert_close(compiled(*inputs), model(*inputs), **tolerance)
