"""`risbench ingest`: a source of boxes and sentences becomes records on 512 x 512 images in a workspace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

from risbench.core.errors import InputError, OptionError, Refusal
from risbench.core.imagery import Raster, encode_png, perceptual_hash, read_raster, suffix_fits
from risbench.core.overlap import Corners, at_source_scale, corners_of
from risbench.core.progress import Progress
from risbench.core.record import ImageRef, Record
from risbench.core.storage import PartResult, StageRun, digest_of, explain_os_error, sha256_of, versions, write_durably
from risbench.core.workspace import INGEST, Settings, Workspace
from risbench.formats.archives import is_zip
from risbench.formats.detect import choose_format, read_source
from risbench.formats.rows import Item, SetAside
from risbench.formats.tree import IMAGE_SUFFIXES, Entry, SourceTree
from risbench.ingest.build import Placed, build_record, object_names, place, view_transform
from risbench.ingest.duplicates import write_corners, write_duplicates
from risbench.ingest.fit import FitOption, View, choose_fit, image_stems, render, shows, view_name, views
from risbench.ingest.merge import Candidate
from risbench.ingest.plan import check_options, dataset_name, inputs_of, read_class_map, slug_of
from risbench.ingest.scene import scene_of
from risbench.ingest.triage import MultiTarget, Triage, Uninformative, filter_line, quarantine_line, triage
from risbench.ingest.whole import placed_whole

PART_RECORDS: Final = 64
# One more whenever the same source comes to other records or duplicates: what was ingested before is no longer up to date.
REVISION: Final = 2


@dataclass
class _Part(PartResult):
    """One part, and the corners of its images."""

    corners: dict[str, Corners] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    """All that one part of the run needs besides its rows."""

    tree: SourceTree
    root: Path
    name: str
    dataset: str
    fit: FitOption
    bands: tuple[int, ...] | None
    class_map: Mapping[str, str]
    stems: Mapping[str, str]
    write: bool


def ingest(
    source: Path | str,
    *,
    workspace: Path | str = ".",
    format: str | None = None,
    images: Path | str | None = None,
    fit: FitOption = "auto",
    multi_target: MultiTarget = "aside",
    uninformative: Uninformative = "filter",
    map_class: Sequence[str] = (),
    class_field: str | None = None,
    bands: Sequence[int] | None = None,
    name: str | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    replace: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Read `source` (folder, zip or file) into stage 1 of the workspace and return the run's summary.

    The same call goes on where an interrupted one stopped; after a finished one it changes nothing. `limit` takes
    the first rows only. `dry_run` does all the work and writes nothing.

    Raises:
        OptionError: an option's value is not one of those named.
        InputError: the source cannot be read at all, or the workspace holds another source's records.
        EnvironmentLacks: the disk is full.
        TryAgainLater: another run holds the workspace.
    """
    check_options(fit, multi_target, uninformative, limit)
    class_map = read_class_map(map_class)
    tree = SourceTree.open(source, images)
    only = _single_file(Path(source), tree)
    if Path(source).resolve() == Path(workspace).resolve():
        raise OptionError(f"-w {workspace}: the source cannot be its own workspace; name another folder with -w")
    kind, files, said = choose_format(tree, format, only)
    items: Iterable[Item] = read_source(tree, kind, files, class_field)
    sorted_rows = triage(
        items if limit is None else islice(items, limit),
        tree,
        multi_target=multi_target,
        uninformative=uninformative,
        class_map=class_map,
    )
    _add_refused_entries(tree, sorted_rows)
    _check_whole_options(sorted_rows, fit, map_class)
    dataset = dataset_name(kind, [candidate.row for _, candidate in sorted_rows.candidates])
    slug = slug_of(name or dataset)
    options = {
        "fit": fit,
        "multi_target": multi_target,
        "uninformative": uninformative,
        "map_class": dict(sorted(class_map.items())),
        "class_field": class_field,
        "bands": list(bands) if bands else None,
        "name": slug,
        "limit": limit,
    }
    plan = {
        "command": "ingest",
        "revision": REVISION,
        "format": kind,
        "options": options,
        "inputs": inputs_of(tree, files, sorted_rows),
        "versions": versions("pillow", "rasterio"),
    }
    job = _Job(
        tree=tree,
        root=Path(workspace),
        name=slug,
        dataset=dataset,
        fit=fit,
        bands=tuple(bands) if bands else None,
        class_map=class_map,
        stems=image_stems(image for image, _ in sorted_rows.candidates),
        write=not dry_run,
    )
    if dry_run:
        return {"said": said, **_dry_run(job, sorted_rows, quiet)}
    opened = Workspace.create(workspace, Settings(name=slug))
    with opened.lock("ingest"):
        return {"said": said, **_run(job, opened, plan, sorted_rows, replace, quiet)}


