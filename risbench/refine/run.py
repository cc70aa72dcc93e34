"""`risbench refine-masks`: one round of box to mask over a workspace."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from risbench.core.errors import InputError, MissingRequirementError, OptionError
from risbench.core.extras import missing_from, need_packages
from risbench.core.progress import Progress
from risbench.core.record import TRIAGED, UNDECIDED, Record
from risbench.core.storage import PartResult, StageRun, digest_of, versions
from risbench.core.workspace import INGEST, REFINE, REVIEW, Workspace, read_records
from risbench.refine.clean import CleanRules
from risbench.refine.engines.base import EngineKind, EngineSetup
from risbench.refine.engines.builtin import KINDS as BUILTIN
from risbench.refine.engines.grabcut import KINDS as GRABCUT
from risbench.refine.engines.pasam import KINDS as PASAM
from risbench.refine.engines.registry import AUTO, ENGINES
from risbench.refine.workers import Work, build_engine, refine_parts

PART_RECORDS: Final = 64


def refine_masks(
    *,
    workspace: Path | str = ".",
    engine: str = "auto",
    checkpoint: Path | str | None = None,
    gpu: bool = False,
    workers: int | None = None,
    rules: CleanRules | None = None,
    redo_given: bool = False,
    max_reprompts: int = 3,
    precision: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Make a mask for every undecided record of the workspace and return the run's summary.

    The same call goes on where an interrupted one stopped, and changes nothing after a finished one; other options
    make the next round. Masks that the source brought are kept unless `redo_given`. What review has decided is
    carried over untouched. `auto` is the workspace's adapter (`pasam`) where it has one; that prompts a box which the mask
    contradicts again with the mask's own, at most `max_reprompts` times. `precision` is that of a network's matrix products: auto is
    bf16 on a GPU, and on a CPU that multiplies it in hardware for SAMs that look at whole images, else fp32.

    Raises:
        OptionError: an option's value cannot be used.
        InputError: no finished ingest, or a checkpoint that is no SAM.
        MissingRequirementError: `gpu` without CUDA, an extra that is missing, a full disk.
        BusyError: another run holds the workspace.
    """
    rules = rules or CleanRules()
    _check_rules(rules)
    opened = Workspace.open(workspace)
    name, said = opened.settings.engine if engine == AUTO else engine, ""
    if name == AUTO:
        name, said = (PASAM.name, "") if opened.settings.adapter else _best_engine(gpu)
    if not 0 <= max_reprompts <= 10:
        raise OptionError(f"--max-reprompts {max_reprompts}: must lie between 0 and 10")
    kind = _kind(name)
    checkpoint = _checkpoint(opened, kind, checkpoint)
    device = _device(gpu, kind)
    count = workers if workers is not None else (1 if kind.network else (os.cpu_count() or 1))
    if count < 1:
        raise OptionError(f"--workers {count}: must be at least 1")
    loaded = str(checkpoint) if checkpoint else None
    setup = EngineSetup(loaded, device, _precision(precision, kind, loaded, device), max_reprompts if kind.reprompts else 0)
    with opened.lock("refine-masks"):
        result = _run(opened, kind, setup, count, rules, redo_given, quiet)
    if gpu and device == "cpu":
        said = f"engine {name} does not use the GPU; {', '.join(one.name for one in ENGINES.all().values() if one.network)} do"
    if said:
        result["said"] = said
    return result


