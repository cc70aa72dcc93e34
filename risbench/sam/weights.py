"""Loading SAM checkpoints of any size by their keys, without running what is in the file."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

try:
    import torch
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
except ImportError as error:
    from risbench.core.errors import missing_extra

    raise missing_extra(error.name or "torch", "sam") from error

from torch import Tensor, nn

from risbench.core.errors import InputError

_PIXEL_MEAN, _PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def load_sam(checkpoint: Path | str, device: str = "cpu") -> tuple[Sam, str]:
    """Return (model in evaluation mode on `device`, sha256 of the file).

    ViT-B, L, H and any other size are told apart by the shapes of their tensors, not by the file's name.

    Raises:
        InputError: no such file, not a plain state dict, or not one of SAM's.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise InputError(f"--checkpoint {path}: there is no such file")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--checkpoint {path}: not a plain PyTorch state dict or safetensors file ({reason})") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"--checkpoint {path}: must hold a state dict of tensors, as Meta's SAM files do")
    model = build_sam(state, str(path))
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise InputError(f"--checkpoint {path}: {' '.join(str(error).split())[:400]}") from None
    return model.eval().to(device), digest


def build_sam(state: Mapping[str, Tensor], where: str) -> Sam:
    """Return segment-anything's model of the size that the tensors of a state dict have, not yet loaded.

    Raises:
        InputError: tensors that every SAM has are missing or misshapen.
    """
    try:
        _, grid, _, width = state["image_encoder.pos_embed"].shape
        patch = state["image_encoder.patch_embed.proj.weight"].shape[-1]
        depth = 1 + max(int(match[1]) for key in state if (match := re.match(r"image_encoder\.blocks\.(\d+)\.", key)))
        lengths = [state[f"image_encoder.blocks.{index}.attn.rel_pos_h"].shape for index in range(depth)]
        prompt_width = state["prompt_encoder.no_mask_embed.weight"].shape[1]
        mlp_ratio = state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / width
    except (KeyError, ValueError) as error:
        raise InputError(f"--checkpoint {where}: not a SAM state dict: {error} is missing or misshapen") from None
    global_length = 2 * grid - 1
    global_blocks = tuple(index for index, (length, _) in enumerate(lengths) if length == global_length)
    windows = {(length + 1) // 2 for length, _ in lengths if length != global_length}
    image_size = grid * patch
    encoder = ImageEncoderViT(
        depth=depth,
        embed_dim=width,
        img_size=image_size,
        mlp_ratio=mlp_ratio,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=width // lengths[0][1],
        patch_size=patch,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=global_blocks,
        window_size=windows.pop() if windows else 14,
        out_chans=prompt_width,
    )
    prompt_encoder = PromptEncoder(
        embed_dim=prompt_width, image_embedding_size=(grid, grid), input_image_size=(image_size, image_size), mask_in_chans=16
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=prompt_width, mlp_dim=2048, num_heads=8)
    decoder = MaskDecoder(
        num_multimask_outputs=3, transformer=transformer, transformer_dim=prompt_width, iou_head_depth=3, iou_head_hidden_dim=256
    )
    return Sam(encoder, prompt_encoder, decoder, _PIXEL_MEAN, _PIXEL_STD)
