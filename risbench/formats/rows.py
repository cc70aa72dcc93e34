"""What every reader returns: a row of a source, still in the source's own terms."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from risbench.core.errors import Refusal
from risbench.core.record import Box, Precision, Quad, Record

_SPLIT_WORD = re.compile(r"(?<![a-z])(train|val|valid|validation|dev|test|eval)(?![a-z])")


@dataclass(frozen=True)
class GivenBox:
    """One object's box as a source states it.

    `relative` boxes are shares of the image's width and height (0-1), others are pixels. `quantum` is
    the step of the source's rounding, as a share of the side; None where nothing was rounded.
    """

    box: Box
    precision: Precision
    relative: bool
    quad: Quad | None = None
    quantum: float | None = None
    object_id: str | None = None


@dataclass(frozen=True)
class Row:
    """One row of a source: at most one sentence, and the objects it is about.

    `file`, `source_key` and `locator` say where it stands; `image` is the reference as written.
    `mask` is set where the source has pixels. `fields` are the source's own
    attribute values by kind. An empty `dataset` or `category` is not stated by the source. Without `boxes`
    the box is the extent of `mask`. `stated_size` is the (width, height) in pixels of the image that its coordinates are of, where the
    source states one. `record` is set where the row is one of a release of ours, and then it is all that counts.
    """

    file: str
    source_key: str
    locator: str
    dataset: str
    image: str
    category: str
    boxes: tuple[GivenBox, ...]
    sentence: str | None = None
    sentence_origin: str = ""
    has_sentences: bool = True
    object_id: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    mask: GivenMask | None = None
    licence: str | None = None
    metres_per_pixel: float | None = None
    flagged: bool = False
    split: str | None = None
    stated_size: tuple[int, int] | None = None
    record: Record | None = None


@dataclass(frozen=True)
class GivenMask:
    """A mask that the source brings: a picture in the source tree, COCO RLE, or polygons in pixels (`relative`: in shares of the sides)."""

    path: str | None = None
    rle: tuple[tuple[int, int], str] | None = None
    polygons: tuple[tuple[float, ...], ...] | None = None
    relative: bool = False


@dataclass(frozen=True)
class Refused:
    """A row that cannot be used, with the reason and the raw line's sha256."""

    file: str
    source_key: str
    locator: str
    reason: Refusal
    raw: str
    rows: int = 1


@dataclass(frozen=True)
class SetAside:
    """A row that is well formed but not wanted, with the named rule that set it aside."""

    file: str
    source_key: str
    locator: str
    code: str
    detail: str


Item = Row | Refused | SetAside


def number(value: Any, name: str) -> float:
    """Return a finite number.

    Raises:
        Refusal: a string, a truth value, NaN or an infinite number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refusal("not_a_number", name, value, "it must be a number")
    try:
        as_float = float(value)
    except OverflowError:
        raise Refusal("not_finite", name, str(value)[:40], "it must be a finite number") from None
    if not math.isfinite(as_float):
        raise Refusal("not_finite", name, value, "it must be a finite number")
    if abs(as_float) > 1e7:
        raise Refusal("number_too_large", name, value, "coordinates beyond 10,000,000 are not of any image")
    return as_float


def numbers(value: Any, count: int, name: str) -> list[float]:
    """Return a list of `count` finite numbers.

    Raises:
        Refusal: not a list of that length, or a member is not a finite number.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or len(value) != count:
        raise Refusal("wrong_length", name, value, f"it must be a list of {count} numbers")
    return [number(item, f"{name}[{index}]") for index, item in enumerate(value)]


def text(row: Mapping[str, Any], name: str) -> str:
    """Return a string field.

    Raises:
        Refusal: the field is missing or not a string.
    """
    value = row.get(name)
    if not isinstance(value, str):
        raise Refusal("missing_field" if value is None else "not_a_string", name, value, "it must be a string")
    return value


def stated_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return the (width, height) that a source states of an image; None where it states none, or writes 0 or null for "not known"."""
    sides = []
    for value in (width, height):
        try:
            side = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else 0.0
        except (ValueError, OverflowError):
            return None
        if not 1 <= side <= 1e7:
            return None
        sides.append(round(side))
    return (sides[0], sides[1])


def stated_split(path: str) -> str | None:
    """Return the split that a file's name, else the nearest of its folders, is of: train, val, test ... None where none says."""
    for part in reversed(path.casefold().split("/")):
        if (words := _SPLIT_WORD.findall(part)) != []:
            return str(words[-1])
    return None
