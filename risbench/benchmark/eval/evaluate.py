"""`risbench evaluate`: a trained model or a baseline on a split, scored as the peers do or at the images' own size."""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.benchmark.data.cache import Cache, open_cache
from risbench.benchmark.eval.baseline_names import BASELINES, BOXES, TRIVIAL
from risbench.benchmark.eval.baselines import BoxToMask, trivial
from risbench.benchmark.eval.predict import Predictor, Trained, scored
from risbench.benchmark.eval.results import checksum_of, is_result
from risbench.benchmark.eval.scoring import Scored, check_protocol
from risbench.benchmark.eval.sheet import write_sheet
from risbench.benchmark.eval.slices import by_slices, failures, summary, traits_of
from risbench.benchmark.load_settings import need_release
from risbench.benchmark.train.checkpoint import checked_weights, read_about, read_model, settings_of
from risbench.core.errors import InputError, MissingRequirementError, OptionError
from risbench.core.processes import end_with, ended_at_once, patient_threads, without_interrupts
from risbench.core.progress import Progress
from risbench.core.record import SPLITS
from risbench.core.storage import digest_of, explain_read_error, open_lock, sha256_of, sha256_of_file, to_json, write_durably
from risbench.learn.device import keep_freed_memory, need_cuda
from risbench.sam.adapter_file import bases_beside, is_adapter
from risbench.sam.builtin import builtin_weights

# Counts up when the same input is scored otherwise: results of before are made anew.
_REVISION: Final = 3


@dataclass(frozen=True)
class Asked:
    """What is evaluated on what: all that another process needs to know."""

    subject: str
    release: str
    cache: str
    split: str
    protocol: str
    device: str
    precision: str
    shuffled: bool
    weights: str | None
    boxes_from: str | None
    side: int

    def key(self) -> list[Any]:
        """Return what the answer hangs on, besides the release: the question, and the weights of all that answers.

        Raises:
            InputError: a run's weights are missing or damaged.
        """
        runs = [run for run in (self.subject if self.subject not in BASELINES else None, self.boxes_from) if run is not None]
        digests = []
        for run in map(Path, runs):
            about = read_about(run)
            checked_weights(run, about)  # figures of a model that is damaged since are not shown as if it were there
            digests.append(str(about["sha256"]))
        if self.subject in BOXES:
            weights = Path(self.weights) if self.weights is not None else builtin_weights()
            digests += [sha256_of_file(file) for file in (weights, *(bases_beside(weights) if is_adapter(weights) else []))]
        name = self.subject if self.subject in BASELINES else "run"
        return [name, self.split, self.protocol, self.device, self.precision, self.shuffled, digests]


