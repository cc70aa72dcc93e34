"""GeoTIFF scenes with boxes beside them: GeoJSON in any CRS, CSV in pixels, Pascal VOC in pixels."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from xml.etree.ElementTree import ParseError

import cv2
import numpy as np
import rasterio.warp
from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeTree
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError

from risbench.core.errors import Refusal, shortened
from risbench.core.geometry import apply_affine, invert_affine, is_oriented, quad_bounds, quad_from_flat
from risbench.core.imagery import georeference, image_kind, metres_per_pixel
from risbench.core.rasters import with_dataset
from risbench.core.record import Affine, Quad
from risbench.formats.lenient_json import load_json
from risbench.formats.rows import GivenBox, Item, Refused, Row, number
from risbench.formats.tree import Entry, SourceTree

DATASET: Final = "geotiff"
MIN_SIDE_PX: Final = 1.0
TIFF_SUFFIXES: Final = (".tif", ".tiff")
CLASS_FIELDS: Final = ("category", "class", "class_name", "label", "type")


@dataclass(frozen=True)
class Scene:
    """The header of one georeferenced image."""

    entry: Entry
    width: int
    height: int
    crs: str | None
    transform: Affine | None


def read_scene(entry: Entry) -> Scene:
    """Return the header of a TIFF.

    Raises:
        Refusal: by its first bytes it is no TIFF (a VRT, for one), or its header is damaged.
    """
    with entry.open() as file:
        if image_kind(file.read(16)) != "TIFF":
            raise Refusal("not_an_image", "image", entry.path, "its first bytes are not those of a TIFF file")
        file.seek(0)
        return with_dataset(file, entry.path, lambda dataset: Scene(entry, dataset.width, dataset.height, *georeference(dataset)))


def read_geotiff_source(tree: SourceTree, files: Sequence[Entry], class_field: str | None) -> Iterator[Item]:
    """Yield one row per box of the GeoJSON, CSV and VOC files, for the TIFFs of the tree.

    `class_field` names the GeoJSON property or CSV column that holds the class.
    """
    scenes: list[Scene] = []
    for entry in tree.entries:
        if entry.suffix in TIFF_SUFFIXES:
            try:
                scenes.append(read_scene(entry))
            except Refusal as reason:
                yield Refused(entry.path, entry.path, "file", reason, entry.path)
    for entry in files:
        try:
            if entry.suffix in (".geojson", ".json"):
                yield from _read_geojson(entry, scenes, class_field)
            elif entry.suffix == ".csv":
                yield from _read_csv(entry, class_field)
            elif entry.suffix == ".xml":
                yield from _read_voc(entry)
        except Refusal as reason:
            yield Refused(entry.path, entry.path, "file", reason, entry.path)


def _read_geojson(entry: Entry, scenes: Sequence[Scene], class_field: str | None) -> Iterator[Item]:
    value = load_json(entry)
    features = value.get("features") if isinstance(value, dict) else None
    if not isinstance(features, list):
        if entry.suffix == ".json":
            return
        raise Refusal("unknown_layout", "features", type(features).__name__, "it must be a FeatureCollection with a list of features")
    crs = _geojson_crs(value)
    for index, feature in enumerate(features):
        locator = f"feature {index}"
        properties = feature.get("properties") if isinstance(feature, dict) else None
        properties = properties if isinstance(properties, dict) else {}
        key = f"{entry.stem}:{feature.get('id', index) if isinstance(feature, dict) else index}"
        try:
            rings = _outer_rings(feature)
            category = _class_of(properties, class_field)
            scene, quad, bounds = _place(rings, crs, scenes, entry.stem)
        except Refusal as reason:
            yield Refused(entry.path, key, locator, reason, shortened(feature))
            continue
        box = GivenBox(bounds, "exact", False, quad=quad if is_oriented(quad) else None)
        sentence = properties.get("expression")
        yield Row(
            file=entry.path,
            source_key=key,
            locator=locator,
            dataset=DATASET,
            image=scene.entry.path,
            category=category,
            boxes=(box,),
            sentence=sentence if isinstance(sentence, str) else None,
            sentence_origin="property:expression",
            has_sentences=isinstance(sentence, str),
        )


def _geojson_crs(value: Mapping[str, Any]) -> CRS:
    """Return the file's CRS: its (2008) `crs` member, else WGS 84 longitude and latitude (RFC 7946)."""
    crs = value.get("crs")
    name = crs.get("properties", {}).get("name") if isinstance(crs, dict) and isinstance(crs.get("properties"), dict) else None
    if name is None:
        return CRS.from_epsg(4326)
    # Never handed to GDAL as it is: its "user input" may be a file's path or an address.
    code = re.fullmatch(
        r"(?:urn:(?:x-)?ogc:def:crs:|https?://www\.opengis\.net/def/crs/)?EPSG[:/]+(?:[\d.]+[:/])?(\d{4,6})", str(name), re.IGNORECASE
    )
    if code is None and re.fullmatch(r"(?:urn:ogc:def:crs:)?OGC:(?:[\d.]+:)?CRS84", str(name), re.IGNORECASE):
        return CRS.from_epsg(4326)
    try:
        if code is not None:
            return CRS.from_epsg(int(code[1]))
    except CRSError:
        pass
    raise Refusal("unknown_crs", "crs", name, "it must be an EPSG code, such as urn:ogc:def:crs:EPSG::32616, or CRS84")


