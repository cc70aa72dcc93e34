"""Boxes in pixels of their image: CSV with named columns, and Pascal VOC."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeTree

from risbench.core.errors import InvalidRowError, shortened
from risbench.core.sizes import Size
from risbench.formats.source.rows import GivenBox, Item, Refused, Row, guarded, number, stated_size, unread_sentence
from risbench.formats.source.text import decoded
from risbench.formats.source.tree import Entry

DATASET: Final = "geotiff"
_SIDES: Final = ("xmin", "ymin", "xmax", "ymax")
_IMAGE_COLUMNS: Final = ("image_path", "image", "filename", "file_name")
_CLASS_COLUMNS: Final = ("label", "class", "category", "name")
_SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LONGEST_CELL: Final = 1 << 24
# Boxes reach a little over their image's border, and a few of a file are mistyped.
_OVER_PX: Final = 2
_HELD: Final = 0.9
# Elements of an object that hold its box in a form that is not read, and whose form that is.
_OTHER_BOXES: Final = {
    "robndbox": "an oriented box as roLabelImg and DIOR-R write it (robndbox)",
    "rotated_bndbox": "an oriented box (rotated_bndbox)",
    "points": "a polygon as FAIR1M writes it (points)",
    "polygon": "a polygon (polygon)",
    "mbox_cx": "an oriented box as HRSC2016 writes it (mbox_cx, mbox_cy, mbox_w, mbox_h, mbox_ang)",
}
# The first start tag, without its namespace's prefix; declarations begin otherwise.
_ROOT: Final = re.compile(r"<(?:[A-Za-z_][\w.-]*:)?([A-Za-z_][\w.-]*)[\s/>]")
OTHER_ROOTS: Final = {"HRSC_Image": "HRSC2016", "annotations": "CVAT for images"}


def looks_like_boxes(head: str) -> bool:
    """Return whether the first line of a CSV file names the columns that are needed."""
    first = head.replace("\r", "\n").partition("\n")[0]
    names = {name.strip().strip('"').lower() for name in first.split(separator_of(first))}
    return set(_SIDES) <= names and columns_of(dict.fromkeys(names, ""), None)[0] is not None


def looks_like_voc(head: str) -> bool:
    """Return whether the first characters of an XML file are those of boxes on an image, and not of a scene's metadata."""
    root = _ROOT.search(re.sub(r"<!--[\s\S]*?(?:-->|$)", "", head))
    return root is not None and (root[1] in ("annotation", *OTHER_ROOTS) or re.search(r"<(?:[\w.-]+:)?bndbox\b", head) is not None)


def read_csv(entry: Entry, class_field: str | None) -> Iterator[Item]:
    """Yield one row per line of a CSV file; columns may be parted by commas, semicolons, tabs or bars.

    Raises:
        InvalidRowError: the file lacks a column, or is of no encoding that is read.
    """
    csv.field_size_limit(_LONGEST_CELL)
    content = decoded(entry.read(256 << 20), entry.path).replace("\r\n", "\n").replace("\r", "\n")
    head = content.lstrip("\n").partition("\n")[0]
    separator = separator_of(head, class_field)
    table = csv.DictReader(io.StringIO(content), delimiter=separator)
    columns = {(name or "").strip().lower(): name for name in table.fieldnames or ()}
    image, label = columns_of(columns, class_field)
    if image is None or label is None or not set(_SIDES) <= set(columns):
        raise InvalidRowError("unknown_layout", "columns", sorted(columns), _what_lacks(head, separator, image, label, class_field))
    sized = _size_columns(content, separator, columns, image, entry)
    for index, row in _csv_rows(table, entry):
        if isinstance(row, Refused):
            yield row
            continue
        locator, key = f"line {index}", f"{entry.stem}:{index}"
        make = partial(_csv_row, row, columns, image, label, sized, separator, entry, key, locator)
        yield guarded(make, entry.path, key, locator, partial(shortened, row))


