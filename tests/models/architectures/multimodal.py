"""Two kinds of input at once, and images with things found in them."""

from __future__ import annotations

from typing import Any

from tests.models.architectures.encoders import BERT_LIKE, BOXES
from tests.models.architectures.row import DATA_DEPENDENT, IDS, MASK, PIXELS, SPECIAL_TOKENS, SPECIALIZED, Input, Row
from tests.models.architectures.vision import VIT_LIKE

TEXT: dict[str, Any] = {**BERT_LIKE, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
SMALL_IMAGE = {**VIT_LIKE, "num_channels": 3}
RESNET = {
    "model_type": "resnet", "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "embedding_size": 8,
    "out_features": ["stage2", "stage3", "stage4"],
}  # fmt: skip
LAST = {**RESNET, "out_features": ["stage4"]}
IMAGE64 = Input("pixel_values", ("batch", 3, 64, 64))
DETR: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_queries": 6,
    "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
}  # fmt: skip


def towers(model: str, **settings: Any) -> Row:
    """A text encoder beside an image encoder."""
    return Row(model, (IDS, MASK, PIXELS), {
        "text_config": TEXT, "vision_config": SMALL_IMAGE, "projection_dim": 16, **settings})  # fmt: skip


MULTIMODAL = [
    towers("CLIPModel"),
    towers("SiglipModel"),
    towers("ChineseCLIPModel"),
    towers("AltCLIPModel", text_config={**TEXT, "project_dim": 16}),
    towers("GroupViTModel", vision_config={
        **SMALL_IMAGE, "depths": [1, 1, 1], "num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 0]}),
    towers("OwlViTModel", text_config={**TEXT, "max_position_embeddings": 64}),
    towers("BlipModel", text_config={**TEXT, "encoder_hidden_size": 32}),
    Row("CLIPSegForImageSegmentation", (IDS, MASK, PIXELS), {
        "text_config": TEXT, "vision_config": SMALL_IMAGE, "projection_dim": 16, "extract_layers": [0, 1],
        "reduce_dim": 16, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32,
        "conditional_layer": 0}, fixed={"batch": SPECIALIZED}),
    Row("FlavaModel", (IDS, MASK, PIXELS), {
        "text_config": TEXT, "image_config": SMALL_IMAGE, "multimodal_config": {
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48},
        "hidden_size": 32, "projection_dim": 16}),
    Row("ViltModel", (IDS, MASK, PIXELS), {**TEXT, **VIT_LIKE, "max_image_length": -1}, refused=DATA_DEPENDENT),
    Row("LxmertModel", (IDS, MASK, Input("visual_feats", ("batch", 4, 16)), Input("visual_pos", ("batch", 4, 4))), {
        "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "l_layers": 1, "x_layers": 1,
        "r_layers": 1, "visual_feat_dim": 16, **SPECIAL_TOKENS}),
    Row("VisualBertModel", (IDS, MASK, Input("visual_embeds", ("batch", 4, 16))), {
        **TEXT, "visual_embedding_dim": 16}),
    Row("LayoutLMv3Model", (IDS, MASK, BOXES, PIXELS), {
        **TEXT, "input_size": 32, "patch_size": 8, "coordinate_size": 5, "shape_size": 6,
        "max_2d_position_embeddings": 128, "visual_embed": True}),
    Row("GitForCausalLM", (IDS, MASK, PIXELS), {**TEXT, "vision_config": SMALL_IMAGE, "use_cache": False}),
    Row("DetrForObjectDetection", (IMAGE64,), {**DETR, "backbone_config": LAST}),
    Row("ConditionalDetrForObjectDetection", (IMAGE64,), {**DETR, "backbone_config": LAST}),
    Row("TableTransformerForObjectDetection", (IMAGE64,), {**DETR, "backbone_config": LAST}),
    Row("RTDetrForObjectDetection", (IMAGE64,), {
        "backbone_config": {"model_type": "rt_detr_resnet", "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
                            "embedding_size": 8, "out_features": ["stage2", "stage3", "stage4"],
                            "layer_type": "basic"},
        "encoder_hidden_dim": 16, "encoder_in_channels": [8, 16, 16], "encoder_layers": 1, "encoder_ffn_dim": 32,
        "encoder_attention_heads": 2, "d_model": 16, "num_queries": 6, "decoder_in_channels": [16, 16, 16],
        "decoder_ffn_dim": 32, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_n_points": 2},
        fixed={"batch": SPECIALIZED}, noise=0.2),
    Row("UperNetForSemanticSegmentation", (IMAGE64,), {
        "backbone_config": {"model_type": "convnext", "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
                            "out_features": ["stage1", "stage2", "stage3", "stage4"]},
        "hidden_size": 16, "auxiliary_in_channels": 16, "auxiliary_channels": 8}),
    Row("VitPoseForPoseEstimation", (IMAGE64,), {
        "backbone_config": {"model_type": "vitpose_backbone", "image_size": [64, 64], "patch_size": [16, 16],
                            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                            "out_indices": [1]}, "num_labels": 3}),
    Row("SamVisionModel", (PIXELS,), {
        **VIT_LIKE, "output_channels": 16, "window_size": 2, "global_attn_indexes": [1], "mlp_dim": 48,
        "num_pos_feats": 8}),
    Row("TrOCRForCausalLM", (IDS, MASK), {
        "d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 48, "use_cache": False,
        **SPECIAL_TOKENS}),
]  # fmt: skip
