"""Models of the benchmarks: random weights, sizes as named."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@dataclass(frozen=True)
class Case:
    """A model with the inputs of one call."""

    name: str
    build: Callable[[], Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def ids(tokens: int, vocabulary: int = 1000) -> torch.Tensor:
    """Random token numbers, int64 [1, tokens]."""
    return torch.randint(0, vocabulary, (1, tokens), generator=torch.Generator().manual_seed(0))


def gpt2() -> Any:
    """GPT-2, 124M parameters."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config()).eval()


def llama(layers: int = 12) -> Any:
    """A Llama of GPT-2's width."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=12,
        vocab_size=32000,
    )
    return LlamaForCausalLM(config).eval()


def bert() -> Any:
    """BERT base."""
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig()).eval()


def vit() -> Any:
    """ViT base, 224 by 224."""
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig()).eval()


def spelled_out(model: Any) -> Any:
    """The same model with attention as products and a softmax instead of torch's SDPA."""
    model.set_attn_implementation("eager")
    return model


def gemma2() -> Any:
    """A Gemma 2 of six layers: scores that are capped, every other layer with a sliding window."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=96,
        vocab_size=32000,
        sliding_window=64,
    )
    return Gemma2ForCausalLM(config).eval()


def gpt_oss() -> Any:
    """A GPT-OSS of four layers: sinks, a sliding window, eight experts of which two are chosen."""
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(
        hidden_size=512,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        num_local_experts=8,
        num_experts_per_tok=2,
        vocab_size=32000,
        sliding_window=64,
    )
    return GptOssForCausalLM(config).eval()


def mixtral() -> Any:
    """A Mixtral of four layers, with eight experts of which two are chosen."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_local_experts=8,
        num_experts_per_tok=2,
        vocab_size=32000,
    )
    return MixtralForCausalLM(config).eval()


def t5() -> Any:
    """T5 small's encoder, with its relative positions."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8)).eval()


def smollm(layers: int = 4) -> Any:
    """A Llama of SmolLM2-135M's width, with fewer layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


class Decoding(torch.nn.Module):
    """A model with a static KV cache that it owns, called for one token at a position."""

    def __init__(self, model: Any, places: int) -> None:
        super().__init__()
        from transformers import StaticCache

        self.model = model
        config = model.config
        self.cache = StaticCache(config=config, max_cache_len=places)
        size = config.hidden_size // config.num_attention_heads
        self.cache.early_initialization(1, config.num_key_value_heads, size, torch.float32, torch.device("cpu"))

    def forward(self, input_ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        places = position.unsqueeze(0)
        found = self.model(input_ids, position_ids=places, past_key_values=self.cache, use_cache=True)
        return found.logits[:, -1].argmax(-1)


def decoding() -> Any:
    """SmolLM2's width with 1024 places in its cache."""
    return Decoding(smollm(), 1024).eval()


NO_CACHE = {"use_cache": False}
CASES = [
    Case("GPT-2, 16 tokens", gpt2, (ids(16),), NO_CACHE),
    Case("GPT-2, 128 tokens", gpt2, (ids(128),), NO_CACHE),
    Case("Llama 12 layers, 16 tokens", llama, (ids(16),), NO_CACHE),
    Case("Llama 12 layers, 128 tokens", llama, (ids(128),), NO_CACHE),
    Case("BERT base, 128 tokens", bert, (ids(128),), {}),
    Case("ViT base, 1 image", vit, (torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)),), {}),
    Case("Llama 12 layers, spelled out, 128 tokens", lambda: spelled_out(llama()), (ids(128),), NO_CACHE),
    Case("BERT base, spelled out, 128 tokens", lambda: spelled_out(bert()), (ids(128),), {}),
    Case("Gemma 2, 6 layers, 128 tokens", gemma2, (ids(128),), NO_CACHE),
    Case("T5 small's encoder, 128 tokens", t5, (ids(128),), {}),
    Case("Mixtral 4 layers, 128 tokens", mixtral, (ids(128),), NO_CACHE),
    Case("GPT-OSS 4 layers, 128 tokens", gpt_oss, (ids(128),), NO_CACHE),
]
DECODING = [
    Case("GPT-2, 1 token", gpt2, (ids(1),), NO_CACHE),
    Case("Llama 12 layers, 1 token", llama, (ids(1),), NO_CACHE),
    Case("SmolLM2 4 layers, decoding", decoding, (ids(1), torch.tensor([700])), {}),
]
"""One token: for measurements of kernels."""
