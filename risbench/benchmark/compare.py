"""`risbench benchmark --compare`: one model trained on two releases and scored on one test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from risbench.benchmark.data.cache import Cache, open_cache
from risbench.benchmark.data.release import Sample
from risbench.benchmark.eval.evaluate import evaluate
from risbench.benchmark.eval.results import mean_of, same_data, samples_of
from risbench.benchmark.eval.scoring import check_protocol
from risbench.benchmark.load_settings import load_settings
from risbench.benchmark.table.table import METRICS
from risbench.benchmark.train.checkpoint import ABOUT, initialized_from
from risbench.benchmark.train.together import train_all
from risbench.core.errors import InputError, OptionError
from risbench.core.metrics import mask_iou, paired_interval
from risbench.core.record import SPLITS
from risbench.core.storage import to_json, write_durably
from risbench.learn.device import need_cuda


def compare(
    first: Path | str,
    second: Path | str,
    *,
    out: Path | str,
    test_on: Path | str | None = None,
    model: str = "crobim",
    config: str = "base",
    changes: Sequence[str] = (),
    seeds: int = 1,
    split: str = "test",
    protocol: str = "peer",
    gpu: bool = False,
    precision: str = "auto",
    workers: int = 1,
    cache: Path | str | None = None,
    init_from: Path | str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train one model on two releases and score both on one test split, by default the second's: what masks are worth in mIoU.

    Both learn from the samples that both have in their train splits, by id and with the same sentence, in the same order, and are validated
    on those of their val splits: their masks alone differ. What that leaves aside is counted. `init_from` is a run of the same model and
    configuration that every training begins with; it must not have seen the test split's scenes, which nothing here can tell.

    Raises:
        InputError: a scene of the test split is in a train split, or the releases share no training sample.
        OptionError, MissingRequirementError: see `train` and `evaluate`.
    """
    check_protocol(protocol)
    if split not in SPLITS:
        raise OptionError(f"--split {split}: must be one of {', '.join(SPLITS)}")
    if seeds < 1:
        raise OptionError(f"--seeds {seeds}: must be at least 1")
    folder, test = Path(out), Path(test_on) if test_on is not None else Path(second)
    releases = {"A": Path(first), "B": Path(second)}
    learnt_from = test.resolve() in [path.resolve() for path in releases.values()]
    if split != "test" and learnt_from:
        raise OptionError(f"--split {split}: is learnt from or chosen by; leave it out, or name another release with --test-on")
    if gpu:
        need_cuda("train")
    settings = load_settings(config, model, changes)
    if init_from is not None and not (Path(init_from) / ABOUT).exists():
        raise OptionError(f"--init-from {init_from}: is no run, which --compare needs, such as a benchmark's {model}-seed0")
    begun = initialized_from(Path(init_from), model, settings)[2]["run"] if init_from is not None else None
    folder.mkdir(parents=True, exist_ok=True)
    side, kept = settings.side, Path(cache) if cache is not None else folder.parent / "cache"
    tested = open_cache(test, side, kept, quiet=quiet)
    tested.needed(split, test)
    caches = {name: open_cache(path, side, kept, quiet=quiet) for name, path in releases.items()}
    used = caches if learnt_from else {**caches, "what both are scored on": tested}
    both = {name: _learnt(path, caches[name], test, tested, split) for name, path in releases.items()}
    masks = {name: {key: sample for key, sample in found.items() if sample.split == "train"} for name, found in both.items()}
    alike = {part: _alike(both["A"], both["B"], part) for part in ("train", "val")}
    for part, found in alike.items():
        if not found:
            raise InputError(f"{first} and {second} have no sample in common in their {part} splits: not the same records")
    common = alike["train"]
    agreement = float(np.mean([mask_iou(masks["A"][key].mask, masks["B"][key].mask) for key in common]))
    options = {
        "model": model,
        "config": config,
        "changes": changes,
        "gpu": gpu,
        "precision": precision,
        "cache": kept,
        "only": {*common, *alike["val"]},
        "init_from": init_from,
    }
    runs = {name: [folder / f"{name}-{model}-seed{seed}" for seed in range(seeds)] for name in releases}
    jobs = [{**options, "release": releases[name], "out": run, "seed": seed} for name in releases for seed, run in enumerate(runs[name])]
    trained = train_all(jobs, workers=workers, quiet=quiet)
    asked: dict[str, Any] = {"split": split, "protocol": protocol, "workers": workers, "gpu": gpu, "cache": kept, "quiet": quiet}
    results = {name: [evaluate(run, test, **asked) for run in found] for name, found in runs.items()}
    same_data(*results["A"], *results["B"])
    scored = {name: [samples_of(result) for result in found] for name, found in results.items()}
    images = [row.image for row in scored["A"][0]]
    ious = {name: np.array([[row.iou for row in rows] for rows in found]) for name, found in scored.items()}
    differences = ious["B"] - ious["A"]
    result = {
        "A": _named(Path(first), Path(second)),
        "B": _named(Path(second), Path(first)),
        "test_on": test.name,
        "model": model,
        "config": Path(config).stem,
        "split": split,
        "protocol": protocol,
        "seeds": seeds,
        "n": len(images),
        "reviewed": results["A"][0]["reviewed"],
        "left_out": {name: cache.left_out for name, cache in used.items()},
        "first_left_out": {name: cache.first for name, cache in used.items()},
        "training": {name: len(found) for name, found in masks.items()},
        "common": len(common),
        "steps": trained[0]["steps"],
        "begun": None if begun is None else {key: begun[key] for key in ("from", "sha256", "steps")},
        "mask_agreement": agreement,
        "figures": {name: {metric: mean_of(found, metric) for metric in METRICS} for name, found in results.items()},
        "difference": {"value": float(differences.mean()), "interval": list(paired_interval(differences, images))},
    }
    write_durably(folder / "compare.json", to_json(result))
    return {**result, "path": str(folder / "compare.json")}


def _alike(first: Mapping[str, Sample], second: Mapping[str, Sample], part: str) -> list[str]:
    """Return the ids that two releases have in a split with the same sentence, on images of one size."""
    return sorted(
        key
        for key, one in first.items()
        if (other := second.get(key)) is not None
        and one.split == other.split == part
        and (one.sentence, one.size) == (other.sentence, other.size)
    )


def _named(release: Path, other: Path) -> str:
    """Return a release's name, with its folder where both are called the same."""
    return release.name if release.name != other.name else str(release)


def _learnt(release: Path, cache: Cache, test: Path, tested: Cache, split: str) -> dict[str, Sample]:
    """Return a release's samples to learn from and to validate on by id, none of which may be of a scene that is tested on."""
    scenes = {tested.samples[number].scene for number in tested.of(split).tolist()}
    chosen = [cache.samples[number] for part in ("train", "val") for number in cache.of(part).tolist()]
    leak = next((sample for sample in chosen if sample.scene in scenes), None)
    if leak is not None:
        where = f"{release}: scene {leak.scene} is in its {leak.split} split and in {split} of {test}"
        raise InputError(f"{where}; export both with one split list (--split FILE.csv)")
    return {sample.id: sample for sample in chosen}
