"""Speech, sound and series of numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.models.architectures.row import (
    CONSTRAINED,
    DATA_DEPENDENT,
    MASK,
    NO_CACHE,
    SPECIAL_TOKENS,
    TARGETS,
    Input,
    Row,
)

WAVE = Input("input_values", ("batch", "samples"))
WAVES = {"sizes": {"samples": 400}, "others": ({"batch": 1, "samples": 320}, {"batch": 3, "samples": 517})}
WAV2VEC: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, **SPECIAL_TOKENS,
}  # fmt: skip
SPEECH: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 1,
    **SPECIAL_TOKENS,
}  # fmt: skip
FRAMES = {"sizes": {"frames": 40}, "others": ({"batch": 1, "frames": 32}, {"batch": 3, "frames": 57})}


def wave(model: str, note: str = "", **settings: Any) -> Row:
    """A model of raw sound whose configuration has the names of Wav2Vec2's."""
    return Row(model, (WAVE,), {**WAV2VEC, **settings}, **WAVES, note=note)


SOUND = [
    wave("Wav2Vec2Model"),
    wave("Wav2Vec2ForCTC", do_stable_layer_norm=True, feat_extract_norm="layer"),
    wave("HubertModel"),
    wave("Data2VecAudioModel", conv_pos_kernel_size=3),
    wave("WavLMModel"),
    wave("UniSpeechModel"),
    wave("UniSpeechSatForSequenceClassification"),
    replace(wave("SEWModel", squeeze_factor=2), fixed={"samples": CONSTRAINED}),
    replace(wave("SEWDModel", squeeze_factor=2), fixed={"samples": CONSTRAINED}),
    replace(wave("Wav2Vec2ConformerModel", position_embeddings_type="rotary"), fixed={"samples": CONSTRAINED}),
    replace(wave("Wav2Vec2ConformerModel", note="relative", position_embeddings_type="relative"),
            fixed={"samples": CONSTRAINED}),
    Row("Wav2Vec2BertModel", (Input("input_features", ("batch", "frames", 16)),), {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "feature_projection_input_dim": 16}, **FRAMES),
    Row("WhisperForConditionalGeneration", (Input("input_features", ("batch", 20, 100)), TARGETS), {
        **SPEECH, "num_mel_bins": 20, "max_source_positions": 50}, NO_CACHE, sizes={"targets": 5},
        others=({"batch": 1, "targets": 9}, {"batch": 3, "targets": 3})),
    Row("Speech2TextForConditionalGeneration", (Input("input_features", ("batch", "frames", 20)), TARGETS), {
        **SPEECH, "input_feat_per_channel": 20, "conv_channels": 32}, NO_CACHE,
        sizes={"frames": 40, "targets": 5},
        others=({"batch": 1, "frames": 32, "targets": 9}, {"batch": 3, "frames": 57, "targets": 3})),
    Row("MoonshineForConditionalGeneration", (WAVE, TARGETS), {
        "hidden_size": 32, "intermediate_size": 48, "encoder_num_hidden_layers": 1, "decoder_num_hidden_layers": 1,
        "encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2, "decoder_start_token_id": 1,
        **SPECIAL_TOKENS}, NO_CACHE, sizes={"samples": 2000, "targets": 5},
        others=({"batch": 1, "samples": 1600, "targets": 9}, {"batch": 3, "samples": 2500, "targets": 3}),
        fixed={"samples": CONSTRAINED}),
    Row("SpeechT5ForSpeechToText", (WAVE, TARGETS), {
        "hidden_size": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "conv_dim": (16, 16),
        "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2, **SPECIAL_TOKENS}, NO_CACHE, sizes={"samples": 400, "targets": 5},
        others=({"batch": 1, "samples": 320, "targets": 9}, {"batch": 3, "samples": 517, "targets": 3})),
    Row("ASTModel", (Input("input_values", ("batch", 32, 16)),), {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "patch_size": 4, "frequency_stride": 2, "time_stride": 4, "max_length": 32, "num_mel_bins": 16}),
    Row("EncodecModel", (Input("input_values", ("batch", 1, "samples")),), {
        "num_filters": 4, "hidden_size": 16, "num_lstm_layers": 1, "codebook_size": 16, "codebook_dim": 16,
        "upsampling_ratios": [4, 2], "kernel_size": 3, "target_bandwidths": [24.0], "sampling_rate": 1200},
        sizes={"samples": 96}, refused=DATA_DEPENDENT),
    Row("DacModel", (Input("input_values", ("batch", 1, "samples")),), {
        "encoder_hidden_size": 4, "decoder_hidden_size": 32, "downsampling_ratios": [2, 4],
        "upsampling_ratios": [4, 2], "n_codebooks": 2, "codebook_size": 16, "codebook_dim": 4},
        sizes={"samples": 96}, others=({"batch": 1, "samples": 64}, {"batch": 3, "samples": 128}),
        fixed={"samples": CONSTRAINED}),
    Row("MimiModel", (Input("input_values", ("batch", 1, "samples")),), {
        "num_filters": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "head_dim": 8, "intermediate_size": 32, "codebook_size": 16, "codebook_dim": 16, "num_quantizers": 2,
        "upsampling_ratios": [4, 2], "vector_quantization_hidden_dimension": 16, "num_semantic_quantizers": 1,
        "upsample_groups": 16, "use_cache": False},
        sizes={"samples": 96}, refused=DATA_DEPENDENT),
    Row("UnivNetModel", (Input("input_features", ("batch", "frames", 20)),
        Input("noise_sequence", ("batch", "frames", 8))), {
        "model_in_channels": 8, "model_hidden_channels": 8, "num_mel_bins": 20, "kernel_predictor_hidden_channels": 8,
        "resblock_kernel_sizes": [3], "resblock_stride_sizes": [4], "resblock_dilation_sizes": [[1, 3]]},
        sizes={"frames": 8}, others=({"batch": 1, "frames": 5}, {"batch": 3, "frames": 11})),
    Row("ClapAudioModel", (Input("input_features", ("batch", 1, 64, 16)),), {
        "spec_size": 32, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4], "patch_embeds_hidden_size": 16,
        "depths": [1, 1], "num_attention_heads": [2, 2], "window_size": 4, "hidden_size": 32}),
    Row("ParakeetForCTC", (Input("input_features", ("batch", "frames", 20)),), {
        "vocab_size": 100, "encoder_config": {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_mel_bins": 20, "subsampling_factor": 4, "subsampling_conv_channels": 8}}, **FRAMES,
        fixed={"frames": CONSTRAINED}),
    Row("MusicgenForCausalLM", (Input("input_ids", (8, "length"), "token"),), {
        "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_codebooks": 4,
        **SPECIAL_TOKENS}, NO_CACHE),
    Row("BarkSemanticModel", (Input("input_ids", ("batch", "length"), "token"),), {
        "hidden_size": 32, "num_layers": 1, "num_heads": 2, "block_size": 64, "input_vocab_size": 100,
        "output_vocab_size": 100}, NO_CACHE),
    Row("PatchTSTModel", (Input("past_values", ("batch", 32, 3)),), {
        "num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 16,
        "num_attention_heads": 2, "num_hidden_layers": 1, "ffn_dim": 32}),
    Row("PatchTSMixerModel", (Input("past_values", ("batch", 32, 3)),), {
        "num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 16,
        "num_layers": 1}),
    Row("DecisionTransformerModel", (
        Input("states", ("batch", "length", 5)), Input("actions", ("batch", "length", 3)),
        Input("rewards", ("batch", "length", 1)), Input("returns_to_go", ("batch", "length", 1)),
        Input("timesteps", ("batch", "length"), "zero"), MASK), {
        "state_dim": 5, "act_dim": 3, "hidden_size": 32, "n_layer": 1, "n_head": 2, "max_ep_len": 64}),
]  # fmt: skip
