"""SmolLM2-135M-Instruct as a one-token step: the KV cache is state of the session that runs it.

    forgec compile examples/smollm2_decode.py -o smollm2_decode.forge

``session(token)`` takes one token, int64 [1, 1], appends its keys and values to the cache, and returns the logits [1,
1, vocabulary].
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import smollm2

CACHE_TOKENS = 512


class Step(torch.nn.Module):
    """One token in, logits out; a transformers ``StaticCache`` of ``CACHE_TOKENS`` positions in between."""

    def __init__(self, language_model: Any) -> None:
        super().__init__()
        from transformers import StaticCache

        config = language_model.config
        self.language_model = language_model
        self.cache = StaticCache(config=config, max_cache_len=CACHE_TOKENS)
        head_dim = config.hidden_size // config.num_attention_heads
        self.cache.early_initialization(1, config.num_key_value_heads, head_dim, torch.float32, torch.device("cpu"))

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        return self.language_model(token, past_key_values=self.cache, use_cache=True).logits


def model() -> Step:
    """What ``forgec compile`` compiles."""
    return Step(smollm2.load()).eval()


example_inputs = (torch.tensor([[1]]),)
