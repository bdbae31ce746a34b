"""How many kernels a layer of a transformer becomes, and that its values stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers

import forgec
from forgec.ir.cost import call_counts
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.reduction import SoftmaxOp
from forgec.ir.ops.shape import CopyOp, ReshapeOp, is_free

SMALL = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
DECODER = {**SMALL, "num_key_value_heads": 2, "use_cache": False, "bos_token_id": None, "eos_token_id": None}
DECODER["pad_token_id"] = None
GEMMA = {**DECODER, "head_dim": 16}
WIDE = {**GEMMA, "hidden_size": 320, "num_attention_heads": 8}
"""Norms of heads are narrow and those of the model are not, as in models of real size."""


def ids(batch: int = 2, length: int = 9) -> dict[str, Any]:
    return {"input_ids": torch.randint(0, 64, (batch, length))}


def pixels() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


MODELS: dict[str, tuple[str, dict[str, Any], Any, int]] = {
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 64, "n_embd": 64, "n_head": 4, "use_cache": False,
                                 "bos_token_id": 0, "eos_token_id": 0}, ids, 7),
    "llama": ("LlamaForCausalLM", DECODER, ids, 7),
    "mistral": ("MistralForCausalLM", DECODER, ids, 7),
    "qwen2": ("Qwen2ForCausalLM", DECODER, ids, 7),
    "llama, grouped": ("LlamaForCausalLM", WIDE, ids, 7),
    "qwen3": ("Qwen3ForCausalLM", GEMMA, ids, 7),
    "qwen3, wide": ("Qwen3ForCausalLM", WIDE, ids, 7),
    "gemma2": ("Gemma2ForCausalLM", GEMMA, ids, 9),
    "gemma3": ("Gemma3ForCausalLM", {**GEMMA, "sliding_window": 4}, ids, 9),
    "gemma3, wide": ("Gemma3ForCausalLM", {**WIDE, "sliding_window": 4}, ids, 9),
    "olmo2, wide": ("Olmo2ForCausalLM", {**WIDE, "num_attention_heads": 20}, ids, 9),
    "bert": ("BertModel", SMALL, ids, 7),
    "vit": ("ViTModel", {k: v for k, v in SMALL.items() if k != "vocab_size"} | {"image_size": 32, "patch_size": 8},
            pixels, 7),
    "t5": ("T5EncoderModel", {"vocab_size": 64, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_heads": 4,
                              "feed_forward_proj": "gated-gelu"}, ids, 7),
}  # fmt: skip


def build(name: str, layers: int, attention: str) -> tuple[Any, dict[str, Any]]:
    class_name, options, inputs, _ = MODELS[name]
    torch.manual_seed(0)
    cls = getattr(transformers, class_name)
    key = {"GPT2LMHeadModel": "n_layer", "T5EncoderModel": "num_layers"}.get(class_name, "num_hidden_layers")
    options = {**options, key: layers, "attn_implementation": attention}
    if class_name == "Gemma3ForCausalLM":
        options["layer_types"] = ["sliding_attention", "full_attention"] * (layers // 2)
    config = cls.config_class(**options)
    return cls(config).eval(), inputs()


SPELLED_OUT = ("gpt2", "llama", "qwen3, wide", "gemma2", "gemma3, wide", "bert", "t5")
"""The models that every run of the tests compiles with their attention spelled out too: one of each kind. Of the others
test_recognition.py says that both implementations become the same ops.
"""


def combinations() -> Iterator[Any]:
    """The parameters of a test."""
    for name in MODELS:
        for attention in ("sdpa", "eager"):
            if (name, attention) != ("gemma2", "sdpa"):
                always = attention == "sdpa" or name in SPELLED_OUT
                yield pytest.param(name, attention, marks=() if always else pytest.mark.wide)


@pytest.mark.parametrize(("name", "attention"), [*combinations()])
def test_launches_of_a_layer(name: str, attention: str) -> None:
    """The difference between two depths, so that embeddings, masks and heads do not count."""
    counts = []
    for layers in (2, 4):
        model, arguments = build(name, layers, attention)
        compiled = forgec.compile(model, (), arguments)
        with torch.no_grad():
            expected = model(**arguments)[0]
        actual = next(iter(compiled(**arguments).values()))
        torch.testing.assert_close(actual, expected, rtol=0, atol=2.1e-5)
        counts.append(compiled.report.launches)
        called = call_counts(compiled._forge).items()
        inner = [op for function, count in called for op in function.walk() for _ in range(count)]
        assert sum(isinstance(op, AttentionOp) for op in inner) == layers
        assert not any(isinstance(op, SoftmaxOp) for op in inner)
        assert not any(isinstance(op, CopyOp) or (isinstance(op, ReshapeOp) and not is_free(op)) for op in inner)
        report = compiled.report
        if layers == 4:
            assert report.optimized.ops <= 0.4 * report.captured.ops
    assert (counts[1] - counts[0]) / 2 <= MODELS[name][3]
