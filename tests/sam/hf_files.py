"""Tiny folders of transformers' mask models with random weights, saved by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf

SIDE = 128


def write_hf(folder: Path, family: str, seed: int = 0) -> Path:
    """Save a tiny model and its processor of a family: sam, sam_hq, sam2 or sam3_tracker."""
    torch.manual_seed(seed)
    model, processor = {"sam": _sam, "sam_hq": _sam_hq, "sam2": _sam2, "sam3_tracker": _sam3_tracker}[family]()
    for value in model.parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _parts() -> tuple[dict[str, Any], dict[str, Any]]:
    prompt = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16}
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    return prompt, decoder


def _vision() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
        "window_size": 4,
        "global_attn_indexes": [1],
        "mlp_dim": 64,
        "num_pos_feats": 16,
    }


def _longest_edge() -> Any:
    low = {"height": SIDE // 4, "width": SIDE // 4}
    return hf.SamImageProcessor(
        size={"longest_edge": SIDE},
        pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": SIDE // 4},
        mask_pad_size=low,
    )


def _sam() -> tuple[Any, Any]:
    prompt, decoder = _parts()
    config = hf.SamConfig(vision_config=_vision(), prompt_encoder_config=prompt, mask_decoder_config=decoder)
    return hf.SamModel(config), hf.SamProcessor(_longest_edge())


def _sam_hq() -> tuple[Any, Any]:
    prompt, decoder = _parts()
    config = hf.SamHQConfig(vision_config=_vision(), prompt_encoder_config=prompt, mask_decoder_config={**decoder, "vit_dim": 32})
    return hf.SamHQModel(config), hf.SamHQProcessor(_longest_edge())


def _sam2() -> tuple[Any, Any]:
    prompt, decoder = _parts()
    backbone = {
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [SIDE, SIDE],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 4],
        "blocks_per_stage": [1, 1, 2, 1],
        "window_size_per_stage": [8, 4, 4, 4],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [7, 7],
    }
    vision = {
        "backbone_config": {**backbone, "model_type": "sam2_hiera_det_model"},
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 32,
        "fpn_top_down_levels": [2, 3],
        "num_feature_levels": 3,
    }
    config = hf.Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    size = {"height": SIDE, "width": SIDE}
    images = hf.Sam2ImageProcessor(size=size, mask_size={"height": SIDE // 4, "width": SIDE // 4})
    return hf.Sam2Model(config), hf.Sam2Processor(images, target_size=SIDE)


def _sam3_tracker() -> tuple[Any, Any]:
    prompt, decoder = _parts()
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "pretrain_image_size": SIDE,
        "patch_size": 16,
        "window_size": 4,
        "global_attn_indexes": [1],
    }
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "scale_factors": [4.0, 2.0, 1.0, 0.5],
    }
    config = hf.Sam3TrackerConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    images = hf.Sam3ImageProcessor(size={"height": SIDE, "width": SIDE}, mask_size={"height": SIDE // 4, "width": SIDE // 4})
    return hf.Sam3TrackerModel(config), hf.Sam3TrackerProcessor(images, target_size=SIDE)
