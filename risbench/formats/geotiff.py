"""GeoTIFF scenes with boxes beside them: GeoJSON in any CRS, and by `pixel_boxes` CSV and Pascal VOC in pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import cv2
import numpy as np
import rasterio.warp
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError

from risbench.core.errors import InvalidRowError, shortened
from risbench.core.geometry import apply_affine, invert_affine, is_oriented, quad_bounds, quad_from_flat
from risbench.core.imagery import georeference, image_kind, metres_per_pixel
from risbench.core.rasters import unusable_georeference, with_dataset
from risbench.core.record import Affine, Quad
from risbench.formats.pixel_boxes import looks_like_boxes, looks_like_voc, read_csv, read_voc
from risbench.formats.source.format import Format, Look, Verdict
from risbench.formats.source.lenient_json import load_json
from risbench.formats.source.rows import GivenBox, Item, Row, guarded, guarded_file, key_text, number, unread_sentence
from risbench.formats.source.scale import BoxScales
from risbench.formats.source.tree import Entry, SourceTree

DATASET: Final = "geotiff"
MIN_SIDE_PX: Final = 1.0
TIFF_SUFFIXES: Final = (".tif", ".tiff")
Rings = list[list[tuple[float, float]]]
CLASS_FIELDS: Final = ("category", "class", "class_name", "label", "type")


@dataclass(frozen=True)
class Scene:
    """The header of one georeferenced image."""

    entry: Entry
    width: int
    height: int
    crs: str | None
    transform: Affine | None
    unusable: str | None = None


def read_scene(entry: Entry) -> Scene:
    """Return the header of a TIFF.

    Raises:
        InvalidRowError: by its first bytes it is no TIFF (a VRT, for one), or its header is damaged.
    """
    with entry.open() as file:
        if image_kind(file.read(16)) != "TIFF":
            raise InvalidRowError("not_an_image", "image", entry.path, "its first bytes are not those of a TIFF file")
        file.seek(0)
        return with_dataset(file, entry.path, partial(_scene_of, entry), header=True)


def _scene_of(entry: Entry, dataset: Any) -> Scene:
    crs, transform = georeference(dataset)
    return Scene(entry, dataset.width, dataset.height, crs, transform, unusable_georeference(dataset))


def looks_like_geojson(head: str) -> bool:
    """Return whether the first characters of a JSON file are those of a collection of features."""
    return '"FeatureCollection"' in head or ('"features"' in head and '"geometry"' in head)


def read_geotiff_source(tree: SourceTree, files: Sequence[Entry], class_field: str | None, scales: BoxScales) -> Iterator[Item]:
    """Yield one row per box of the GeoJSON, CSV and VOC files, for the TIFFs of the tree.

    `class_field` names the GeoJSON property or CSV column that holds the class, `scales` judges the boxes of CSV and VOC.
    """
    scenes: list[Scene] = []
    if any(entry.suffix in (".geojson", ".json") for entry in files):
        for entry in tree.entries:
            if entry.suffix in TIFF_SUFFIXES:
                yield from guarded_file(_open_scene(entry, scenes), entry.path)
    for entry in files:
        if entry.suffix == ".csv":
            yield from scales.judged(entry.path, guarded_file(read_csv(entry, class_field), entry.path))
        elif entry.suffix == ".xml":
            yield from scales.judged(entry.path, guarded_file(read_voc(entry), entry.path))
        else:
            yield from guarded_file(_read_geojson(entry, scenes, class_field), entry.path)


def _open_scene(entry: Entry, scenes: list[Scene]) -> Iterator[Item]:
    """Add a TIFF to the scenes; yields nothing, and raises where it cannot be read."""
    scenes.append(read_scene(entry))
    yield from ()


def _read_geojson(entry: Entry, scenes: Sequence[Scene], class_field: str | None) -> Iterator[Item]:
    value = load_json(entry)
    features = value.get("features") if isinstance(value, dict) else None
    if not isinstance(features, list):
        raise InvalidRowError(
            "unknown_layout", "features", type(features).__name__, "it must be a FeatureCollection with a list of features"
        )
    crs = _geojson_crs(value)
    stated = isinstance(value.get("crs"), dict)
    for index, feature in enumerate(features):
        key = f"{entry.stem}:{key_text(feature.get('id', index)) if isinstance(feature, dict) else index}"
        make = partial(_feature_row, feature, entry, key, f"feature {index}", crs, stated, scenes, class_field)
        yield guarded(make, entry.path, key, f"feature {index}", partial(shortened, feature))


def _feature_row(
    feature: Any, entry: Entry, key: str, locator: str, crs: CRS, stated: bool, scenes: Sequence[Scene], class_field: str | None
) -> Row:
    """Return the row of one feature; `stated` says that the file names its CRS itself."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    properties = properties if isinstance(properties, dict) else {}
    rings = _outer_rings(feature)
    category = _class_of(properties, class_field)
    check_axes(rings, crs, stated, scenes)
    scene, quad, bounds = _place(rings, crs, scenes, entry.stem)
    box = GivenBox(bounds, "exact", False, quad=quad if is_oriented(quad) else None)
    sentence = properties.get("expression")
    return Row(
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
        unread=None if isinstance(sentence, str) else unread_sentence(properties, category),
    )


