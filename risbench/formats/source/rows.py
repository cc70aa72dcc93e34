"""What every reader returns: a row of a source, still in the source's own terms."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from risbench.core.errors import InvalidRowError, shortened, typed
from risbench.core.record import Box, Precision, Quad, Record
from risbench.core.unexpected import refusal_of

# In pixels: no image is as wide.
LARGEST: Final = 1e7
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
    `unread` names a field that seems to hold a sentence and is not read.
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
    unread: str | None = None


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
    reason: InvalidRowError
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

# Fields by which data sets call a sentence, and how many words a text has at least to be one; other fields need more.
_SENTENCE_NAME = re.compile(
    r"caption|sentence|descri|phrase|express|refer|query|question|utterance|instruction|prompt|comment|(?:^|_)(?:text|ref|sent|raw)(?:$|_)"
)
_NO_SENTENCE = re.compile(r"licen[cs]e|copyright|file|path|url|uri|date|time|source|address|author|creator|segmentation")
_FEWEST_WORDS, _FEWEST_OTHER = 2, 5
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]{4,}")


def unread_sentence(fields: Mapping[Any, Any], category: str = "") -> str | None:
    """Return the name of the first field that seems to hold a sentence, None where none does; the class itself is none."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            inner = unread_sentence({key: item for key, item in value.items() if not isinstance(item, Mapping)}, category)
            if inner is not None:
                return f"{name}.{inner}"
            continue
        if not value or not isinstance(value, (str, list)) or (isinstance(value, list) and not isinstance(value[0], (str, Mapping))):
            continue
        texts = value[:100] if isinstance(value, list) else [value]
        words = max((_words(item, category) for item in texts), default=0)
        named = _SENTENCE_NAME.search(str(name).casefold()) is not None
        if words >= (_FEWEST_WORDS if named else _FEWEST_OTHER) and _NO_SENTENCE.search(str(name).casefold()) is None:
            return str(name)
    return None


def _words(value: Any, category: str) -> int:
    """Return how many words a text has, or the longest text of an object; the class counts as none."""
    if isinstance(value, Mapping):
        return max((_words(item, category) for item in value.values() if isinstance(item, str)), default=0)
    if not isinstance(value, str) or value.strip().casefold() == category.strip().casefold():
        return 0
    text = value[:2000]
    # Chinese, Japanese and Thai have no spaces between words, which are about two letters long
    return len(re.findall(r"[^\W\d_]{2,}", text)) + sum(len(run) // 2 - 1 for run in _UNSPACED.findall(text))


def guarded(make: Callable[[], Item], file: str, key: str, locator: str, raw: str | Callable[[], str]) -> Item:
    """Return the item that `make` makes of one row, or why there is none; no exception of one row ends the others.

    `raw` is what the row holds, or makes it where it is wanted.

    Raises:
        RisbenchError: the machine failed, which is no fact about the row.
    """
    try:
        return make()
    except Exception as error:  # noqa: BLE001 (refusal_of lets pass what is not about this row, and nothing is lost: it is counted and logged)
        return Refused(file, key, locator, refusal_of(error, file), raw if isinstance(raw, str) else raw())


def guarded_file(items: Iterator[Item], file: str) -> Iterator[Item]:
    """Yield a file's items; an exception between two rows is one refusal of the file, at the place that was reached.

    Raises:
        RisbenchError: the machine failed.
    """
    rows = 0
    try:
        for item in items:
            rows += 1
            yield item
    except Exception as error:  # noqa: BLE001 (as in guarded)
        yield Refused(file, file, "file" if rows == 0 else f"file, after {rows:,} rows", refusal_of(error, file), file)


def key_text(value: object) -> str:
    """Return a source's id or key as text, shortened where it is neither text nor a usual number."""
    return value if isinstance(value, str) else shortened(value)


def number(value: Any, name: str) -> float:
    """Return a finite number.

    Raises:
        InvalidRowError: a string, a truth value, NaN or an infinite number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidRowError("not_a_number", name, typed(value), "it must be a number")
    try:
        as_float = float(value)
    except OverflowError:
        raise InvalidRowError("not_finite", name, shortened(value), "it must be a finite number") from None
    if not math.isfinite(as_float):
        raise InvalidRowError("not_finite", name, value, "it must be a finite number")
    if abs(as_float) > LARGEST:
        raise InvalidRowError("number_too_large", name, value, f"coordinates beyond {LARGEST:,.0f} are not of any image")
    return as_float


def numbers(value: Any, count: int, name: str) -> list[float]:
    """Return a list of `count` finite numbers.

    Raises:
        InvalidRowError: not a list of that length, or a member is not a finite number.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or len(value) != count:
        found = f"a list of {len(value)}" if isinstance(value, (list, tuple)) else typed(value)
        raise InvalidRowError("wrong_length", name, value, f"it must be a list of {count} numbers, not {found}")
    return [number(item, f"{name}[{index}]") for index, item in enumerate(value)]


def text(row: Mapping[str, Any], name: str) -> str:
    """Return a string field.

    Raises:
        InvalidRowError: the field is missing or not a string.
    """
    value = row.get(name)
    if not isinstance(value, str):
        raise InvalidRowError(
            "missing_field" if value is None else "not_a_string", name, None if value is None else typed(value), "it must be text"
        )
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


@functools.lru_cache(maxsize=1 << 14)
def stated_split(path: str) -> str | None:
    """Return the split that a file's name, else the nearest of its folders, is of: train, val, test ...

    None where no part of the path says, or the nearest that does names several (`train_and_val.json`).
    """
    for part in reversed(path.casefold().split("/")):
        words = {"val" if word in ("valid", "validation") else str(word) for word in _SPLIT_WORD.findall(part)}
        if words:
            return words.pop() if len(words) == 1 else None
    return None