def _check_whole_options(rows: Triage, fit: FitOption, map_class: Sequence[str]) -> None:
    """Refuse what would change records that are to be read as they are.

    Raises:
        OptionError: --fit or --map-class is given for a release of ours.
    """
    if any(candidate.row.record for _, candidate in rows.candidates):
        for option, given in (("--fit", fit != "auto"), ("--map-class", bool(map_class))):
            if given:
                raise OptionError(f"{option}: the records of a release keep their images and classes as they are; leave it out")


def _single_file(source: Path, tree: SourceTree) -> Entry | None:
    """Return the one annotation file that the user named, or None for a folder or zip.

    Raises:
        InputError: it is a link that leaves its folder.
    """
    if source.is_dir() or source.suffix.lower() == ".tar" or is_zip(source):
        return None
    entry = tree.by_path.get(source.name)
    if entry is None:
        raise InputError(f"{source}: is a link that leaves its folder, or cannot be read; name the file itself")
    return entry


def _run(job: _Job, workspace: Workspace, plan: dict[str, Any], rows: Triage, replace: bool, quiet: bool) -> dict[str, Any]:
    run = StageRun(workspace.stage(INGEST), plan)
    summary = run.finished()
    if summary is not None and run.same_plan(summary):
        run.clean()
        return {**summary, "state": "up to date"}
    if summary is not None and not replace:
        raise InputError(
            f"{run.folder}: already holds {summary['counts']['out']:,} records of another source or other options; "
            "use a new workspace (-w), or --replace to throw these away"
        )
    if summary is not None and workspace.rounds():
        raise InputError(f"{workspace.root}: masks have been made from these records; use a new workspace (-w) for another source")
    discarded = run.begin()
    parts = _parts(rows.candidates)
    with Progress("ingest", sum(len(part) for part in parts), quiet=quiet) as progress:
        for index, part in enumerate(parts):
            key = digest_of([[image, repr(candidate)] for image, candidate in part])
            beside = run.beside(index, ".npz")
            if not (run.finished_part(index, key) and beside.exists()):
                made = _make_part(job, part)
                write_corners(beside, made.corners)
                run.write_part(index, key, made)
            progress.advance(len(part))
    copies = write_duplicates(run.folder, workspace.root, [run.beside(index, ".npz") for index in range(len(parts))], quiet)
    extra = {"rows_seen": rows.seen, "images_without_rows": _unused_images(job.tree, rows), **copies}
    summary = run.finish(len(parts), rows=rows.seen, before=PartResult([], rows.quarantine, rows.filtered), extra=extra)
    return {**summary, "state": "restarted with other options" if discarded else "done"}


def _dry_run(job: _Job, rows: Triage, quiet: bool) -> dict[str, Any]:
    quarantine, filtered, notes, out = [*rows.quarantine], [*rows.filtered], Counter[str](), 0
    with Progress("ingest (dry run)", len(rows.candidates), quiet=quiet) as progress:
        for part in _parts(rows.candidates):
            made = _make_part(job, part)
            out += len(made.records)
            quarantine += made.quarantine
            filtered += made.filtered
            notes.update(made.notes)
            progress.advance(len(part))
    total = rows.seen + notes["further_windows"]
    return {
        "state": "dry run: nothing was written",
        "rows_seen": rows.seen,
        "counts": {"in": total, "out": out, "quarantined": len(quarantine), "filtered": len(filtered)},
        "quarantined_by_code": dict(sorted(Counter(line["code"] for line in quarantine).items())),
        "filtered_by_code": dict(sorted(Counter(line["code"] for line in filtered).items())),
        "notes": dict(sorted(notes.items())),
    }


def _parts(candidates: Sequence[tuple[str, Candidate]]) -> list[list[tuple[str, Candidate]]]:
    """Cut the candidates, sorted by image, into parts of at least 64; an image's rows stay together."""
    parts: list[list[tuple[str, Candidate]]] = []
    ordered = sorted(candidates, key=lambda pair: pair[0])
    for index, pair in enumerate(ordered):
        if not parts or (len(parts[-1]) >= PART_RECORDS and ordered[index - 1][0] != pair[0]):
            parts.append([])
        parts[-1].append(pair)
    return parts


def _make_part(job: _Job, part: Sequence[tuple[str, Candidate]]) -> _Part:
    result = _Part([])
    for path, group in groupby(part, key=lambda pair: pair[0]):
        _ingest_image(job, job.tree.by_path[path], [candidate for _, candidate in group], result)
    return result