def separator_of(head: str, class_field: str | None = None) -> str:
    """Return what parts the columns of a CSV file's first line: what gives the columns that are needed, else what occurs most."""
    for separator in _SEPARATORS:
        names = {name.strip().strip('"').lower() for name in head.split(separator)}
        if set(_SIDES) <= names and None not in columns_of(dict.fromkeys(names, ""), class_field):
            return separator
    return max(_SEPARATORS, key=head.count)


def columns_of(columns: Mapping[str, str], class_field: str | None) -> tuple[str | None, str | None]:
    """Return (column of the image, column of the class) of a table by its columns in lower case; None where there is none."""
    classes = ((class_field or "label").lower(), *_CLASS_COLUMNS)
    image, label = (next((columns[name] for name in names if name in columns), None) for names in (_IMAGE_COLUMNS, classes))
    return image, label


def _what_lacks(head: str, separator: str, image: str | None, label: str | None, class_field: str | None) -> str:
    parted = f"columns are parted by {_SEPARATORS[separator]}; " if separator != "," else ""
    if sum(re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", cell) is not None for cell in head.split(separator)) >= 4:
        return f"{parted}its first line holds numbers: put a line image_path,xmin,ymin,xmax,ymax,label before it"
    lacks = [name for name in _SIDES if name not in head.lower()]
    lacks += ["image_path"] if image is None else []
    lacks += [class_field or "label"] if label is None else []
    return f"{parted}it must have image_path, xmin, ymin, xmax, ymax and label; it lacks {', '.join(lacks)}"


def _csv_rows(table: csv.DictReader[str], entry: Entry) -> Iterator[tuple[int, dict[Any, Any] | Refused]]:
    """Yield (line, row); a line that is no CSV is refused, and the next one is read."""
    while True:
        try:
            row = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            line = table.line_num
            reason = InvalidRowError("broken_csv", "line", f"line {line}", f"it is not CSV: {error}")
            yield line, Refused(entry.path, f"{entry.stem}:{line}", f"line {line}", reason, f"{entry.path} line {line}")
            continue
        yield table.line_num, row


def _csv_row(
    row: Mapping[Any, Any],
    columns: Mapping[str, str],
    image: str,
    label: str,
    sized: tuple[str, str] | None,
    separator: str,
    entry: Entry,
    key: str,
    locator: str,
) -> Row:
    if any(str(cell).strip() for cell in row.get(None) or ()):
        cells, wanted = len(row) - 1 + len(row[None]), len(row) - 1
        raise InvalidRowError(
            "wrong_length", "line", cells, f"it has {cells} cells, the first line {wanted}; a comma inside a cell needs quotes"
        )
    needed = (image, label, *(columns[name] for name in _SIDES))
    long = next((name for name, cell in row.items() if isinstance(cell, str) and cell.count("\n") > (0 if name in needed else 5)), None)
    if long is not None:
        lines = row[long].count("\n")
        raise InvalidRowError("broken_csv", long, row[long], f"a quote is opened and not closed: {lines} lines are taken for one cell")
    bounds = [_parsed(row.get(columns[name]), name, separator) for name in _SIDES]
    file, category = (row.get(image) or "").strip(), (row.get(label) or "").strip()
    if not file or not category:
        raise InvalidRowError("missing_field", image if not file else label, None, "the cell is empty")
    others = {name: value for name, value in row.items() if name not in (image, label, None)}
    made = _pixel_row(entry, key, locator, file, category, bounds, unread_sentence(others, category))
    return replace(made, stated_size=stated_size(*(row.get(name) for name in sized)) if sized is not None else None)


def _size_columns(content: str, separator: str, columns: Mapping[str, str], image: str, entry: Entry) -> tuple[str, str] | None:
    """Return the columns that state the image's size, None where none do; decided once for the file, for a row alone cannot tell.

    `width` and `height` may also be those of the box. They are the image's where every image has one size, nearly every box lies in it, and
    they are not the sides of each box.
    """
    if {"image_width", "image_height"} <= set(columns):
        return columns["image_width"], columns["image_height"]
    if not {"width", "height"} <= set(columns):
        return None
    width, height = columns["width"], columns["height"]
    sizes: dict[str, Size] = {}
    held = of_box = rows = 0
    for _, row in _csv_rows(csv.DictReader(io.StringIO(content), delimiter=separator), entry):
        size = stated_size(row.get(width), row.get(height)) if not isinstance(row, Refused) else None
        if isinstance(row, Refused) or size is None:
            continue
        if sizes.setdefault((row.get(image) or "").strip(), size) != size:
            return None
        try:
            x_min, y_min, x_max, y_max = (_parsed(row.get(columns[name]), name, separator) for name in _SIDES)
        except InvalidRowError:
            continue
        rows += 1
        held += x_max <= size[0] + _OVER_PX and y_max <= size[1] + _OVER_PX
        of_box += abs(x_max - x_min - size[0]) <= 1 and abs(y_max - y_min - size[1]) <= 1
    return (width, height) if of_box < rows and held >= _HELD * rows else None


def read_voc(entry: Entry) -> Iterator[Item]:
    """Yield one row per object of a Pascal VOC file.

    Raises:
        InvalidRowError: it is no XML, or of another form.
    """
    try:
        root = SafeTree.fromstring(entry.read(64 << 20), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InvalidRowError("broken_xml", "file", entry.path, f"it is not plain XML ({error})") from None
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]  # names in a namespace are {address}name
    if root.tag != "annotation":
        form = f"it is {OTHER_ROOTS[root.tag]} ({root.tag})" if root.tag in OTHER_ROOTS else f"its root element is {shortened(root.tag)}"
        raise InvalidRowError(
            "unknown_layout", "file", root.tag, f"{form}, which is not read; only Pascal VOC (annotation, object, bndbox) is"
        )
    image = (root.findtext("filename") or "").strip()
    size = stated_size(root.findtext("size/width"), root.findtext("size/height"))
    for index, item in enumerate(root.iter("object")):
        locator, key = f"object {index}", f"{entry.stem}:{index}"
        yield guarded(partial(_voc_row, item, image, entry, key, locator, size), entry.path, key, locator, f"{entry.path} {locator}")


def _voc_row(item: Element, image: str, entry: Entry, key: str, locator: str, size: tuple[int, int] | None) -> Row:
    if item.find("bndbox") is None:
        form = next((text for name, text in _OTHER_BOXES.items() if item.find(name) is not None), None)
        held = form or f"no box, but {', '.join(sorted({str(child.tag) for child in item})[:8]) or 'nothing'}"
        raise InvalidRowError("unknown_box_form", "bndbox", None, f"it holds {held}; only upright boxes (bndbox) are read")
    bounds = [_parsed(item.findtext(f"bndbox/{name}"), name, "") for name in _SIDES]
    category = (item.findtext("name") or "").strip()
    if not image or not category:
        raise InvalidRowError("missing_field", "filename" if not image else "name", None, "the element is empty")
    texts = {str(child.tag): child.text for child in item if child.tag not in ("name", "pose", "bndbox")}
    return replace(_pixel_row(entry, key, locator, image, category, bounds, unread_sentence(texts, category)), stated_size=size)


def _parsed(value: str | None, field: str, separator: str) -> float:
    """Return a number; where columns are parted by something else than commas, a comma may stand for the point (German, French)."""
    plain = (value or "").strip()
    if separator in (";", "\t", "|") and re.fullmatch(r"-?\d+,\d+", plain):
        plain = plain.replace(",", ".")
    try:
        return number(float(plain), field)
    except ValueError:
        raise InvalidRowError("not_a_number", field, value, "it must be a number") from None


def _pixel_row(entry: Entry, key: str, locator: str, image: str, category: str, bounds: Sequence[float], unread: str | None) -> Row:
    x_min, y_min, x_max, y_max = bounds
    box = GivenBox((x_min, y_min, x_max, y_max), "exact", False)
    return Row(
        file=entry.path,
        source_key=key,
        locator=locator,
        dataset=DATASET,
        image=image,
        category=category,
        boxes=(box,),
        has_sentences=False,
        unread=unread,
    )
