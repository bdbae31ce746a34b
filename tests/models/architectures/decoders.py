"""Decoders: one token after another, attention to what came before."""

from __future__ import annotations

from typing import Any

from tests.models.architectures.row import IDS, MASK, NO_CACHE, SPECIAL_TOKENS, Row

LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, **SPECIAL_TOKENS,
}  # fmt: skip
GPT_LIKE: dict[str, Any] = {"n_embd": 64, "n_layer": 1, "n_head": 4, **SPECIAL_TOKENS}
WINDOW = {"sliding_window": 4}
TWO_LAYERS = {"num_hidden_layers": 2}
FULL_AND_WINDOW = {**TWO_LAYERS, "layer_types": ["full_attention", "sliding_attention"], **WINDOW}


def decoder(name: str, **settings: Any) -> Row:
    """A decoder whose configuration has the names of Llama's."""
    return Row(f"{name}ForCausalLM", (IDS, MASK), {**LLAMA_LIKE, **settings}, NO_CACHE)


def gpt(model: str, **settings: Any) -> Row:
    """A decoder whose configuration has the names of GPT-2's."""
    return Row(model, (IDS, MASK), {**GPT_LIKE, **settings}, NO_CACHE)


DECODERS = [
    decoder("Llama", **TWO_LAYERS),
    decoder("Mistral", **WINDOW),
    decoder("Ministral", head_dim=16, **FULL_AND_WINDOW),
    decoder("Ministral3", head_dim=16),
    decoder("Qwen2", use_sliding_window=True, max_window_layers=1, **TWO_LAYERS, **WINDOW),
    decoder("Qwen3", head_dim=16),
    decoder("Gemma", head_dim=16),
    decoder("Gemma2", head_dim=16, **TWO_LAYERS, **WINDOW),
    decoder("Gemma3", head_dim=16, **FULL_AND_WINDOW),
    decoder("VaultGemma", head_dim=16, **TWO_LAYERS, **WINDOW),
    decoder("Phi", partial_rotary_factor=0.5),
    decoder("Phi3", **WINDOW),
    decoder("StableLm"),
    decoder("Starcoder2", **WINDOW),
    decoder("Olmo"),
    decoder("Olmo2"),
    decoder("Olmo3", **FULL_AND_WINDOW),
    decoder("Cohere"),
    decoder("Cohere2", head_dim=16, **FULL_AND_WINDOW),
    decoder("Granite"),
    decoder("Nemotron"),
    decoder("GPTNeoX"),
    decoder("GPTNeoXJapanese"),
    decoder("Persimmon"),
    decoder("Glm", head_dim=16),
    decoder("Glm4", head_dim=16),
    decoder("Helium", head_dim=16),
    decoder("SmolLM3"),
    decoder("Arcee"),
    decoder("Apertus"),
    decoder("BitNet"),
    decoder("DiffLlama"),
    decoder("Exaone4", head_dim=16, **FULL_AND_WINDOW),
    decoder("Ernie4_5", head_dim=16),
    decoder("HunYuanDenseV1", head_dim=16),
    decoder("SeedOss", head_dim=16),
    decoder("Jais2"),
    decoder("NanoChat"),
    decoder("ModernBertDecoder", num_hidden_layers=2, global_attn_every_n_layers=2, local_attention=4, cls_token_id=1,
            sep_token_id=2),
    decoder("Youtu", kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8,
            v_head_dim=16, num_key_value_heads=4),
    gpt("GPT2LMHeadModel"),
    gpt("GPTBigCodeForCausalLM"),
    gpt("GPTJForCausalLM", rotary_dim=8),
    gpt("CodeGenForCausalLM", rotary_dim=8),
    Row("OpenAIGPTLMHeadModel", (IDS, MASK), GPT_LIKE),
    gpt("CTRLLMHeadModel", dff=96),
    Row("GPTNeoForCausalLM", (IDS, MASK), {
        "hidden_size": 64, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
        "window_size": 4, **SPECIAL_TOKENS,
    }, NO_CACHE),
    Row("OPTForCausalLM", (IDS, MASK), {
        "hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32,
        **SPECIAL_TOKENS,
    }, NO_CACHE),
    Row("BloomForCausalLM", (IDS, MASK), {"hidden_size": 64, "n_layer": 2, "n_head": 4, **SPECIAL_TOKENS}, NO_CACHE),
    Row("FalconForCausalLM", (IDS, MASK), LLAMA_LIKE, NO_CACHE),
    Row("FalconForCausalLM", (IDS, MASK), {**LLAMA_LIKE, "alibi": True}, NO_CACHE, note="alibi"),
    Row("FalconForCausalLM", (IDS, MASK), {**LLAMA_LIKE, "new_decoder_architecture": True, "num_kv_heads": 2},
        NO_CACHE, note="new"),
    Row("MptForCausalLM", (IDS, MASK), {"d_model": 64, "n_heads": 4, "n_layers": 2, **SPECIAL_TOKENS}, NO_CACHE),
    Row("XGLMForCausalLM", (IDS, MASK), {
        "d_model": 64, "ffn_dim": 96, "num_layers": 2, "attention_heads": 4, **SPECIAL_TOKENS,
    }, NO_CACHE),
    Row("BioGptForCausalLM", (IDS, MASK), LLAMA_LIKE, NO_CACHE),
]  # fmt: skip
