"""Tiny SAM checkpoints with random weights: segment-anything's own classes, the real keys."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from risbench.sam.compact.tiny_vit import TinyViT


def tiny_sam(seed: int = 0, image_size: int = 128) -> Sam:
    """Return a SAM with two blocks of width 32 (one global, one windowed) and random weights."""
    torch.manual_seed(seed)
    grid = image_size // 16
    encoder = ImageEncoderViT(img_size=image_size, embed_dim=32, depth=2, num_heads=2, out_chans=256, use_rel_pos=True, window_size=4,
                              global_attn_indexes=(1,), norm_layer=partial(nn.LayerNorm, eps=1e-6))  # fmt: skip
    prompt = PromptEncoder(embed_dim=256, image_embedding_size=(grid, grid), input_image_size=(image_size, image_size), mask_in_chans=16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    decoder = MaskDecoder(num_multimask_outputs=3, transformer=transformer, transformer_dim=256, iou_head_depth=3, iou_head_hidden_dim=256)
    model = Sam(encoder, prompt, decoder, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    for name, value in model.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            nn.init.normal_(value, std=0.2)
    return model.eval()


def tiny_mobile_sam(seed: int = 0) -> Sam:
    """Return MobileSAM, whose one size this is, with random weights."""
    torch.manual_seed(seed)
    prompt = PromptEncoder(embed_dim=256, image_embedding_size=(64, 64), input_image_size=(1024, 1024), mask_in_chans=16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    decoder = MaskDecoder(num_multimask_outputs=3, transformer=transformer, transformer_dim=256, iou_head_depth=3, iou_head_hidden_dim=256)
    return Sam(TinyViT(), prompt, decoder, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]).eval()


def write_sam(path: Path, seed: int = 0, **changes: torch.Tensor) -> Path:
    """Write a tiny SAM's state dict; `changes` replaces tensors by key (dots as double underscores)."""
    state = tiny_sam(seed).state_dict()
    state.update({key.replace("__", "."): value for key, value in changes.items()})
    torch.save(state, path)
    return path