def _ingest_image(job: _Job, entry: Entry, candidates: Sequence[Candidate], result: _Part) -> None:
    """Read one image once and add the records of its rows, in every view that shows them."""
    try:
        with entry.open() as file:
            raster = read_raster(file, entry.path, bands=job.bands)
            file.seek(0)
            data = file.read() if raster.plain else b""
    except Refusal as reason:
        for candidate in candidates:
            row = candidate.row
            result.quarantine.append(quarantine_line(row.file, row.source_key, row.locator, reason, repr(row)))
        return
    if not suffix_fits(entry.name, raster.kind):
        _note(result, "image_suffix_differs_from_content")
    if candidates[0].row.record is not None:
        _add_whole(job, raster, data, candidates, result)
        return
    placed: list[tuple[str, Placed]] = []
    for tail, candidate in zip(object_names(candidates), candidates, strict=True):
        row = candidate.row
        try:
            placed.append((tail, place(candidate, raster, job.tree)))
        except Refusal as reason:
            result.quarantine.append(quarantine_line(row.file, row.source_key, row.locator, reason, repr(row)))
    has_sentences = any(candidate.row.has_sentences for candidate in candidates)
    fit = choose_fit(job.fit, entry.name, raster.width, raster.height, has_sentences)
    made = views(fit, raster.width, raster.height)
    shown: dict[int, list[tuple[str, Placed]]] = {}
    for tail, item in placed:
        inside = [index for index, view in enumerate(made) if fit != "window" or shows(view, [target.box for target in item.targets])]
        for index in inside:
            shown.setdefault(index, []).append((tail, item))
        row = item.candidate.row
        if not inside:
            detail = "no 512 x 512 window holds its centre and 70 % of it"
            result.filtered.append(filter_line(SetAside(row.file, row.source_key, row.locator, "cut_by_window", detail)))
        _note(result, "further_windows", max(0, len(inside) - 1))
    for index in sorted(shown):
        _add_view(job, entry, raster, data, made[index], shown[index], result)


def _add_whole(job: _Job, raster: Raster, data: bytes, candidates: Sequence[Candidate], result: _Part) -> None:
    """Add the records of an image of one of our releases, as they are."""
    content = data if raster.plain else encode_png(raster.pixels)
    digest, suffix, written = sha256_of(content), ".jpg" if raster.plain and raster.kind == "JPEG" else ".png", False
    for candidate in candidates:
        row = candidate.row
        assert row.record is not None, "the rows of an image come from one format"
        try:
            record = placed_whole(row.record, raster, suffix, digest)
        except Refusal as reason:
            result.quarantine.append(quarantine_line(row.file, row.source_key, row.locator, reason, repr(row)))
            continue
        if job.write and not written:
            _write_image(job.root / record.image.path, content)
            result.corners[record.image.path] = corners_of(at_source_scale(raster.pixels, record.placement))
            written = True
        result.records.append(record)


def _write_image(target: Path, content: bytes) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, target) from error
    write_durably(target, content)


def _add_view(
    job: _Job, entry: Entry, raster: Raster, data: bytes, view: View, placed: Sequence[tuple[str, Placed]], result: _Part
) -> None:
    pixels = render(view, raster.pixels)
    keep_bytes = view.fit == "keep" and raster.plain
    content = data if keep_bytes else encode_png(pixels)
    stem = view_name(job.stems[entry.path], view)
    path = f"images/{job.name}/{stem}{'.jpg' if keep_bytes and raster.kind == 'JPEG' else '.png'}"
    crs, transform, metres = view_transform(raster, view)
    stated = next((item.candidate.row.metres_per_pixel for _, item in placed if item.candidate.row.metres_per_pixel), None)
    if metres is None and stated is not None:
        metres = round(stated * view.affine[0], 6)
    image = ImageRef(
        path=path,
        width=pixels.shape[1],
        height=pixels.shape[0],
        sha256=sha256_of(content),
        source_path=entry.path,
        scene=scene_of(entry.name),
        perceptual_hash=perceptual_hash(pixels),
        metres_per_pixel=metres,
        crs=crs,
        transform=transform,
    )
    records: list[Record] = []
    for tail, item in placed:
        row = item.candidate.row
        identity = f"{job.name}/{stem}/{tail}"
        try:
            records.append(build_record(item, view, raster, image, record_id=identity, dataset=job.dataset, class_map=job.class_map))
        except Refusal as reason:
            result.quarantine.append(quarantine_line(row.file, row.source_key, row.locator, reason, repr(row)))
    for record in records:
        for repair in {repair.rule for target in record.targets for repair in target.repairs}:
            _note(result, f"repaired_{repair}")
    if records and job.write:
        _write_image(job.root / path, content)
        result.corners[path] = corners_of(at_source_scale(pixels, records[0].placement))
    result.records.extend(records)


def _note(result: PartResult, code: str, count: int = 1) -> None:
    if count:
        result.notes[code] = result.notes.get(code, 0) + count


def _unused_images(tree: SourceTree, rows: Triage) -> dict[str, Any]:
    used = {image for image, _ in rows.candidates} | {candidate.row.mask.path for _, candidate in rows.candidates if candidate.row.mask}
    if any(candidate.row.record for _, candidate in rows.candidates):
        return {"count": 0, "first": []}  # a release holds the same images once more in every format
    left = [entry.path for entry in tree.entries if entry.suffix in IMAGE_SUFFIXES and entry.path not in used]
    return {"count": len(left), "first": left[:20]}


def _add_refused_entries(tree: SourceTree, rows: Triage) -> None:
    for path, reason in tree.refused:
        rows.seen += 1
        rows.quarantine.append(quarantine_line(path, path, "file", reason, path))
