"""`risbench report`: a folder with one page that opens without a server: figures, and a gallery of every record, the doubtful ones first.

Tiles lie in sheets of sixteen and details in files of 256 records, both in the order in which the page shows the records, so that it
opens as fast with fifty thousand as with fifty. A run that was cut off goes on with the sheets that are missing.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.draw import BOX_COLOR, MASK_COLOR, Panel, focus
from risbench.core.errors import InputError, InvalidRowError, printable
from risbench.core.geometry import size_of
from risbench.core.images import UnusableImage
from risbench.core.masks import mask_area, mask_of
from risbench.core.progress import Progress
from risbench.core.reading import explain_read_error, is_system_failure
from risbench.core.record import SPLITS, Attributes, Record
from risbench.core.releasable import SETTLED_BY_REVIEW, blocking_problem
from risbench.core.risk import risks
from risbench.core.storage import digest_of, explain_os_error, write_durably
from risbench.core.strata import area_of
from risbench.core.version import VERSION
from risbench.inspect.report_place import PAGE_FILES, Place
from risbench.inspect.report_source import Source, open_source
from risbench.inspect.stats import stats_of

TILE_PX: Final = 160
ACROSS: Final = 4
PER_SHEET: Final = ACROSS * ACROSS
PER_SHARD: Final = 256
_JPEG_QUALITY: Final = 78
_NONE: Final = "none"


def report(
    release: Path | str | None = None, *, workspace: Path | str = ".", output: Path | str | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Write the report of a release, or of the workspace's newest records, and return where it is and what it holds.

    It goes into `report` of the workspace, or beside the release as `<name>-report`. The same call goes on after an interruption, and
    changes nothing where nothing changed.

    Raises:
        InputError: there is nothing to show, a file is damaged, or `output` is a folder of something else.
        MissingRequirementError: the disk is full.
    """
    source = open_source(release, workspace)
    folder = (Path(output) if output is not None else source.default_output).resolve()
    if not source.records:
        raise InputError(f"{source.place}: has no record to show")
    place = Place(folder)
    with place.held():
        return _report(source, place, quiet)


def _report(source: Source, place: Place, quiet: bool) -> dict[str, Any]:
    place.check_ours()
    link, page = source.link_base(place.folder), str(place.folder / "index.html")
    plan = {"of": source.name, "content": source.digest, "link": link, "version": VERSION, "page": _page_digest()}
    there = place.finished(plan)
    if there is not None:
        return {**there, "state": "up to date", "path": page}
    try:
        place.begin(plan)
        counts = _write(place, source, quiet)
        place.finish(plan, counts)
    except OSError as error:
        raise explain_os_error(error, place.folder) from error
    return {"plan": plan, **counts, "state": "written", "path": page}


def _page_digest() -> str:
    return digest_of([(Path(__file__).parent / "report_page" / name).read_text(encoding="utf-8") for name in PAGE_FILES])


def _write(place: Place, source: Source, quiet: bool) -> dict[str, Any]:
    """Write everything into the place's page, with links as they are right in its folder; return counts."""
    rows, folder = _ordered(source), place.page
    for name in PAGE_FILES:
        write_durably(folder / name, (Path(__file__).parent / "report_page" / name).read_bytes())
    missing = _write_tiles(place, source, rows, quiet)
    for start in range(0, len(rows), PER_SHARD):
        shard = [_detail(row, source, place.folder) for row in rows[start : start + PER_SHARD]]
        _script(folder / "data" / f"masks-{start // PER_SHARD:05d}.js", f"shard({start // PER_SHARD}, ", shard)
    _script(folder / "data" / "records.js", "records(", _columns(rows))
    _script(folder / "data" / "summary.js", "summary(", _summary(folder, source, rows, missing))
    return {"name": source.name, "records": len(rows), "images": len({row.record.image.path for row in rows}), "missing_images": missing}


