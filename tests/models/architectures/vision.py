"""Images and videos."""

from __future__ import annotations

from typing import Any

from tests.models.architectures.row import PIXELS, Input, Row

VIT_LIKE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
VIDEO = Input("pixel_values", ("batch", 2, 3, 32, 32))
MAPS = {"hidden_sizes": [16, 32], "depths": [1, 1]}
PYRAMID: dict[str, Any] = {
    "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 32,
}  # fmt: skip
SWIN_LIKE: dict[str, Any] = {
    "image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4,
}  # fmt: skip


def vit(model: str, **settings: Any) -> Row:
    """An encoder whose configuration has the names of ViT's."""
    return Row(model, (PIXELS,), {**VIT_LIKE, **settings})


VISION = [
    vit("ViTModel"),
    vit("ViTForImageClassification", num_labels=5),
    vit("ViTMSNModel"),
    vit("DeiTModel"),
    vit("Dinov2Model"),
    vit("Dinov2WithRegistersModel"),
    vit("DINOv3ViTModel"),
    vit("IJepaModel"),
    vit("BeitModel", use_relative_position_bias=True, use_shared_relative_position_bias=False),
    vit("Data2VecVisionModel", use_relative_position_bias=True),
    vit("YolosModel", image_size=[32, 32], num_detection_tokens=4),
    vit("SiglipVisionModel"),
    vit("CLIPVisionModel"),
    vit("VitDetModel", pretrain_image_size=32, window_block_indices=[0], window_size=2,
        residual_block_indices=[1], use_relative_position_embeddings=True),
    Row("ViTMAEModel", (PIXELS, Input("noise", ("batch", 16))), VIT_LIKE),
    vit("DPTForDepthEstimation", num_hidden_layers=4, backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16, is_hybrid=False),
    vit("MLCDVisionModel"),
    vit("PixioModel"),
    Row("SwinModel", (PIXELS,), SWIN_LIKE),
    Row("Swinv2Model", (PIXELS,), SWIN_LIKE),
    Row("Swin2SRModel", (PIXELS,), {**SWIN_LIKE, "patch_size": 1, "image_size": 32, "depths": [1, 1]}),
    Row("DonutSwinModel", (PIXELS,), SWIN_LIKE),
    Row("MaskFormerSwinModel", (PIXELS,), SWIN_LIKE),
    Row("FocalNetModel", (PIXELS,), {
        "image_size": 32, "patch_size": 4, "embed_dim": 16, "hidden_sizes": [16, 32], "depths": [1, 1],
        "focal_levels": [1, 1], "focal_windows": [3, 3]}),
    Row("ConvNextModel", (PIXELS,), {**MAPS, "num_stages": 2}),
    Row("ConvNextV2Model", (PIXELS,), {**MAPS, "num_stages": 2}),
    Row("ResNetForImageClassification", (PIXELS,), {**MAPS, "embedding_size": 16, "layer_type": "bottleneck"}),
    Row("RegNetModel", (PIXELS,), {**MAPS, "embedding_size": 16, "groups_width": 8}),
    Row("BitModel", (PIXELS,), {**MAPS, "embedding_size": 16, "num_groups": 4}),
    Row("PoolFormerModel", (PIXELS,), {
        "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}),
    Row("MobileNetV1Model", (PIXELS,), {"depth_multiplier": 0.25}),
    Row("MobileNetV2Model", (PIXELS,), {"depth_multiplier": 0.25}),
    Row("MobileViTModel", (PIXELS,), {
        "image_size": 32, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48],
        "num_attention_heads": 2, "mlp_ratio": 2.0}),
    Row("MobileViTV2Model", (Input("pixel_values", ("batch", 3, 64, 64)),), {
        "image_size": 64, "width_multiplier": 0.25, "n_attn_blocks": [1, 1, 1], "base_attn_unit_dims": [32, 32, 32]}),
    Row("EfficientNetModel", (PIXELS,), {
        "image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320}),
    Row("SwiftFormerModel", (PIXELS,), {"embed_dims": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}),
    Row("LevitModel", (PIXELS,), {
        "image_size": 32, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1],
        "key_dim": [8, 8, 8], "mlp_ratio": [2, 2, 2], "attention_ratio": [2, 2, 2]}),
    Row("PvtModel", (PIXELS,), {
        "image_size": 32, **PYRAMID, "sequence_reduction_ratios": [4, 2, 1, 1]}),
    Row("PvtV2Model", (PIXELS,), {
        "image_size": 32, **PYRAMID, "sr_ratios": [4, 2, 1, 1]}),
    Row("SegformerForSemanticSegmentation", (PIXELS,), PYRAMID),
    Row("GLPNForDepthEstimation", (PIXELS,), PYRAMID),
    Row("HGNetV2ForImageClassification", (PIXELS,), {
        "stem_channels": [3, 8, 8], "stage_in_channels": [8, 16], "stage_mid_channels": [8, 8],
        "stage_out_channels": [16, 32], "stage_num_blocks": [1, 1], "stage_numb_of_layers": [2, 2],
        "stage_downsample": [False, True], "stage_light_block": [False, True], "stage_kernel_size": [3, 3],
        "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}),
    Row("TextNetModel", (PIXELS,), {}),
    Row("TimesformerModel", (VIDEO,), {**VIT_LIKE, "num_frames": 2}),
    Row("VivitModel", (VIDEO,), {**VIT_LIKE, "num_frames": 2, "tubelet_size": [2, 8, 8]}),
    Row("VideoMAEModel", (VIDEO,), {**VIT_LIKE, "num_frames": 2, "tubelet_size": 2}),
    Row("ImageGPTModel", (Input("input_ids", ("batch", "length"), "token"),), {
        "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 100, "n_positions": 64, "use_cache": False}),
]  # fmt: skip
