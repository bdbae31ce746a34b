"""Static caches with sliding windows: how many tokens they have seen is state, before and after the window is full."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import forgec
from tests.models.test_architectures import same

WINDOW = 8
CACHE_TOKENS = 64
LOCAL, GLOBAL = "sliding_attention", "full_attention"
MODELS: dict[str, dict[str, Any]] = {
    "Gemma2ForCausalLM": {},
    "Gemma3ForCausalLM": {"layer_types": [LOCAL, GLOBAL]},
    "MistralForCausalLM": {},
    "Qwen2ForCausalLM": {"use_sliding_window": True, "layer_types": [GLOBAL, LOCAL]},
    "GptOssForCausalLM": {"layer_types": [LOCAL, GLOBAL], "num_local_experts": 4, "num_experts_per_tok": 2},
}


class Step(torch.nn.Module):
    """Tokens in, logits out; the cache in between is a plain attribute."""

    def __init__(self, name: str) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        kind = getattr(transformers, name)
        config = kind.config_class(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=64,
            sliding_window=WINDOW,
            max_position_embeddings=CACHE_TOKENS,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **MODELS[name],
        )
        self.model = kind(config)
        self.cache = transformers.StaticCache(config=config, max_cache_len=CACHE_TOKENS)
        self.cache.early_initialization(1, 2, 8, torch.float32, torch.device("cpu"))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(tokens, past_key_values=self.cache, use_cache=True).logits


def tokens(count: int, seed: int) -> torch.Tensor:
    return torch.randint(3, 64, (1, count), generator=torch.Generator().manual_seed(seed))


def generates(
    name: str, counts: list[int], prefix: int = 0, dynamic_shapes: Any = None, kind: type[Step] = Step
) -> None:
    """A session agrees with eager over calls of so many tokens each, after eager has read ``prefix`` tokens."""
    model, eager = kind(name).eval(), kind(name).eval()
    with torch.no_grad():
        for reader in (model, eager) if prefix else ():
            reader(tokens(prefix, 99))
    with warnings.catch_warnings():
        warnings.simplefilter("error", forgec.ForgecWarning)
        session = forgec.compile(model, (tokens(counts[0], 0),), dynamic_shapes=dynamic_shapes).session()
    for number, count in enumerate(counts):
        given = tokens(count, number)
        with torch.no_grad():
            expected = eager(given)
        found = session(given)
        same(found, expected)
        assert torch.equal(found.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("name", MODELS)
def test_tokens_past_the_window(name: str) -> None:
    generates(name, [1] * (4 * WINDOW))


def test_tokens_after_a_prompt_that_eager_read() -> None:
    generates("Gemma3ForCausalLM", [1] * WINDOW, prefix=2 * WINDOW + 4)


def test_prompts_longer_than_the_window() -> None:
    generates("GptOssForCausalLM", [WINDOW + 4] * 4)


@pytest.mark.wide
def test_calls_of_any_length() -> None:
    lengths = ({1: torch.export.Dim.AUTO},)
    generates("Gemma2ForCausalLM", [3, 2, 5, WINDOW + 9, 2, 2, 9], dynamic_shapes=lengths)


class Masked(Step):
    """The first tokens are padding."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        seen = (torch.arange(CACHE_TOKENS) > 2).to(torch.int64)[None]
        return self.model(tokens, attention_mask=seen, past_key_values=self.cache, use_cache=True).logits


def test_tokens_after_padding() -> None:
    generates("MistralForCausalLM", [1] * (2 * WINDOW), 5, kind=Masked)