def _outer_rings(feature: Any) -> list[list[tuple[float, float]]]:
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise Refusal("wrong_geometry", "geometry.type", kind, "it must be a Polygon or a MultiPolygon")
    assert isinstance(geometry, dict)
    polygons = [geometry.get("coordinates")] if kind == "Polygon" else geometry.get("coordinates")
    rings: list[list[tuple[float, float]]] = []
    if not isinstance(polygons, list):
        raise Refusal("wrong_geometry", "geometry.coordinates", polygons, "it must be a list of rings")
    for polygon in polygons:
        ring = polygon[0] if isinstance(polygon, list) and polygon else None
        if not isinstance(ring, list) or len(ring) < 3 or not all(isinstance(point, list) and len(point) >= 2 for point in ring):
            raise Refusal("wrong_geometry", "geometry.coordinates", ring, "a ring needs at least 3 points of 2 numbers")
        rings.append([(number(point[0], "x"), number(point[1], "y")) for point in ring])
    if not rings:
        raise Refusal("wrong_geometry", "geometry.coordinates", polygons, "it must hold at least one polygon")
    return rings


def _class_of(properties: Mapping[str, Any], class_field: str | None) -> str:
    if class_field is not None:
        value = properties.get(class_field)
        if value in (None, ""):
            raise Refusal("class_missing", class_field, value, "the property named by --class-field is empty")
        return str(value)
    for field in CLASS_FIELDS:
        if isinstance(properties.get(field), str) and properties[field].strip():
            return str(properties[field])
    filled = sorted(key for key, value in properties.items() if isinstance(value, str) and value)
    raise Refusal(
        "class_missing",
        "properties",
        filled,
        f"none of {', '.join(CLASS_FIELDS)} names a class; say which property does with --class-field",
    )


def _place(
    rings: list[list[tuple[float, float]]], crs: CRS, scenes: Sequence[Scene], stem: str
) -> tuple[Scene, Quad, tuple[float, float, float, float]]:
    """Return the scene that holds the polygon's centre, and its oriented and upright boxes in that scene's pixels."""
    usable = [scene for scene in scenes if scene.crs is not None and scene.transform is not None]
    too_coarse: Scene | None = None
    for scene in sorted(usable, key=lambda scene: (scene.entry.stem != stem, _pixel_metres(scene), scene.entry.path)):
        points = _to_pixels(rings, crs, scene)
        if points is None:
            continue
        x_min, y_min, x_max, y_max = quad_bounds([(float(point[0]), float(point[1])) for point in points])
        x, y = (x_min + x_max) / 2, (y_min + y_max) / 2
        if 0 <= x < scene.width and 0 <= y < scene.height:
            if min(x_max - x_min, y_max - y_min) < MIN_SIDE_PX:
                too_coarse = too_coarse or scene
                continue
            corners = cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32)))
            return scene, quad_from_flat(np.asarray(corners, dtype=np.float64).ravel().tolist()), (x_min, y_min, x_max, y_max)
    if too_coarse is not None:
        where = f"{too_coarse.entry.path} shows it less than {MIN_SIDE_PX} px wide"
        raise Refusal("object_too_small", "geometry", str(rings[0][:2]), f"{where}; a finer image of the place is needed")
    raise Refusal(
        "outside_all_images",
        "geometry",
        str(rings[0][:2]),
        f"none of the {len(usable)} georeferenced images of the source holds its centre",
    )


