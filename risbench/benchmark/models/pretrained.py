"""Weights of others for the image and the text encoder: a name on the hub, a folder, or a file, and what to do where none can be had."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig

from risbench.benchmark.models.weight_names import as_transformers
from risbench.core.errors import InputError, MissingRequirementError, OptionError
from risbench.core.storage import sha256_of_file
from risbench.sam.hf import NO_CODE, hub_trouble, is_cached, quiet, wants_code

FILES: Final = (".safetensors", ".pth", ".pt", ".bin")
# What stands before the names in files of others' trainings.
_PREFIXES: Final = ("module.", "model.", "encoder.", "backbone.")
# What a run's model.json has no field for, and a model that is read back therefore has as transformers sets it.
_AS_USUAL: Final = {
    "swin": ("patch_size", "num_channels", "mlp_ratio", "qkv_bias", "hidden_act", "use_absolute_embeddings", "layer_norm_eps"),
    "convnext": ("patch_size", "num_channels", "hidden_act", "layer_norm_eps"),
    "bert": ("hidden_act", "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "is_decoder"),
}
# Tensors that published weights have no place for: norms of the maps that a backbone hands out, and what we do not use.
_OWN: Final = ("hidden_states_norms.", "swin.layernorm.", "layernorm.", "pooler.")
# A block of an encoder; heads, their norms and decoders of published files are theirs to have.
_BLOCK: Final = re.compile(r"(^|\.)(layers?|stages|blocks)\.\d+\.")


def load_pretrained(kinds: Mapping[str, Any], weights: str, files: str, config: Any, **options: Any) -> tuple[Any, str]:
    """Return a network of transformers with the named weights, and the hub's commit where they are from there.

    `kinds` maps a configuration's type to the class to load it as; `config` is that of the settings, used where `weights` is a file with a
    state dict; `options` are the configuration's fields that are ours to choose; `files` says what a folder must hold.

    Raises:
        MissingRequirementError: they can be had neither from the hub nor from here; the message says which files to put where.
        OptionError: they are of another kind of network.
        InputError: a file or folder does not hold what is needed, or the network is built in a way that a run cannot record.
    """
    quiet()
    if Path(weights).suffix in FILES:
        kind = kinds[config.model_type]
        state = _read_state(Path(weights))
        net, told = _asked(lambda: kind.from_pretrained(None, config=config, state_dict=state, output_loading_info=True), weights, files)
        commit = ""
    else:
        found = hub(lambda: AutoConfig.from_pretrained(weights, trust_remote_code=False, **options), weights, files)
        if found.model_type not in kinds:
            raise OptionError(f"{weights}: is a {found.model_type}; settings ask for {' or '.join(kinds)}")
        kind = kinds[found.model_type]
        _need_usual(found, weights)
        words: dict[str, Any] = {"config": found, "output_loading_info": True, "trust_remote_code": False}
        net, told = hub(lambda: kind.from_pretrained(weights, **words), weights, files)
        commit = getattr(found, "_commit_hash", None) or ""
    lacking = [name for name in told["missing_keys"] if not name.startswith(_OWN)] + [str(name) for name in told["mismatched_keys"]]
    if lacking:
        share = f"{len(lacking)} of the {len(net.state_dict())} tensors"
        names = "" if Path(weights).is_dir() else "; a file's names are transformers', their authors' or timm's"
        raise InputError(f"{weights}: lacks {share} that are needed, such as {sorted(lacking)[0]}; it needs {files}{names}")
    spare = sorted(name for name in told["unexpected_keys"] if _BLOCK.search(name))
    if spare:
        raise InputError(f"{weights}: has {len(spare)} tensors of layers that the settings lack, such as {spare[0]}; set as many depths")
    return net, commit


def _need_usual(config: Any, weights: str) -> None:
    """Check that a network is built as a run that is read back would build it.

    Raises:
        InputError: it differs in what is not recorded.
    """
    usual = type(config)()
    for name in _AS_USUAL[config.model_type]:
        value, wanted = getattr(config, name), getattr(usual, name)
        if value != wanted and value != [wanted, wanted]:
            raise InputError(f"{weights}: {name} = {value!r} in config.json: only {wanted!r} can be used here")
    if config.model_type == "convnext":
        sizes = list(config.hidden_sizes)
        if sizes != [sizes[0] * 2**stage for stage in range(len(sizes))]:
            raise InputError(f"{weights}: hidden_sizes = {sizes} in config.json: they must double from stage to stage")
        if config.layer_scale_init_value <= 0:
            raise InputError(f"{weights}: layer_scale_init_value = {config.layer_scale_init_value} in config.json: must be above 0")


def hub(ask: Callable[[], Any], name: str, files: str) -> Any:
    """Return what transformers gives for a name on the hub or a folder; `ask` must tell it to trust no code (trust_remote_code=False).

    Raises:
        MissingRequirementError: the hub does not have it, or cannot be reached; the message says which files to put where.
        InputError: it is a folder that holds something else, or it needs code of its own.
    """
    if (Path(name).is_absolute() or name.startswith((".", "~"))) and not Path(name).is_dir():
        raise InputError(f"{name}: there is no such folder; name one with {files}, or a model on the hub as OWNER/NAME")
    try:
        trouble = None if Path(name).is_dir() or is_cached(name) else hub_trouble()
        if trouble is None:
            return ask()
        reason = trouble
    except Exception as error:  # noqa: BLE001 - the hub's client raises its own, by its version, on every kind of failure
        if wants_code(error):
            raise InputError(f"{name}: {NO_CODE}; it needs {files} of a network that transformers itself has") from None
        reason = " ".join(str(error).split())[:160]
        if Path(name).is_dir():
            raise InputError(f"{name}: holds no weights of this kind ({reason}); it needs {files}") from None
    raise MissingRequirementError(
        f"{name}: cannot be fetched from the hub ({reason}); download {files} of https://huggingface.co/{name} into a folder "
        f"and name it with --set backbone.weights=FOLDER or text.weights=FOLDER, or leave FOLDER empty and train from random ones"
    )


def _asked(ask: Callable[[], Any], name: str, files: str) -> Any:
    try:
        return ask()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{name}: cannot be used ({' '.join(str(error).split())[:160]}); it needs {files}") from None


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except Exception as error:  # noqa: BLE001 - a damaged file makes the readers fail in any way
        raise InputError(f"{path}: cannot be read as a state dict ({' '.join(str(error).split())[:160]})") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise InputError(f"{path}: holds no tensors by name")
    while prefix := next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return as_transformers(tensors)


def described(weights: str, commit: str = "") -> dict[str, str]:
    """Return what to say of weights that were used: random, a file with its sha256, a folder with its files', or a name and its commit."""
    if not weights:
        return {"from": "random"}
    path = Path(weights)
    if path.is_file():
        return {"from": path.name, "sha256": sha256_of_file(path)}
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in FILES)
        return {"from": path.name, **{file.name: sha256_of_file(file) for file in files}}
    return {"from": f"hub: {weights}", "commit": commit}