def _script(path: Path, call: str, value: Any) -> None:
    """Write data as a script; ASCII, so that no text of a source can be anything but a string."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    write_durably(path, f"risbench.{call}{text});\n".encode("ascii"))


@dataclass(frozen=True)
class _Row:
    """A record, and what the gallery sorts and filters it by."""

    record: Record
    risk: float | None
    size: str
    problem: str
    audit: str


def _ordered(source: Source) -> list[_Row]:
    """Return the rows, worst and most doubtful first, and those of one kind by risk.

    First what a review is to settle, then those with problems, rejected, found wrong by the audit, without a mask.
    """
    rows = []
    for record in source.records:
        try:
            area = float(mask_area(record.mask)) if record.mask else area_of(record)
        except InputError as error:
            raise InputError(f"{source.place}: record {record.id}: {error}; run the stage again, or verify the release") from None
        blocking = blocking_problem(record)
        problem = blocking.code if blocking is not None else _NONE
        rows.append(_Row(record, None, size_of(area), problem, source.audit.get(record.id, _NONE)))
    risk = risks(source.records)
    rows = [replace(row, risk=risk.get(row.record.id)) for row in rows]

    def rank(row: _Row) -> tuple[int, float, str]:
        worst = [
            row.problem in SETTLED_BY_REVIEW,
            row.problem != _NONE,
            row.record.review.status == "rejected",
            row.audit not in (_NONE, "good"),
            row.record.mask is None,
        ]
        return next((place for place, holds in enumerate(worst) if holds), len(worst)), -(row.risk or 0.0), row.record.id

    return sorted(rows, key=rank)


def _columns(rows: Sequence[_Row]) -> dict[str, Any]:
    """Return what filters need of every record, as columns of small numbers."""
    kinds = list(Attributes.model_fields)
    values: dict[str, list[str]] = {
        "class": [row.record.category.name for row in rows],
        "size": [row.size for row in rows],
        "split": [row.record.split or _NONE for row in rows],
        "status": [row.record.review.status for row in rows],
        "problem": [row.problem for row in rows],
        "audit": [row.audit for row in rows],
    }
    names = {key: _names(key, column) for key, column in values.items()}
    columns: dict[str, list[int]] = {key: _coded(names[key], column) for key, column in values.items()}
    columns["attribute"] = [
        sum(1 << bit for bit, kind in enumerate(kinds) if getattr(row.record.attributes, kind) is not None) for row in rows
    ]
    columns["risk"] = [-1 if row.risk is None else round(1000 * row.risk) for row in rows]
    return {
        "names": {**names, "attribute": [kind.replace("_", " ") for kind in kinds]},
        "columns": columns,
        "ids": [row.record.id for row in rows],
        "sentences": [row.record.expression.text if row.record.expression else "" for row in rows],
    }


def _names(key: str, column: Iterable[str]) -> list[str]:
    known: dict[str, list[str]] = {"size": ["small", "medium", "large"], "split": [*SPLITS]}
    first = known.get(key, [])
    return [*first, *sorted(set(column) - set(first))]


def _coded(names: Sequence[str], column: Iterable[str]) -> list[int]:
    place = {name: index for index, name in enumerate(names)}
    return [place[name] for name in column]


def _detail(row: _Row, source: Source, final: Path) -> dict[str, Any]:
    """Return what the page shows of an opened record."""
    record = row.record
    mask, review, image = record.mask, record.review, record.image
    boxes = [target.oriented_box or _corners(target.box) for target in record.targets]
    attributes = {kind: getattr(record.attributes, kind) for kind in Attributes.model_fields}
    votes = ", ".join(f"{name} {count}" for name, count in sorted(review.votes.items()))
    fields: list[tuple[str, Any]] = [
        ("class", f"{record.category.name} (the source: {record.category.source_name})"),
        ("problems", "; ".join(f"{problem.code}: {problem.detail}" for problem in record.problems)),
        ("review", ", ".join(filter(None, [review.status, votes, f"{len(review.reviewers)} reviewers" if review.reviewers else ""]))),
        ("agreement", review.agreement),
        ("audit sample", row.audit if row.audit != _NONE else ""),
        ("risk", row.risk),
        ("mask", f"{mask_area(mask):,} px by {mask.engine}, round {mask.round}" if mask else "none"),
        ("scores", ", ".join(f"{name} {value:.3g}" for name, value in sorted(mask.scores.items())) if mask else ""),
        *((kind.replace("_", " "), f"{found.value} (from the {found.origin})") for kind, found in attributes.items() if found is not None),
        ("box", ", ".join(sorted({target.box_precision for target in record.targets}))),
        ("repairs", "; ".join(f"{repair.rule}: {repair.detail}" for target in record.targets for repair in target.repairs)),
        ("split", record.split),
        ("scene", image.scene),
        ("image", f"{image.path}, {image.width} x {image.height} px"),
        ("source", f"{record.source.dataset}, {record.source.file} {record.source.source_key}"),
        ("licence", record.source.licence or "not stated by the source"),
    ]
    return {
        "path": source.link(record, final),
        "image": [image.height, image.width],
        "counts": mask.counts if mask else None,
        "boxes": [[[round(x, 2), round(y, 2)] for x, y in corners] for corners in boxes],
        "fields": [[name, printable(str(value), 600)] for name, value in fields if value not in (None, "")],
    }


def _corners(box: Sequence[float]) -> list[tuple[float, float]]:
    x_min, y_min, x_max, y_max = box
    return [(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)]


def _write_tiles(place: Place, source: Source, rows: Sequence[_Row], quiet: bool) -> int:
    """Write the sheets that are not there yet; return how many records' images cannot be shown."""
    sheets = [[row.record for row in rows[start : start + PER_SHEET]] for start in range(0, len(rows), PER_SHEET)]

    def make(index: int) -> int:
        return place.sheet(index, lambda: _sheet(source, sheets[index]))

    missing = 0
    with Progress("report", len(rows), quiet=quiet) as progress, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for index, absent in enumerate(pool.map(make, range(len(sheets)))):
            missing += absent
            progress.advance(len(sheets[index]))
    return missing


