"""Pairs of an encoder and a decoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.models.architectures.row import (
    CONSTRAINED,
    DATA_DEPENDENT,
    IDS,
    MASK,
    NO_CACHE,
    SPECIAL_TOKENS,
    SWAPPED,
    TARGETS,
    Row,
)

T5_LIKE: dict[str, Any] = {
    "d_model": 64, "d_ff": 96, "num_layers": 1, "num_heads": 4, "d_kv": 16, "decoder_start_token_id": 0,
    **SPECIAL_TOKENS,
}  # fmt: skip
BART_LIKE: dict[str, Any] = {
    "d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "decoder_start_token_id": 1,
    **SPECIAL_TOKENS,
}  # fmt: skip
TEXT_TO_TEXT = (IDS, MASK, TARGETS)
LENGTHS: dict[str, Any] = {
    "sizes": {"targets": 5},
    "others": ({"batch": 1, "length": 2, "targets": 9}, {"batch": 3, "length": 33, "targets": 3}),
}  # fmt: skip


MULTIPLES: dict[str, Any] = {
    "auto": True,
    "others": ({"batch": 3, "length": 8, "targets": 9}, {"batch": 4, "length": 20, "targets": 3}),
}  # fmt: skip


def t5(model: str, **settings: Any) -> Row:
    """A pair whose configuration has the names of T5's."""
    return Row(model, TEXT_TO_TEXT, {**T5_LIKE, **settings}, NO_CACHE, **LENGTHS)


def bart(model: str, **settings: Any) -> Row:
    """A pair whose configuration has the names of BART's."""
    return Row(model, TEXT_TO_TEXT, {**BART_LIKE, **settings}, NO_CACHE, **LENGTHS)


SMALL_DECODER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 4, **SPECIAL_TOKENS,
}  # fmt: skip

PAIRS = [
    t5("T5ForConditionalGeneration"),
    t5("MT5ForConditionalGeneration", feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    t5("UMT5ForConditionalGeneration"),
    replace(t5("LongT5ForConditionalGeneration", encoder_attention_type="local", local_radius=3), **MULTIPLES),
    replace(t5("SwitchTransformersForConditionalGeneration", num_experts=4, num_sparse_encoder_layers=1,
               num_sparse_decoder_layers=1), refused=SWAPPED),
    bart("BartForConditionalGeneration"),
    bart("MBartForConditionalGeneration"),
    bart("PegasusForConditionalGeneration"),
    replace(bart("PegasusXForConditionalGeneration", block_size=4, num_global_tokens=2, stagger_local_blocks=False),
            **MULTIPLES),
    bart("M2M100ForConditionalGeneration"),
    bart("MarianMTModel"),
    bart("BlenderbotForConditionalGeneration"),
    bart("BlenderbotSmallForConditionalGeneration"),
    bart("PLBartForConditionalGeneration"),
    bart("MvpForConditionalGeneration"),
    replace(bart("NllbMoeForConditionalGeneration", num_experts=4, encoder_sparse_step=1, decoder_sparse_step=1),
            refused=SWAPPED),
    replace(bart("LEDForConditionalGeneration", attention_window=[4]), refused=DATA_DEPENDENT),
    bart("BigBirdPegasusForConditionalGeneration", attention_type="original_full"),
    Row("FSMTForConditionalGeneration", TEXT_TO_TEXT, {
        **BART_LIKE, "langs": ["en", "de"], "src_vocab_size": 100, "tgt_vocab_size": 100}, NO_CACHE, **LENGTHS,
        refused=DATA_DEPENDENT),
    Row("ProphetNetForConditionalGeneration", TEXT_TO_TEXT, {
        "hidden_size": 64, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "num_encoder_layers": 1,
        "num_decoder_layers": 1, "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4,
        "decoder_start_token_id": 1, **SPECIAL_TOKENS}, NO_CACHE, **LENGTHS, fixed={"targets": CONSTRAINED}),
    Row("T5GemmaForConditionalGeneration", TEXT_TO_TEXT, {
        "encoder": SMALL_DECODER, "decoder": SMALL_DECODER, "vocab_size": 100}, NO_CACHE, **LENGTHS),
]  # fmt: skip
