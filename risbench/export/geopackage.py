"""A GeoPackage of outlines: made in memory, so that a failed write is Python's own error, and read back before it is released.

GDAL goes on over a failed call: the layer then lacks its spatial index or its entry among the contents, and QGIS lists nothing.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import shapely

from risbench.core.errors import MissingRequirementError, printable

# A GeoPackage holds the time at which it was changed; the same records are to give the same bytes.
_NO_CLOCK: Final = {"OGR_CURRENT_DATE": "2000-01-01T00:00:00.000Z"}


def write_geopackage(
    path: Path, geometries: Sequence[Mapping[str, Any]], columns: Mapping[str, Sequence[str | None]], crs: str | None
) -> None:
    """Write one layer of MultiPolygons (GeoJSON geometries) with text columns, named as the file.

    Raises:
        MissingRequirementError: it cannot be made, or is not what was written.
        OSError: it cannot be written.
    """
    import pyogrio

    pyogrio.set_gdal_config_options(_NO_CLOCK)
    data = io.BytesIO()
    try:
        pyogrio.raw.write(
            data,
            geometry=np.array([shapely.to_wkb(shapely.geometry.shape(geometry)) for geometry in geometries], dtype=object),
            field_data=[np.array(values, dtype=object) for values in columns.values()],
            fields=list(columns),
            geometry_type="MultiPolygon",
            crs=crs,
            driver="GPKG",
            layer=path.stem,
        )
    except RuntimeError as error:  # all of pyogrio's
        said = f"{type(error).__name__}: {printable(str(error), 200)}"
        raise MissingRequirementError(f"{path}: cannot be made ({said}); mend that, then run the same command to go on") from error
    path.write_bytes(data.getbuffer())
    count, faults = look_into(path, path.stem)
    if not faults and count != len(geometries):
        faults = [f"holds {count:,} features instead of {len(geometries):,}"]
    if faults:
        raise MissingRequirementError(
            f"{path}: was not written whole: {'; '.join(faults)}; check the disk, then run the same command to go on"
        )


def look_into(path: Path, layer: str) -> tuple[int, list[str]]:
    """Return how many features a layer of a GeoPackage has, and what is wrong with it: its entry, geometry, index or count."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True)) as file:
            file.execute("PRAGMA trusted_schema = OFF")
            return _look_into(file, layer)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        return 0, [f"is no readable GeoPackage ({printable(str(error), 120)})"]


def _look_into(file: sqlite3.Connection, layer: str) -> tuple[int, list[str]]:
    [[sound]] = file.execute("PRAGMA quick_check(1)").fetchall()
    if sound != "ok":
        return 0, [f"its database is damaged ({printable(str(sound), 120)})"]
    tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if layer not in tables:  # a view could run what it likes
        return 0, [f"has no layer {layer}"]
    faults = []
    index = f"rtree_{layer}_geom"
    for table, column in (("gpkg_contents", "table_name"), ("gpkg_geometry_columns", "table_name"), ("gpkg_extensions", "table_name")):
        if table not in tables or not file.execute(f"SELECT 1 FROM {table} WHERE {column} = ?", [layer]).fetchone():
            faults.append(f"layer {layer} has no entry in {table}")
    count = int(file.execute(f'SELECT count(*) FROM "{layer}"').fetchone()[0])
    lacking = int(file.execute(f'SELECT count(*) FROM "{layer}" WHERE geom IS NULL').fetchone()[0])
    if lacking:
        faults.append(f"{lacking:,} features of layer {layer} have no geometry")
    indexed = int(file.execute(f'SELECT count(*) FROM "{index}"').fetchone()[0]) if index in tables else None
    if indexed != count:
        faults.append(f"the spatial index of layer {layer} holds {indexed if indexed is not None else 'nothing'} of {count:,} features")
    return count, faults
