"""In which scale a source's boxes are written: pixels, shares, hundredths or thousandths of the sides.

Judged over all rows of a file and never row by row: a thousandth read as a hundredth looks like a dirty box, and "repairing" it
makes a record at a wrong place. What contradicts its scale is refused with the scale that it looks like and the option that reads it.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import copysign
from pathlib import PurePosixPath
from typing import Final, Literal, get_args

from risbench.core.errors import InvalidRowError, shortened
from risbench.core.record import Box, Quad
from risbench.core.sizes import Size
from risbench.formats.source.rows import GivenBox, GivenMask, Item, Refused, Row

Scale = Literal["pixels", "shares", "hundredths", "thousandths"]
SCALES: Final[tuple[Scale, ...]] = get_args(Scale)
Sizes = Mapping[str, Size]
_Placed = tuple[str, Box, Size]
BoxOrder = Literal["xywh", "xyxy"]
BOX_ORDERS: Final[tuple[BoxOrder, ...]] = get_args(BoxOrder)
_STEPS: Final[dict[Scale, float]] = {"shares": 1.0, "hundredths": 100.0, "thousandths": 1000.0}
# VRSBench's boxes are not clipped: its 36,313 training tokens run from -73 to 196 hundredths. Beyond one image on the left and two on
# the right, a number is no share of this image.
_FURTHEST: Final = (-1.02, 2.02)
_MANY: Final = 0.1
# Boxes in pixels are clipped or nearly so: of that many whose middle lies outside the picture, the numbers are not its pixels.
_OUTSIDE: Final = 0.2
_FEW: Final = 3
_BY_CHANCE: Final = 1e-3
# Objects of one image cluster: only images are independent of one another, and boxes of a part of the sides reach over most of its range.
_SEVERAL_IMAGES: Final = 4
_RANGE: Final = (0.3, 0.7)
_SAMPLED_IMAGES: Final = 40


@dataclass(frozen=True)
class Judged:
    """What was found of one file: the scale its boxes are read in, why they are refused, if they are, and what is doubtful of it."""

    file: str
    scale: str
    why: str = ""
    doubt: str = ""


class BoxScales:
    """Judges the rows of one file after another, and keeps what it found.

    `scale` and `order` are the user's word, which is taken; `size_of` returns a row's image size, (width, height), where that is known.
    """

    def __init__(
        self, scale: Scale | None = None, order: BoxOrder | None = None, size_of: Callable[[Row], Size | None] = lambda row: row.stated_size
    ) -> None:
        self._scale, self._order, self._size_of = scale, order, size_of
        self.found: list[Judged] = []

    def judged(self, file: str, items: Iterable[Item], *, corners: bool = False) -> Iterator[Item]:
        """Yield a file's items, its rows read in its scale or refused; all of them are read first. `corners`: its boxes may be xyxy."""
        held = list(items)
        rows = [item for item in held if isinstance(item, Row) and item.boxes and item.record is None]
        if corners and self._order == "xyxy":
            rows = [_as_corners(row) for row in rows]
        verdicts = {unit: self._verdict(unit, members, corners) for unit, members in _by_unit(rows).items()}
        self.found += [Judged(file, verdict.scale, verdict.why, verdict.doubt) for _, verdict in sorted(verdicts.items())]
        whole = all(_is_whole(row) for row in rows)
        in_shares = _polygons_are_relative(rows, self._scale)
        coming = iter(rows)
        for item in held:
            if isinstance(item, Row) and item.boxes and item.record is None:
                row = next(coming)
                yield _read(row, verdicts[_unit(row)], self._scale, whole, in_shares)
            else:
                yield item

    def said(self) -> list[str]:
        """Return one line for each file, or for each folder and scale where there are many."""
        if len(self.found) <= 3:
            return [_said_of_file(one) for one in self.found]
        groups: dict[tuple[str, str, bool], list[Judged]] = {}
        for one in self.found:
            groups.setdefault((str(PurePosixPath(one.file).parent), one.scale, bool(one.why)), []).append(one)
        return [_said_of_group(folder, scale, members) for (folder, scale, _), members in sorted(groups.items())]

    def _verdict(self, unit: Scale, rows: Sequence[Row], corners: bool) -> _Verdict:
        asked = self._scale or unit
        sizes = functools.cache(lambda: self._some_sizes(rows))
        if asked != "pixels":
            why = _beyond(rows, unit, asked, self._scale is not None, sizes)
        elif self._scale is not None:
            why = None
        else:
            # Two corners first: read as x, y, width, height they lie outside the image, as numbers of another scale do.
            why = (_corner_fault(rows, sizes()) if corners and self._order is None else None) or _pixel_fault(rows, sizes)
        code, reason = why or ("", "")
        doubt = _doubt(rows, sizes) if asked == "pixels" and self._scale is None and why is None else ""
        return _Verdict(asked + (", as asked" if self._scale else ""), reason, code, doubt)

    def _some_sizes(self, rows: Sequence[Row]) -> Sizes:
        """Return the sizes of some of the rows' images, by reference."""
        sizes: dict[str, Size] = {}
        references = list(dict.fromkeys(row.image for row in rows))
        some = set(references[:: max(1, len(references) // _SAMPLED_IMAGES)][:_SAMPLED_IMAGES])
        for row in rows:
            if row.image in some and row.image not in sizes and (size := row.stated_size or self._size_of(row)) is not None:
                sizes[row.image] = size
        return sizes


@dataclass(frozen=True)
class _Verdict:
    scale: str
    why: str = ""
    code: str = ""
    doubt: str = ""


def _said_of_file(one: Judged) -> str:
    return f"boxes of {one.file}: {one.scale}" + (f"; refused: {one.why}" if one.why else f"; {one.doubt}" if one.doubt else "")


def _said_of_group(folder: str, scale: str, members: Sequence[Judged]) -> str:
    where = members[0].file if len(members) == 1 else f"{len(members):,} files in {folder}"
    reasons = Counter(one.why for one in members if one.why)
    doubts = [one.doubt for one in members if one.doubt]
    doubtful = f"; in {len(doubts):,} of them, such as: {doubts[0]}" if len(doubts) > len(members) / 2 else ""
    return f"boxes of {where}: {scale}" + (f"; refused, such as: {reasons.most_common(1)[0][0]}" if reasons else doubtful)


def _unit(row: Row) -> Scale:
    """Return the scale that a row's format has its boxes in."""
    box = row.boxes[0]
    return "pixels" if not box.relative else "hundredths" if box.precision == "token" else "shares"


def _by_unit(rows: Sequence[Row]) -> dict[Scale, list[Row]]:
    groups: dict[Scale, list[Row]] = {}
    for row in rows:
        groups.setdefault(_unit(row), []).append(row)
    return groups


def _written(box: GivenBox) -> tuple[float, ...]:
    """Return the numbers that the file has: corners where it has four, and tokens without the half step that was added to them."""
    values = tuple(float(value) for value in ([part for point in box.quad for part in point] if box.quad is not None else box.box))
    if box.relative and box.precision == "token":
        return tuple(round(value * 100 - copysign(0.5, value), 6) for value in values)
    return values


def _is_whole(row: Row) -> bool:
    return all(value.is_integer() for box in row.boxes for value in _written(box))


def _name(unit: Scale) -> str:
    return {"hundredths": "tokens", "shares": "corners", "pixels": "boxes"}.get(unit, "boxes")


def _beyond(rows: Sequence[Row], unit: Scale, scale: Scale, asked: bool, sizes: Callable[[], Sizes]) -> tuple[str, str] | None:
    """Return why boxes of `scale`, a part of the sides, cannot be that; None where they can."""
    low, high = (_STEPS[scale] * bound for bound in _FURTHEST)
    boxes = [[value for box in row.boxes for value in _written(box)] for row in rows]
    far = sum(min(values) < low or max(values) > high for values in boxes)
    largest = max(max(values) for values in boxes)
    if far and far >= _MANY * len(boxes):
        looks = _looks(rows, largest, sizes(), scale)
        options = " or ".join(f"--box-scale {name}" for name in looks)
        like = f"these look like {' or '.join(looks)}" if looks else "these are of no scale that is known"
        has = f"{scale} are asked for" if asked else f"VRSBench has {scale}" + (" of the sides, 0-1" if scale == "shares" else "")
        reads = f"; {options} reads them" if looks else ""
        return "wrong_scale", f"{_name(unit)} up to {largest:g}: {like}; {has}{reads}"
    fractions = any(not value.is_integer() for values in boxes for value in values)
    if scale != "shares" and not asked and fractions and all(-0.05 <= value <= 1.05 for values in boxes for value in values):
        return "wrong_scale", f"all numbers lie in 0-1: these look like shares of the sides, not {scale}; --box-scale shares reads them"
    return None


def _looks(rows: Sequence[Row], largest: float, sizes: Sizes, scale: Scale) -> list[Scale]:
    """Return the scales that numbers beyond `scale` may be of, the likelier first."""
    named = [row for row in rows if row.image in sizes]
    fits = bool(named) and all(_reach(row, sizes[row.image]) <= 1.02 for row in named)
    looks: list[Scale] = []
    if scale == "shares" and largest <= 110:
        looks.append("hundredths")
    if 110 < largest <= 1010 and scale != "thousandths":
        looks.append("thousandths")
    if fits and largest > 1:
        looks.append("pixels")
    # full thousandths reach beyond images of fewer pixels: what never does, in many rows, is their pixels
    return looks[::-1] if fits and len(named) >= 8 and max(max(size) for size in sizes.values()) < 900 else looks


def _reach(row: Row, size: Size) -> float:
    """Return how far a row's numbers, as pixels, reach into or beyond its image, 1 at its right or lower edge."""
    flat = [_written(box) for box in row.boxes]
    return max(max(max(values[0::2]) / size[0], max(values[1::2]) / size[1]) for values in flat)


def _pixel_fault(rows: Sequence[Row], sizes: Callable[[], Sizes]) -> tuple[str, str] | None:
    """Return why numbers that should be pixels are none, None where they may be."""
    if all(-0.05 <= value <= 1.05 for row in rows for box in row.boxes for value in _written(box)):
        return "wrong_scale", (
            "every box is smaller than a pixel and all numbers lie in 0-1: these are shares of the sides, not pixels; "
            "--box-scale shares reads them, --box-scale pixels takes them as they are"
        )
    placed = _placed(rows, sizes())
    if len(placed) < _FEW:
        return None
    largest = max(max(box.box) for row in rows for box in row.boxes)
    narrow = _narrow(placed, largest)
    if narrow is not None and _is_of_all_images(placed, _STEPS[narrow]):
        return "wrong_scale", (
            f"{_reaches(placed, largest)}: these look like {narrow} of the sides, not pixels; "
            f"--box-scale {narrow} reads them, --box-scale pixels takes them as they are"
        )
    outside = [(box, size) for _, box, size in placed if not _holds_middle(box, size)]
    if len(outside) >= _FEW and len(outside) >= _OUTSIDE * len(placed):
        width, height = outside[0][1]
        looks = "thousandths of the sides (--box-scale thousandths reads them), or " if 500 < largest <= 1010 else ""
        return "wrong_scale", (
            f"{len(outside):,} of {len(placed):,} boxes have their middle outside the image, up to {largest:g} in {width} x {height} px: "
            f"these are not pixels of these pictures: {looks}pixels of larger pictures; --box-scale pixels takes them as they are"
        )
    return None


def _doubt(rows: Sequence[Row], sizes: Callable[[], Sizes]) -> str:
    """Return what to say of pixels that may be of another scale, where too little speaks for it to refuse them."""
    placed = _placed(rows, sizes())
    largest = max(max(box.box) for row in rows for box in row.boxes)
    narrow = _narrow(placed, largest) if len(placed) >= _FEW else None
    return f"{_reaches(placed, largest)}: if these are {narrow} of the sides, --box-scale {narrow} reads them" if narrow else ""


def _placed(rows: Sequence[Row], sizes: Sizes) -> list[_Placed]:
    """Return the (image, box, image's size) of the rows, each object once however many sentences it has, where the size is known."""
    found = ((row.image, box.box, sizes[row.image]) for row in rows if row.image in sizes for box in row.boxes)
    return list(dict.fromkeys(found))


def _reaches(placed: Sequence[_Placed], largest: float) -> str:
    width, height = placed[0][2]
    return f"no box reaches beyond {largest:g}, in images of {width} x {height} px"


def _narrow(placed: Sequence[_Placed], largest: float) -> Scale | None:
    """Return the scale by whose range all boxes end, where that is odd for objects that lie anywhere in their images."""
    for scale in ("hundredths", "thousandths"):
        top = _STEPS[scale] + 0.5
        if top / 2 < largest <= top and _chance([size for _, _, size in placed], top) < _BY_CHANCE:
            return scale
    return None


def _is_of_all_images(placed: Sequence[_Placed], top: float) -> bool:
    """Return whether it is odd by several images, and the boxes reach over most of the range on both axes."""
    sizes = {image: size for image, _, size in placed}
    if len(sizes) < _SEVERAL_IMAGES or _chance(list(sizes.values()), top) >= _BY_CHANCE:
        return False
    low, high = (top * share for share in _RANGE)
    sides = [[(box[axis], box[axis + 2]) for _, box, _ in placed] for axis in (0, 1)]
    return all(min(first for first, _ in ends) <= low and max(last for _, last in ends) >= high for ends in sides)


def _chance(sizes: Sequence[Size], top: float) -> float:
    """Return about how likely it is that one object anywhere in each image lies within `top` px of the upper left corner."""
    return math.prod(min(1.0, top / width) * min(1.0, top / height) for width, height in sizes[:60])


def _holds_middle(box: Box, size: Size) -> bool:
    return 0 <= (box[0] + box[2]) / 2 <= size[0] and 0 <= (box[1] + box[3]) / 2 <= size[1]


def _corner_fault(rows: Sequence[Row], sizes: Sizes) -> tuple[str, str] | None:
    """Return why boxes that should be x, y, width, height look like two corners; None where they do not."""
    placed = [(box, size) for _, box, size in _placed(rows, sizes)]
    if not placed:
        return None
    corners = [(x, y, right - x, bottom - y) for (x, y, right, bottom), _ in placed]
    ordered = sum(right > x and bottom > y for x, y, right, bottom in corners)
    fitting = sum(right <= size[0] + 2 and bottom <= size[1] + 2 for (_, _, right, bottom), (_, size) in zip(corners, placed, strict=True))
    beyond = [max(box[2] / size[0], box[3] / size[1]) for box, size in placed]
    over = sum(reach > 1.02 for reach in beyond)
    enough = over >= _OUTSIDE * len(placed) if len(placed) >= _FEW else all(reach > 1.1 for reach in beyond)
    if not enough or min(ordered, fitting) < 0.95 * len(placed):
        return None
    return "wrong_box_order", (
        f"as x, y, width, height {over:,} of {len(placed):,} boxes reach beyond their image (up to {max(beyond):.2g} times its side), "
        "as two corners all fit: these look like x_min, y_min, x_max, y_max; --box-order xyxy reads them, --box-order xywh takes them as "
        "they are"
    )


def _as_corners(row: Row) -> Row:
    boxes = tuple(replace(box, box=(box.box[0], box.box[1], box.box[2] - box.box[0], box.box[3] - box.box[1])) for box in row.boxes)
    return replace(row, boxes=boxes)


def _polygons_are_relative(rows: Sequence[Row], scale: Scale | None) -> bool:
    """Return whether the masks' polygons are in the scale that was asked for, as the boxes are."""
    if scale is None or scale == "pixels":
        return False
    values = [value for row in rows if row.mask is not None for polygon in row.mask.polygons or () for value in polygon]
    return bool(values) and max(values) <= _FURTHEST[1] * _STEPS[scale]


def _read(row: Row, verdict: _Verdict, scale: Scale | None, whole: bool, relative_polygons: bool) -> Item:
    """Return a row in its file's scale, or the refusal of it."""
    if verdict.why:
        reason = InvalidRowError(verdict.code, "box", list(_written(row.boxes[0])), verdict.why)
        return Refused(row.file, row.source_key, row.locator, reason, shortened(row))
    if scale is not None:
        row = replace(row, boxes=tuple(_rescaled(box, scale, whole) for box in row.boxes), mask=_mask(row.mask, scale, relative_polygons))
    far = next((box for box in row.boxes if box.relative and not all(_FURTHEST[0] <= value <= _FURTHEST[1] for value in box.box)), None)
    if far is not None:
        bound = "it reaches further beyond the image than its own side: it is in another scale than the file's other boxes, or is damaged"
        return Refused(
            row.file, row.source_key, row.locator, InvalidRowError("wrong_scale", "box", list(_written(far)), bound), shortened(row)
        )
    return row


def _rescaled(box: GivenBox, scale: Scale, whole: bool) -> GivenBox:
    """Return a box whose numbers are of `scale`; whole numbers of a part of the sides are cut off, so half a step is added to them."""
    if _unit_of(box) == scale:
        return box
    tokens = box.relative and box.precision == "token"

    def part(value: float) -> float:
        if tokens:
            value = round(value * 100 - copysign(0.5, value), 6)
        if scale == "pixels":
            return value
        half = copysign(0.5, value) if whole and scale != "shares" else 0.0
        return (value + half) / _STEPS[scale]

    x_min, y_min, x_max, y_max = (part(value) for value in box.box)
    quad: Quad | None = None
    if box.quad is not None:
        p, q, r, s = ((part(x), part(y)) for x, y in box.quad)
        quad = (p, q, r, s)
    if scale in ("pixels", "shares"):
        return replace(box, box=(x_min, y_min, x_max, y_max), quad=quad, relative=scale == "shares", precision="exact", quantum=None)
    quantum = 1 / _STEPS[scale] if whole else None
    return replace(
        box, box=(x_min, y_min, x_max, y_max), quad=quad, relative=True, precision="token" if whole else "exact", quantum=quantum
    )


def _unit_of(box: GivenBox) -> Scale:
    return "pixels" if not box.relative else "hundredths" if box.precision == "token" else "shares"


def _mask(mask: GivenMask | None, scale: Scale, relative: bool) -> GivenMask | None:
    if mask is None or mask.polygons is None or not relative:
        return mask
    polygons = tuple(tuple(value / _STEPS[scale] for value in polygon) for polygon in mask.polygons)
    return replace(mask, polygons=polygons, relative=True)
