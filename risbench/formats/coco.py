"""COCO instances: boxes as xywh pixels, masks as polygons or run-length encoding; `expression` where we wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InputError, Refusal, shortened
from risbench.core.geometry import mask_bounds
from risbench.core.masks import decode_rle, mask_of, polygons_mask
from risbench.core.record import Record, Repair
from risbench.core.rle import check_mask_size, compress_runs
from risbench.core.sizes import Size, SizeMatch, fit_mask, match_size
from risbench.core.taxonomy import CLASSES
from risbench.formats.lenient_json import load_json
from risbench.formats.rows import GivenBox, GivenMask, Item, Refused, Row, numbers, stated_size, stated_split, text
from risbench.formats.tree import Entry

DATASET: Final = "COCO"


def looks_like_coco(head: str) -> bool:
    """Return whether the first characters of a JSON file are those of COCO instances."""
    listed = '"file_name"' in head or '"bbox"' in head or '"segmentation"' in head or '"supercategory"' in head
    return listed and any(key in head for key in ('"images"', '"annotations"', '"categories"')) and '"objects"' not in head


@dataclass(frozen=True)
class CocoFile:
    """A COCO file's three tables by id."""

    images: Mapping[Any, Mapping[str, Any]]
    categories: Mapping[Any, str]
    annotations: Sequence[Any]


def load_coco(entry: Entry) -> CocoFile:
    """Return the tables of a COCO instances file.

    Raises:
        Refusal: one of the three lists is missing or holds something else than objects with an id.
    """
    value = load_json(entry)
    tables: dict[str, list[Any]] = {}
    for name in ("images", "annotations", "categories"):
        table = value.get(name) if isinstance(value, dict) else None
        if not isinstance(table, list):
            raise Refusal("unknown_layout", name, type(table).__name__, f"{entry.path} must hold a list of {name}")
        tables[name] = table
    images = {plain_id(image.get("id")): image for image in tables["images"] if isinstance(image, dict)}
    categories = {plain_id(item.get("id")): str(item.get("name")) for item in tables["categories"] if isinstance(item, dict)}
    images.pop(None, None)
    categories.pop(None, None)
    return CocoFile(images, categories, tables["annotations"])


def plain_id(value: Any) -> int | str | None:
    """Return an id that can be looked up, or None where it is something else than a number or a string."""
    return value if isinstance(value, (int, str)) else None


def read_coco(entry: Entry) -> Iterator[Item]:
    """Yield one row per annotation.

    Raises:
        Refusal: the file as a whole is not COCO instances.
    """
    coco = load_coco(entry)
    for index, annotation in enumerate(coco.annotations):
        key = str(annotation.get("id", index)) if isinstance(annotation, dict) else str(index)
        locator = f"annotation {key}"
        try:
            yield annotation_row(coco, annotation, entry.path, key, locator)
        except Refusal as reason:
            yield Refused(entry.path, key, locator, reason, shortened(annotation))


def annotation_row(coco: CocoFile, annotation: Any, file: str, key: str, locator: str) -> Row:
    """Return the row of one annotation.

    Raises:
        Refusal: a field is missing or bad; the message names it.
    """
    if not isinstance(annotation, dict):
        raise Refusal("unknown_layout", "annotation", annotation, "it must be a JSON object")
    image = coco.images.get(plain_id(annotation.get("image_id")))
    if image is None:
        raise Refusal("unknown_image_id", "image_id", annotation.get("image_id"), "no image of the file has this id")
    name = coco.categories.get(plain_id(annotation.get("category_id")))
    if name is None:
        raise Refusal("unknown_category_id", "category_id", annotation.get("category_id"), "no category of the file has this id")
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
        stated_size=stated_size(image.get("width"), image.get("height")),
    )


