"""COCO instances: boxes as xywh pixels, masks as polygons or run-length encoding; `expression` where we wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.classes import CLASSES
from risbench.core.errors import InputError, InvalidRowError, shortened, typed
from risbench.core.geometry import mask_bounds
from risbench.core.masks import decode_rle, mask_of, polygons_mask
from risbench.core.record import Record, Repair
from risbench.core.rle import check_mask_size, compress_runs
from risbench.core.sizes import Size, SizeMatch, fit_mask, match_size
from risbench.formats.source.format import Format, Look, Verdict, each, file_by_file
from risbench.formats.source.lenient_json import load_json
from risbench.formats.source.rows import (
    GivenBox,
    GivenMask,
    Item,
    Row,
    guarded,
    key_text,
    numbers,
    stated_size,
    stated_split,
    text,
    unread_sentence,
)
from risbench.formats.source.tree import Entry

DATASET: Final = "COCO"
# A table holds objects: the list of names "images" in the rows of chats is none. What a category is called does not matter.
_TABLE = re.compile(r'"(?:images|annotations|categories)"\s*:\s*\[\s*[{\]]')
_FIELD = re.compile(r'"(?:file_name|bbox|segmentation|supercategory)"\s*:')


def looks_like_coco(head: str) -> bool:
    """Return whether the first characters of a JSON file are those of COCO instances."""
    return head.startswith("{") and _FIELD.search(head) is not None and _TABLE.search(head) is not None


class IdTable(dict[Any, Any]):
    """What a file's ids stand for; `twice` are those that stand for different things, and are left out."""

    def __init__(self, rows: Iterable[Any], value_of: Callable[[Mapping[str, Any]], Any]) -> None:
        super().__init__()
        self.twice: set[Any] = set()
        for row in rows:
            key = plain_id(row.get("id")) if isinstance(row, dict) else None
            if key is not None and self.setdefault(key, value := value_of(row)) != value:
                self.twice.add(key)
        for key in self.twice:
            del self[key]


@dataclass(frozen=True)
class CocoFile:
    """A COCO file's three tables by id; `mask_sizes` are the sizes that only run lengths state, by image id."""

    images: IdTable
    categories: IdTable
    annotations: Sequence[Any]
    mask_sizes: Mapping[Any, Size]
    _unread: dict[tuple[int, str], str | None] = field(default_factory=dict)

    def size_of(self, image: Mapping[str, Any]) -> Size | None:
        """Return the (width, height) that the file states of an image: in its entry, else by the run lengths of its masks."""
        return stated_size(image.get("width"), image.get("height")) or self.mask_sizes.get(plain_id(image.get("id")))

    def unread_of_image(self, image: Mapping[str, Any], category: str) -> str | None:
        """Return the field of an image's entry that seems to hold the sentence of its annotations; looked for once an image."""
        key = (id(image), category)
        if key not in self._unread:
            name = unread_sentence(image, category)
            self._unread[key] = f"{name} of its image" if name is not None else None
        return self._unread[key]


def load_coco(entry: Entry) -> CocoFile:
    """Return the tables of a COCO instances file.

    Raises:
        InvalidRowError: one of the three lists is missing or holds something else than objects with an id.
    """
    value = load_json(entry)
    tables: dict[str, list[Any]] = {}
    for name in ("images", "annotations", "categories"):
        table = value.get(name) if isinstance(value, dict) else None
        if not isinstance(table, list):
            raise InvalidRowError("unknown_layout", name, type(table).__name__, f"{entry.path} must hold a list of {name}")
        tables[name] = table
    images = IdTable(tables["images"], lambda image: image)
    categories = IdTable(tables["categories"], lambda item: key_text(item.get("name")))
    return CocoFile(images, categories, tables["annotations"], _mask_sizes(images, tables["annotations"]))


def _mask_sizes(images: IdTable, annotations: Sequence[Any]) -> dict[Any, Size]:
    """Return the (width, height) on which all run lengths of an image agree, for the images whose entry states none.

    Boxes and polygons beside such a mask are of the same image, so all of them are scaled or none is.
    """
    sizes: dict[Any, set[Size]] = {}
    for annotation in annotations:
        size = _mask_size(annotation.get("segmentation")) if isinstance(annotation, dict) else None
        if size is None:
            continue
        try:
            image = by_id(images, annotation.get("image_id"), "image_id", "image")
        except InvalidRowError:
            continue
        if stated_size(image.get("width"), image.get("height")) is None:
            sizes.setdefault(plain_id(image.get("id")), set()).add(size)
    return {key: next(iter(found)) for key, found in sizes.items() if len(found) == 1}


def _mask_size(segmentation: Any) -> Size | None:
    """Return the (width, height) that run lengths state; None where it is none, or no pair of numbers."""
    if isinstance(segmentation, list) and len(segmentation) == 1:
        segmentation = segmentation[0]
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    return stated_size(size[1], size[0]) if isinstance(size, list) and len(size) == 2 else None


