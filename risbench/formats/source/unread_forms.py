"""Annotations in forms that are not read: recognised, so that a source of them is told what it holds and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from risbench.core.errors import printable
from risbench.formats.pixel_boxes import separator_of
from risbench.formats.source.entry import Entry
from risbench.formats.yolo import yolo_form

_TO_COCO: Final = "convert it to COCO instances, with the sentence in a field `expression` of each annotation"
_TO_GEOJSON: Final = "save it as GeoJSON (ogr2ogr -f GeoJSON labels.geojson FILE)"
_FILES: Final = {
    ".shp": ("a shapefile", _TO_GEOJSON),
    ".gpkg": ("a GeoPackage", _TO_GEOJSON),
    ".kml": ("KML", _TO_GEOJSON),
    ".geojsonl": ("GeoJSON, one feature a line", _TO_GEOJSON),
    ".geojsons": ("GeoJSON, one feature a line", _TO_GEOJSON),
    ".mat": ("a MATLAB file", _TO_COCO),
    ".xlsx": ("an Excel sheet", "save it as CSV with the columns image_path, xmin, ymin, xmax, ymax, label"),
    ".xls": ("an Excel sheet", "save it as CSV with the columns image_path, xmin, ymin, xmax, ymax, label"),
    ".yaml": ("YAML", _TO_COCO),
    ".tfrecord": ("TFRecord", _TO_COCO),
    ".parquet": ("Parquet that is no release of ours", _TO_COCO),
    ".arrow": ("an Arrow file", _TO_COCO),
}
# By what stands in the first 64 kB: the first that fits names the form.
_XML: Final = (
    (r"<HRSC_Image|<HRSC_Object|<mbox_cx>", "HRSC2016's XML with oriented boxes (mbox_cx ...)", _TO_COCO),
    (r"<robndbox>|<rotated_bndbox>", "oriented boxes in XML as roLabelImg and DIOR-R write them (robndbox)", _TO_COCO),
    (r"<points>", "polygons in XML as FAIR1M writes them (points)", _TO_COCO),
    (
        r"<bndbox>[\s\S]*<description>|<description>[\s\S]*<bndbox>",
        "Pascal VOC with sentences in <description>, as DIOR-RSVG and RSVG have it",
        _TO_COCO,
    ),
    (r"<annotation>[\s\S]*<bndbox>", "Pascal VOC, which is read beside TIFFs only", _TO_COCO),
    (r"<annotations>[\s\S]*<(?:image|track|meta)\b", "CVAT's XML", "export it from CVAT as COCO"),
)
_JSON: Final = (
    (
        r'"messages"\s*:',
        "chats with `messages`, as ms-swift and LLaMA-Factory have them",
        "write VRSBench's conversations, or convert it to COCO",
    ),
    (r'"conversations"\s*:', "chats whose rows name no image", "write an `image` into each row"),
    (r'"imagePath"\s*:[\s\S]*"shapes"|"shapes"\s*:[\s\S]*"imagePath"', "LabelMe's JSON", "convert it to COCO (labelme2coco)"),
    (r'"_via_|"region_attributes"', "VGG Image Annotator's JSON", "export it as COCO"),
    (r'"(?:annotations|completions)"\s*:[\s\S]*"result"\s*:', "a Label Studio export", "export it from Label Studio as COCO"),
    (r'"annotations"\s*:\s*\[', "COCO-like, but without `bbox`, `segmentation` or `file_name`", "add them"),
    (r'"(?:image|img|file_?name|image_id|image_path)"\s*:', "JSON rows of a form that is not known", _TO_COCO),
)
_NAMED: Final = 4


def form_of(entry: Entry, head: str) -> tuple[str, str] | None:
    """Return (what form a file is in, what to do), None where it is no annotation as far as its first characters say."""
    if entry.suffix in _FILES:
        return _FILES[entry.suffix]
    if entry.suffix == ".csv":
        columns = [name.strip().strip('"') for name in head.partition("\n")[0].split(separator_of(head.partition("\n")[0]))]
        shown = printable(", ".join(columns), 120)
        return f"CSV with the columns {shown}", "name them image_path, xmin, ymin, xmax, ymax, label"
    if entry.suffix == ".txt":
        form = yolo_form(head)
        return (form, "convert them to COCO") if form is not None else None
    forms = _XML if entry.suffix == ".xml" else _JSON if entry.suffix in (".json", ".jsonl", ".ndjson") else ()
    return next(((form, todo) for pattern, form, todo in forms if re.search(pattern, head)), None)


def said_of_forms(entries: Iterable[Entry], head_of: Callable[[Entry], str]) -> str:
    """Return one line of the forms that a source's files are in, with how many, the first of each and what to do; empty where none is."""
    forms: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        if entry.suffix in (*_FILES, ".csv", ".txt", ".xml", ".json", ".jsonl", ".ndjson"):
            form = form_of(entry, head_of(entry))
            if form is not None:
                forms.setdefault(form, []).append(entry.path)
    most = sorted(forms.items(), key=lambda item: (-len(item[1]), item[1][0]))[:_NAMED]
    return "; ".join(f"{_files(paths)}: {form}, not read: {todo}" for (form, todo), paths in most)


def _files(paths: list[str]) -> str:
    first = printable(paths[0], 120)
    return first if len(paths) == 1 else f"{first} and {len(paths) - 1:,} more"