def _sheet(source: Source, records: Sequence[Record]) -> tuple[bytes, int]:
    """Return the JPEG of up to sixteen tiles, and how many have no image."""
    absent = 0
    sheet = np.full((TILE_PX * -(-len(records) // ACROSS), TILE_PX * ACROSS, 3), 128, np.uint8)
    for place, record in enumerate(records):
        top, left = TILE_PX * (place // ACROSS), TILE_PX * (place % ACROSS)
        tile = _tile(source, record)
        absent += tile is None
        sheet[top : top + TILE_PX, left : left + TILE_PX] = 128 if tile is None else tile
    done, data = cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done, "JPEG encoding failed"
    return data.tobytes(), absent


def _tile(source: Source, record: Record) -> NDArray[np.uint8] | None:
    """Return the view around a record's object, with mask and boxes; None where the image cannot be read."""
    try:
        pixels = source.pixels(record)
    except (UnusableImage, InvalidRowError):
        return None
    except OSError as error:
        if is_system_failure(error):  # a passing error is no fact about the image
            raise explain_read_error(error, record.image.path) from error
        return None
    panel = Panel(pixels, focus(record), TILE_PX)
    if record.mask is not None and record.mask.size == pixels.shape[:2]:
        panel.mask(mask_of(record.mask), MASK_COLOR)
    for target in record.targets:
        panel.box(target.oriented_box or target.box, BOX_COLOR, halo=False)
    return panel.pixels


def _summary(folder: Path, source: Source, rows: Sequence[_Row], missing: int) -> dict[str, Any]:
    """Return the head of the page: facts, figures with what they show, tables of counts."""
    told = [row.record for row in rows if row.record.expression is not None]
    facts: list[tuple[str, str]] = []
    figures: list[tuple[str, str]] = []
    if told:
        found = stats_of(told, source.name, folder / "figures")
        for name, (value, paper) in found["sentences"].items():
            facts.append((name, f"{value:,} (RISBench: {paper:,})"))
        facts += [(name, str(found["table_1"][name])) for name in ("image size", "resolution", "attribute kinds")]
        said = (
            "Words in a sentence: how many sentences have how many words (the paper's Fig. 3a).",
            "Triplets of each class, by size of the mask (the paper's Fig. 3b); the same numbers are in the table.",
            "The most frequent words, larger where more frequent (the paper's Fig. 4).",
        )
        figures = [(f"figures/{Path(path).name}", text) for path, text in zip(found["figures"], said, strict=True)]
    lead = f"{len(rows):,} records on {len({row.record.image.path for row in rows}):,} images"
    warnings = [*source.warnings]
    if missing:
        warnings.append(f"the images of {missing:,} records cannot be shown: {source.lacking}")
    return {
        "name": source.name,
        "lead": f"{lead}. {source.lead}".strip(),
        "warnings": warnings,
        "facts": [["records", f"{len(rows):,}"], *map(list, facts), *map(list, source.facts)],
        "figures": [list(figure) for figure in figures],
        "tables": _tables(rows),
    }


def _tables(rows: Sequence[_Row]) -> list[dict[str, Any]]:
    sizes = ("small", "medium", "large")
    by_class = Counter((row.record.category.name, row.size) for row in rows)
    names = sorted({name for name, _ in by_class}, key=lambda name: (-sum(by_class[name, size] for size in sizes), name))
    kinds = {
        kind.replace("_", " "): sum(getattr(row.record.attributes, kind) is not None for row in rows) for kind in Attributes.model_fields
    }
    made: list[dict[str, Any]] = [
        {
            "caption": "Triplets by class and size of the mask",
            "columns": ["class", *sizes, "all"],
            "rows": [[name, *(by_class[name, size] for size in sizes), sum(by_class[name, size] for size in sizes)] for name in names],
        },
        {"caption": "Attributes", "columns": ["kind", "sentences"], "rows": [[kind, count] for kind, count in kinds.items()]},
        _count_table("Review", (row.record.review.status for row in rows)),
    ]
    if any(row.problem != _NONE for row in rows):
        made.append(_count_table("Problems", (row.problem for row in rows)))
    if any(row.record.split for row in rows):
        made.append(_count_table("Splits", (row.record.split or _NONE for row in rows)))
    return made


def _count_table(caption: str, values: Iterable[str]) -> dict[str, Any]:
    counts: Mapping[str, int] = Counter(values)
    return {"caption": caption, "columns": [caption.lower(), "records"], "rows": [[name, counts[name]] for name in sorted(counts)]}
