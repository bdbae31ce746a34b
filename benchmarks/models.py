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


NO_CACHE = {"use_cache": False}
CASES = [
    Case("GPT-2, 16 tokens", gpt2, (ids(16),), NO_CACHE),
    Case("GPT-2, 128 tokens", gpt2, (ids(128),), NO_CACHE),
    Case("Llama 12 layers, 16 tokens", llama, (ids(16),), NO_CACHE),
    Case("Llama 12 layers, 128 tokens", llama, (ids(128),), NO_CACHE),
    Case("BERT base, 128 tokens", bert, (ids(128),), {}),
    Case("ViT base, 1 image", vit, (torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)),), {}),
]
