"""`risbench benchmark`: many models on one release, trained alike, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risbench.benchmark.data.cache import open_cache
from risbench.benchmark.eval.baseline_names import BOXES
from risbench.benchmark.eval.evaluate import evaluate, need_weights
from risbench.benchmark.eval.results import mean_of, same_data, samples_of
from risbench.benchmark.eval.scoring import check_protocol
from risbench.benchmark.load_settings import load_settings
from risbench.benchmark.subjects import DEFAULT, Subject, subjects
from risbench.benchmark.table.published import SAMPLES, WARNING, published
from risbench.benchmark.table.table import METRICS, write_tables
from risbench.benchmark.train.checkpoint import initialized_from, read_about, settings_of
from risbench.benchmark.train.together import train_all
from risbench.core.errors import InputError, OptionError
from risbench.core.metrics import paired_interval
from risbench.core.record import SPLITS
from risbench.learn.device import need_cuda
from risbench.sam.open import open_model


@dataclass(frozen=True)
class Plan:
    """What all models of a benchmark share."""

    release: Path
    out: Path
    config: str
    changes: tuple[str, ...]
    seeds: int
    rates: tuple[float, ...]
    split: str
    protocol: str
    gpu: bool
    precision: str
    workers: int
    weights: Path | None
    cache: Path
    init_from: Path | None
    quiet: bool


def benchmark(
    release: Path | str,
    *,
    out: Path | str,
    models: str = DEFAULT,
    config: str = "base",
    changes: Sequence[str] = (),
    seeds: int = 1,
    rates: Sequence[float] = (),
    against: str | None = None,
    split: str = "test",
    protocol: str = "peer",
    published_on: str | None = None,
    weights: Path | str | None = None,
    gpu: bool = False,
    precision: str = "auto",
    workers: int = 1,
    cache: Path | str | None = None,
    init_from: Path | str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train and score a list of models on one release and write one table; the same call goes on where it stopped.

    Every model gets the same steps, batches and seeds. `rates` are learning rates of which every model tries each with its first seed;
    what is best on val is used for all its seeds. `against` is the model that differences are taken from, by default the last trained.
    `init_from` is the folder of another benchmark: every model begins with its run of the same name and seed there.
    On a CPU `workers` trainings run side by side and share its threads: small models gain little from more than one.

    Raises:
        OptionError, InputError, MissingRequirementError: see `train` and `evaluate`.
    """
    plan = _plan(release, out, config, changes, seeds, rates, split, protocol, gpu, precision, workers, weights, cache, init_from, quiet)
    chosen = subjects(models)
    theirs = _theirs(published_on, split, protocol, chosen)
    trained = [subject for subject in chosen if subject.is_trained]
    reference = _reference(against, chosen)
    _check(chosen, plan)
    plan.out.mkdir(parents=True, exist_ok=True)
    settings = (
        load_settings(config, trained[0].model, [*changes, *trained[0].changes]) if trained else load_settings(config, changes=changes)
    )
    runs, picked = _trained(trained, plan)
    rows: list[dict[str, Any]] = []
    scores: dict[str, NDArray[np.float64]] = {}
    images: list[str] = []
    made: list[dict[str, Any]] = []
    for subject in [*trained, *(other for other in chosen if not other.is_trained)]:
        boxes_from = runs[_boxes_of(trained)][0] if subject.model == "box-predicted" else None
        results = [_evaluated(subject, run, plan, boxes_from, settings.side) for run in runs.get(subject.name, [plan.out / subject.folder])]
        made += results
        same_data(*made)
        row, ious, images = _row(subject, results, picked.get(subject.name))
        scores[subject.name] = ious
        rows.append(row)
    ids = {row["name"]: row.pop("ids") for row in rows}
    odd = next((name for name, own in ids.items() if own != ids[rows[0]["name"]]), None)
    if odd is not None:
        raise InputError(f"{plan.out}: {odd} and {rows[0]['name']} were scored on different samples; remove the folder")
    _differences(rows, scores, reference, images)
    order = [subject.name for subject in chosen]
    first = results[0]
    result = {
        "release": Path(release).name,
        "split": split,
        "protocol": protocol,
        "config": Path(config).stem,
        "changes": list(changes),
        "steps": read_about(runs[trained[0].name][0])["steps"] if trained else 0,
        "batch": settings.recipe.batch,
        "begun": _begun([run for found in runs.values() for run in found], plan),
        "rates": list(rates),
        "left_out": first["left_out"],
        "first_left_out": first["first_left_out"],
        "n": first["n"],
        "images": first["images"],
        "reviewed": first["reviewed"],
        "rows": sorted(rows, key=lambda row: order.index(row["name"])),
        "published": theirs,
        "published_on": published_on,
        "published_n": SAMPLES[published_on][split] if published_on is not None else None,
        "losses": {subject.name: _loss_of(subject, plan) for subject in trained},
        "sam": _sam_of(plan) if any(subject.model in BOXES for subject in chosen) else None,
        "warning": WARNING if theirs else None,
    }
    return {**result, "tables": write_tables(plan.out, result)}


