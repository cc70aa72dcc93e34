"""One part of an ingest: each of its images read once, its rows placed, its views written, its records built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from risbench.core.errors import InvalidRowError, shortened
from risbench.core.imagery import Raster, encode_png, perceptual_hash, read_raster, suffix_fits
from risbench.core.overlap import Corners, at_source_scale, corners_of
from risbench.core.record import ImageRef, Record
from risbench.core.storage import PartResult, explain_os_error, sha256_of, write_durably
from risbench.core.unexpected import Unexpected, refusal_of
from risbench.formats.source.rows import SetAside
from risbench.formats.source.tree import Entry, SourceTree
from risbench.ingest.build import Placed, build_record, object_names, place, placement_of, view_transform
from risbench.ingest.fit import FitOption, View, choose_fit, render, shows, view_name, views
from risbench.ingest.merge import Candidate
from risbench.ingest.refusals import filter_line, quarantine_line
from risbench.ingest.scene import SceneRule
from risbench.ingest.whole import placed_whole


@dataclass
class Part(PartResult):
    """One part, the corners of its images, and the tracebacks of its reader errors by name."""

    corners: dict[str, Corners] = field(default_factory=dict)
    traces: dict[str, str] = field(default_factory=dict)

    def refuse(self, candidate: Candidate, error: Exception) -> None:
        """Quarantine a candidate's row.

        Raises:
            RisbenchError: the machine failed, which says nothing about the row.
        """
        row = candidate.row
        reason = refusal_of(error, row.file)
        if isinstance(reason, Unexpected):
            self.traces.setdefault(reason.trace_id, reason.trace)
        self.quarantine.append(quarantine_line(row.file, row.source_key, row.locator, reason, shortened(row)))

    def add(self, other: Part) -> None:
        """Take over what another part holds."""
        self.records += other.records
        self.quarantine += other.quarantine
        self.filtered += other.filtered
        self.corners.update(other.corners)
        self.traces.update(other.traces)
        for code, count in other.notes.items():
            note(self, code, count)


@dataclass(frozen=True)
class Job:
    """All that one part of the run needs besides its rows."""

    tree: SourceTree
    root: Path
    name: str
    dataset: str
    fit: FitOption
    bands: tuple[int, ...] | None
    class_map: Mapping[str, str]
    stems: Mapping[str, str]
    scenes: SceneRule
    upright: bool
    write: bool


def make_part(job: Job, part: Sequence[tuple[str, Candidate]]) -> Part:
    """Return what becomes of the rows of a part's images; an image that cannot be read takes its own rows with it, and no others.

    Raises:
        RisbenchError: the machine failed.
    """
    result = Part([])
    for path, group in groupby(part, key=lambda pair: pair[0]):
        candidates, image = [candidate for _, candidate in group], Part([])
        try:
            _ingest_image(job, job.tree.by_path[path], candidates, image)
        except Exception as error:  # noqa: BLE001 (each row of the image is refused, counted and logged; what it had made is dropped)
            image = Part([])
            for candidate in candidates:
                image.refuse(candidate, error)
        result.add(image)
    return result


def _ingest_image(job: Job, entry: Entry, candidates: Sequence[Candidate], result: Part) -> None:
    """Read one image once and add the records of its rows, in every view that shows them.

    Raises:
        InvalidRowError: the image cannot be read.
    """
    with entry.open() as file:
        raster = read_raster(file, entry.path, bands=job.bands, upright=job.upright)
        file.seek(0)
        data = file.read() if raster.plain else b""
    for code in raster.notes:
        note(result, code)
    if not suffix_fits(entry.name, raster.kind):
        note(result, "image_suffix_differs_from_content")
    if candidates[0].row.record is not None:
        _add_whole(job, raster, data, candidates, result)
        return
    placed: list[tuple[str, Placed]] = []
    for tail, candidate in zip(object_names(candidates), candidates, strict=True):
        try:
            placed.append((tail, place(candidate, raster, job.tree)))
        except Exception as error:  # noqa: BLE001 (the row is refused, counted and logged)
            result.refuse(candidate, error)
    has_sentences = any(candidate.row.has_sentences for candidate in candidates)
    fit = choose_fit(job.fit, job.scenes.is_window(entry.path), raster.width, raster.height, has_sentences)
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
        note(result, "further_windows", max(0, len(inside) - 1))
    for index in sorted(shown):
        _add_view(job, entry, raster, data, made[index], shown[index], result)


def _add_whole(job: Job, raster: Raster, data: bytes, candidates: Sequence[Candidate], result: Part) -> None:
    """Add the records of an image of one of our releases, as they are."""
    content = data if raster.plain else encode_png(raster.pixels)
    digest, suffix, written = sha256_of(content), ".jpg" if raster.plain and raster.kind == "JPEG" else ".png", False
    for candidate in candidates:
        row = candidate.row
        assert row.record is not None, "the rows of an image come from one format"
        try:
            record = placed_whole(row.record, raster, suffix, digest)
        except InvalidRowError as reason:
            result.refuse(candidate, reason)
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


def _add_view(job: Job, entry: Entry, raster: Raster, data: bytes, view: View, placed: Sequence[tuple[str, Placed]], result: Part) -> None:
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
        scene=job.scenes.scene(entry.path, job.stems[entry.path]),
        perceptual_hash=perceptual_hash(pixels),
        metres_per_pixel=metres,
        crs=crs,
        transform=transform,
    )
    placement = placement_of(view, raster)
    records: list[Record] = []
    for tail, item in placed:
        identity = f"{job.name}/{stem}/{tail}"
        try:
            records.append(build_record(item, view, image, placement, record_id=identity, dataset=job.dataset, class_map=job.class_map))
        except Exception as error:  # noqa: BLE001 (the row is refused, counted and logged)
            result.refuse(item.candidate, error)
    for record in records:
        for repair in {repair.rule for target in record.targets for repair in target.repairs}:
            note(result, f"repaired_{repair}")
    if records and job.write:
        _write_image(job.root / path, content)
        result.corners[path] = corners_of(at_source_scale(pixels, records[0].placement))
    result.records.extend(records)


def note(result: PartResult, code: str, count: int = 1) -> None:
    """Count something that is worth knowing of a part."""
    if count:
        result.notes[code] = result.notes.get(code, 0) + count