def check_axes(rings: Rings, crs: CRS, stated: bool, scenes: Sequence[Scene]) -> None:
    """Check that coordinates in longitude and latitude can be that.

    Raises:
        InvalidRowError: they are metres of a projection, or beyond a pole.
    """
    if not crs.is_geographic:
        return
    far = next(((x, y) for ring in rings for x, y in ring if abs(y) > 90 or abs(x) > 540), None)
    if far is None:
        return
    x, y = far
    shown = f"x {x:.10g}, y {y:.10g}"
    if max(abs(x), abs(y)) <= 540:
        exchanged = " (are the axes exchanged? GeoJSON has longitude first)" if abs(x) <= 90 else ""
        raise InvalidRowError(
            "latitude_out_of_range", "geometry", shown, f"latitude, the second number, must lie within -90 to 90{exchanged}"
        )
    says = "the file states longitude and latitude as its crs" if stated else "the file states no crs"
    fits = next((scene for scene in scenes if (own := _own_crs(scene)) is not None and _holds(rings, own, scene)), None)
    like = fits.crs if fits is not None and str(fits.crs).startswith("EPSG:") else "EPSG:32631"
    hint = f"; read in the CRS of {fits.entry.path} ({like}) it lies in that image" if fits is not None else ""
    urn = f"urn:ogc:def:crs:{str(like).replace(':', '::')}"
    mend = f'add its crs to the file ({{"crs": {{"type": "name", "properties": {{"name": "{urn}"}}}}}}) or write longitude and latitude'
    raise InvalidRowError("projected_without_crs", "geometry", shown, f"{shown} cannot be longitude and latitude, and {says}{hint}; {mend}")


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
    raise InvalidRowError("unknown_crs", "crs", name, "it must be an EPSG code, such as urn:ogc:def:crs:EPSG::32616, or CRS84")


def _outer_rings(feature: Any) -> Rings:
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise InvalidRowError("wrong_geometry", "geometry.type", kind, "it must be a Polygon or a MultiPolygon")
    assert isinstance(geometry, dict)
    polygons = [geometry.get("coordinates")] if kind == "Polygon" else geometry.get("coordinates")
    rings: Rings = []
    if not isinstance(polygons, list):
        raise InvalidRowError("wrong_geometry", "geometry.coordinates", polygons, "it must be a list of rings")
    for polygon in polygons:
        ring = polygon[0] if isinstance(polygon, list) and polygon else None
        if not isinstance(ring, list) or len(ring) < 3 or not all(isinstance(point, list) and len(point) >= 2 for point in ring):
            raise InvalidRowError("wrong_geometry", "geometry.coordinates", ring, "a ring needs at least 3 points of 2 numbers")
        rings.append([(number(point[0], "x"), number(point[1], "y")) for point in ring])
    if not rings:
        raise InvalidRowError("wrong_geometry", "geometry.coordinates", polygons, "it must hold at least one polygon")
    return rings


def _class_of(properties: Mapping[str, Any], class_field: str | None) -> str:
    if class_field is not None:
        value = properties.get(class_field)
        if value in (None, ""):
            raise InvalidRowError("class_missing", class_field, value, "the property named by --class-field is empty")
        return key_text(value)
    for field in CLASS_FIELDS:
        if isinstance(properties.get(field), str) and properties[field].strip():
            return str(properties[field])
    filled = sorted(key for key, value in properties.items() if isinstance(value, str) and value)
    raise InvalidRowError(
        "class_missing",
        "properties",
        filled,
        f"none of {', '.join(CLASS_FIELDS)} names a class; say which property does with --class-field",
    )


def _place(rings: Rings, crs: CRS, scenes: Sequence[Scene], stem: str) -> tuple[Scene, Quad, tuple[float, float, float, float]]:
    """Return the scene that holds the polygon's centre, and its oriented and upright boxes in that scene's pixels."""
    usable = [scene for scene in scenes if scene.crs is not None and scene.transform is not None]
    too_coarse: Scene | None = None
    for scene in sorted(usable, key=lambda scene: (scene.entry.stem != stem, _pixel_metres(scene), scene.entry.path)):
        bounds = _bounds_in(rings, crs, scene)
        if bounds is None:
            continue
        points, (x_min, y_min, x_max, y_max) = bounds
        if min(x_max - x_min, y_max - y_min) < MIN_SIDE_PX:
            too_coarse = too_coarse or scene
            continue
        corners = cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32)))
        return scene, quad_from_flat(np.asarray(corners, dtype=np.float64).ravel().tolist()), (x_min, y_min, x_max, y_max)
    if too_coarse is not None:
        where = f"{too_coarse.entry.path} shows it less than {MIN_SIDE_PX} px wide"
        raise InvalidRowError("object_too_small", "geometry", str(rings[0][:2]), f"{where}; a finer image of the place is needed")
    exchanged = [[(y, x) for x, y in ring] for ring in rings]
    swapped = next((scene for scene in usable if _holds(exchanged, crs, scene)), None)
    if swapped is not None:
        where = f"with x and y exchanged it lies in {swapped.entry.path}: GeoJSON has longitude (or easting) first"
        raise InvalidRowError("exchanged_axes", "geometry", str(rings[0][:2]), where)
    raise InvalidRowError("outside_all_images", "geometry", str(rings[0][:2]), _why_outside(scenes, len(usable)))


