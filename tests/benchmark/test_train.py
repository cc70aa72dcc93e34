"""Training: interrupted and resumed without a trace, alone or with others, stopped where it must stop."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the train extra is not installed")

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from risbench.benchmark.data.batches import Batch
from risbench.benchmark.data.cache import open_cache
from risbench.benchmark.load_settings import load_settings
from risbench.benchmark.models.registry import build
from risbench.benchmark.settings import Recipe
from risbench.benchmark.train import run as loop
from risbench.benchmark.train.checkpoint import ABOUT, STATE, read_about, read_model, write_state
from risbench.benchmark.train.run import learning_rate, optimizer_of, train
from risbench.benchmark.train.together import train_all
from risbench.benchmark.train.training import Run
from risbench.core.errors import InputError, MissingRequirementError, OptionError
from tests.benchmark.conftest import FEW_STEPS, until


def out_of_memory(*_: object) -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def digest(run: Path, name: str) -> str:
    return hashlib.sha256((run / name).read_bytes()).hexdigest()


def test_a_killed_training_ends_with_the_same_bytes(
    release: Path, caches: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "crobim"
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom risbench.benchmark.train import run as loop\n"
        "loop._KEEP_EVERY_S = 0.0\nlearn, seen = loop.learn, []\n"
        "def dying(learner, run, batch, step, *more):\n"
        "    if step == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return learn(learner, run, batch, step, *more)\n"
        f"loop.learn = dying\nloop.train('crobim', {str(release)!r}, out={str(out)!r}, config='tiny', changes={FEW_STEPS!r}, "
        f"cache={str(caches)!r}, quiet=True)"
    )
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."})
    assert died.returncode == -9, died.stderr
    with monkeypatch.context() as full:
        full.setattr(torch.optim.AdamW, "load_state_dict", out_of_memory)
        with pytest.raises(MissingRequirementError, match="optimizer's state does not fit"):
            train("crobim", release, out=out, config="tiny", changes=FEW_STEPS, cache=caches, quiet=True)
    sides, learn = [], loop.learn

    def seen(learner: object, run: Run, batch: Batch, step: int, *more: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        sides.append((step, batch.images.shape[-1], batch.masks.shape[-1]))
        return learn(learner, run, batch, step, *more)

    monkeypatch.setattr(loop, "learn", seen)
    again = train("crobim", release, out=out, config="tiny", changes=FEW_STEPS, cache=caches, quiet=True)
    assert sides == [(2, 96, 96), (2, 64, 64), (3, 96, 96), (4, 96, 96), (5, 96, 96)], "the first only tries whether the whole side fits"
    assert [look["step"] for look in again["looks"]] == [3, 6]
    weights = read_about(run)["weights_file"]
    assert digest(out, weights) == digest(run, weights)
    assert len(list(out.glob("best-*"))) == 1
    assert (out / ABOUT).read_bytes() == (run / ABOUT).read_bytes()


def test_a_finished_training_is_not_done_again(release: Path, caches: Path, run: Path) -> None:
    before = digest(run, STATE)
    again = train("crobim", release, out=run, config="tiny", changes=FEW_STEPS, cache=caches, quiet=True)
    assert again["seconds_a_step"] == 0.0
    assert digest(run, STATE) == before
    assert (run / STATE).stat().st_size < 10_000, "nothing is left to go on from"


def test_trainings_side_by_side_end_together_and_say_what_failed(release: Path, caches: Path, tmp_path: Path) -> None:
    shared = {"model": "crobim", "release": release, "config": "tiny", "cache": caches, "gpu": False}
    endless = {**shared, "out": tmp_path / "endless", "changes": ["recipe.steps=1000000", "recipe.batch=8"]}
    wrong = {**shared, "out": tmp_path / "wrong", "changes": ["recipe.batch=5000"]}
    with pytest.raises(OptionError, match="recipe.batch = 5000"):
        train_all([endless, wrong, {**endless, "out": tmp_path / "never"}], workers=2, quiet=True)
    assert not multiprocessing.active_children()
    assert not (tmp_path / "never").exists()
    with pytest.raises(OptionError, match="--workers 0"):
        train_all([endless], workers=0, quiet=True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process that its parent died")
def test_trainings_side_by_side_die_with_the_command(release: Path, caches: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom risbench.benchmark.train.together import train_all\nif __name__ == '__main__':\n"
        f"    job = dict(model='crobim', release={str(release)!r}, config='tiny', cache={str(caches)!r}, gpu=False, "
        "changes=['recipe.steps=1000000', 'recipe.batch=8'])\n"
        f"    train_all([dict(job, out=Path({str(tmp_path)!r}) / str(place)) for place in range(2)], workers=2, quiet=True)\n"
    )
    (tmp_path / "both.py").write_text(code)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "both.py")], env={**os.environ, "PYTHONPATH": "."})
    begun = [tmp_path / str(place) / "tokenizer.json" for place in range(2)]
    until(lambda: all(path.exists() for path in begun), "both have begun")
    parent.kill()
    parent.wait()
    for path in begun:
        until(lambda path=path: _free(path.with_name(".lock")), "its folder is free again")  # type: ignore[misc]


def _free(lock: Path) -> bool:
    with open(lock, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_two_processes_learn_what_one_would(release: Path, caches: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"out={str(tmp_path / 'two')!r}, config='tiny', changes={FEW_STEPS!r}, cache={str(caches)!r}, precision='fp32', quiet=True"
    code = f"from risbench.benchmark.train.run import train\nprint(train('crobim', {str(release)!r}, {options})['rank'])"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    alone = tmp_path / "one"
    train("crobim", release, out=alone, config="tiny", changes=FEW_STEPS, cache=caches, precision="fp32", quiet=True)
    one, two = (read_model(path)[0].state_dict() for path in (alone, tmp_path / "two"))
    about = json.loads((alone / ABOUT).read_text())
    begun = build("crobim", load_settings("tiny", changes=FEW_STEPS), about["vocabulary"]["tokens"]).state_dict()
    # by mean squares: Adam makes a whole step of a gradient that is nothing but rounding
    apart = sum(float((one[name].double() - two[name].double()).square().sum()) for name in one)
    moved = sum(float((one[name].double() - begun[name].double()).square().sum()) for name in one)
    assert moved > 0
    assert apart < 0.02 * moved, (apart, moved)


def test_a_compiled_training_learns_the_same(release: Path, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # traced and differentiated as for a GPU; what takes minutes is only the making of machine code from that
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    changes = ["recipe.steps=2", "recipe.batch=2", "recipe.looks=1"]
    losses = []
    torch._dynamo.utils.counters.clear()
    for compiled in (False, True):
        out = tmp_path / str(compiled)
        options = {"config": "tiny", "changes": changes, "cache": caches, "precision": "fp32", "compiled": compiled, "quiet": True}
        train("crobim", release, out=out, **options)  # type: ignore[arg-type]
        board = EventAccumulator(str(out / "tensorboard"))
        board.Reload()
        losses.append([event.value for event in board.Scalars("train/loss")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"], "it was compiled"


def test_other_settings_or_damage_are_refused(release: Path, caches: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="of a run with other settings, another release"):
        train("crobim", release, out=run, config="tiny", changes=[*FEW_STEPS, "mid.attention=pwam"], cache=caches, quiet=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    data = bytearray((run / STATE).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / STATE).write_bytes(data)
    with pytest.raises(InputError, match="is damaged"):
        train("crobim", release, out=copy, config="tiny", changes=FEW_STEPS, cache=caches, quiet=True)


def test_a_finished_run_without_its_weights_and_a_shipped_one_are_left_alone(
    release: Path, caches: Path, run: Path, tmp_path: Path
) -> None:
    for name, gone, said in (
        ("a", read_about(run)["weights_file"], "is missing; take it from"),
        ("b", STATE, "holds a trained model and nothing"),
    ):
        shutil.copytree(run, tmp_path / name)
        (tmp_path / name / gone).unlink()
        seed = 1 if gone == STATE else 0
        with pytest.raises(InputError, match=said):
            train("crobim", release, out=tmp_path / name, config="tiny", changes=FEW_STEPS, seed=seed, cache=caches, quiet=True)
    # the same training begins anew: it may have been killed between its first weights and its first state
    train("crobim", release, out=tmp_path / "b", config="tiny", changes=FEW_STEPS, cache=caches, quiet=True)
    assert (tmp_path / "b" / ABOUT).read_bytes() == (run / ABOUT).read_bytes()


def test_a_weight_that_is_no_number_is_never_kept(release: Path, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loop.advance

    def spoiling(optimizer: torch.optim.AdamW, run: loop.Run, batch: Batch, step: int) -> None:
        whole(optimizer, run, batch, step)
        if step == 2:
            next(run.model.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(loop, "advance", spoiling)
    with pytest.raises(MissingRequirementError, match="step 3: .* is not finite"):
        train("crobim", release, out=tmp_path, config="tiny", changes=FEW_STEPS, cache=caches, quiet=True)
    assert not (tmp_path / ABOUT).exists()


def test_a_loss_that_is_no_number_stops_and_says_which(release: Path, caches: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingRequirementError, match=r"the loss is not finite \(loss nan.*recipe.learning_rate"):
        train("crobim", release, out=tmp_path, config="tiny", changes=[*FEW_STEPS, "recipe.learning_rate=1e30"], cache=caches, quiet=True)


def test_a_training_may_begin_with_a_run(release: Path, caches: Path, run: Path, tmp_path: Path) -> None:
    options = {"config": "tiny", "cache": caches, "init_from": run, "quiet": True}
    once = [*FEW_STEPS, "recipe.steps=1", "recipe.learning_rate=1e-12", "text.vocabulary=100", "text.max_tokens=12", "text.dropout=0.5"]
    made = train("crobim", release, out=tmp_path / "on", changes=once, **options)  # type: ignore[arg-type]
    about = read_about(tmp_path / "on")
    told = read_about(run)
    assert about["weights"]["run"] == {
        "from": run.name,
        "sha256": told["sha256"],
        "steps": 6,
        "release": told["training"]["digest"],
        "weights": told["weights"],
    }
    assert made["weights"] == {"run": run.name}
    begun, words, _ = read_model(run)
    ended, read, _ = read_model(tmp_path / "on")
    assert read.to_json() == words.to_json()
    assert (read.max_tokens, ended.text.bert.config.hidden_dropout_prob) == (12, 0.5)
    with pytest.raises(InputError, match="another release or another beginning"):
        train("crobim", release, out=tmp_path / "on", changes=once, config="tiny", cache=caches, quiet=True)
    for name, value in ended.state_dict().items():
        assert torch.allclose(value, begun.state_dict()[name], atol=1e-6), name
    for model, change, said in (
        ("caris", "mid.layers=1", "holds a crobim; a caris cannot begin with it"),
        ("crobim", "mid.points=3", r"mid.points = 4, 3 here; begin with a run of the same"),
    ):
        with pytest.raises(InputError, match=said):
            train(model, release, out=tmp_path / "off", changes=[*FEW_STEPS, change], **options)  # type: ignore[arg-type]


def test_a_run_that_is_not_finished_is_not_begun_with(release: Path, caches: Path, run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "half")
    write_state(copy, {"plan": read_about(run)["plan"], "step": 3, "looks": [], "best": -1.0})
    with pytest.raises(InputError, match="at step 3 of 6; finish it first"):
        train("crobim", release, out=tmp_path / "on", config="tiny", changes=FEW_STEPS, cache=caches, init_from=copy, quiet=True)


def test_trying_the_whole_side_leaves_nothing_behind(release: Path, caches: Path) -> None:
    settings = load_settings("tiny", "lavt", FEW_STEPS)
    options = {"seed": 0, "device": "cpu", "precision": "fp32"}
    made = loop.prepare("lavt", settings, open_cache(release, 96, caches, quiet=True), **options)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    assert any(name.endswith("running_mean") for name in before)
    loop._need_room_for_the_whole_side(made.model.train(), made)
    assert all(torch.equal(value, before[name]) for name, value in made.model.state_dict().items())
    assert all(value.grad is None for value in made.model.parameters())


def test_memory_that_runs_out_says_which_batch_fits(release: Path, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room, whole = 3, loop.mask_loss

    def full(logits: torch.Tensor, masks: torch.Tensor, recipe: Recipe) -> dict[str, torch.Tensor]:
        if len(logits) > room and masks.shape[-1] == 96:  # the side of the later steps, which is tried before the first
            out_of_memory()
        return whole(logits, masks, recipe)

    monkeypatch.setattr(loop, "mask_loss", full)
    for together in ("recipe.per_image=1", "recipe.per_image=3"):
        said = r"step 0 with recipe.batch=8 at 96 px does not fit; try --set recipe.batch=2, which fits or --set mid.checkpoint=true"
        with pytest.raises(MissingRequirementError, match=said):
            train("crobim", release, out=tmp_path, config="tiny", changes=[*FEW_STEPS, together], cache=caches, quiet=True)
    room = 0
    with pytest.raises(MissingRequirementError, match="try a smaller side than 96"):
        train("crobim", release, out=tmp_path, config="tiny", changes=FEW_STEPS, cache=caches, quiet=True)


def test_memory_that_the_optimiser_lacks_says_which_batch_fits(
    release: Path, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", out_of_memory)
    with pytest.raises(
        MissingRequirementError, match=r"step 0 with recipe.batch=8 at 96 px does not fit; try --set recipe.batch=4, which fits"
    ):
        train("crobim", release, out=tmp_path, config="tiny", changes=FEW_STEPS, cache=caches, quiet=True)


def test_options_that_cannot_be_met_are_named(release: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(MissingRequirementError, match="--gpu: PyTorch finds no CUDA device"):
            train("crobim", release, out=tmp_path, config="tiny", gpu=True, quiet=True)
    with pytest.raises(OptionError, match=r"recipe.batch = 5000: the train split has only \d+ samples"):
        train("crobim", release, out=tmp_path, config="tiny", changes=["recipe.batch=5000"], quiet=True)
    with pytest.raises(OptionError, match="there is no such model"):
        train("crobimm", release, out=tmp_path, config="tiny", quiet=True)


def test_the_schedule_is_polynomial_after_its_warm_up() -> None:
    recipe = Recipe(learning_rate=1.0, power=0.9, warm_up=10)
    assert [learning_rate(step, 100, recipe) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert learning_rate(50, 100, recipe) == pytest.approx(0.5**0.9)
    assert learning_rate(50, 100, Recipe(learning_rate=1.0)) == pytest.approx(0.5**0.9)


def test_norms_biases_prompts_and_position_tables_do_not_decay() -> None:
    settings = load_settings("tiny", changes=["recipe.text_share=0.1"])
    net = build("crobim", settings, 400)
    names = {id(value): name for name, value in net.named_parameters()}
    groups = optimizer_of(net, settings.recipe).param_groups
    decaying = {names[id(value)] for group in groups if group["weight_decay"] for value in group["params"]}
    assert "decoder.project.0.0.weight" in decaying
    for name in ("prompts.prompts", "decoder.level_codes", "decoder.text_norm.weight", "decoder.text.bias"):
        assert name not in decaying
    assert not any("relative_position_bias_table" in name or "position_embeddings" in name for name in decaying)
    assert {names[id(value)].split(".")[0] for group in groups if group["share"] == 0.1 for value in group["params"]} == {"text"}
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_tensorboard_has_losses_scores_and_pictures(run: Path) -> None:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/entropy", "train/dice", "train/learning_rate", "val/mIoU", "val/oIoU", "val/Pr@0.5"} <= set(
        tags["scalars"]
    )
    assert len(tags["images"]) == 8
    assert [event.step for event in events.Scalars("val/mIoU")] == [3, 6]


def test_a_run_says_what_it_was_made_of(run: Path) -> None:
    about = json.loads((run / ABOUT).read_text())
    assert about["weights"] == {"backbone": {"from": "random"}, "text": {"from": "random"}}
    assert about["vocabulary"]["from"] == "training sentences"
    assert about["training"]["samples"] > 50
    assert "vehicle" in about["classes"]
