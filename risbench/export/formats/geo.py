"""Release formats for maps: GeoPackage, GeoJSON and GeoTIFF, of the triplets whose image lies somewhere on the ground."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from affine import Affine as Map
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError, RasterioError
from rasterio.features import shapes
from rasterio.warp import transform_geom

from risbench.core.errors import InputError, printable
from risbench.core.extras import need_package
from risbench.core.reading import read_json
from risbench.core.record import SPLITS, Record, Split
from risbench.export.formats.base import Check, ReleaseFormat
from risbench.export.geopackage import look_into, write_geopackage
from risbench.export.triplet import Triplet

# GeoJSON knows no other (RFC 7946).
_LONGITUDE_LATITUDE: Final = "EPSG:4326"
_FIELDS: Final = ("id", "expression", "category", "image", "scene", "review_status", "licence", "record")


def is_georeferenced(record: Record) -> bool:
    """Return whether it is known where on the ground the image's pixels lie."""
    return record.image.crs is not None and record.image.transform is not None


class GeoLayout:
    """<split>.gpkg, <split>.geojson (longitude and latitude) and images/<name>.tif with CRS and transform.

    The GeoPackage has the images' own CRS where they share one, else longitude and latitude. A triplet that lies nowhere on the ground is
    left out and counted.

    Raises:
        MissingRequirementError: pyogrio is not installed.
    """

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        need_package("pyogrio", "release")
        (folder / "images").mkdir(parents=True)
        systems = {record.image.crs for record in records if is_georeferenced(record)}
        self._folder, self._crs = folder, systems.pop() if len(systems) == 1 else _LONGITUDE_LATITUDE
        self._features: dict[Split, list[tuple[Record, dict[str, Any], str]]] = {split: [] for split in SPLITS}
        self._written: dict[str, str] = {}
        self._left_out = 0

    def add(self, triplet: Triplet) -> None:
        """Write the image, and keep the outline of the mask."""
        record = triplet.record
        if not is_georeferenced(record):
            self._left_out += 1
            return
        assert record.split is not None, "every record that is released has a split"
        name = self._written.setdefault(record.image.path, f"{triplet.name}.tif")
        if not (self._folder / "images" / name).exists():
            (self._folder / "images" / name).write_bytes(_geotiff(record, triplet))
        self._features[record.split].append((record, outline(triplet.mask, record), name))

    def close(self) -> dict[str, Any]:
        """Write the outlines; return how many triplets were left out."""
        for split, features in self._features.items():
            _write_geojson(self._folder / f"{split}.geojson", features)
            there = [moved(geometry, record, self._crs) for record, geometry, _ in features]
            rows = [_properties(record, f"images/{image}") for record, _, image in features]
            columns = {name: [row[name] for row in rows] for name in _FIELDS}
            write_geopackage(self._folder / f"{split}.gpkg", there, columns, self._crs)
        return {"crs": self._crs, "without_georeference": self._left_out}


def outline(mask: NDArray[np.bool_], record: Record) -> dict[str, Any]:
    """Return a mask's outline along the pixels' edges as a GeoJSON MultiPolygon in the image's CRS."""
    assert record.image.transform is not None, "asked of georeferenced images only"
    parts = [geometry["coordinates"] for geometry, _ in shapes(mask.astype(np.uint8), mask=mask, transform=Map(*record.image.transform))]
    return {"type": "MultiPolygon", "coordinates": parts}


def moved(geometry: dict[str, Any], record: Record, crs: str | None, precision: int = -1) -> dict[str, Any]:
    """Return a GeoJSON geometry of a record's image in another CRS.

    Raises:
        InputError: the image's CRS is unknown, or does not reach there.
    """
    if record.image.crs == crs:
        return geometry
    try:
        return dict(transform_geom(record.image.crs, crs, geometry, precision=precision))
    except (RasterioError, CPLE_BaseError) as error:
        raise _no_crs(record, error) from None


def _no_crs(record: Record, error: Exception) -> InputError:
    said = f"cannot be used ({printable(str(error), 120)}); leave out --format geo, or ingest the source again with its CRS"
    return InputError(f"record {record.id}: image.crs = {printable(record.image.crs)}: {said}")


def _geotiff(record: Record, triplet: Triplet) -> bytes:
    """Return the cloud-optimized GeoTIFF of a record's image; made in memory, as GDAL closes a file on a full disk without a word."""
    assert record.image.transform is not None, "asked of georeferenced images only"
    size = {"width": record.image.width, "height": record.image.height, "count": 3, "dtype": "uint8"}
    place = {"crs": record.image.crs, "transform": Map(*record.image.transform)}
    with rasterio.MemoryFile() as memory:
        try:
            with memory.open(driver="COG", compress="deflate", **place, **size) as target:
                target.write(np.moveaxis(triplet.picture.pixels, 2, 0))
        except CRSError as error:
            raise _no_crs(record, error) from None
        return bytes(memory.getbuffer())


def _properties(record: Record, image: str) -> dict[str, str | None]:
    text = record.expression.text if record.expression else None
    values = (
        record.id,
        text,
        record.category.name,
        image,
        record.image.scene,
        record.review.status,
        record.source.licence,
        record.to_line(),
    )
    return dict(zip(_FIELDS, values, strict=True))


def _write_geojson(path: Path, features: list[tuple[Record, dict[str, Any], str]]) -> None:
    rows = []
    for record, geometry, image in features:
        there = moved(geometry, record, _LONGITUDE_LATITUDE, precision=9)
        rows.append({"type": "Feature", "id": record.id, "geometry": there, "properties": _properties(record, f"images/{image}")})
    text = json.dumps({"type": "FeatureCollection", "features": rows}, ensure_ascii=False, separators=(",", ":"))
    path.write_text(text, encoding="utf-8")


def _count(check: Check) -> None:
    """Check the maps: each layer with its entry, index and features, as many in GeoJSON as in the GeoPackage."""
    folder, total = check.folder / "geo", 0
    for split in SPLITS:
        count, wrong = look_into(folder / f"{split}.gpkg", split)
        check.faults.extend(f"geo/{split}.gpkg: {fault}" for fault in wrong)
        beside = len(read_json(folder / f"{split}.geojson")["features"])
        if not wrong and beside != count:
            check.faults.append(f"geo: {split}.geojson holds {beside:,} features, {split}.gpkg {count:,}")
        total += beside
    wanted = check.described["triplets"] - check.written("geo")["without_georeference"]
    if total != wanted:
        check.faults.append(f"geo: holds {total:,} triplets; release.json counts {wanted:,}")


RELEASE_FORMAT: Final = ReleaseFormat(
    name="geo",
    opened="`geo/`: GeoPackage, GeoJSON and GeoTIFF, of the triplets whose image lies somewhere on the ground",
    writer=lambda folder, records, dataset: GeoLayout(folder / "geo", records),
    count=_count,
    rank=70,
    possible=lambda records: any(is_georeferenced(record) for record in records),
    impossible="has a CRS and a transform",
)
