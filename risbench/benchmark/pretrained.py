"""Weights of others for the image and the text encoder: a name on the hub, a folder, or a file, and what to do where none can be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from risbench.core.errors import EnvironmentLacks, InputError
from risbench.core.storage import sha256_of_file

FILES: Final = (".safetensors", ".pth", ".pt", ".bin")
_PREFIXES: Final = ("module.", "backbone.", "model.", "encoder.backbone.")


def from_hub(maker: Any, name: str, files: str, **options: Any) -> Any:
    """Return `maker.from_pretrained` of a name on the hub or a folder.

    Raises:
        EnvironmentLacks: it can be had neither from the hub nor from here; the message says which files to put where.
        InputError: the folder holds something else.
    """
    try:
        return maker.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        if Path(name).is_dir():
            raise InputError(f"{name}: holds no weights of this kind ({reason}); it needs {files}") from None
        raise EnvironmentLacks(
            f"{name}: cannot be fetched from the hub ({reason}); download {files} of https://huggingface.co/{name} into a folder "
            f"and name that folder as weights, or set weights to nothing and train from random ones"
        ) from None


def load_state(module: nn.Module, path: Path) -> None:
    """Load a file's state dict into a module, whatever its names begin with.

    Raises:
        InputError: it is missing, damaged, or lacks tensors of the module.
    """
    try:
        state: dict[str, Tensor] = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except Exception as error:  # noqa: BLE001 - a damaged file makes the readers fail in any way
        raise InputError(f"{path}: cannot be read as a state dict ({' '.join(str(error).split())[:160]})") from None
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]  # type: ignore[assignment]
    wanted = module.state_dict()
    found = {_plain(name, wanted): value for name, value in state.items() if isinstance(value, Tensor)}
    missing = [name for name, value in wanted.items() if name not in found or found[name].shape != value.shape]
    if missing:
        raise InputError(
            f"{path}: lacks {len(missing)} of the {len(wanted)} tensors that are needed, or has them in another shape, such as "
            f"{missing[0]} {tuple(wanted[missing[0]].shape)}; the names must be those of transformers"
        )
    module.load_state_dict({name: found[name] for name in wanted})


def _plain(name: str, wanted: dict[str, Tensor]) -> str:
    while name not in wanted:
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            return name
        name = name.removeprefix(prefix)
    return name


def described(weights: str) -> dict[str, str]:
    """Return what to say of weights that were used: random, a file with its sha256, a folder with its files', or a name on the hub."""
    if not weights:
        return {"from": "random"}
    path = Path(weights)
    if path.is_file():
        return {"from": path.name, "sha256": sha256_of_file(path)}
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in FILES)
        return {"from": path.name, **{file.name: sha256_of_file(file) for file in files}}
    return {"from": f"hub: {weights}"}
