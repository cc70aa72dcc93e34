"""`risbench validate`: is everything in the workspace what it says it is?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from risbench.core.errors import InputError, printable
from risbench.core.geometry import lies_in
from risbench.core.masks import mask_area
from risbench.core.progress import Progress
from risbench.core.reading import parse_json
from risbench.core.record import Record
from risbench.core.releasable import SETTLED_BY_REVIEW, blocking_problem
from risbench.core.storage import read_summary, sha256_of_file
from risbench.core.workspace import INGEST, REVIEW, Workspace, part_files


def validate(*, workspace: Path | str = ".", quiet: bool = False) -> dict[str, Any]:
    """Check all finished stages and return every fault found, each naming file, record, field, value and bound.

    Checked: the schema of every line, unique ids, part checksums, in = out + quarantined + filtered, images present
    and unchanged, masks of the image's size and not empty, boxes inside the image. Records that a stage holds back
    by a problem are counted under `problems`; they are no faults. Those that a review is to settle are named under `held_back`.
    """
    opened = Workspace.open(workspace)
    folders = [folder for folder in (opened.root / INGEST, *opened.rounds(), opened.root / REVIEW) if folder.exists()]
    faults: list[str] = []
    held = _HeldBack()
    images: dict[str, str] = {}
    records = 0
    for folder in folders:
        where = folder.relative_to(opened.root).as_posix()
        if not (folder / "run.json").exists():
            faults.append(f"{where}: is unfinished; run the same command again to finish it")
            continue
        records += _check_stage(folder, where, faults, held if folder == opened.latest() else _HeldBack(), images)
    with Progress("validate images", len(images), quiet=quiet) as progress:
        for path, expected in sorted(images.items()):
            _check_image(opened.root, path, expected, faults)
            progress.advance(1)
    return {
        "records": records,
        "images": len(images),
        "stages": [folder.relative_to(opened.root).as_posix() for folder in folders],
        "faults": faults,
        "problems": dict(sorted(held.problems.items())),
        "held_back": held.named,
    }


@dataclass
class _HeldBack:
    """Records with a problem: how many of each code, and those that a review is to settle by name."""

    problems: Counter[str] = field(default_factory=Counter)
    named: list[str] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Count a record's problems."""
        self.problems.update(problem.code for problem in record.problems)
        problem = blocking_problem(record)
        if problem is not None and problem.code in SETTLED_BY_REVIEW:
            self.named.append(f"record {record.id}: {problem.code}: {problem.detail}")


def _check_stage(folder: Path, where: str, faults: list[str], held: _HeldBack, images: dict[str, str]) -> int:
    try:
        summary = read_summary(folder)
        listed = {part["name"]: part for part in summary["parts"]}
        counts = {key: summary["counts"][key] for key in ("in", "out", "quarantined", "filtered")}
    except InputError as error:
        faults.append(str(error).replace(str(folder), where))
        return 0
    except KeyError as error:
        faults.append(f"{where}/run.json: is damaged (counts has no {error})")
        return 0
    if counts["in"] != counts["out"] + counts["quarantined"] + counts["filtered"]:
        faults.append(f"{where}/run.json: counts = {counts}: in must be out + quarantined + filtered")
    for name, key in (("quarantine.jsonl", "quarantined"), ("filtered.jsonl", "filtered")):
        rows = _rows_listed(folder / name)
        if rows != counts[key]:
            faults.append(f"{where}/{name}: names {rows} rows; run.json counts {counts[key]}")
    seen: set[str] = set()
    total = 0
    parts = {path.name: path for path in part_files(folder)}
    faults += [f"{where}/{name}: is missing" for name in listed if name not in parts]
    for name, path in parts.items():
        if name not in listed:
            faults.append(f"{where}/{name}: is not of this run; run.json does not list it")
        elif sha256_of_file(path) != listed[name]["sha256"]:
            faults.append(f"{where}/{name}: its content is not what was written (sha256 differs)")
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n") if path.stat().st_size else [], 1
        ):
            total += 1
            place = f"{where}/{name}: line {number}"
            try:
                record = Record.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(piece) for piece in first["loc"])
                faults.append(f"{place}: {field} = {printable(first['input'])}: {first['msg']}")
                continue
            faults.extend(f"{place}: record {record.id}: {fault}" for fault in _record_faults(record))
            if record.id in seen:
                faults.append(f"{place}: record {record.id}: id: stands here twice")
            seen.add(record.id)
            if images.setdefault(record.image.path, record.image.sha256) != record.image.sha256:
                faults.append(f"{place}: record {record.id}: image.sha256: other records of {record.image.path} have another")
            held.add(record)
    if total != counts["out"]:
        faults.append(f"{where}: holds {total} records; run.json counts {counts['out']}")
    return total


def _rows_listed(path: Path) -> int | str:
    """Return how many rows a list of refused rows is of (a line may stand for many that are alike), or what is wrong with it."""
    total = 0
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else (), 1):
        try:
            rows = parse_json(line).get("rows", 1)
            total += int(rows)
        except (ValueError, TypeError, AttributeError):
            return f"(line {number} is damaged) no"
    return total


def _record_faults(record: Record) -> list[str]:
    faults = []
    width, height = record.image.width, record.image.height
    for index, target in enumerate(record.targets):
        if not lies_in(target.box, width, height):
            faults.append(f"targets[{index}].box = {target.box}: must lie in the image of {width} x {height} px")
    if not record.targets:
        faults.append("targets = []: must hold at least one target")
    if record.mask is not None:
        if record.mask.size != (height, width):
            faults.append(f"mask.size = {record.mask.size}: must be {(height, width)}")
        if mask_area(record.mask) == 0:
            faults.append("mask: is empty; it must have at least one pixel")
    return faults


def _check_image(root: Path, path: str, expected: str, faults: list[str]) -> None:
    target = root / path
    if not target.resolve().is_relative_to(root.resolve()):
        faults.append(f"{path}: lies outside the workspace")
    elif not target.is_file():
        faults.append(f"{path}: is missing; run ingest again in a new workspace")
    elif sha256_of_file(target) != expected:
        faults.append(f"{path}: is not the image that was ingested (sha256 differs)")
