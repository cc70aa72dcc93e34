"""`risbench ingest`: a source of boxes and sentences becomes records on 512 x 512 images in a workspace."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

from risbench.core.errors import InputError, OptionError
from risbench.core.processes import collecting_rarely
from risbench.core.progress import Progress
from risbench.core.reading import read_json
from risbench.core.storage import PartResult, StageRun, digest_of, to_json, versions, write_durably
from risbench.core.unexpected import ERRORS_LOG
from risbench.core.workspace import INGEST, SETTINGS_FILE, Settings, Workspace
from risbench.formats.detect import check_box_options, choose_format, explain, files_by_format, forms_of, read_source, size_of_image
from risbench.formats.registry import INPUT_FORMATS
from risbench.formats.source.archives import is_zip
from risbench.formats.source.rows import Item
from risbench.formats.source.scale import BoxOrder, BoxScales, Scale
from risbench.formats.source.tree import IMAGE_SUFFIXES, Entry, SourceTree
from risbench.ingest.duplicates import write_corners, write_duplicates
from risbench.ingest.fit import FitOption, image_stems
from risbench.ingest.merge import Candidate
from risbench.ingest.part import Job, Part, make_part
from risbench.ingest.plan import Exif, check_options, check_scale, dataset_name, inputs_of, read_class_map, slug_of
from risbench.ingest.refusals import Line, NothingRead, count_codes, nothing_read, rows_of, write_errors_log
from risbench.ingest.scene import SceneRule
from risbench.ingest.triage import MultiTarget, Triage, Uninformative, triage

PART_RECORDS: Final = 64
# One more whenever the same source comes to other records or duplicates: what was ingested before is no longer up to date.
REVISION: Final = 4


@collecting_rarely()
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
    scene: str = "auto",
    follow_links: bool = False,
    exif: Exif = "upright",
    box_scale: Scale | None = None,
    box_order: BoxOrder | None = None,
    dry_run: bool = False,
    replace: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Read `source` (folder, zip or file) into stage 1 of the workspace and return the run's summary.

    The same call goes on where an interrupted one stopped; after a finished one it changes nothing. `limit` takes
    the first rows only. `scene` says what a scene is (`SceneRule`), `follow_links` reads what links lead to outside the source.
    `exif`: pictures are turned "upright" as their EXIF orientation says, or read as "stored".
    `box_scale` and `box_order` say how a source writes its boxes, which is judged by file otherwise (`formats/scale`).
    `dry_run` does all the work and writes nothing. `quarantined_by_code` counts under `reader_error` what a fault of ours
    kept from being read; the tracebacks are in 1-ingest/errors.log.

    Raises:
        OptionError: an option's value is not one of those named, or the option says nothing of such a source.
        InputError: the source cannot be read at all, gives no record, or the workspace holds another source's records.
        MissingRequirementError: the disk is full, or a file cannot be read by a failure of the machine.
        BusyError: another run holds the workspace.
    """
    check_options(fit, multi_target, uninformative, exif, limit)
    check_scale(box_scale, box_order)
    class_map = read_class_map(map_class)
    scenes = SceneRule(scene)
    with Progress("ingest: read", 0, quiet=quiet) as reading:
        tree = SourceTree.open(source, images, follow_links=follow_links)
        only = _single_file(Path(source), tree)
        if Path(source).resolve() == Path(workspace).resolve():
            raise OptionError(f"-w {workspace}: the source cannot be its own workspace; name another folder with -w")
        kind, files, said = choose_format(tree, format, only)
        check_box_options(kind, files, box_scale, box_order)
        scales = BoxScales(box_scale, box_order, partial(size_of_image, tree, upright=exif == "upright"))
        items: Iterable[Item] = reading.counting(read_source(tree, kind, files, class_field, scales))
        sorted_rows = triage(
            items if limit is None else islice(items, limit),
            tree,
            multi_target=multi_target,
            uninformative=uninformative,
            class_map=class_map,
        )
        _add_refused_entries(tree, sorted_rows)
    more = partial(_forms_left, tree, files)
    if not sorted_rows.candidates:
        folder = Path(workspace) / INGEST
        traces = sorted_rows.refusals.traces if not dry_run and not (folder / "run.json").exists() else {}
        if traces:
            write_errors_log(folder, sorted_rows.quarantine, traces)
        log = folder / ERRORS_LOG if traces else None
        raise nothing_read(tree.root, sorted_rows.seen, sorted_rows.quarantine, sorted_rows.filtered, more(), log)
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
        "scene": scene,
        "follow_links": follow_links,
        "exif": exif,
        "box_scale": box_scale,
        "box_order": box_order,
    }
    plan = {
        "command": "ingest",
        "revision": REVISION,
        "format": kind,
        "options": options,
        "inputs": inputs_of(tree, files, sorted_rows),
        "versions": versions("pillow", "rasterio"),
    }
    job = Job(
        tree=tree,
        root=Path(workspace),
        name=slug,
        dataset=dataset,
        fit=fit,
        bands=tuple(bands) if bands else None,
        class_map=class_map,
        stems=image_stems(image for image, _ in sorted_rows.candidates),
        scenes=scenes,
        upright=exif == "upright",
        write=not dry_run,
    )
    told = {"said": said, "boxes": scales.said(), **_assumed(job, sorted_rows)}
    if dry_run:
        return {**told, **_dry_run(job, sorted_rows, more, quiet)}
    fresh = not (Path(workspace) / SETTINGS_FILE).exists()
    opened = Workspace.create(workspace, Settings(name=slug))
    try:
        with opened.lock("ingest"):
            return {**told, **_run(job, opened, plan, sorted_rows, more, replace, quiet)}
    except NothingRead:
        if fresh:
            _remove_fresh(opened)
        raise


