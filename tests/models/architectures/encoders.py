"""Encoders of text: every token sees every other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.models.architectures.row import (
    CONSTRAINED,
    DATA_DEPENDENT,
    IDS,
    MASK,
    SPECIAL_TOKENS,
    SPECIALIZED,
    Input,
    Row,
)

BERT_LIKE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4, **SPECIAL_TOKENS,
}  # fmt: skip
SEGMENTS = Input("token_type_ids", ("batch", "length"), "zero")
FROM_THREE = ({"batch": 1, "length": 3}, {"batch": 3, "length": 33})
BOXES = Input("bbox", ("batch", "length", 4), "box")


def encoder(model: str, *more: Input, note: str = "", **settings: Any) -> Row:
    """An encoder whose configuration has the names of BERT's."""
    return Row(model, (IDS, MASK, *more), {**BERT_LIKE, **settings}, note=note)


ENCODERS = [
    encoder("BertModel", SEGMENTS),
    encoder("BertForMaskedLM"),
    encoder("RobertaModel"),
    encoder("RobertaPreLayerNormModel"),
    encoder("XLMRobertaForSequenceClassification"),
    encoder("XLMRobertaXLModel"),
    encoder("CamembertForTokenClassification"),
    encoder("ElectraForPreTraining", embedding_size=32),
    encoder("AlbertModel", embedding_size=32),
    encoder("MegatronBertModel"),
    encoder("RoFormerModel", embedding_size=64),
    encoder("RemBertModel", input_embedding_size=32),
    encoder("ErnieModel"),
    encoder("MPNetModel"),
    replace(encoder("MobileBertModel", embedding_size=32, intra_bottleneck_size=32, true_hidden_size=32),
            others=FROM_THREE),
    encoder("ConvBertModel", embedding_size=32, head_ratio=2, conv_kernel_size=3),
    encoder("SqueezeBertModel", embedding_size=64),
    encoder("SplinterModel"),
    encoder("YosoModel", use_expectation=True),
    Row("FNetModel", (IDS, SEGMENTS), BERT_LIKE),
    encoder("DebertaModel", relative_attention=True, pos_att_type=["c2p", "p2c"], position_biased_input=False),
    encoder("DebertaV2Model", relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8,
            norm_rel_ebd="layer_norm", share_att_key=True, conv_kernel_size=3),
    encoder("ModernBertModel", num_hidden_layers=2, global_attn_every_n_layers=2, local_attention=4, cls_token_id=1,
            sep_token_id=2),
    encoder("EuroBertModel", num_key_value_heads=4),
    encoder("EsmModel", position_embedding_type="rotary", mask_token_id=3),
    encoder("LayoutLMModel", BOXES),
    encoder("LiltModel", BOXES, channel_shrink_ratio=2, hidden_size=96),
    encoder("MarkupLMModel", xpath_unit_hidden_size=16),
    encoder("LukeModel", entity_vocab_size=20, entity_emb_size=16),
    encoder("RoCBertModel", enable_pronunciation=False, enable_shape=False),
    encoder("NomicBertModel"),
    encoder("BigBirdModel", attention_type="original_full"),
    replace(encoder("BigBirdModel", note="sparse", attention_type="block_sparse", block_size=2, num_random_blocks=1),
            sizes={"length": 16}, fixed={"length": ""}),
    replace(encoder("LongformerModel", attention_window=[4]), refused=DATA_DEPENDENT),
    encoder("IBertModel"),
    replace(encoder("CanineModel", local_transformer_stride=8, downsampling_rate=2, num_hash_buckets=64),
            fixed={"length": SPECIALIZED}),
    Row("DistilBertModel", (IDS, MASK), {"dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4, **SPECIAL_TOKENS}),
    Row("FlaubertModel", (IDS, MASK), {"emb_dim": 64, "n_layers": 1, "n_heads": 4, **SPECIAL_TOKENS}),
    Row("XLMModel", (IDS, MASK), {"emb_dim": 64, "n_layers": 1, "n_heads": 4, **SPECIAL_TOKENS}),
    encoder("XmodModel", languages=["en_XX"], default_language="en_XX"),
    Row("XLNetModel", (IDS, MASK), {
        "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96, "use_mems_eval": False, **SPECIAL_TOKENS},
        fixed={"length": CONSTRAINED}),
    Row("FunnelModel", (IDS, MASK), {
        "d_model": 64, "n_head": 4, "d_head": 16, "d_inner": 96, "block_sizes": [1, 1], "num_decoder_layers": 1,
        **SPECIAL_TOKENS}, fixed={"length": SPECIALIZED}),
    Row("ReformerModel", (IDS, MASK), {
        "hidden_size": 32, "feed_forward_size": 64, "num_attention_heads": 2, "attention_head_size": 16,
        "attn_layers": ["local", "local"], "axial_pos_embds": False, "local_attn_chunk_length": 4, "is_decoder": False,
        "use_cache": False, **SPECIAL_TOKENS}, fixed={"length": CONSTRAINED}),
    Row("BertGenerationEncoder", (IDS, MASK), BERT_LIKE),
    Row("DPRQuestionEncoder", (IDS, MASK), BERT_LIKE),
    Row("PerceiverModel", (Input("inputs", ("batch", "length", 32)),), {
        "num_latents": 8, "d_latents": 32, "d_model": 32, "num_blocks": 1, "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2, "num_cross_attention_heads": 2}),
]  # fmt: skip
