"""What a run leaves: settings and vocabulary in plain text, weights as safetensors with their digest, the state to go on from."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from risbench.benchmark.data.words import Words
from risbench.benchmark.models import build
from risbench.benchmark.settings import Settings
from risbench.core.errors import InputError
from risbench.core.storage import sha256_of, to_json, write_durably

ABOUT: Final = "model.json"
WEIGHTS: Final = "best.safetensors"
TOKENIZER: Final = "tokenizer.json"
STATE: Final = "last.pt"
FORMAT: Final = "risbench-referring-1"


def write_weights(run: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write the weights and, after them, what they are: `about` and their sha256."""
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    write_durably(run / WEIGHTS, data)
    write_durably(run / ABOUT, to_json({"format": FORMAT, **about, "sha256": sha256_of(data)}))


def read_about(run: Path) -> dict[str, Any]:
    """Return what a run is.

    Raises:
        InputError: there is no trained model in the folder.
    """
    path = run / ABOUT
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{run}: holds no trained model ({ABOUT} is missing); `risbench train` makes one") from None
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); train again, or take the file from where the run came from") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{path}: is no model of risbench's format {FORMAT}")
    return about


def read_model(run: Path) -> tuple[nn.Module, Words, dict[str, Any]]:
    """Return a run's best model, in evaluation mode, its words, and what it is.

    Raises:
        InputError: a file is missing, damaged, or of another configuration.
    """
    about = read_about(run)
    settings = Settings.model_validate(about["settings"])
    path = run / WEIGHTS
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; train again, or take the file from where the run came from") from None
    if sha256_of(data) != about["sha256"]:
        raise InputError(f"{path}: is damaged or of another run (its sha256 is not the one in {ABOUT})")
    words = Words.read(run / TOKENIZER, settings.text.max_tokens)
    bare = settings.model_copy(
        update={
            "backbone": settings.backbone.model_copy(update={"weights": "", **about["built"]["backbone"]}),
            "text": settings.text.model_copy(update={"weights": "", **about["built"]["text"]}),
        }
    )
    model = build(about["model"], bare, words.vocabulary)
    load_into(model, data, path)
    return model.eval(), words, about


def load_into(model: nn.Module, data: bytes, path: Path) -> None:
    """Load a file's tensors into a model.

    Raises:
        InputError: it is not whole, or of another configuration.
    """
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None
    wanted = model.state_dict()
    wrong = sorted(set(wanted) ^ set(tensors)) or [name for name in wanted if wanted[name].shape != tensors[name].shape]
    if wrong:
        raise InputError(f"{path}: is of another configuration: {wrong[0]} and {len(wrong) - 1} more tensors do not fit {ABOUT}")
    model.load_state_dict(tensors)


def write_state(run: Path, state: dict[str, Any]) -> None:
    """Write what is needed to go on, behind its own digest."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    write_durably(run / STATE, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def read_state(run: Path, plan: str) -> dict[str, Any] | None:
    """Return the state of a run that was interrupted, or None where there is none.

    Raises:
        InputError: it is damaged, or of a run with other settings or other data.
    """
    path = run / STATE
    try:
        digest, _, data = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if hashlib.sha256(data).hexdigest().encode() != digest:
        raise InputError(f"{path}: is damaged (its sha256 is not what it says); remove {run} to start anew")
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if state["plan"] != plan:
        raise InputError(f"{path}: is of a run with other settings or another release; give the same ones, another -o, or remove {run}")
    return state