def _plan(
    release: Path | str,
    out: Path | str,
    config: str,
    changes: Sequence[str],
    seeds: int,
    rates: Sequence[float],
    split: str,
    protocol: str,
    gpu: bool,
    precision: str,
    workers: int,
    weights: Path | str | None,
    cache: Path | str | None,
    init_from: Path | str | None,
    quiet: bool,
) -> Plan:
    if seeds < 1:
        raise OptionError(f"--seeds {seeds}: must be at least 1")
    if workers < 1:
        raise OptionError(f"--workers {workers}: must be at least 1")
    if gpu:
        need_cuda("train")
    if any(rate <= 0 for rate in rates):
        raise OptionError("--rates: every learning rate must be above 0")
    folder = Path(out)
    where = Path(weights) if weights is not None else None
    kept = Path(cache) if cache is not None else folder.parent / "cache"  # where `train` and `evaluate` beside it look, too
    begin = Path(init_from) if init_from is not None else None
    options = (split, protocol, gpu, precision, workers, where, kept, begin, quiet)
    return Plan(Path(release), folder, config, tuple(changes), seeds, tuple(rates), *options)


def _reference(against: str | None, chosen: Sequence[Subject]) -> str | None:
    """Return the row that others are compared with."""
    names = [subject.name for subject in chosen]
    if against is not None:
        if against not in names:
            raise OptionError(f"--against {against}: must be one of the models, {', '.join(names)}")
        return against
    plain = [subject.name for subject in chosen if subject.is_trained and not subject.changes]
    return "crobim" if "crobim" in plain else plain[-1] if plain else None


def _theirs(dataset: str | None, split: str, protocol: str, chosen: Sequence[Subject]) -> list[dict[str, Any]]:
    """Return the papers' rows, with those of the ablations that are asked for."""
    if dataset is None:
        return []
    if protocol != "peer":
        raise OptionError(f"--published {dataset}: the papers' figures are of the peer protocol; leave --protocol {protocol} out")
    return published(dataset, split, [subject.changes[0] for subject in chosen if subject.model == "crobim" and len(subject.changes) == 1])


def _loss_of(subject: Subject, plan: Plan) -> str:
    """Return a model's training loss in words."""
    recipe = load_settings(plan.config, subject.model, [*plan.changes, *subject.changes]).recipe
    share = recipe.entropy_share
    return {
        "crobim": f"{share:g} cross-entropy + {1 - share:g} dice",
        "weighted": "the peers' weighted cross-entropy",
        "rmsin": f"{share:g} weighted cross-entropy + {1 - share:g} dice added up over the batch",
    }[recipe.loss]


def _sam_of(plan: Plan) -> str:
    return f"SAM of {plan.weights.name}" if plan.weights is not None else "the built-in SAM"


def _boxes_of(trained: Sequence[Subject]) -> str:
    """Return the model whose masks give the boxes: CroBIM as it is, else the last that is trained."""
    plain = next((subject.name for subject in trained if subject.name == "crobim"), None)
    return plain or trained[-1].name


def _check(chosen: Sequence[Subject], plan: Plan) -> None:
    """Check everything that can be before the first model is trained for hours.

    Raises:
        OptionError, InputError: see `benchmark`.
    """
    trained = [subject for subject in chosen if subject.is_trained]
    check_protocol(plan.protocol)
    if plan.split not in SPLITS:
        raise OptionError(f"--split {plan.split}: must be one of {', '.join(SPLITS)}")
    if any(subject.model == "box-predicted" for subject in chosen) and not trained:
        raise OptionError("--models box-predicted: its boxes are the extents of a trained model's masks; name one, too")
    need_weights(plan.weights)
    if any(subject.model in BOXES for subject in chosen):
        open_model(plan.weights, "cpu")  # damaged weights are found now, not after hours
    budgets: dict[str, tuple[Any, ...]] = {}
    for subject in trained:
        settings = load_settings(plan.config, subject.model, [*plan.changes, *subject.changes])
        budgets[subject.name] = (settings.recipe.steps, settings.recipe.epochs, settings.recipe.batch, settings.side)
        for seed in range(plan.seeds):
            if (run := _begins_with(subject, seed, plan)) is not None:
                if not run.is_dir():
                    if any(run.parent.glob(f"{run.name}-lr*")):
                        raise OptionError(f"--init-from {plan.init_from}: was made with --rates; its runs cannot be begun with")
                    held = ", ".join(sorted(about.parent.name for about in run.parent.glob("*/model.json"))) or "no run"
                    raise OptionError(f"--init-from {plan.init_from}: has no {run.name}, it holds {held}; name a benchmark's folder")
                initialized_from(run, subject.model, settings)
                told = read_about(run)
                budgets[subject.name] += (told["steps"], settings_of(run, told).recipe.batch, told["training"]["digest"])
        data = open_cache(plan.release, settings.side, plan.cache, quiet=plan.quiet)
        for split in ("train", "val", plan.split):
            data.needed(split, plan.release)
    odd = next((name for name, budget in budgets.items() if budget != next(iter(budgets.values()))), None)
    if odd is not None:
        raise OptionError(
            f"--models {odd}: has other steps, epochs, batch or side than {next(iter(budgets))}, or begins with a run that had; "
            "give all the same with --set"
        )