def _why_outside(scenes: Sequence[Scene], usable: int) -> str:
    if usable:
        return f"none of the {usable} georeferenced images of the source holds its centre"
    if not scenes:
        return "the source has no GeoTIFF to find it in"
    unusable = next((f": {scene.entry.path}: {scene.unusable}" for scene in scenes if scene.unusable), "")
    return f"none of the {len(scenes)} TIFFs of the source has a georeference to find it by{unusable}"


def _own_crs(scene: Scene) -> CRS | None:
    return CRS.from_user_input(scene.crs) if scene.crs is not None and scene.transform is not None else None


def _holds(rings: Rings, crs: CRS, scene: Scene) -> bool:
    return _bounds_in(rings, crs, scene) is not None


def _bounds_in(rings: Rings, crs: CRS, scene: Scene) -> tuple[NDArray[np.float64], tuple[float, float, float, float]] | None:
    """Return (points (n, 2), bounds) in a scene's pixels, None where the middle of the bounds lies outside it."""
    points = _to_pixels(rings, crs, scene)
    if points is None:
        return None
    x_min, y_min, x_max, y_max = quad_bounds([(float(point[0]), float(point[1])) for point in points])
    x, y = (x_min + x_max) / 2, (y_min + y_max) / 2
    return (points, (x_min, y_min, x_max, y_max)) if 0 <= x < scene.width and 0 <= y < scene.height else None


def _pixel_metres(scene: Scene) -> float:
    """Return the side of a pixel in metres, to look into the finest image first."""
    return metres_per_pixel(scene.crs, scene.transform, scene.width, scene.height) or float("inf")


def _to_pixels(rings: Rings, crs: CRS, scene: Scene) -> NDArray[np.float64] | None:
    """Return a polygon's points in a scene's pixels, None where its CRS cannot show them (a pole, the far side of the earth)."""
    assert scene.crs is not None
    assert scene.transform is not None
    points = [point for ring in rings for point in ring]
    target = CRS.from_user_input(scene.crs)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if crs != target:
        try:
            xs, ys = rasterio.warp.transform(crs, target, xs, ys)
        except (RasterioError, CPLE_BaseError, ValueError):
            return None
    if not np.isfinite(xs).all() or not np.isfinite(ys).all():
        return None
    if target.is_geographic:
        # Longitudes are circular: bring each within half a turn of the image's middle (antimeridian).
        middle, _ = apply_affine(scene.transform, scene.width / 2, scene.height / 2)
        xs = [x - 360 * round((x - middle) / 360) for x in xs]
    inverse = invert_affine(scene.transform)
    return np.array([apply_affine(inverse, x, y) for x, y in zip(xs, ys, strict=True)])


def _detect(tree: SourceTree, looks: Sequence[Look]) -> list[Verdict]:
    has_tiff = any(entry.suffix in TIFF_SUFFIXES for entry in tree.entries)
    return [_verdict(look, has_tiff) for look in looks]


def _verdict(look: Look, has_tiff: bool) -> Verdict:
    suffix = look.entry.suffix
    if suffix == ".geojson":
        return 0.96
    if suffix == ".json":
        return 0.6 if looks_like_geojson(look.json_head) else "no FeatureCollection"
    if suffix == ".csv":
        return (
            0.9
            if has_tiff or looks_like_boxes(look.head)
            else "no columns xmin, ymin, xmax, ymax with the image and the class, and no TIFF beside it"
        )
    if not looks_like_voc(look.head):
        return "no boxes of Pascal VOC"
    return 0.9 if has_tiff else "Pascal VOC, which is read beside TIFFs only"


FORMATS: Final = Format(
    name="geotiff",
    summary="GeoTIFF: any depth and band count, with GeoJSON, CSV or Pascal VOC boxes; windows keep CRS and transform",
    suffixes=(".geojson", ".json", ".csv", ".xml"),
    detect=_detect,
    read=lambda source: read_geotiff_source(source.tree, source.files, source.class_field, source.scales),
    rank=80,
    scaled="CSV and Pascal VOC",
    scaled_suffixes=(".csv", ".xml"),
)
