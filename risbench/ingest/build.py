"""From a candidate row and its opened image to records in the views that show it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.attributes import attributes_of
from risbench.core.errors import InvalidRowError, printable
from risbench.core.geometry import apply_affine, invert_affine, is_oriented, map_box, map_quad, mask_bounds, repair_box
from risbench.core.imagery import Raster
from risbench.core.mask_scores import conflict, scores_of_given
from risbench.core.masks import encode_rle
from risbench.core.record import (
    Affine,
    Box,
    Category,
    Expression,
    ImageRef,
    Mask,
    Placement,
    Precision,
    Problem,
    Quad,
    Record,
    Repair,
    Source,
    Target,
)
from risbench.core.sizes import Size, SizeMatch, match_size
from risbench.core.storage import digest_of
from risbench.formats.source.given_mask import given_pixels
from risbench.formats.source.rows import GivenBox, Row
from risbench.formats.source.tree import SourceTree
from risbench.ingest.fit import View, render_mask
from risbench.ingest.merge import Candidate
from risbench.ingest.sentences import names_several, normalise
from risbench.ingest.triage import class_of

MIN_SIDE_PX: Final = 1.0


@dataclass(frozen=True)
class Placed:
    """A candidate whose boxes are repaired and in pixels of the source image."""

    candidate: Candidate
    targets: tuple[PlacedTarget, ...]
    mask: NDArray[np.bool_] | None
    conflict: Problem | None = None


@dataclass(frozen=True)
class PlacedTarget:
    """One target in pixels of the source image."""

    box: Box
    given: Box
    quad: Quad | None
    precision: Precision
    repairs: tuple[Repair, ...]
    object_id: str | None


def place(candidate: Candidate, raster: Raster, tree: SourceTree) -> Placed:
    """Return the candidate with boxes in pixels of its source image, repaired by the named rules.

    Raises:
        InvalidRowError: a box or mask that no rule repairs.
    """
    row = candidate.row
    found = (raster.width, raster.height)
    match = match_size(row.stated_size, found)
    mask, resized = None, None
    if row.mask is not None:
        mask, resized = given_pixels(row.mask, tree, raster.height, raster.width, row.image, row.stated_size, upright=raster.upright)
    boxes = row.boxes
    if not boxes:
        bounds = mask_bounds(mask) if mask is not None else None
        if bounds is None:
            raise InvalidRowError("empty_mask", "mask", row.mask.path if row.mask else None, "it must have at least one pixel")
        boxes, match = (GivenBox(bounds, "exact", False),), SizeMatch(repair=match.repair)
    match = replace(match, repair=match.repair or resized)
    turn = _turn_of(raster)
    targets = tuple(_place_box(box, found, match) for box in boxes)
    targets = tuple(replace(target, repairs=(*turn, *target.repairs)) if turn else target for target in targets)
    problem = conflict(mask, [target.box for target in targets]) if mask is not None and row.boxes else None
    return Placed(candidate, targets, mask, problem)


def _turn_of(raster: Raster) -> tuple[Repair, ...]:
    """Return the repair of an image whose pixels were turned upright, for each of its boxes; none where they were not."""
    if raster.turned_by == 1:
        return ()
    stored = "{} x {} px".format(*raster.stored_size)
    detail = (
        f"stored as {stored}, EXIF orientation {raster.turned_by}; the box is of the upright picture, {raster.width} x {raster.height} px"
    )
    return (Repair(rule="turned_upright", detail=detail),)


def _place_box(given: GivenBox, found: Size, match: SizeMatch) -> PlacedTarget:
    width, height = found
    scale: Affine = (float(width), 0.0, 0.0, 0.0, float(height), 0.0) if given.relative else match.affine
    # Not map_box: a swapped box must reach the repair rules as it is.
    (x_min, y_min), (x_max, y_max) = apply_affine(scale, *given.box[:2]), apply_affine(scale, *given.box[2:])
    in_pixels: Box = (x_min, y_min, x_max, y_max)
    quad = map_quad(scale, given.quad) if given.quad is not None else None
    quad = quad if quad and is_oriented(quad) else None
    box, repairs = repair_box(in_pixels, width, height, given.quantum)
    if given.quantum is None:  # a coarse step explains a box that rounding has closed
        _check_sides(given, box, quad, found)
    repairs = (match.repair, *repairs) if match.repair is not None else repairs
    return PlacedTarget(box, in_pixels, quad, given.precision, repairs, given.object_id)


def _check_sides(given: GivenBox, box: Box, quad: Quad | None, found: Size) -> None:
    """Refuse an object that no pixel can show.

    Raises:
        InvalidRowError: a side of what lies in the image, or the short side of the oriented box, is under one pixel.
    """
    sides = (box[2] - box[0], box[3] - box[1])
    if quad is not None:
        sides = (min(min(sides), min(cv2.minAreaRect(np.array(quad, np.float32))[1])), max(sides))
    if min(sides) >= MIN_SIDE_PX - 1e-6:
        return
    shares = not given.relative and all(0 <= value <= 1 for value in given.box)
    hint = "; all its numbers lie in 0-1: if these are shares of the sides, --box-scale shares reads them" if shares else ""
    bound = f"it is {sides[0]:.3g} x {sides[1]:.3g} px in the image of {found[0]} x {found[1]} px; each side must have at least 1 px{hint}"
    raise InvalidRowError("box_too_small", "box", given.box, bound)


def object_names(candidates: Sequence[Candidate]) -> list[str]:
    """Return what names each candidate within its image: its object id, or a hash of its sentence and boxes.

    Candidates that share a name carry a hash as well, all of them, so that no name depends on their order.
    """
    names = [candidate.row.object_id or content_hash(candidate) for candidate in candidates]
    finer: tuple[Callable[[Candidate], str], ...] = (content_hash, _exact_hash)
    for name_by in finer:
        counts = Counter(names)
        names = [
            name if counts[name] == 1 else f"{name}-{name_by(candidate)}" if name != name_by(candidate) else name
            for name, candidate in zip(names, candidates, strict=True)
        ]
    return names


def _exact_hash(candidate: Candidate) -> str:
    """Return a hash that also tells rows apart whose boxes are equal at the coarsest tier's step."""
    row = candidate.row
    return "r" + digest_of([row.file, row.source_key, [box.box for box in row.boxes], row.category])[:10]


