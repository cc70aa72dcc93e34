"""Adapters on disk: the tensors that were trained, and in the header whose they are and how they came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from risbench.core.errors import InputError
from risbench.core.storage import sha256_of_file
from risbench.sam.builtin import BUILTIN_SHA256, builtin_weights
from risbench.sam.compact.model import CompactDecoder, CompactSam
from risbench.sam.compact.weights import load_compact
from risbench.sam.pasam.decoder import TRAINED as PA_TRAINED
from risbench.sam.pasam.decoder import PaDecoder
from risbench.sam.pasam.predictor import PaSam, load_pasam
from risbench.sam.tensor_file import format_of, not_finite, read_tensors, singles, write_tensors

FORMAT: Final = "risbench PA adapter 1"
# The IoU head sees no loss: what it says of a refined mask is the base's word.
TRAINED: Final = tuple(f"mask_decoder.{name}" for name in (*PA_TRAINED, "skip_", "mix_"))
ENCODER: Final = "image_encoder."
# What an adapter's base is called beside it: a compact SAM, or one of whole images in either of its forms.
COMPACT_BASE: Final = "base.safetensors"
BASES: Final = ("base.pth", "base_sam.safetensors")


@dataclass(frozen=True)
class AdapterHeader:
    """What an adapter says of itself: the sha256 of its base's weights, whether that is a SAM of whole images, notes on its training."""

    base_sha256: str
    whole: bool
    notes: Mapping[str, Any]


def adapted_from(base: CompactSam) -> CompactSam:
    """Return a copy of a compact SAM with an adapter that changes nothing yet but for its points.

    The last layers of what the adapter adds start at zero, so that training starts from the base's masks and not from noise.
    """
    model = CompactSam(replace(base.settings, adapted=True))
    lacking = model.load_state_dict(base.state_dict(), strict=False)
    strange = [name for name in lacking.missing_keys if not name.startswith(TRAINED[:2])] + list(lacking.unexpected_keys)
    assert not strange, f"the adapter adds its own tensors only: {strange}"
    begin_at_base(model.mask_decoder)
    return model


def begin_at_base(decoder: CompactDecoder | PaDecoder) -> None:
    """Set the last layers of what the adapter adds to zero."""
    guiding: Any = decoder.guiding_conv
    adapter: Any = decoder.prompt_adapter
    last = (guiding[6], adapter.cross_attn_token_to_image.out_proj, adapter.refined_mlp.layers[2])
    for layer in last:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def save_adapter(path: Path, tensors: Mapping[str, Tensor], base_sha256: str, notes: Mapping[str, Any], *, whole: bool = False) -> None:
    """Write trained tensors in half precision; the same tensors and notes give the same bytes. `whole`: the base sees whole images."""
    write_tensors(path, tensors, {"format": FORMAT, "base_sha256": base_sha256, "whole": whole, "notes": dict(notes)})


def is_adapter(path: Path) -> bool:
    """Return whether a file is an adapter of ours, by its header; PA-SAM's own files are not."""
    return format_of(path) == FORMAT


def read_adapter(path: Path) -> tuple[AdapterHeader, dict[str, Tensor]]:
    """Return an adapter's header and tensors.

    Raises:
        InputError: no such file, cut short, or no adapter.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such adapter")
    header, tensors = read_tensors(path, str(path), FORMAT)
    bad = not_finite(tensors)
    if bad is not None:
        raise InputError(f"{path}: {bad} holds values that are not finite numbers; the file is damaged")
    return AdapterHeader(str(header.get("base_sha256")), bool(header.get("whole")), header.get("notes") or {}), tensors


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
    _check_base(path, header, digest, base)
    model = adapted_from(plain)
    _put_on(model, tensors, path)
    return model.eval().to(device), sha256_of_file(path)


def load_whole_adapted(path: Path, base: Path, device: str = "cpu") -> tuple[PaSam, str]:
    """Return (a SAM of whole images with the adapter on it, in evaluation mode on `device`; sha256 of the adapter's file).

    Raises:
        InputError: a file cannot be used, or the adapter belongs to another base.
    """
    header, tensors = read_adapter(path)
    model, digest = load_pasam(base, fresh=True)
    _check_base(path, header, digest, base)
    _put_on(model, tensors, path)
    return model.eval().to(device), sha256_of_file(path)


def bases_beside(path: Path) -> list[Path]:
    """Return the files beside an adapter that it may be on, of whichever kind."""
    return [place for name in (COMPACT_BASE, *BASES) if (place := path.parent / name).is_file()]


def base_beside(path: Path) -> Path:
    """Return the SAM that lies beside an adapter.

    Raises:
        InputError: there is none.
    """
    found = next((place for name in BASES if (place := path.parent / name).is_file()), None)
    if found is None:
        raise InputError(f"{path}: its base is not beside it; put the SAM it was trained on there as base.pth")
    return found


def _check_base(path: Path, header: AdapterHeader, digest: str, base: Path | None) -> None:
    if digest != header.base_sha256:
        has = f"the built-in model {digest[:12]}" if digest == BUILTIN_SHA256 else f"{base} ({digest[:12]})"
        raise InputError(f"{path}: belongs to the base {header.base_sha256[:12]}, not to {has}; give its base, or train an adapter anew")


def _put_on(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    strange = next((name for name, value in tensors.items() if name not in own or own[name].shape != value.shape), None)
    if strange is not None:
        raise InputError(f"{path}: holds {strange} {tuple(tensors[strange].shape)}, which the base has no place for")
    absent = [name for name in own if name.startswith(TRAINED[:2]) and name not in tensors]
    if absent:
        raise InputError(f"{path}: lacks {absent[0]} and {len(absent) - 1} more tensors")
    model.load_state_dict(singles(tensors), strict=False)
