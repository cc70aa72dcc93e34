"""Sorting a source's rows before any image is opened: refused, set aside by a named rule, or a candidate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from risbench.core.classes import CLASSES, find_class, to_class
from risbench.core.errors import InvalidRowError, printable, shortened
from risbench.core.record import Record
from risbench.core.unexpected import refusal_of
from risbench.formats.phrases import IMAGE_FOLDERS
from risbench.formats.source.rows import Item, Refused, Row, SetAside
from risbench.formats.source.tree import SourceTree
from risbench.ingest.merge import Candidate, merge_rows
from risbench.ingest.refusals import Refusals, filter_line
from risbench.ingest.sentences import check_text, clean_sentence, names_several, normalise, says_only_the_class
from risbench.ingest.whole import check_whole

MultiTarget = Literal["aside", "keep"]
Uninformative = Literal["filter", "keep"]
_IMAGE_FOLDERS = (*IMAGE_FOLDERS, "jpegimages", "images_train", "images_val")


@dataclass
class Triage:
    """What became of the rows: candidates with their image's path, and the two lists of the rest as JSON-able rows.

    `notes` counts images that are spelt otherwise than the source's rows spell them; `unread` counts rows by file and by the
    field of theirs that seems to hold a sentence and is not read.
    """

    candidates: list[tuple[str, Candidate]] = field(default_factory=list)
    refusals: Refusals = field(default_factory=Refusals)
    filtered: list[dict[str, Any]] = field(default_factory=list)
    seen: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    unread: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def quarantine(self) -> list[dict[str, Any]]:
        """The lines of the refused rows."""
        return self.refusals.lines


@dataclass
class Known:
    """Of whole records: the ids that there were, and what image lies at which place."""

    ids: set[str] = field(default_factory=set)
    images: dict[str, str] = field(default_factory=dict)


def triage(
    items: Iterable[Item],
    tree: SourceTree,
    *,
    multi_target: MultiTarget,
    uninformative: Uninformative,
    class_map: Mapping[str, str],
) -> Triage:
    """Sort rows. Every one of them ends in exactly one of the three lists."""
    result = Triage()
    rows: list[tuple[str, Row]] = []
    known = Known()
    for item in items:
        result.seen += item.rows if isinstance(item, Refused) else 1
        if isinstance(item, Refused):
            result.refusals.add(item.file, item.source_key, item.locator, item.reason, item.raw, item.rows)
        elif isinstance(item, SetAside):
            result.filtered.append(filter_line(item))
        else:
            try:
                _sort(item, tree, known, class_map, multi_target, rows, result)
            except Exception as error:  # noqa: BLE001 (refusal_of lets pass what is not about this row; the row is counted and logged)
                result.refusals.add(item.file, item.source_key, item.locator, refusal_of(error, item.file), shortened(item))
    candidates, merged = merge_rows(rows)
    result.filtered.extend(filter_line(aside) for aside in merged)
    for path, candidate in candidates:
        _check_class(candidate, class_map, path, result)
    if uninformative == "filter":
        _filter_uninformative(result)
    return result


def _sort(
    item: Row,
    tree: SourceTree,
    known: Known,
    class_map: Mapping[str, str],
    multi_target: MultiTarget,
    rows: list[tuple[str, Row]],
    result: Triage,
) -> None:
    """Add a row to the rows that may be merged, to the candidates where it is a whole record, or to what is set aside.

    Raises:
        InvalidRowError: it cannot be used.
    """
    if item.record is not None:
        result.candidates.append((_image_of_whole(item, item.record, tree, known), Candidate(item)))
        return
    row = _checked(item, class_map)
    image, note = tree.find_image_and_note(row.image, row.file, _IMAGE_FOLDERS)
    if note is not None:
        result.notes[note] += 1
    if row.unread is not None:
        result.unread[(row.file, row.unread)] += 1
    several = _several(row) if multi_target == "aside" else None
    if several is not None:
        result.filtered.append(filter_line(SetAside(row.file, row.source_key, row.locator, "multi_target", several)))
    else:
        rows.append((image.path, row))


def _image_of_whole(row: Row, record: Record, tree: SourceTree, known: Known) -> str:
    """Return the image's path of a row that is a whole record.

    Raises:
        InvalidRowError: the record cannot be used, its id or its image's place was taken before, or its image is missing.
    """
    check_whole(record)
    if record.id in known.ids:
        raise InvalidRowError("duplicate_id", "id", record.id, "another row of the source has this id")
    place = record.image.path.rpartition(".")[0].casefold()
    if known.images.setdefault(place, record.image.sha256) != record.image.sha256:
        raise InvalidRowError(
            "image_place_taken", "image.path", record.image.path, "another image is to lie there; read the sources one by one"
        )
    known.ids.add(record.id)
    return tree.find_image(row.image, folders=_IMAGE_FOLDERS, beside=row.file).path


def _how_to_map(category: str) -> str:
    """Return what to do about a class that is none of the 26; a number is most often of another column."""
    try:
        whole = float(category).is_integer()
    except (ValueError, OverflowError):
        return f"map it with --map-class '{printable(category, 40)}=CLASS'"
    if not whole:
        return "it is a number where a class name belongs: the columns or fields stand in another order than this format has them"
    return (
        "it is a number where a class name belongs: see whether the columns or fields stand in this format's order; only a source that "
        "numbers its classes is read with --map-class NUMBER=CLASS"
    )


def class_of(row: Row, class_map: Mapping[str, str]) -> tuple[str, str]:
    """Return (one of the 26 classes, the source's own name); rows without a class take it from the sentence.

    Raises:
        InvalidRowError: the name is none of the 26, or there is none.
    """
    if row.category:
        mapped = class_map.get(row.category) or to_class(row.category)
        if mapped is None:
            raise InvalidRowError(
                "unmapped_class",
                "category",
                row.category,
                f"it is none of the {len(CLASSES)} classes; {_how_to_map(row.category)}",
            )
        return mapped, row.category
    found = find_class(row.sentence or "")
    if found is None:
        raise InvalidRowError(
            "unmapped_class", "sentence", row.sentence, f"the row has no class and its sentence names none of the {len(CLASSES)}"
        )
    return found[1], found[0]


def _checked(row: Row, class_map: Mapping[str, str]) -> Row:
    if row.category:
        class_of(row, class_map)
    named = {"category": row.category, "object_id": row.object_id or "", "image": row.image, "source_key": row.source_key, **row.fields}
    for field_name, value in named.items():
        check_text(value, field_name)
    if row.sentence is None:
        return row
    cleaned = clean_sentence(row.sentence)
    return row if cleaned == row.sentence else replace(row, sentence=cleaned)


def _check_class(candidate: Candidate, class_map: Mapping[str, str], image: str, result: Triage) -> None:
    row = candidate.row
    try:
        class_of(row, class_map)
    except InvalidRowError as reason:
        result.refusals.add(row.file, row.source_key, row.locator, reason, shortened(row))
    else:
        result.candidates.append((image, candidate))


def _several(row: Row) -> str | None:
    if len(row.boxes) > 1:
        return f"{len(row.boxes)} boxes"
    return names_several(row.sentence) if row.sentence else None


def _filter_uninformative(result: Triage) -> None:
    sentences = Counter((image, normalise(candidate.row.sentence)) for image, candidate in result.candidates if candidate.row.sentence)
    kept = []
    for image, candidate in result.candidates:
        row = candidate.row
        rule = _uninformative(row, sentences[(image, normalise(row.sentence or ""))])
        if rule is None:
            kept.append((image, candidate))
        else:
            result.filtered.append(filter_line(SetAside(row.file, row.source_key, row.locator, rule[0], rule[1])))
    result.candidates = kept


def _uninformative(row: Row, alike: int) -> tuple[str, str] | None:
    """Return (rule, detail) where a row of a source with sentences says nothing that finds its object."""
    if not row.has_sentences or row.record is not None:
        return None
    if row.flagged and not row.fields.get("relative_position"):
        return "uninformative_flagged", "its producer flagged it as one of many alike"
    if not row.sentence:
        return "uninformative_empty", "the sentence is empty"
    if says_only_the_class(row.sentence):
        return "uninformative_class_only", f"the sentence is only {row.sentence!r}"
    if alike > 1:
        return "uninformative_not_unique", f"{alike} objects of the image have this sentence"
    return None
