"""Names of Swin's and ConvNeXt's tensors as their authors and timm publish them, as those that transformers reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from torch import Tensor

_Rules = Sequence[tuple[str, str]]
# What networks that read maps have no use for: the classifier, its norm, and what is computed from the window's size.
_UNUSED: Final = re.compile(r"^(norm|head|fc_norm)\.|\.?(relative_position_index|attn_mask)$|^mask_token$")
_SWIN: Final[_Rules] = (
    (r"^patch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "swin.embeddings.norm."),
    (r"^layers\.", "swin.encoder.layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.relative_position_bias_table$", ".attention.self.relative_position_bias_table"),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
# https://github.com/facebookresearch/ConvNeXt
_CONVNEXT: Final[_Rules] = (
    (r"^downsample_layers\.0\.0\.", "convnext.embeddings.patch_embeddings."),
    (r"^downsample_layers\.0\.1\.", "convnext.embeddings.layernorm."),
    (r"^downsample_layers\.(\d+)\.", r"convnext.encoder.stages.\1.downsampling_layer."),
    (r"^stages\.(\d+)\.(\d+)\.", r"convnext.encoder.stages.\1.layers.\2."),
    (r"\.norm\.", ".layernorm."),
    (r"\.gamma$", ".layer_scale_parameter"),
)
_CONVNEXT_TIMM: Final[_Rules] = (
    (r"^stem\.0\.", "convnext.embeddings.patch_embeddings."),
    (r"^stem\.1\.", "convnext.embeddings.layernorm."),
    (r"^stages\.(\d+)\.downsample\.", r"convnext.encoder.stages.\1.downsampling_layer."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.", r"convnext.encoder.stages.\1.layers.\2."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.norm\.", ".layernorm."),
    (r"\.mlp\.fc(\d)\.", r".pwconv\1."),
    (r"\.gamma$", ".layer_scale_parameter"),
)


def as_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict in the names of transformers' published files; what is in other names than these is returned as it is."""
    if any(".attn.qkv." in name for name in state):
        return _renamed(_swin_parts(state), _SWIN)
    if "downsample_layers.0.0.weight" in state:
        return _renamed(state, _CONVNEXT)
    if "stem.0.weight" in state and any(".conv_dw." in name for name in state):
        return _renamed(state, _CONVNEXT_TIMM)
    return dict(state)


def _renamed(state: Mapping[str, Tensor], rules: _Rules) -> dict[str, Tensor]:
    made = {}
    for name, value in state.items():
        if _UNUSED.search(name):
            continue
        told = name
        for pattern, place in rules:
            told = re.sub(pattern, place, told)
        made[told] = value
    return made


def _swin_parts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return it with queries, keys and values apart, and every stage's merging of patches behind its blocks.

    Newer files of timm have it before those of the next stage, and then none in the first.
    """
    merged_first = not any(name.startswith("layers.0.downsample.") for name in state)
    made = {}
    for name, value in state.items():
        if found := re.fullmatch(r"(.*)\.attn\.qkv\.(\w+)", name):
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                made[f"{found[1]}.attention.self.{part}.{found[2]}"] = piece.contiguous()
        elif merged_first and (found := re.fullmatch(r"layers\.(\d+)\.downsample\.(.*)", name)):
            made[f"layers.{int(found[1]) - 1}.downsample.{found[2]}"] = value
        else:
            made[name] = value
    return made
