"""Files of a run that are damaged: one line that names the file, also where somebody made the digests fit."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("transformers", reason="the train extra is not installed")

from risbench.benchmark.eval.evaluate import Asked, _made_before, evaluate
from risbench.benchmark.eval.results import samples_of
from risbench.benchmark.load_settings import load_settings
from risbench.benchmark.train.checkpoint import ABOUT, STATE, TOKENIZER, read_about, read_model, read_state
from risbench.benchmark.train.run import optimizer_of
from risbench.core.errors import InputError, RisbenchError
from risbench.core.storage import digest_of, sha256_of
from risbench.learn.saved import put_back

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\ud800",
    "../../x",
    [],
    {},
    [None],
    {"": None},
    "x" * 300,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value inside a value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, child in children:
        yield (*at, key)
        yield from places(child, (*at, key))


def mutated(value: Any, draw: random.Random) -> Any:
    """Return a value with one place of it changed, lost, wrapped or renamed."""
    made = copy.deepcopy(value)
    *way, last = draw.choice(list(places(made)))
    parent = made
    for key in way:
        parent = parent[key]
    if isinstance(parent, tuple):
        return made
    how = draw.random()
    if how < 0.6:
        parent[last] = copy.deepcopy(draw.choice(ODD))
    elif how < 0.75:
        del parent[last]
    elif how < 0.85:
        parent[last] = [parent[last]]
    elif isinstance(parent[last], int | float) and not isinstance(parent[last], bool):
        parent[last] = parent[last] * draw.choice((-1, 2, 1e6, 1000))
    elif isinstance(parent, dict):
        parent["other"] = parent.pop(last)
    return made


def only_named(act: Callable[[], Any], tried: object) -> bool:
    """Do something; return whether it was refused by one line. Anything but a value or a RisbenchError fails the test."""
    try:
        act()
    except RisbenchError as error:
        assert "\n" not in str(error), tried
        return True
    except BaseException as error:  # noqa: BLE001 - a panic of a library is no Exception
        pytest.fail(f"{type(error).__name__}: {error} for {tried}")
    return False


def with_digest(about: dict[str, Any]) -> bytes:
    told = {name: value for name, value in about.items() if name != "digest"}
    return json.dumps({**told, "digest": digest_of(told)}).encode()


def test_a_models_description_is_checked_value_by_value(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("tensorboard")))
    about, draw, refused = json.loads((run / ABOUT).read_text()), random.Random(7), 0
    for number in range(150):
        changed = mutated(about, draw)
        (copied / ABOUT).write_bytes(with_digest(changed) if isinstance(changed, dict) else json.dumps(changed).encode())
        act = (lambda: read_model(copied)) if number % 10 == 0 else (lambda: read_about(copied))
        refused += only_named(act, changed)
    assert refused > 60
    for broken in (b"[" * 100_000, b"", b"\xff", b"null", b"{}"):
        (copied / ABOUT).write_bytes(broken)
        with pytest.raises(InputError, match=ABOUT):
            read_about(copied)


def test_sizes_that_no_file_has_take_no_memory(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("tensorboard")))
    about = json.loads((run / ABOUT).read_text())
    for section, name, value in (("backbone", "embed", 1 << 20), ("text", "ffn", 1 << 20), ("text", "heads", 7)):
        changed = copy.deepcopy(about)
        changed["built"][section][name] = value
        (copied / ABOUT).write_bytes(with_digest(changed))
        with pytest.raises(InputError, match=r"model\.json|another configuration"):
            read_model(copied)
    changed = {**copy.deepcopy(about), "weights_file": "../x.safetensors"}
    (copied / ABOUT).write_bytes(with_digest(changed))
    with pytest.raises(InputError, match=r"model\.json: is damaged \(weights_file"):
        read_model(copied)


def test_a_damaged_tokenizer_or_weights_file_is_named_where_its_digest_fits(run: Path, tmp_path: Path) -> None:
    draw = random.Random(3)
    for name, digest in ((TOKENIZER, "tokenizer_sha256"), (read_about(run)["weights_file"], "sha256")):
        copied = Path(shutil.copytree(run, tmp_path / digest, ignore=shutil.ignore_patterns("tensorboard")))
        about, whole = json.loads((run / ABOUT).read_text()), (run / name).read_bytes()
        for number in range(14):
            data = bytearray(whole)
            if name == TOKENIZER and number % 2:
                data = bytearray(json.dumps(mutated(json.loads(whole), draw)).encode())
            else:
                for _ in range(4):
                    data[draw.randrange(min(len(data), 3000))] ^= 1 << draw.randrange(8)
            (copied / name).write_bytes(data)
            (copied / ABOUT).write_bytes(with_digest({**about, digest: sha256_of(bytes(data))}))
            only_named(lambda copied=copied: read_model(copied)[1].encode(["the large ship on the left", ""]), (name, number))


def saved(run: Path, state: Any) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    (run / STATE).write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def test_a_state_to_go_on_from_is_checked_value_by_value(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("tensorboard")))
    model, _, about = read_model(run)
    recipe, draw = load_settings("tiny").recipe, random.Random(5)
    optimizer = optimizer_of(model, recipe)
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    look = {"step": 1, "oIoU": 0.1, "mIoU": 0.1}
    state = {"plan": about["plan"], "step": 1, "looks": [look], "best": -1.0}
    whole = {**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    # few weights: what is checked is the same for one as for all
    refused = 0
    for number in range(36):
        place = ("plan", "step", "looks", "best") if number % 3 == 0 else ("optimizer",) if number % 3 == 1 else ("model",)
        part = {name: dict(whole[name]) if name == "model" else whole[name] for name in place}
        changed = {**whole, **mutated(part, draw)}

        def act(changed: dict[str, Any] = changed, number: int = number) -> None:
            if number % 3 == 0:
                saved(copied, {name: changed[name] for name in state if name in changed})
                read_state(copied, about["plan"])
            else:
                put_back(copied / STATE, changed, {"model": model}, optimizer)
                optimizer.step()

        refused += only_named(act, (number, place))
    assert refused > 14
    for damaged in (b"", b"\x80\x02", b"PK\x03\x04" + b"\0" * 80):
        (copied / STATE).write_bytes(hashlib.sha256(damaged).hexdigest().encode() + b"\n" + damaged)
        with pytest.raises(InputError, match=r"last\.pt: not a whole checkpoint"):
            read_state(copied, about["plan"])


def test_damaged_figures_are_made_anew_and_never_shown(run: Path, release: Path, caches: Path, tmp_path: Path) -> None:
    result = evaluate("centre", release, out=tmp_path / "centre", cache=caches, side=96, quiet=True)
    path, draw = Path(result["path"]), random.Random(2)
    stored = json.loads(path.read_text())
    assert _made_before(path, stored["of"]) is not None
    wrong = copy.deepcopy(stored)
    wrong["figures"]["mIoU"]["value"] += 0.01
    path.write_text(json.dumps(wrong))
    assert _made_before(path, stored["of"]) is None, "a figure that fits no checksum"
    del wrong["checksum"]
    for _ in range(150):  # figures of before have no checksum: what is printed of them is checked
        path.write_text(json.dumps(mutated(wrong, draw)))
        only_named(lambda: _made_before(path, stored["of"]), "figures")
    path.write_text(json.dumps(stored))
    samples = path.with_suffix(".jsonl")
    samples.write_bytes(samples.read_bytes()[:-9])
    with pytest.raises(InputError, match=rf"{samples}: is damaged"):
        samples_of(result)


def test_stored_figures_are_not_shown_once_the_weights_are_damaged(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("tensorboard")))
    asked = Asked(str(copied), "r", "c", "val", "peer", "cpu", "fp32", False, None, None, 96)
    assert asked.key()[0] == "run"
    weights = copied / read_about(run)["weights_file"]
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    for question in (asked, replace(asked, subject="box-predicted", boxes_from=str(copied))):
        with pytest.raises(InputError, match=rf"{weights}: is damaged"):
            question.key()
    weights.unlink()
    with pytest.raises(InputError, match=rf"{weights}: is missing"):
        asked.key()