def _trained(trained: Sequence[Subject], plan: Plan) -> tuple[dict[str, list[Path]], dict[str, float | None]]:
    """Train every subject with every seed; return their folders, and the learning rates that were picked, by name."""
    tries = [(subject, 0, rate) for subject in trained for rate in plan.rates]
    best: dict[str, tuple[float, float]] = {}
    for (subject, _, rate), made in zip(tries, _all_trained(tries, plan), strict=True):
        best[subject.name] = max(best.get(subject.name, (-1.0, 0.0)), (made["best"]["oIoU"], -rate))
    picked = {subject.name: -best[subject.name][1] if plan.rates else None for subject in trained}
    wanted = [(subject, seed, picked[subject.name]) for subject in trained for seed in range(plan.seeds)]
    _all_trained(wanted, plan)
    folders = {subject.name: [plan.out / _folder(subject, seed, picked[subject.name]) for seed in range(plan.seeds)] for subject in trained}
    return folders, picked


def _folder(subject: Subject, seed: int, rate: float | None) -> str:
    return f"{subject.folder}-seed{seed}" + (f"-lr{rate:g}" if rate is not None else "")


def _begins_with(subject: Subject, seed: int, plan: Plan) -> Path | None:
    """Return the run that a training begins with."""
    return plan.init_from / _folder(subject, seed, None) if plan.init_from is not None else None


def _all_trained(wanted: Sequence[tuple[Subject, int, float | None]], plan: Plan) -> list[dict[str, Any]]:
    """Train subjects with a seed and a learning rate each; return what came of it, in their order."""
    jobs = []
    for subject, seed, rate in wanted:
        tried = [f"recipe.learning_rate={rate}"] if rate is not None else []
        jobs.append(
            {
                "model": subject.model,
                "release": plan.release,
                "out": plan.out / _folder(subject, seed, rate),
                "config": plan.config,
                "changes": [*plan.changes, *subject.changes, *tried],
                "seed": seed,
                "gpu": plan.gpu,
                "precision": plan.precision,
                "cache": plan.cache,
                "init_from": _begins_with(subject, seed, plan),
            }
        )
    return train_all(jobs, workers=plan.workers, quiet=plan.quiet)


def _evaluated(subject: Subject, run: Path, plan: Plan, boxes_from: Path | None, side: int) -> dict[str, Any]:
    return evaluate(
        run if subject.is_trained else subject.model,
        plan.release,
        split=plan.split,
        protocol=plan.protocol,
        out=run,
        weights=plan.weights,
        boxes_from=boxes_from,
        workers=plan.workers,
        gpu=plan.gpu,
        cache=plan.cache,
        side=side,
        quiet=plan.quiet,
    )


def _begun(runs: Sequence[Path], plan: Plan) -> list[str]:
    """Return what the runs began with, each once."""
    if plan.init_from is not None and runs:
        steps = read_about(runs[0])["weights"].get("run", {}).get("steps", 0)
        return [f"the runs of {'/'.join(plan.init_from.resolve().parts[-2:])}, {steps:,} steps"]
    weights = [read_about(run)["weights"] for run in runs]
    return sorted({f"{found[part]['from']} weights ({part})" for found in weights for part in found})


def _row(subject: Subject, results: Sequence[dict[str, Any]], rate: float | None) -> tuple[dict[str, Any], NDArray[np.float64], list[str]]:
    """Return a subject's row, its samples' IoUs (seeds, samples), and their images."""
    samples = [samples_of(result) for result in results]
    ious = np.array([[row.iou for row in rows] for rows in samples])
    images = [row.image for row in samples[0]]
    row = {
        "name": subject.name,
        "seeds": [result["seed"] for result in results if "seed" in result],
        "parameters": sum(read_about(Path(results[0]["path"]).parent)["parameters"].values()) if subject.is_trained else 0,
        "ids": [row.id for row in samples[0]],
        "learning_rate": rate,
        "figures": {metric: mean_of(results, metric) for metric in METRICS},
        "by_seed": {metric: [result["figures"][metric]["value"] for result in results] for metric in METRICS},
        "interval": list(paired_interval(ious, images)),
    }
    return row, ious, images


def _differences(
    rows: Sequence[dict[str, Any]], scores: dict[str, NDArray[np.float64]], reference: str | None, images: Sequence[str]
) -> None:
    """Add to every row how it differs from the reference, sample by sample and seed by seed."""
    if reference is None:
        return
    base = scores[reference]
    for row in rows:
        if row["name"] == reference:
            continue
        own = scores[row["name"]]
        difference = own - base  # of one row where neither has seeds, else of as many as have
        value = float(difference.mean())
        row["difference"] = {"against": reference, "value": value, "interval": list(paired_interval(difference, images))}