def explain_source(source: Path | str, *, images: Path | str | None = None, follow_links: bool = False) -> dict[str, Any]:
    """Return for every input format which files of a source are read as it, or why the source is not in it; nothing is read or written.

    Raises:
        InputError: the source cannot be read at all.
    """
    tree = SourceTree.open(source, images, follow_links=follow_links)
    only = _single_file(Path(source), tree)
    return {"source": str(tree.root), "formats": explain(tree, only), "left_out": list(INPUT_FORMATS.broken)}


def _assumed(job: Job, rows: Triage) -> dict[str, Any]:
    """Return what was assumed of the source and what of it was not read, to be shown."""
    images = {image: job.stems[image] for image, candidate in rows.candidates if candidate.row.record is None}
    unread = [{"file": file, "field": name, "rows": count} for (file, name), count in sorted(rows.unread.items())]
    return {
        "scene": job.scenes.said(images) if images else None,
        "unread_sentences": unread,
        "passed_over": job.tree.passed_over,
    }


def _forms_left(tree: SourceTree, files: Sequence[Entry]) -> str:
    """Return, for a source that gives no record, the forms that are not read which its other files are in."""
    read = {entry.path for entry in files}
    said = forms_of((entry for entry in tree.entries if entry.path not in read), files_by_format(tree))
    return f"; beside them {said}" if said else ""


def _remove_fresh(workspace: Workspace) -> None:
    """Remove what a run that read nothing has made of a workspace that was not there before; what others put there stays."""
    for name in (SETTINGS_FILE, ".lock"):
        (workspace.root / name).unlink(missing_ok=True)
    if not any(workspace.root.iterdir()):
        workspace.root.rmdir()


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


def _run(
    job: Job, workspace: Workspace, plan: dict[str, Any], rows: Triage, more: Callable[[], str], replace: bool, quiet: bool
) -> dict[str, Any]:
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
            _run_part(job, run, index, part)
            progress.advance(len(part))
    kept = [run.beside(index, ".npz") for index in range(len(parts))]
    before = PartResult([], rows.quarantine, rows.filtered, dict(rows.notes))
    if not any(path.stat().st_size for path in run.folder.glob("part-*.jsonl")):
        raise _nothing_made(job, run, len(parts), rows, more)
    copies = write_duplicates(run.folder, workspace.root, kept, quiet)
    traces = _traces_of(run, len(parts), rows)
    write_errors_log(run.folder, _lines_of(run, len(parts), rows.quarantine, "quarantine") if traces else (), traces)
    extra = {"rows_seen": rows.seen, "images_without_rows": _unused_images(job.tree, rows), **copies}
    summary = run.finish(len(parts), rows=rows.seen, before=before, extra=extra)
    return {**summary, "state": "restarted with other options" if discarded else "done"}