def _run(
    workspace: Workspace, kind: EngineKind, setup: EngineSetup, workers: int, rules: CleanRules, redo_given: bool, quiet: bool
) -> dict[str, Any]:
    source = workspace.stage(REVIEW) if (workspace.stage(REVIEW) / "run.json").exists() else workspace.stage(INGEST)
    source_run = StageRun(source, {}).finished()
    if source_run is None:
        raise InputError(f"{workspace.root}: no finished ingest here; run `risbench ingest SOURCE -w {workspace.root}` first")
    options = {"engine": kind.name, "device": setup.device, "rules": asdict(rules), "redo_given": redo_given}
    if kind.network:
        options["precision"] = setup.precision
    if kind.reprompts:
        options["prompt_again"] = setup.again
    inputs = {"records": digest_of(source_run["parts"]), "checkpoint": kind.digest(setup.checkpoint)}
    plan = {"command": "refine-masks", "options": options, "inputs": inputs, "versions": versions(*kind.packages)}
    number, run = _round(workspace, plan)
    summary = run.finished()
    if summary is not None:
        run.clean()
        return {**summary, "state": "up to date", "round": number}
    threads = max(1, (os.cpu_count() or 1) // workers)
    work = Work(workspace.root, kind.name, setup, rules, number, threads)
    if kind.network:
        build_engine(work)  # weights that cannot be used are refused before an unfinished round of others is given up
    discarded = run.begin()
    parts = _parts(read_records(source))
    keys = [digest_of([record.to_line() for record in part]) for part in parts]
    todo = {index: part for index, part in enumerate(parts) if not run.finished_part(index, keys[index])}
    with Progress(f"refine-masks ({kind.name})", sum(len(part) for part in parts), quiet=quiet) as progress:
        progress.skip(sum(len(part) for index, part in enumerate(parts) if index not in todo))
        open_records = [(index, [record for record in part if _is_open(record, redo_given)]) for index, part in todo.items()]
        for index, refined in refine_parts(work, open_records, min(workers, max(1, len(todo)))):
            by_id = {record.id: record for record in refined}
            result = PartResult([by_id.get(record.id, record) for record in todo[index]])
            result.notes = _notes(todo[index], by_id)
            run.write_part(index, keys[index], result)
            progress.advance(len(todo[index]))
    total = sum(len(part) for part in parts)
    summary = run.finish(len(parts), rows=total, before=PartResult([]), extra={"round": number})
    return {**summary, "state": "restarted with other options" if discarded else "done"}


def _notes(part: Sequence[Record], refined: Mapping[str, Record]) -> dict[str, int]:
    """Return how many records were left alone; of masks that passed on a sheet, how many stay and how many made way for better ones."""
    after = [refined[old.id].review.status for old in part if old.review.status == TRIAGED and old.id in refined]
    kept = after.count(TRIAGED)
    counts = {"kept_from_source_or_review": len(part) - len(refined), "triaged_kept": kept, "triaged_made_anew": len(after) - kept}
    return {name: count for name, count in counts.items() if count}


def _round(workspace: Workspace, plan: dict[str, Any]) -> tuple[int, StageRun]:
    """Return the round that this plan belongs to: a finished one of the same plan, else the unfinished or the next one."""
    rounds = workspace.rounds()
    for folder in rounds:
        run = StageRun(folder, plan)
        summary = run.finished()
        if summary is not None and run.same_plan(summary) and folder == workspace.finished_rounds()[-1]:
            return int(folder.name[6:]), run
    finished = workspace.finished_rounds()
    number = 1 + (int(finished[-1].name[6:]) if finished else 0)
    return number, StageRun(workspace.stage(REFINE) / f"round-{number}", plan)


def _parts(records: Iterable[Record]) -> list[list[Record]]:
    """Cut the records into parts of at least 64; an image's records, which stand together, stay together."""
    parts: list[list[Record]] = []
    for record in records:
        if not parts or (len(parts[-1]) >= PART_RECORDS and parts[-1][-1].image.path != record.image.path):
            parts.append([])
        parts[-1].append(record)
    return parts


def _is_open(record: Record, redo_given: bool) -> bool:
    given = record.mask is not None and record.mask.engine == "source"
    return record.review.status in UNDECIDED and (redo_given or not given)


def _best_engine(gpu: bool) -> tuple[str, str]:
    """Return the better of the two engines that need no download (docs/decisions/0006), and what to say about the choice."""
    lacking = next(iter(missing_from(BUILTIN.extra)), None)
    if lacking is None or gpu:
        return BUILTIN.name, ""
    install = f"pip install 'risbench[{BUILTIN.extra}]' for the built-in model, which is better"
    return GRABCUT.name, f"engine {AUTO}: {GRABCUT.name}, as {lacking} is not installed; {install}"


def _kind(name: str) -> EngineKind:
    """Return an engine's kind.

    Raises:
        OptionError: there is no such engine.
    """
    kind = ENGINES.get(name)
    if kind is None:
        left_out = "".join(f"; {reason}" for reason in ENGINES.broken)
        raise OptionError(f"--engine {name}: must be one of {', '.join((AUTO, *ENGINES.names()))}{left_out}")
    return kind


def _checkpoint(workspace: Workspace, kind: EngineKind, given: Path | str | None) -> Path | str | None:
    """Return the file or name that an engine loads: the one given, or of `pasam` the workspace's adapter.

    Raises:
        OptionError: it needs one, or takes none.
        InputError: there is no such file.
        MissingRequirementError: an extra is not installed.
    """
    if not kind.checkpoint:
        if given is not None:
            able = [one.name for one in ENGINES.all().values() if one.checkpoint]
            raise OptionError(f"--checkpoint: engine {kind.name} has no weights; add --engine {', '.join(able[:-1])} or {able[-1]}")
        return None
    if given is None:
        given = kind.find(workspace)
    if given is None and kind.missing:
        raise OptionError(f"--engine {kind.name}: {kind.missing}")
    if kind.extra:
        need_packages(kind.extra)
    if kind.checkpoint_is_file and given is not None and not Path(given).is_file():
        raise InputError(f"--checkpoint {given}: there is no such file")
    return given


def _device(gpu: bool, kind: EngineKind) -> str:
    if not gpu:
        return "cpu"
    need_packages("sam")
    import torch

    if not torch.cuda.is_available():
        raise MissingRequirementError(
            f"--gpu: PyTorch {torch.__version__} finds no CUDA device; run without --gpu, or see `risbench doctor`"
        )
    return "cuda" if kind.network else "cpu"


def _precision(choice: str, kind: EngineKind, checkpoint: str | None, device: str) -> str:
    """Return fp32 or bf16 for an engine on a device."""
    if choice not in ("auto", "fp32", "bf16"):
        raise OptionError(f"--precision {choice}: must be auto, fp32 or bf16")
    if not kind.bf16:
        if choice == "bf16":
            able = [one.name for one in ENGINES.all().values() if one.bf16]
            raise OptionError(f"--precision bf16: is for engines {', '.join(able[:-1])} and {able[-1]}, not for {kind.name}")
        return "fp32"
    if choice != "auto":
        return choice
    from risbench.learn.device import fast_precision

    # where a model looks at crops, little is gained on a CPU
    return "fp32" if device == "cpu" and kind.crops(checkpoint) else fast_precision(device)


def _check_rules(rules: CleanRules) -> None:
    for name, value in asdict(rules).items():
        low = -1.0 if name == "max_outside" else 0.0
        high = 10.0 if name == "max_outside" else 1.0
        if not low <= value <= high:
            raise OptionError(f"--{name.replace('_', '-')} {value}: must lie between {low:g} and {high:g}")