def plain_id(value: Any) -> int | str | None:
    """Return an id that can be looked up, or None where it is something else than a whole number or text; 7.0 is 7."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def forms_of_id(value: Any) -> list[int | str]:
    """Return an id as it is, then in its other form: 1 (number) is "1" (text); none where it is no id."""
    key = plain_id(value)
    if key is None:
        return []
    if isinstance(key, int):
        return [key, str(key)] if abs(key) < 10**18 else [key]
    return [key, int(key)] if key.isascii() and key.isdigit() and len(key) < 19 and str(int(key)) == key else [key]


def by_id(table: IdTable, value: Any, field: str, of: str) -> Any:
    """Return what an id of a file stands for; 1 (number) and "1" (text) are the same id where only one of them is there.

    Raises:
        InvalidRowError: nothing of the file has this id, or different things have it; the reason shows types.
    """
    known = [one for one in forms_of_id(value) if one in table or one in table.twice]
    if not known:
        first = next(iter(table), None)
        has = f"; its first is {typed(first)}" if first is not None else ""
        raise InvalidRowError(f"unknown_{of}_id", field, typed(value), f"no {of} of the file has this id{has}")
    if known[0] in table.twice:
        raise InvalidRowError(
            f"ambiguous_{of}_id", field, typed(value), f"different {of} entries of the file have this id; give each its own"
        )
    return table[known[0]]


def read_coco(entry: Entry) -> Iterator[Item]:
    """Yield one row per annotation.

    Raises:
        InvalidRowError: the file as a whole is not COCO instances.
    """
    coco = load_coco(entry)
    for index, annotation in enumerate(coco.annotations):
        key = key_text(annotation.get("id", index)) if isinstance(annotation, dict) else str(index)
        locator = f"annotation {key}"
        make = partial(annotation_row, coco, annotation, entry.path, key, locator)
        yield guarded(make, entry.path, key, locator, partial(shortened, annotation))


def annotation_row(coco: CocoFile, annotation: Any, file: str, key: str, locator: str) -> Row:
    """Return the row of one annotation.

    Raises:
        InvalidRowError: a field is missing or bad; the message names it.
    """
    if not isinstance(annotation, dict):
        raise InvalidRowError("unknown_layout", "annotation", annotation, "it must be a JSON object")
    image = by_id(coco.images, annotation.get("image_id"), "image_id", "image")
    name = by_id(coco.categories, annotation.get("category_id"), "category_id", "category")
    segmentation = annotation.get("segmentation")
    mask = given_mask(segmentation) if segmentation else None
    x, y, width, height = numbers(annotation.get("bbox"), 4, "bbox")
    sentence = annotation.get("expression")
    return Row(
        file=file,
        source_key=key,
        locator=locator,
        dataset=DATASET,
        image=text(image, "file_name"),
        category=name,
        boxes=(GivenBox((x, y, x + width, y + height), "exact", False, object_id=key),),
        sentence=sentence if isinstance(sentence, str) else None,
        sentence_origin="annotation:expression",
        has_sentences=isinstance(sentence, str),
        object_id=key,
        mask=mask,
        split=stated_split(file),
        stated_size=coco.size_of(image) or _mask_size(segmentation),
        unread=None if isinstance(sentence, str) else unread_sentence(annotation, name) or coco.unread_of_image(image, name),
    )


def given_mask(segmentation: Any) -> GivenMask:
    """Return COCO's `segmentation` in either of its kinds: polygons, or RLE (compressed or not), alone or in a list.

    Raises:
        InvalidRowError: it is of neither kind, or its numbers are bad.
    """
    if isinstance(segmentation, list) and len(segmentation) == 1 and isinstance(segmentation[0], dict):
        segmentation = segmentation[0]
    if isinstance(segmentation, dict):
        height, width = (int(value) for value in numbers(segmentation.get("size"), 2, "segmentation.size"))
        counts = segmentation.get("counts")
        try:
            check_mask_size(height, width)
        except InputError as error:
            raise InvalidRowError("wrong_size", "segmentation.size", [height, width], str(error)) from None
        if isinstance(counts, list):
            runs = [value for value in counts if isinstance(value, int) and not isinstance(value, bool)]
            if len(runs) != len(counts):
                raise InvalidRowError("not_a_number", "segmentation.counts", counts, "the runs must be whole numbers")
            if sum(runs) != height * width or any(run < 0 for run in runs):
                raise InvalidRowError("wrong_size", "segmentation.counts", sum(runs), f"the runs must add up to {height * width}")
            counts = compress_runs(runs)
        if isinstance(counts, bytes):
            counts = counts.decode("latin-1")
        if not isinstance(counts, str):
            raise InvalidRowError("not_a_string", "segmentation.counts", counts, "it must be a string or a list of runs")
        return GivenMask(rle=((height, width), counts))
    if not isinstance(segmentation, list):
        raise InvalidRowError("unknown_layout", "segmentation", type(segmentation).__name__, "it must be polygons or RLE")
    if not segmentation:
        raise InvalidRowError("empty_mask", "segmentation", segmentation, "it must hold at least one polygon")
    polygons = []
    for index, polygon in enumerate(segmentation):
        length = len(polygon) if isinstance(polygon, list) else 0
        if length < 6 or length % 2:
            raise InvalidRowError("wrong_length", f"segmentation[{index}]", polygon, "a polygon needs at least 3 x, y pairs")
        polygons.append(tuple(numbers(polygon, length, f"segmentation[{index}]")))
    return GivenMask(polygons=tuple(polygons))


def mask_pixels(mask: GivenMask, height: int, width: int, stated: Size | None = None) -> tuple[NDArray[np.bool_], Repair | None]:
    """Return the union of a mask's parts as pixels (height, width) of the picture, and the repair of its size, if any.

    Polygons are of an image of the `stated` (width, height). Run lengths have a size of their own: the picture's, the stated one or,
    where none is stated, one that fits the picture as a stated one must (`core/sizes`).

    Raises:
        InvalidRowError: its size is none of these, or it is damaged or far outside.
    """
    if mask.rle is not None:
        return _run_length_pixels(mask.rle, height, width, stated)
    match = SizeMatch(float(width), float(height)) if mask.relative else match_size(stated, (width, height))
    polygons = [[value * (match.y if place % 2 else match.x) for place, value in enumerate(part)] for part in mask.polygons or ()]
    # A point that far is of another image, or of other units.
    limit = 2.0 * max(height, width)
    far = next((value for polygon in polygons for value in polygon if not -limit <= value <= 2 * limit), None)
    if far is not None:
        raise InvalidRowError("outside_image", "segmentation", far, f"no point may lie that far from the image of {width} x {height} px")
    return polygons_mask(polygons, height, width), match.repair


def _run_length_pixels(
    rle: tuple[tuple[int, int], str], height: int, width: int, stated: Size | None
) -> tuple[NDArray[np.bool_], Repair | None]:
    (rows, columns), counts = rle
    own, found = (columns, rows), (width, height)
    match = match_size(own, found, "segmentation.size")
    if match.scales and stated not in (None, own):
        bound = f"the picture is {height} x {width}, as the file states; a mask of another size is of another picture"
        raise InvalidRowError("wrong_size", "segmentation.size", [rows, columns], bound)
    try:
        return fit_mask(decode_rle((rows, columns), counts), found, match), match.repair
    except InputError as error:
        raise InvalidRowError("broken_rle", "segmentation.counts", counts, str(error)) from None


def coco_instances(records: Sequence[Record], file_names: Mapping[str, str]) -> dict[str, Any]:
    """Return COCO instances of exported records, with `expression` fields; `file_names` maps image path to name.

    Image and annotation ids count from 1 in the order of the records.
    """
    categories = {name: index for index, name in enumerate(CLASSES, 1)}
    image_ids: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(records, 1):
        path = record.image.path
        if path not in image_ids:
            image_ids[path] = len(image_ids) + 1
            images.append(
                {
                    "id": image_ids[path],
                    "file_name": file_names[path],
                    "width": record.image.width,
                    "height": record.image.height,
                    "scene": record.image.scene,
                }
            )
        assert record.mask is not None, "export leaves records without a mask out"
        assert record.expression is not None, "export leaves records without a sentence out"
        mask = mask_of(record.mask)
        annotations.append(
            {
                "id": number,
                "image_id": image_ids[path],
                "category_id": categories[record.category.name],
                "iscrowd": 0,
                "bbox": extent_of(mask),
                "area": int(np.count_nonzero(mask)),
                "segmentation": {"size": list(record.mask.size), "counts": record.mask.counts},
                "expression": record.expression.text,
                "record_id": record.id,
                "split": record.split,
            }
        )
    return {
        "info": {"description": "made by risbench"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": index, "name": name, "supercategory": "object"} for name, index in categories.items()],
    }


def extent_of(mask: NDArray[np.bool_]) -> list[float]:
    """Return a mask's extent as COCO's xywh; all 0 where it is empty."""
    x_min, y_min, x_max, y_max = mask_bounds(mask) or (0.0, 0.0, 0.0, 0.0)
    return [x_min, y_min, x_max - x_min, y_max - y_min]


def _verdict(look: Look) -> Verdict:
    return 0.8 if looks_like_coco(look.json_head) else 'no object with "images" or "annotations", and "file_name", "bbox" or "segmentation"'


FORMATS: Final = Format(
    name="coco",
    summary="COCO instances with boxes, and masks where there are any",
    suffixes=(".json", ".jsonl"),
    detect=each(_verdict),
    read=file_by_file(lambda entry, _: read_coco(entry), scaled=True, corners=True),
    rank=70,
    scaled="coco",
    corners=True,
    trains=True,
)
