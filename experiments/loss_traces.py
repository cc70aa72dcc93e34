"""Twenty steps of every training, bit by bit: each step's loss and learning rate, what validation says, logs, checkpoints and weights.

    python experiments/loss_traces.py

Tiny models on generated data, on one thread of a CPU: the same commit prints the same on the same machine, and a change of the training
loop that is to change nothing must print what the commit before it printed. Losses are read where PyTorch differentiates them and rates
where its optimiser steps, so that the script asks nothing of the loop's insides. Numbers are hexadecimal floats; `weights` is the sha256 of
all that the optimiser moves after its last step, `checkpoints` that of everything given to `torch.save` but options and their digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from risbench.adapt.run import train_adapter
from risbench.adapt.train_adapter import AdapterRecipe
from risbench.adapt.train_builtin import Recipe, train_builtin
from risbench.benchmark.train.run import train
from risbench.core.storage import sha256_of_file
from risbench.export import export
from risbench.ingest import ingest
from risbench.refine import refine_masks
from risbench.sam.compact.model import CompactSam, CompactSettings
from risbench.sam.compact.weights import save_compact
from risbench.scenes.referring import write_referring
from risbench.scenes.source import write_source

STEPS = 20
TINY = CompactSettings(side_px=64, stem=(8, 8, 16), stem_depth=(1, 1, 1), width=32, depth=1, heads=2, prompt_width=32, threshold=-2.0)
BENCHMARK = (f"recipe.steps={STEPS}", "recipe.looks=2", "recipe.batch=8", "recipe.warm_up=3")
# What names options, not what was learnt.
_OPTIONS = {"plan", "recipe"}


def digest(value: Any) -> str:
    """Return the sha256 of a nested value, tensors by their bytes."""
    total = hashlib.sha256()
    _add(total, value)
    return total.hexdigest()


def _add(total: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        total.update(f"{tuple(value.shape)} {value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for name in sorted(set(value) - _OPTIONS, key=str):
            total.update(f"{name!r}:".encode())
            _add(total, value[name])
    elif isinstance(value, list | tuple):
        for one in value:
            _add(total, one)
    else:
        total.update(repr(value).encode())


@contextlib.contextmanager
def traced(name: str) -> Iterator[None]:
    """Print what a training does in here."""
    print(f"{name}:", flush=True)
    losses: list[str] = []
    steps: list[str] = []
    weights: list[str] = []
    saved: list[str] = []
    backward, save = Tensor.backward, torch.save

    def differentiated(self: Tensor, *words: Any, **options: Any) -> None:
        losses.append(float(self.detach()).hex())
        backward(self, *words, **options)

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        rates = " ".join(float(group["lr"]).hex() for group in optimizer.param_groups)
        steps.append(f"loss {' '.join(losses)}  rate {rates}")
        losses.clear()

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        weights[:] = [digest([group["params"] for group in optimizer.param_groups])]

    def stored(state: Any, *words: Any, **options: Any) -> None:
        saved.append(digest(state))
        save(state, *words, **options)

    hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    with mock.patch.object(Tensor, "backward", differentiated), mock.patch.object(torch, "save", stored):
        yield
    for hook in hooks:
        hook.remove()
    assert len(steps) == STEPS, f"{len(steps)} steps"
    for number, line in enumerate(steps):
        print(f"  step {number:2}  {line}")
    print(f"  weights     {weights[-1]}")
    print(f"  checkpoints {digest(saved)}  ({len(saved)})", flush=True)


def scalars(folder: Path) -> str:
    """Return the digest of what TensorBoard has of a training: every name, step and value."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return digest([[tag, [(event.step, event.value.hex()) for event in events.Scalars(tag)]] for tag in sorted(events.Tags()["scalars"])])


def builtin(root: Path) -> None:
    """Trace the built-in SAM."""
    with traced("built-in SAM"):
        recipe = Recipe(steps=STEPS, batch=6, warm_up=3)
        made = train_builtin(root / "builtin", recipe, settings=TINY, keep_every=8, quiet=True)
    lines = [json.loads(line) for line in (root / "builtin" / "log.jsonl").read_text().splitlines()]
    print(f"  log         {digest([{name: value for name, value in line.items() if name != 'seconds'} for line in lines])}")
    print(f"  file        {made['sha256']}", flush=True)


def adapter(root: Path) -> None:
    """Trace an adapter on a compact SAM."""
    torch.manual_seed(0)
    save_compact(CompactSam(TINY), root / "base.safetensors", {})
    write_source(root / "scenes", seed=5, scenes=8)
    workspace = root / "scenes-workspace"
    with contextlib.redirect_stdout(io.StringIO()):
        ingest(root / "scenes", workspace=workspace, name="world", quiet=True)
    with traced("adapter"):
        options: dict[str, Any] = {"truth": root / "scenes" / "truth.json", "base": root / "base.safetensors", "quiet": True}
        made = train_adapter(workspace=workspace, recipe=AdapterRecipe(steps=STEPS, batch=4, warm_up=3), **options)
    folder = workspace / "adapters" / made["adapter"]
    print(f"  validation  {digest(made['looks'])}")
    print(f"  tensorboard {scalars(folder / 'tensorboard')}")
    print(f"  file        {sha256_of_file(folder / 'adapter.safetensors')}", flush=True)


def benchmark(root: Path) -> None:
    """Trace two benchmark models, which differ in losses, clipping and rates."""
    write_referring(root / "referring", 3, 40, side=192)
    workspace = root / "referring-workspace"
    ingest(root / "referring", workspace=workspace, format="coco", fit="keep", uninformative="keep", quiet=True)
    refine_masks(workspace=workspace, engine="box", quiet=True)
    export(workspace=workspace, split=".6,.15,.25", include_unreviewed=True, formats=("parquet",), name="release", quiet=True)
    for name, changes in (
        ("crobim", ("recipe.per_image=2", "recipe.coarse_side=64", "recipe.dice=squared")),
        ("lavt", ("recipe.loss=rmsin", "recipe.clip=1.0", "recipe.backbone_share=0.1", "recipe.learning_rate=1e-3")),
    ):
        out = root / name
        with traced(name):
            options: dict[str, Any] = {"config": "tiny", "changes": [*BENCHMARK, *changes], "precision": "fp32", "cache": root / "cache"}
            made = train(name, workspace / "4-export" / "release", out=out, quiet=True, **options)
        about = json.loads((out / "model.json").read_text())
        print(f"  validation  {digest(made['looks'])}")
        print(f"  tensorboard {scalars(out / 'tensorboard')}")
        print(f"  file        {about['sha256']}  (step {about['step']})", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    with tempfile.TemporaryDirectory() as temporary:
        for trace in (builtin, adapter, benchmark):
            trace(Path(temporary))


if __name__ == "__main__":
    main()
