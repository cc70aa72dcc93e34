"""Adapters on disk: the tensors that were trained, and in the header whose they are and how they came about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from risbench.core.errors import InputError
from risbench.core.storage import sha256_of_file, write_durably
from risbench.sam.builtin import BUILTIN_SHA256, builtin_weights
from risbench.sam.compact import CompactSam
from risbench.sam.compact_weights import load_compact

FORMAT: Final = "risbench PA adapter 1"
# The IoU head sees no loss: what it says of a refined mask is the base's word.
TRAINED: Final = (
    "mask_decoder.guiding_conv.",
    "mask_decoder.prompt_adapter.",
    "mask_decoder.output_upscaling.",
    "mask_decoder.output_hypernetworks_mlps.",
    "mask_decoder.mask_tokens.",
    "mask_decoder.skip_",
    "mask_decoder.mix_",
)
ENCODER: Final = "image_encoder."


@dataclass(frozen=True)
class AdapterHeader:
    """What an adapter says of itself: the sha256 of its base's weights and notes on its training."""

    base_sha256: str
    notes: Mapping[str, Any]


def adapted_from(base: CompactSam) -> CompactSam:
    """Return a copy of a compact SAM with an adapter that changes nothing yet but for its points.

    The last layers of what the adapter adds start at zero, so that training starts from the base's masks and not from noise.
    """
    model = CompactSam(replace(base.settings, adapted=True))
    lacking = model.load_state_dict(base.state_dict(), strict=False)
    strange = [name for name in lacking.missing_keys if not name.startswith(TRAINED[:2])] + list(lacking.unexpected_keys)
    assert not strange, f"the adapter adds its own tensors only: {strange}"
    guiding: Any = model.mask_decoder.guiding_conv
    adapter: Any = model.mask_decoder.prompt_adapter
    last = (guiding[6], adapter.cross_attn_token_to_image.out_proj, adapter.refined_mlp.layers[2])
    for layer in last:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def save_adapter(path: Path, tensors: Mapping[str, Tensor], base_sha256: str, notes: Mapping[str, Any]) -> None:
    """Write trained tensors in half precision; the same tensors and notes give the same bytes."""
    halved = {name: value.detach().cpu().half().contiguous() if value.is_floating_point() else value for name, value in tensors.items()}
    bad = next((name for name, value in halved.items() if not bool(torch.isfinite(value.float()).all())), None)
    if bad is not None:
        raise ValueError(f"{bad} holds values that are no numbers in half precision")
    header = {"risbench": json.dumps({"format": FORMAT, "base_sha256": base_sha256, "notes": dict(notes)}, sort_keys=True)}
    write_durably(path, save(halved, metadata=header))


def read_adapter(path: Path) -> tuple[AdapterHeader, dict[str, Tensor]]:
    """Return an adapter's header and tensors.

    Raises:
        InputError: no such file, cut short, or no adapter.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such adapter")
    try:
        with safe_open(path, framework="pt") as opened:
            header = json.loads((opened.metadata() or {}).get("risbench", "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"{path}: no adapter (format {header.get('format') if isinstance(header, dict) else header!r}, not {FORMAT!r})")
    bad = next((name for name, value in tensors.items() if not bool(torch.isfinite(value.float()).all())), None)
    if bad is not None:
        raise InputError(f"{path}: {bad} holds values that are not finite numbers; the file is damaged")
    return AdapterHeader(str(header.get("base_sha256")), header.get("notes") or {}), tensors


def load_adapted(path: Path, device: str = "cpu", base: Path | None = None) -> tuple[CompactSam, str]:
    """Return (the base model with the adapter on it, in evaluation mode on `device`; sha256 of the adapter's file).

    Args:
        path: the adapter.
        device: where to put the model.
        base: the weights it was trained on; None takes the built-in ones.

    Raises:
        InputError: a file cannot be used, or the adapter belongs to another base.
    """
    header, tensors = read_adapter(path)
    plain, digest = load_compact(base or builtin_weights())
    if digest != header.base_sha256:
        has = f"the built-in model {digest[:12]}" if digest == BUILTIN_SHA256 else f"{base} ({digest[:12]})"
        raise InputError(f"{path}: belongs to the base {header.base_sha256[:12]}, not to {has}; give its base, or train an adapter anew")
    model = adapted_from(plain)
    own = model.state_dict()
    strange = next((name for name, value in tensors.items() if name not in own or own[name].shape != value.shape), None)
    if strange is not None:
        raise InputError(f"{path}: holds {strange} {tuple(tensors[strange].shape)}, which the base has no place for")
    absent = [name for name in own if name.startswith(TRAINED[:2]) and name not in tensors]
    if absent:
        raise InputError(f"{path}: lacks {absent[0]} and {len(absent) - 1} more tensors")
    model.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}, strict=False)
    return model.eval().to(device), sha256_of_file(path)