def content_hash(candidate: Candidate) -> str:
    """Return 10 hex digits over a candidate's sentence, boxes and mask reference, led by h."""
    row = candidate.row
    # Boxes at the coarsest tier's step, so that a better form of the same box keeps the id.
    boxes = [[int(value * 100) if box.relative else round(value) for value in box.box] for box in row.boxes]
    mask = row.mask.path or row.mask.rle or row.mask.polygons if row.mask and not row.boxes else None
    return "h" + digest_of([normalise(row.sentence or ""), boxes, mask, row.category if not row.sentence else ""])[:10]


def build_record(
    placed: Placed,
    view: View,
    image: ImageRef,
    placement: Placement,
    *,
    record_id: str,
    dataset: str,
    class_map: Mapping[str, str],
) -> Record:
    """Return the record of a placed candidate in one view, which `image` and `placement` describe.

    Raises:
        InvalidRowError: nothing of a target is left inside the view.
    """
    row = placed.candidate.row
    into = invert_affine(view.affine)
    name, source_name = class_of(row, class_map)
    targets = tuple(_target(target, into, view) for target in placed.targets)
    expression = Expression(text=row.sentence, origin=row.sentence_origin) if row.sentence else None
    return Record(
        id=record_id,
        source=Source(
            dataset=row.dataset or dataset,
            file=row.file,
            source_key=row.source_key,
            object_id=row.object_id,
            licence=row.licence,
            split=row.split,
            merged=placed.candidate.merged,
        ),
        image=image,
        placement=placement,
        category=_category(name, source_name),
        targets=targets,
        attributes=attributes_of(name, row.sentence, row.fields),
        expression=expression,
        mask=_mask(placed.mask, view, targets, boxes_given=bool(row.boxes)),
        split=None,
        problems=_problems(placed, row),
    )


# Parts that many records share are made once.
@functools.lru_cache(maxsize=1 << 10)
def _category(name: str, source_name: str) -> Category:
    return Category(name=name, source_name=source_name)


@functools.lru_cache(maxsize=1 << 10)
def _no_expression(unread: str | None) -> Problem:
    return Problem(stage="ingest", code="no_expression", detail=_why_no_expression(unread))


def _problems(placed: Placed, row: Row) -> tuple[Problem, ...]:
    found = [placed.conflict] if placed.conflict is not None else []
    if not row.sentence:
        found.append(_no_expression(row.unread))
    elif len(placed.targets) == 1 and (several := names_several(row.sentence)) is not None:
        detail = f"the sentence means several objects ({several}) and has one box"
        found.append(Problem(stage="ingest", code="several_meant_one_box", detail=detail))
    return tuple(found)


def _why_no_expression(unread: str | None) -> str:
    if unread is not None:
        return f"a field {printable(unread, 60)} of the source seems to hold a sentence, and is not read"
    return "the source has no sentence for this object"


def _target(target: PlacedTarget, into: Affine, view: View) -> Target:
    box, repairs = map_box(into, target.box), target.repairs
    if view.fit == "window":
        box, cut = repair_box(box, *view.content, None)
        repairs = (*repairs, *(Repair(rule="cut_by_window", detail=repair.detail) for repair in cut))
    return Target(
        object_id=target.object_id,
        box=box,
        oriented_box=map_quad(into, target.quad) if target.quad is not None else None,
        box_given=target.given,
        box_precision=target.precision,
        repairs=repairs,
    )


def _mask(mask: NDArray[np.bool_] | None, view: View, targets: Sequence[Target], *, boxes_given: bool) -> Mask | None:
    if mask is None:
        return None
    seen = render_mask(view, mask)
    if not seen.any():
        raise InvalidRowError("empty_mask", "mask", "0 pixels", f"nothing of it is left in the {view.fit} view")
    size, counts = encode_rle(seen)
    return Mask(size=size, counts=counts, engine="source", round=0, scores=scores_of_given(seen, targets, boxes_given=boxes_given))


def placement_of(view: View, raster: Raster) -> Placement:
    """Return how the source image was brought to a view."""
    return Placement(fit=view.fit, source_width=raster.width, source_height=raster.height, affine=view.affine)


def view_transform(raster: Raster, view: View) -> tuple[str | None, Affine | None, float | None]:
    """Return CRS, pixel-to-CRS map and metres per pixel of a view."""
    metres = raster.metres_per_pixel
    a, b, c, d, e, f = view.affine
    if metres is not None:
        metres = round(metres * float(np.sqrt(abs(a * e - b * d))), 6)
    if raster.transform is None:
        return None, None, metres
    ta, tb, tc, td, te, tf = raster.transform
    combined: Affine = (ta * a + tb * d, ta * b + tb * e, ta * c + tb * f + tc, td * a + te * d, td * b + te * e, td * c + te * f + tf)
    return raster.crs, combined, metres