def _run_part(job: Job, run: StageRun, index: int, part: Sequence[tuple[str, Candidate]]) -> None:
    """Make a part, or keep it where it is finished; what lies beside it is written first."""
    key = digest_of([[image, repr(candidate)] for image, candidate in part])
    corners, traces = run.beside(index, ".npz"), run.beside(index, ".errors.json")
    if run.finished_part(index, key) and corners.exists():
        return
    made = make_part(job, part)
    write_corners(corners, made.corners)
    traces.unlink(missing_ok=True)
    if made.traces:
        write_durably(traces, to_json(made.traces))
    run.write_part(index, key, made)


def _traces_of(run: StageRun, parts: int, rows: Triage) -> dict[str, str]:
    """Return the tracebacks of reader errors, of rows and of parts, by name."""
    traces = dict(rows.refusals.traces)
    for path in (run.beside(index, ".errors.json") for index in range(parts)):
        if path.exists():
            traces |= _traces_in(path)
    return traces


def _traces_in(path: Path) -> dict[str, str]:
    """Return the tracebacks that a part kept, by name.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return {str(name): str(trace) for name, trace in read_json(path).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: is damaged ({error}); remove {path.parent.parent} and run ingest again") from None


def _lines_of(run: StageRun, parts: int, before: Sequence[Line], kind: Literal["quarantine", "filtered"]) -> list[Line]:
    """Return the lines of all rows that were refused or set aside, `before` the parts were cut and in them."""
    return [*before, *(line for index in range(parts) for line in run.progress_of(index)[kind])]


def _nothing_made(job: Job, run: StageRun, parts: int, rows: Triage, more: Callable[[], str]) -> NothingRead:
    """Remove the stage of a run whose rows were all refused by their images; return why."""
    quarantine = _lines_of(run, parts, rows.quarantine, "quarantine")
    filtered = _lines_of(run, parts, rows.filtered, "filtered")
    traces = _traces_of(run, parts, rows)
    shutil.rmtree(run.folder)
    write_errors_log(run.folder, quarantine, traces)
    return nothing_read(job.tree.root, rows.seen, quarantine, filtered, more(), run.folder / ERRORS_LOG if traces else None)


def _dry_run(job: Job, rows: Triage, more: Callable[[], str], quiet: bool) -> dict[str, Any]:
    done = Part([], [*rows.quarantine], [*rows.filtered], dict(rows.notes), traces=dict(rows.refusals.traces))
    out, problems = 0, Counter[str]()
    with Progress("ingest (dry run)", len(rows.candidates), quiet=quiet) as progress:
        for part in _parts(rows.candidates):
            made = make_part(job, part)
            out += len(made.records)
            problems.update(problem.code for record in made.records for problem in record.problems)
            made.records.clear()
            made.corners.clear()
            done.add(made)
            progress.advance(len(part))
    if not out:
        raise nothing_read(job.tree.root, rows.seen, done.quarantine, done.filtered, more(), None)
    total = rows.seen + done.notes.get("further_windows", 0)
    return {
        "state": "dry run: nothing was written",
        "rows_seen": rows.seen,
        "counts": {"in": total, "out": out, "quarantined": rows_of(done.quarantine), "filtered": rows_of(done.filtered)},
        "quarantined_by_code": count_codes(done.quarantine),
        "filtered_by_code": count_codes(done.filtered),
        "problems_by_code": dict(sorted(problems.items())),
        "notes": dict(sorted(done.notes.items())),
        "tracebacks": [done.traces[name] for name in sorted(done.traces)],
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


def _unused_images(tree: SourceTree, rows: Triage) -> dict[str, Any]:
    used = {image for image, _ in rows.candidates} | {candidate.row.mask.path for _, candidate in rows.candidates if candidate.row.mask}
    if any(candidate.row.record for _, candidate in rows.candidates):
        return {"count": 0, "first": []}  # a release holds the same images once more in every format
    left = [entry.path for entry in tree.entries if entry.suffix in IMAGE_SUFFIXES and entry.path not in used]
    return {"count": len(left), "first": left[:20]}


def _add_refused_entries(tree: SourceTree, rows: Triage) -> None:
    for path, reason in tree.refused:
        rows.seen += 1
        rows.refusals.add(path, path, "file", reason, path)
