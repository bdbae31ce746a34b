"""Small random models of the architectures that the tests name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

VOCABULARY = 100
TOKENS = 16


@dataclass(frozen=True, eq=False)
class Case:
    """A model and the inputs of one call; ``dynamic`` says that batch and sequence may vary."""

    name: str
    build: Callable[[], Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic: bool = True


def ids(batch: int = 1, tokens: int = TOKENS, seed: int = 0) -> torch.Tensor:
    """Random token numbers, int64 [batch, tokens]."""
    return torch.randint(3, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def _decoder(name: str, **settings: Any) -> Callable[[], Any]:
    def build() -> Any:
        transformers = pytest.importorskip("transformers")
        config = getattr(transformers, f"{name}Config")(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=VOCABULARY,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **settings,
        )
        return getattr(transformers, f"{name}ForCausalLM")(config)

    return build


def _gpt2() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=64, n_layer=2, n_head=4, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2LMHeadModel(config)


def _bert() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=VOCABULARY
    )
    return transformers.BertModel(config)


def _t5_encoder() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(d_model=64, d_ff=128, num_layers=2, num_heads=4, d_kv=16, vocab_size=VOCABULARY)
    return transformers.T5EncoderModel(config)


def _vit() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
    )
    return transformers.ViTModel(config)


_NO_CACHE = {"use_cache": False}
CASES = [
    Case("gpt2", _gpt2, (ids(),), _NO_CACHE),
    Case("llama", _decoder("Llama"), (ids(),), _NO_CACHE),
    Case("qwen3", _decoder("Qwen3", head_dim=16), (ids(),), _NO_CACHE),
    Case("gemma2", _decoder("Gemma2", head_dim=16, sliding_window=8), (ids(),), _NO_CACHE),
    Case("bert", _bert, (ids(), torch.ones_like(ids())), {}),
    Case("t5-encoder", _t5_encoder, (ids(),), {}),
    Case("vit", _vit, (torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)),), {}, dynamic=False),
]


def build(case: Case) -> Any:
    """The case's model, with weights that are the same each time."""
    torch.manual_seed(0)
    return case.build().eval()
