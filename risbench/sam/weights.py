"""Loading SAM checkpoints of any size by their keys, without running what is in the file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

try:
    import torch
    from safetensors.torch import load_file
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
except ImportError as error:
    from risbench.core.errors import missing_extra

    raise missing_extra(error.name or "torch", "sam") from error

from torch import Tensor, nn

from risbench.core.errors import InputError
from risbench.sam.compact.model import PIXEL_MEAN, PIXEL_STD
from risbench.sam.compact.tiny_vit import TinyViT
from risbench.sam.fetch import read_manifest


def read_state(checkpoint: Path | str) -> tuple[dict[str, Tensor], str]:
    """Return (state dict, sha256 of the file) of a .pth or .safetensors file, without running what is in it.

    Raises:
        InputError: no such file, cut short, a web page, or anything but a dict of tensors of finite numbers.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise InputError(f"--checkpoint {path}: there is no such file")
    with open(path, "rb") as file:
        start = file.read(64).lstrip().lower()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if start.startswith((b"<!doctype", b"<html")):
        raise InputError(f"--checkpoint {path}: this is a web page, not weights; a proxy or a login page answered the download")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a flipped byte makes the reader of a pickle fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--checkpoint {path}: not a plain PyTorch state dict or safetensors file ({reason})") from None
    if not isinstance(state, Mapping) or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise InputError(f"--checkpoint {path}: must hold a state dict of tensors, as Meta's SAM files do")
    broken = next((key for key, value in state.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())), None)
    if broken is not None:
        raise InputError(f"--checkpoint {path}: {broken} holds values that are not finite numbers; the file is damaged, fetch it again")
    return dict(state), digest


def load_sam(checkpoint: Path | str, device: str = "cpu", *, image_side: int | None = None) -> tuple[Sam, str]:
    """Return (model in evaluation mode on `device`, sha256 of the file).

    ViT-B, L, H, any other size and MobileSAM are told apart by their tensors, not by the file's name. `image_side`
    (pixels, a multiple of 16) makes a model of another input size: positions are interpolated.

    Raises:
        InputError: no such file, not a plain state dict, not one of SAM's, or a flipped tensor.
    """
    state, digest = read_state(checkpoint)
    _check_official(Path(checkpoint), digest)
    if image_side is not None and any(key.startswith("image_encoder.blocks.") for key in state):
        state = resized(state, image_side, str(checkpoint))
    model = build_sam(state, str(checkpoint), image_side)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InputError(f"--checkpoint {checkpoint}: {' '.join(str(error).split())[:400]}") from None
    return model.eval().to(device), digest


def _check_official(path: Path, digest: str) -> None:
    """Refuse a file that bears a published name and is not the published file: one flipped byte loads, and no mask shows it."""
    published = next((item for item in read_manifest().values() if item.file == path.name), None)
    if published is not None and published.sha256 and published.sha256 != digest:
        raise InputError(
            f"--checkpoint {path}: sha256 is {digest}, not {published.sha256} as published; it is damaged, or weights of your own: "
            f"fetch it again (risbench weights fetch {published.name}), or give your own another name"
        )


def build_sam(state: Mapping[str, Tensor], where: str, image_side: int | None = None) -> Sam:
    """Return segment-anything's model of the size that the tensors of a state dict have, not yet loaded.

    Raises:
        InputError: tensors that every SAM has are missing or misshapen.
    """
    try:
        prompt_width = state["prompt_encoder.no_mask_embed.weight"].shape[1]
        mlp_width = state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0]
        depth = 1 + max(int(match[1]) for key in state if (match := re.match(r"mask_decoder\.transformer\.layers\.(\d+)\.", key)))
        masks = state["mask_decoder.mask_tokens.weight"].shape[0]
        tiny = "image_encoder.patch_embed.seq.0.c.weight" in state
        encoder = TinyViT(image_side or 1024, prompt_width) if tiny else _vit(state, prompt_width)
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"--checkpoint {where}: not a SAM state dict: {error} is missing or misshapen") from None
    side = encoder.img_size
    grid = side // 16 if tiny else int(state["image_encoder.pos_embed"].shape[1])
    prompt_encoder = PromptEncoder(
        embed_dim=prompt_width, image_embedding_size=(grid, grid), input_image_size=(side, side), mask_in_chans=16
    )
    transformer = TwoWayTransformer(depth=depth, embedding_dim=prompt_width, mlp_dim=mlp_width, num_heads=8)
    decoder = MaskDecoder(
        num_multimask_outputs=masks - 1, transformer=transformer, transformer_dim=prompt_width, iou_head_depth=3, iou_head_hidden_dim=256
    )
    return Sam(encoder, prompt_encoder, decoder, list(PIXEL_MEAN), list(PIXEL_STD))


def _vit(state: Mapping[str, Tensor], prompt_width: int) -> ImageEncoderViT:
    """Return the plain transformer encoder that the tensors describe: which blocks are global is read off their relative positions."""
    _, grid, _, width = state["image_encoder.pos_embed"].shape
    patch = state["image_encoder.patch_embed.proj.weight"].shape[-1]
    depth = 1 + max(int(match[1]) for key in state if (match := re.match(r"image_encoder\.blocks\.(\d+)\.", key)))
    lengths = [state[f"image_encoder.blocks.{index}.attn.rel_pos_h"].shape for index in range(depth)]
    windows = {(length + 1) // 2 for length, _ in lengths if length != 2 * grid - 1}
    return ImageEncoderViT(
        depth=depth,
        embed_dim=width,
        img_size=grid * patch,
        mlp_ratio=state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / width,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=width // lengths[0][1],
        patch_size=patch,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=tuple(index for index, (length, _) in enumerate(lengths) if length == 2 * grid - 1),
        window_size=windows.pop() if windows else 14,
        out_chans=prompt_width,
    )


def resized(state: Mapping[str, Tensor], image_side: int, where: str) -> dict[str, Tensor]:
    """Return a ViT SAM's state dict for another input side: `pos_embed` bicubic, global relative positions linear.

    Raises:
        InputError: the side is not a multiple of the patch, or has no room for a window.
    """
    try:
        position = state["image_encoder.pos_embed"]
        patch = state["image_encoder.patch_embed.proj.weight"].shape[-1]
    except KeyError as error:
        raise InputError(f"--checkpoint {where}: not a SAM state dict: {error} is missing") from None
    before, after = position.shape[1], image_side // patch
    if image_side % patch or image_side < 4 * patch:
        raise InputError(f"an image side of {image_side} px: must be a multiple of the patch of {patch} px, and at least {4 * patch}")
    changed = dict(state)
    moved = nn.functional.interpolate(position.permute(0, 3, 1, 2), (after, after), mode="bicubic", antialias=after < before)
    changed["image_encoder.pos_embed"] = moved.permute(0, 2, 3, 1).contiguous()
    for key, value in state.items():
        if ".attn.rel_pos_" in key and value.shape[0] == 2 * before - 1:
            line = nn.functional.interpolate(value.T[None], 2 * after - 1, mode="linear")[0].T
            changed[key] = line.contiguous()
    return changed