def given_mask(segmentation: Any) -> GivenMask:
    """Return COCO's `segmentation` in either of its kinds: polygons, or RLE (compressed or not), alone or in a list.

    Raises:
        Refusal: it is of neither kind, or its numbers are bad.
    """
    if isinstance(segmentation, list) and len(segmentation) == 1 and isinstance(segmentation[0], dict):
        segmentation = segmentation[0]
    if isinstance(segmentation, dict):
        height, width = (int(value) for value in numbers(segmentation.get("size"), 2, "segmentation.size"))
        counts = segmentation.get("counts")
        try:
            check_mask_size(height, width)
        except InputError as error:
            raise Refusal("wrong_size", "segmentation.size", [height, width], str(error)) from None
        if isinstance(counts, list):
            runs = [value for value in counts if isinstance(value, int) and not isinstance(value, bool)]
            if len(runs) != len(counts):
                raise Refusal("not_a_number", "segmentation.counts", counts, "the runs must be whole numbers")
            if sum(runs) != height * width or any(run < 0 for run in runs):
                raise Refusal("wrong_size", "segmentation.counts", sum(runs), f"the runs must add up to {height * width}")
            counts = compress_runs(runs)
        if isinstance(counts, bytes):
            counts = counts.decode("latin-1")
        if not isinstance(counts, str):
            raise Refusal("not_a_string", "segmentation.counts", counts, "it must be a string or a list of runs")
        return GivenMask(rle=((height, width), counts))
    if not isinstance(segmentation, list):
        raise Refusal("unknown_layout", "segmentation", type(segmentation).__name__, "it must be polygons or RLE")
    if not segmentation:
        raise Refusal("empty_mask", "segmentation", segmentation, "it must hold at least one polygon")
    polygons = []
    for index, polygon in enumerate(segmentation):
        length = len(polygon) if isinstance(polygon, list) else 0
        if length < 6 or length % 2:
            raise Refusal("wrong_length", f"segmentation[{index}]", polygon, "a polygon needs at least 3 x, y pairs")
        polygons.append(tuple(numbers(polygon, length, f"segmentation[{index}]")))
    return GivenMask(polygons=tuple(polygons))


def mask_pixels(mask: GivenMask, height: int, width: int, stated: Size | None = None) -> tuple[NDArray[np.bool_], Repair | None]:
    """Return the union of a mask's parts as pixels (height, width) of the picture, and the repair of its size, if any.

    Polygons are of an image of the `stated` (width, height). Run lengths have a size of their own: the picture's, the stated one or,
    where none is stated, one that fits the picture as a stated one must (`core/sizes`).

    Raises:
        Refusal: its size is none of these, or it is damaged or far outside.
    """
    if mask.rle is not None:
        return _run_length_pixels(mask.rle, height, width, stated)
    match = SizeMatch(float(width), float(height)) if mask.relative else match_size(stated, (width, height))
    polygons = [[value * (match.y if place % 2 else match.x) for place, value in enumerate(part)] for part in mask.polygons or ()]
    # A point that far is of another image, or of other units.
    limit = 2.0 * max(height, width)
    far = next((value for polygon in polygons for value in polygon if not -limit <= value <= 2 * limit), None)
    if far is not None:
        raise Refusal("outside_image", "segmentation", far, f"no point may lie that far from the image of {width} x {height} px")
    return polygons_mask(polygons, height, width), match.repair


def _run_length_pixels(
    rle: tuple[tuple[int, int], str], height: int, width: int, stated: Size | None
) -> tuple[NDArray[np.bool_], Repair | None]:
    (rows, columns), counts = rle
    own, found = (columns, rows), (width, height)
    match = match_size(own, found, "segmentation.size")
    if match.scales and stated not in (None, own):
        bound = f"the picture is {height} x {width}, as the file states; a mask of another size is of another picture"
        raise Refusal("wrong_size", "segmentation.size", [rows, columns], bound)
    try:
        return fit_mask(decode_rle((rows, columns), counts), found, match), match.repair
    except InputError as error:
        raise Refusal("broken_rle", "segmentation.counts", counts, str(error)) from None


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