def evaluate(
    subject: Path | str,
    release: Path | str,
    *,
    split: str = "test",
    protocol: str = "peer",
    out: Path | str | None = None,
    shuffled: bool = False,
    weights: Path | str | None = None,
    boxes_from: Path | str | None = None,
    workers: int = 1,
    gpu: bool = False,
    precision: str = "fp32",
    cache: Path | str | None = None,
    side: int = 480,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score `subject`, a run's folder or a baseline's name, and write figures, samples and a sheet of cases to `out`.

    The figures do not depend on `workers`: an image and its sentences are always asked together. `shuffled` gives every sample another
    sample's sentence of its class: what is left is not owed to the sentence. `weights` is the SAM of the box baselines, `boxes_from` the
    run whose masks give "box-predicted" its boxes. `side` is that of the cache that a baseline is asked with (models have their own).

    Raises:
        OptionError: no such baseline, split, protocol or precision.
        InputError: the run or the release cannot be used, or the split is empty.
        MissingRequirementError: no CUDA; or one of several processes was killed.
    """
    name = str(subject)
    _check(name, split, protocol, precision, gpu=gpu, workers=workers, boxes_from=boxes_from)
    need_weights(weights)
    folder = Path(out) if out is not None else Path(name) if name not in BASELINES else None
    if folder is None:
        raise OptionError(f"{name}: name a folder for its results with -o")
    if name not in BASELINES:
        read_about(Path(name))  # before a folder of a mistyped name is made
    need_release(release)
    folder.mkdir(parents=True, exist_ok=True)
    asked = Asked(
        subject=name,
        release=str(release),
        cache=str(cache if cache is not None else folder.parent / "cache"),
        split=split,
        protocol=protocol,
        device="cuda" if gpu else "cpu",
        precision=precision,
        shuffled=shuffled,
        weights=str(weights) if weights is not None else None,
        boxes_from=str(boxes_from) if boxes_from is not None else None,
        side=side,
    )
    data = _data(asked, quiet)
    stem = f"{Path(release).name}-{split}-{protocol}" + ("-shuffled" if shuffled else "")
    with open_lock(folder / ".evaluate.lock", "risbench evaluate", folder):
        path, digest = folder / f"{stem}.json", digest_of([_REVISION, asked.key(), data.all_digest])
        made = next((made for place in (path, _beside(path, digest)) if (made := _made_before(place, digest))), None)
        # figures of an earlier version do not say of what data they are, but their question does
        answered = {"subject": Path(name).name, "data": data.all_digest}
        return {**made, **answered} if made is not None else _evaluated(asked, data, path, digest, workers, quiet)


def need_weights(weights: Path | str | None) -> None:
    """Check that the SAM of the box baselines is there, where one is named.

    Raises:
        InputError: it is not.
    """
    if weights is not None and not Path(weights).is_file():
        raise InputError(f"--weights {weights}: there is no such file")


def _check(name: str, split: str, protocol: str, precision: str, *, gpu: bool, workers: int, boxes_from: Path | str | None) -> None:
    """Check options before anything is done.

    Raises:
        OptionError, MissingRequirementError: see `evaluate`.
    """
    check_protocol(protocol)
    if split not in SPLITS:
        raise OptionError(f"--split {split}: must be one of {', '.join(SPLITS)}")
    if precision not in ("fp32", "bf16"):
        raise OptionError(f"--precision {precision}: must be fp32 or bf16")
    if workers < 1:
        raise OptionError(f"--workers {workers}: must be at least 1")
    if name == "box-predicted" and boxes_from is None:
        raise OptionError("box-predicted: name the run whose masks give the boxes with --boxes-from")
    if name not in BASELINES and not Path(name).is_dir():
        raise OptionError(f"{name}: is neither a run's folder nor a baseline; the baselines are {', '.join(BASELINES)}")
    if gpu:
        need_cuda("evaluate")


def _evaluated(asked: Asked, data: Cache, path: Path, digest: str, workers: int, quiet: bool) -> dict[str, Any]:
    """Score, and write samples, sheet, and last the figures, which name the samples' digest."""
    numbers = data.needed(asked.split, asked.release)
    _set_aside(path, digest)
    name = Path(asked.subject).name
    given = _asked_about(asked, data)
    found, predictor, read = _scored(asked, given, numbers, workers, quiet)
    lines = "".join(json.dumps(one.to_json(), sort_keys=True) + "\n" for one in found).encode()
    traits = traits_of(given, found)
    changed = sum(given.samples[number].sentence != data.samples[number].sentence for number in numbers.tolist())
    result = {
        "subject": name,
        "release": Path(asked.release).name,
        "split": asked.split,
        "protocol": asked.protocol,
        "shuffled": asked.shuffled,
        "sentences_changed": changed,
        "of": digest,
        "data": data.all_digest,
        "samples_sha256": sha256_of(lines),
        "precision": asked.precision,
        "n": len(found),
        "images": len({one.image for one in found}),
        "reviewed": sum(data.samples[number].reviewed for number in numbers.tolist()),
        "figures": summary(found),
        "slices": by_slices(given, found, traits),
        "failures": failures(found, traits),
        "classes_read_off_sentences": data.format == "phrases",
        "left_out": data.left_out,
        "first_left_out": data.first,
        **read,
        **_unseen(asked.subject, data, numbers),
    }
    write_durably(path.with_suffix(".jsonl"), lines)
    title = f"{name} on {asked.split}, best and worst by IoU ({asked.protocol} protocol)"
    write_sheet(path.with_suffix(".png"), title, predictor, given, found)
    result["checksum"] = checksum_of(result)
    write_durably(path, to_json(result))
    return {**result, "path": str(path), "sheet": str(path.with_suffix(".png"))}


def _beside(path: Path, digest: str) -> Path:
    """Return where the answer to a question is kept once another one of the same name has been answered."""
    return path.with_name(f"{path.stem}-{digest[:8]}.json")


def _set_aside(path: Path, digest: str) -> None:
    """Make room for the answer to a question: what answers another one, such as about another release of this name, is kept beside."""
    answers = _read(path).get("of")
    if not isinstance(answers, str) or answers == digest:
        path.unlink(missing_ok=True)
        return
    kept = _beside(path, answers)
    for ending in (".json", ".jsonl", ".png"):
        if path.with_suffix(ending).exists():
            path.with_suffix(ending).replace(kept.with_suffix(ending))


def _read(path: Path) -> dict[str, Any]:
    """Return the figures that were written to `path`, or nothing, where they are not there or are damaged: they are then made anew."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    except OSError as error:
        raise explain_read_error(error, path) from error
    return found if isinstance(found, dict) else {}


def _made_before(path: Path, digest: str) -> dict[str, Any] | None:
    """Return the result of the same question, where it was answered to the end and is as it was written."""
    found = _read(path)
    samples = path.with_suffix(".jsonl")
    if found.get("of") != digest or not samples.exists() or sha256_of_file(samples) != found.get("samples_sha256"):
        return None
    if found.get("checksum", checksum_of(found)) != checksum_of(found) or not is_result(found):
        return None
    return {**found, "path": str(path), "sheet": str(path.with_suffix(".png"))}


def _data(asked: Asked, quiet: bool) -> Cache:
    side = asked.side
    run = asked.boxes_from if asked.subject in BASELINES else asked.subject
    if run is not None:
        side = settings_of(Path(run), read_about(Path(run))).side
    return open_cache(asked.release, side, Path(asked.cache), quiet=quiet)


def _predictor(asked: Asked, data: Cache) -> tuple[Predictor, dict[str, Any]]:
    """Return what answers, and what to say of what of its sentences were cut."""
    if asked.subject in TRIVIAL:
        return trivial(asked.subject, data), {}
    if asked.subject in BOXES:
        boxes = None
        if asked.subject == "box-predicted":
            model, words, _ = read_model(Path(str(asked.boxes_from)))
            boxes = Trained(model, words, asked.device, asked.precision)
        weights = Path(asked.weights) if asked.weights is not None else None
        made = BoxToMask(Path(asked.release), weights, asked.device, boxes)
        return made, {"weights_sha256": made.weights_sha256}
    model, words, about = read_model(Path(asked.subject))
    cut = words.encode([data.samples[number].sentence for number in data.of(asked.split)])[2]
    told = {"model": about["model"], "seed": about["seed"], "weights": about["weights"], "sentences_cut": cut}
    return Trained(model, words, asked.device, asked.precision), told


def _scored(
    asked: Asked, data: Cache, numbers: NDArray[np.int64], workers: int, quiet: bool
) -> tuple[list[Scored], Predictor, dict[str, Any]]:
    if asked.device == "cpu":
        keep_freed_memory()
    predictor, read = _predictor(asked, data)
    label = f"evaluate {Path(asked.subject).name}"
    if workers == 1:
        return (
            scored(predictor, data, numbers, check_protocol(asked.protocol), label=label, quiet=quiet),
            predictor,
            read,
        )
    # torch's threads do not survive a fork
    start = multiprocessing.get_context("spawn")
    try:
        with (
            Progress(f"{label}, by processes", workers, quiet=quiet) as bar,
            patient_threads(),
            ended_at_once(ProcessPoolExecutor(workers, mp_context=start, initializer=end_with, initargs=(os.getpid(),))) as pool,
        ):
            found: list[Scored] = []
            with without_interrupts():
                parts = pool.map(_share, [asked] * workers, range(workers), [workers] * workers)
            for part in parts:
                found += part
                bar.advance(1)
            found.sort(key=lambda one: one.id)
    except BrokenProcessPool:
        why = "the system kills what takes too much memory"
        raise MissingRequirementError(
            f"{asked.subject}: one of its processes ended too soon; {why}: try fewer than --workers {workers}"
        ) from None
    return found, predictor, read


def _share(asked: Asked, place: int, of: int) -> list[Scored]:
    """Return one process's share. It has as many threads as the only process would: other numbers add up in another order."""
    data = _data(asked, quiet=True)
    predictor, _ = _predictor(asked, data)
    return scored(predictor, _asked_about(asked, data), data.of(asked.split), check_protocol(asked.protocol), share=(place, of), quiet=True)


def _asked_about(asked: Asked, data: Cache) -> Cache:
    """Return the cache with the sentences that are asked: the samples' own, or each another one's of its class, if it has another."""
    if not asked.shuffled:
        return data
    groups: dict[str, list[int]] = {}
    for number in data.of(asked.split).tolist():
        groups.setdefault(data.samples[number].category, []).append(number)
    samples = list(data.samples)
    for members in groups.values():
        order = np.random.default_rng(len(members)).permutation(len(members))
        for place, taken in zip(order.tolist(), np.roll(order, 1).tolist(), strict=True):
            other = data.samples[members[taken]]
            samples[members[place]] = replace(data.samples[members[place]], sentence=other.sentence, attributes=other.attributes)
    return replace(data, samples=samples)


def _unseen(subject: str, data: Cache, numbers: NDArray[np.int64]) -> dict[str, Any]:
    """Return which of the split's classes the model never saw in training."""
    if subject in BASELINES:
        return {}
    seen = set(read_about(Path(subject))["classes"])
    return {"unseen_classes": sorted({data.samples[number].category for number in numbers.tolist()} - seen)}