def _pixel_metres(scene: Scene) -> float:
    """Return the side of a pixel in metres, to look into the finest image first."""
    return metres_per_pixel(scene.crs, scene.transform, scene.width, scene.height) or float("inf")


def _to_pixels(rings: list[list[tuple[float, float]]], crs: CRS, scene: Scene) -> NDArray[np.float64] | None:
    assert scene.crs is not None
    assert scene.transform is not None
    points = [point for ring in rings for point in ring]
    target = CRS.from_user_input(scene.crs)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if crs != target:
        try:
            xs, ys = rasterio.warp.transform(crs, target, xs, ys)
        except (RasterioError, ValueError):
            return None
    if not np.isfinite(xs).all() or not np.isfinite(ys).all():
        return None
    if target.is_geographic:
        # Longitudes are circular: bring each within half a turn of the image's middle (antimeridian).
        middle, _ = apply_affine(scene.transform, scene.width / 2, scene.height / 2)
        xs = [x - 360 * round((x - middle) / 360) for x in xs]
    inverse = invert_affine(scene.transform)
    return np.array([apply_affine(inverse, x, y) for x, y in zip(xs, ys, strict=True)])


def _read_csv(entry: Entry, class_field: str | None) -> Iterator[Item]:
    content = entry.read(256 << 20).decode("utf-8-sig", "replace")
    table = csv.DictReader(io.StringIO(content))
    columns = {(name or "").strip().lower(): name for name in table.fieldnames or ()}
    needed = {
        "image_path": ("image_path", "image", "filename", "file_name"),
        "class": (class_field or "label", "label", "class", "category", "name"),
    }
    found = {role: next((columns[name] for name in names if name in columns), None) for role, names in needed.items()}
    if None in found.values() or not {"xmin", "ymin", "xmax", "ymax"} <= set(columns):
        raise Refusal("unknown_layout", "columns", sorted(columns), "it must have image_path, xmin, ymin, xmax, ymax and label")
    for index, row in _csv_rows(table, entry):
        locator, key = f"line {index}", f"{entry.stem}:{index}"
        try:
            bounds = [_parsed(row.get(columns[name]), name) for name in ("xmin", "ymin", "xmax", "ymax")]
            image, category = row.get(found["image_path"] or ""), row.get(found["class"] or "")
            if not image or not category:
                raise Refusal("missing_field", "image_path" if not image else "label", None, "the cell is empty")
        except Refusal as reason:
            yield Refused(entry.path, key, locator, reason, shortened(row))
            continue
        yield _pixel_row(entry, key, locator, image, category, bounds)


def _csv_rows(table: csv.DictReader[str], entry: Entry) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        yield from enumerate(table, 2)
    except csv.Error as error:
        raise Refusal("broken_csv", "file", entry.path, f"line {table.line_num}: {error}") from None


def _read_voc(entry: Entry) -> Iterator[Item]:
    try:
        root = SafeTree.fromstring(entry.read(64 << 20), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise Refusal("broken_xml", "file", entry.path, f"it is not plain XML ({error})") from None
    if root.tag != "annotation":
        return
    image = (root.findtext("filename") or "").strip()
    for index, item in enumerate(root.iter("object")):
        locator, key = f"object {index}", f"{entry.stem}:{index}"
        try:
            bounds = [_parsed(item.findtext(f"bndbox/{name}"), name) for name in ("xmin", "ymin", "xmax", "ymax")]
            category = (item.findtext("name") or "").strip()
            if not image or not category:
                raise Refusal("missing_field", "filename" if not image else "name", None, "the element is empty")
        except Refusal as reason:
            yield Refused(entry.path, key, locator, reason, f"{entry.path} {locator}")
            continue
        yield _pixel_row(entry, key, locator, image, category, bounds)


def _parsed(value: str | None, field: str) -> float:
    try:
        return number(float(value or ""), field)
    except ValueError:
        raise Refusal("not_a_number", field, value, "it must be a number") from None


def _pixel_row(entry: Entry, key: str, locator: str, image: str, category: str, bounds: Sequence[float]) -> Row:
    x_min, y_min, x_max, y_max = bounds
    reference = str(PurePosixPath(image.replace("\\", "/")))
    box = GivenBox((x_min, y_min, x_max, y_max), "exact", False)
    return Row(
        file=entry.path,
        source_key=key,
        locator=locator,
        dataset=DATASET,
        image=reference,
        category=category,
        boxes=(box,),
        has_sentences=False,
    )
