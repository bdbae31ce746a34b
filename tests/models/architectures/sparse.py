"""Mixtures of experts, state spaces and what mixes both with attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.models.architectures.decoders import FULL_AND_WINDOW, TWO_LAYERS, decoder
from tests.models.architectures.row import (
    CONSTRAINED,
    DATA_DEPENDENT,
    IDS,
    MASK,
    NO_CACHE,
    SPECIAL_TOKENS,
    SPECIALIZED,
    Row,
)

LATENT: dict[str, Any] = {
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
ROUTED: dict[str, Any] = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 1, "topk_group": 1,
    "n_shared_experts": 1, "first_k_dense_replace": 1,
}  # fmt: skip
AS_MAMBA2 = ""
"""The reason is that of Mamba 2, and to be told it again takes long."""
LONGER: dict[str, Any] = {"auto": True, "others": ({"batch": 3, "length": 33},)}
"""Extents that torch.export takes for 2 at least, and finds out by itself."""
UNROLLED = {"length": SPECIALIZED}
MAMBA2: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8}


def mixed(name: str, **settings: Any) -> Row:
    """A decoder of two layers, because they differ."""
    return decoder(name, **{**TWO_LAYERS, **settings})


def cacheless(name: str, **settings: Any) -> Row:
    """A decoder that hands ``use_cache`` on among its other options, so that it stands in the configuration."""
    return replace(mixed(name, use_cache=False, **settings), options={})


def hybrid(name: str, **settings: Any) -> Row:
    """A row that is ``cacheless`` and of fixed length."""
    return replace(cacheless(name, **settings), fixed={"length": AS_MAMBA2})


def fixed(name: str, why: str, **settings: Any) -> Row:
    """A decoder whose recurrence torch.export unrolls for one length."""
    return replace(mixed(name, **settings), fixed={"length": why})


SPARSE = [
    decoder("Mixtral", num_local_experts=4),
    decoder("Qwen2Moe", shared_expert_intermediate_size=64, **EXPERTS),
    decoder("Qwen3Moe", head_dim=16, **EXPERTS),
    decoder("GptOss", num_local_experts=4, num_experts_per_tok=2, head_dim=16, **FULL_AND_WINDOW),
    mixed("DeepseekV2", **{**ROUTED, **LATENT, "num_key_value_heads": 4}),
    mixed("DeepseekV3", **{**ROUTED, **LATENT, "num_key_value_heads": 4}),
    decoder("Olmoe", num_experts=4, num_experts_per_tok=2),
    decoder("FlexOlmo", num_experts=4, num_experts_per_tok=2),
    cacheless("GraniteMoe", num_local_experts=4, num_experts_per_tok=2),
    cacheless("GraniteMoeShared", num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=32),
    hybrid("GraniteMoeHybrid", num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=32,
            layer_types=["mamba", "attention"], **MAMBA2),
    decoder("Phimoe", num_local_experts=4),
    Row("DbrxForCausalLM", (IDS, MASK), {
        "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, **SPECIAL_TOKENS,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2}}, NO_CACHE, refused=DATA_DEPENDENT),
    mixed("Glm4Moe", head_dim=16, **ROUTED),
    mixed("Ernie4_5_Moe", moe_num_experts=4, moe_k=2, moe_intermediate_size=32, head_dim=16),
    decoder("HunYuanMoEV1", num_experts=4, moe_topk=2, head_dim=16),
    mixed("Dots1", **ROUTED),
    fixed("MiniMax", CONSTRAINED, num_local_experts=4, layer_types=["full_attention", "linear_attention"], block_size=8,
            head_dim=16),
    decoder("MiniMaxM2", num_local_experts=4, num_experts_per_tok=2, head_dim=16),
    fixed("Jamba", SPECIALIZED,
          num_experts=4, use_mamba_kernels=False, mamba_d_state=8, attn_layer_period=2, attn_layer_offset=1,
          expert_layer_period=2, expert_layer_offset=1),
    fixed("Bamba", AS_MAMBA2, attn_layer_indices=[1], **MAMBA2),
    fixed("FalconH1", AS_MAMBA2, head_dim=16, **{**MAMBA2, "mamba_d_ssm": 128}),
    fixed("Zamba", SPECIALIZED, num_hidden_layers=4, layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
          n_mamba_heads=2, mamba_d_state=8, use_mamba_kernels=False, num_key_value_heads=4),
    fixed("Zamba2", AS_MAMBA2, num_hidden_layers=3, layers_block_type=["mamba", "hybrid", "mamba"], n_mamba_heads=8,
            mamba_headdim=16, mamba_d_state=8, chunk_size=8, use_mamba_kernels=False, num_key_value_heads=4,
            mamba_ngroups=1),
    fixed("NemotronH", AS_MAMBA2, hybrid_override_pattern="M*-", num_hidden_layers=3, mamba_num_heads=8,
          mamba_head_dim=16, ssm_state_size=8, n_groups=1, chunk_size=8, head_dim=16),
    replace(fixed("NemotronH", AS_MAMBA2, hybrid_override_pattern="*E", num_hidden_layers=2, mamba_num_heads=8,
                  mamba_head_dim=16, ssm_state_size=8, n_groups=1, chunk_size=8, head_dim=16, n_routed_experts=4,
                  num_experts_per_tok=2, moe_intermediate_size=32, moe_shared_expert_intermediate_size=32, n_group=1,
                  topk_group=1), fixed={}, note="experts"),
    replace(decoder("AriaText", moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1), **LONGER),
    replace(mixed("Llama4", num_local_experts=4, num_experts_per_tok=2, head_dim=16, intermediate_size_mlp=64,
                  interleave_moe_layer_step=1), **LONGER),
    mixed("Lfm2", layer_types=["conv", "full_attention"]),
    mixed("Lfm2Moe", layer_types=["conv", "full_attention"], num_dense_layers=1, **EXPERTS),
    fixed("Qwen3Next", AS_MAMBA2, head_dim=16, layer_types=["linear_attention", "full_attention"],
          linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
          shared_expert_intermediate_size=32, **EXPERTS),
    fixed("RecurrentGemma", SPECIALIZED, num_hidden_layers=3, lru_width=64, attention_window_size=8, head_dim=16),
    Row("MambaForCausalLM", (IDS,), {
        "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, **SPECIAL_TOKENS}, NO_CACHE,
        fixed=UNROLLED),
    Row("Mamba2ForCausalLM", (IDS,), {
        "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 1,
        "chunk_size": 8, **SPECIAL_TOKENS}, NO_CACHE, fixed={"length": CONSTRAINED}),
    Row("FalconMambaForCausalLM", (IDS,), {
        "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, **SPECIAL_TOKENS}, NO_CACHE,
        fixed=UNROLLED),
    Row("RwkvForCausalLM", (IDS,), {
        "hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, **SPECIAL_TOKENS}, NO_CACHE,
        fixed=UNROLLED),
    Row("xLSTMForCausalLM", (IDS,), {
        "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 2, "chunk_size": 8, **SPECIAL_TOKENS}, NO_CACHE,
        fixed=UNROLLED),
]  # fmt: skip
