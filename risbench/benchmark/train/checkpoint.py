"""What a run leaves: settings and vocabulary in plain text, weights as safetensors with their digest, the state to go on from."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from risbench.benchmark.about import About, State, checked, fitting
from risbench.benchmark.data.words import Words
from risbench.benchmark.models.known import model_kind
from risbench.benchmark.models.registry import build
from risbench.benchmark.settings import BackboneSettings, Settings, TextSettings
from risbench.core.errors import InputError, printable
from risbench.core.storage import digest_of, explain_read_error, sha256_of, sha256_of_file, to_json, write_durably
from risbench.sam.tensor_file import not_finite

ABOUT: Final = "model.json"
TOKENIZER: Final = "tokenizer.json"
STATE: Final = "last.pt"
FORMAT: Final = "risbench-referring-1"
_TAKE: Final = "train again, or take the file from where the run came from"
# A model, its words, where they are from by part, and the classes that it has learnt.
Begun = tuple[nn.Module, Words, dict[str, dict[str, Any]], list[str]]
# What may differ from the run that a training begins with.
_FREE: Final = ("weights", "vocabulary", "max_tokens", "dropout", "drop_path", "checkpoint")


def write_weights(run: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write the weights under a name of their own and commit to them by `model.json`; only then are older ones removed."""
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    digest = sha256_of(data)
    name = f"best-{about['step']:07d}-{digest[:8]}.safetensors"
    write_durably(run / name, data)
    told = {"format": FORMAT, **about, "weights_file": name, "sha256": digest}
    told["tokenizer_sha256"] = sha256_of_file(run / TOKENIZER)
    write_durably(run / ABOUT, to_json({**told, "digest": digest_of(told)}))
    for old in run.glob("best-*.safetensors"):
        if old.name != name:
            old.unlink()


def read_about(run: Path) -> dict[str, Any]:
    """Return what a run is, as `about.About` describes it.

    Raises:
        InputError: there is no trained model in the folder, or what is said of it is damaged.
    """
    path = run / ABOUT
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{run}: holds no trained model ({ABOUT} is missing); `risbench train` makes one") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is damaged ({printable(str(error))}); {_TAKE}") from None
    except OSError as error:
        raise explain_read_error(error, path) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{path}: is no model of risbench's format {FORMAT}; train again with this version")
    if digest_of({name: value for name, value in about.items() if name != "digest"}) != about.get("digest"):
        raise InputError(f"{path}: is damaged (its digest is not what it says); {_TAKE}")
    checked(path, About, about, _TAKE)
    settings_of(run, about)
    return about


def checked_weights(run: Path, about: dict[str, Any]) -> bytes:
    """Return the weights' file, once it and the tokenizer have the sha256 that `about` gives them.

    Raises:
        InputError: it or the tokenizer is missing, damaged or of another run.
    """
    for name, digest in ((TOKENIZER, about["tokenizer_sha256"]), (about["weights_file"], about["sha256"])):
        path = run / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise InputError(f"{path}: is missing; take it from where the run came from, or remove {run} and train again") from None
        except OSError as error:
            raise explain_read_error(error, path) from error
        if sha256_of(data) != digest:
            raise InputError(f"{path}: is damaged or of another run (its sha256 is not the one in {ABOUT}); remove {run} and train again")
    return data


def read_model(run: Path, settings: Settings | None = None) -> tuple[nn.Module, Words, dict[str, Any]]:
    """Return a run's best model, in evaluation mode, its words, and what it is; `settings` take the place of its own.

    Raises:
        InputError: a file is missing, damaged, or of another configuration.
    """
    about = read_about(run)
    data = checked_weights(run, about)
    settings = settings or settings_of(run, about)
    words = Words.read(run / TOKENIZER, settings.text.max_tokens)
    bare = _bare(run, settings, about["built"])
    tensors = _tensors(data, run / about["weights_file"])
    _need_fitting(run, about, bare, tensors)
    model = build(about["model"], bare, about["built"]["embedded"])
    model.load_state_dict(tensors)
    _need_words(run, words, about["built"]["embedded"])
    return model.eval(), words, about


def _bare(run: Path, settings: Settings, built: dict[str, Any]) -> Settings:
    """Return settings whose encoders have the sizes that they really had, and no weights of others to begin with.

    Raises:
        InputError: those are no sizes of an encoder.
    """
    parts = {name: {**getattr(settings, name).model_dump(), "weights": "", **built[name]} for name in ("backbone", "text")}
    try:
        return settings.model_copy(
            update={"backbone": BackboneSettings.model_validate(parts["backbone"]), "text": TextSettings.model_validate(parts["text"])}
        )
    except ValidationError as error:
        raise InputError(f"{run / ABOUT}: built.{_first_of(error)}; {_TAKE}") from None


def _need_fitting(run: Path, about: dict[str, Any], settings: Settings, tensors: dict[str, Tensor]) -> None:
    """Check that a file's tensors are those of the model, before memory is taken for what the settings say.

    Raises:
        InputError: no such model can be built, or the tensors are another one's.
    """
    try:
        with torch.device("meta"):
            model = build(about["model"], settings, about["built"]["embedded"])
    except Exception as error:  # noqa: BLE001 - settings that do not go together make the parts of a model fail in any way
        said = printable(" ".join(str(error).split()))
        raise InputError(f"{run / ABOUT}: no model can be built as it says ({type(error).__name__}: {said}); {_TAKE}") from None
    path = run / about["weights_file"]
    fitting(path, tensors, model.state_dict(), ABOUT)
    bad = not_finite(tensors)
    if bad is not None:
        raise InputError(f"{path}: is damaged ({printable(bad)} is not finite); {_TAKE}")


def _need_words(run: Path, words: Words, embedded: int) -> None:
    """Check that no word piece lies beyond those that the model has learnt.

    Raises:
        InputError: one does.
    """
    if words.highest >= embedded:
        raise InputError(f"{run / TOKENIZER}: has token id {words.highest}, the model has {embedded:,} from 0 on; {_TAKE}")


def _first_of(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(piece) for piece in first["loc"])
    return f"{field} = {printable(first['input'], 80)}: {first['msg']}"


def settings_of(run: Path, about: dict[str, Any]) -> Settings:
    """Return the settings that a run was made with.

    Raises:
        InputError: this version has no such setting or value.
    """
    try:
        return model_kind(about["model"]).settings.model_validate(about["settings"])
    except ValidationError as error:
        raise InputError(f"{run / ABOUT}: settings.{_first_of(error)}; train again with this version") from None


def initialized_from(run: Path, name: str, settings: Settings) -> Begun:
    """Return a run's model and words to begin a training of model `name` with, and what to say of them.

    Dropout, the sentences' length and what else the settings say of training are the new ones'; the weights that they name are not used.

    Raises:
        InputError: the run cannot be read or is not finished, or its model is another one or built otherwise.
    """
    about = read_about(run)
    if about["model"] != name:
        raise InputError(f"{run}: holds a {about['model']}; a {name} cannot begin with it")
    state = read_state(run, about["plan"])
    if state is not None and state["step"] < about["steps"]:
        raise InputError(f"{run}: its training is at step {state['step']:,} of {about['steps']:,}; finish it first")
    theirs = settings_of(run, about)
    for section in model_kind(name).shaped_by:
        ours, own = (getattr(one, section).model_dump(mode="json") for one in (settings, theirs))
        odd = next((field for field in ours if field not in _FREE and ours[field] != own[field]), None)
        if odd is not None:
            raise InputError(f"{run}: {section}.{odd} = {own[odd]!r}, {ours[odd]!r} here; begin with a run of the same configuration")
    model, words, _ = read_model(run, settings)
    told = {"from": run.resolve().name, "sha256": about["sha256"], "steps": about["steps"], "release": about["training"]["digest"]}
    return model, words, {"run": {**told, "weights": about["weights"]}}, about["classes"]


def _tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Return a file's tensors.

    Raises:
        InputError: it is not whole.
    """
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:  # a type that PyTorch lacks, sizes that do not fit
        raise InputError(f"{path}: not a whole safetensors file ({printable(str(error))})") from None


def write_state(run: Path, state: dict[str, Any]) -> None:
    """Write what is needed to go on, behind its own digest; the state before it is kept until then."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    view = buffer.getbuffer()
    write_durably(run / STATE, b"".join((hashlib.sha256(view).hexdigest().encode(), b"\n", view)))


def read_state(run: Path, plan: str) -> dict[str, Any] | None:
    """Return the state of a run that was interrupted, or None where there is none.

    Raises:
        InputError: it is damaged, or of a run with other settings or other data.
    """
    path = run / STATE
    try:
        digest, _, data = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        # killed between its first weights and its first state, the same training begins anew
        if (run / ABOUT).exists() and read_about(run).get("plan") != plan:
            raise InputError(f"{run}: holds a trained model and nothing to go on from; give another -o, or remove it") from None
        return None
    except OSError as error:
        raise explain_read_error(error, path) from error
    if hashlib.sha256(data).hexdigest().encode() != digest:
        raise InputError(f"{path}: is damaged (its sha256 is not what it says); remove {run} to start anew")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged file makes the reader fail in any way
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a whole checkpoint ({printable(reason)}); remove {run} to start anew") from None
    checked(path, State, state, f"remove {run} to start anew")
    if state["plan"] != plan:
        raise InputError(
            f"{path}: is of a run with other settings, another release or another beginning; give those, another -o, or remove {run}"
        )
    if state["best"] >= 0:
        checked_weights(run, read_about(run))
    return state
