"""Maps: masks lie on the ground where their pixels do, and triplets that lie nowhere are not given a place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from rasterio.features import geometry_mask, rasterize
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

from risbench.core.errors import InputError
from risbench.core.imagery import read_raster
from risbench.core.masks import mask_of
from risbench.core.record import Record
from risbench.core.workspace import Workspace, read_records
from risbench.export import export
from risbench.ingest import ingest
from risbench.refine import refine_masks
from risbench.scenes.source import write_source
from tests.conftest import tree_bytes

UTM = "EPSG:32633"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of 0.5 m in UTM, four sentences each."""
    folder = tmp_path_factory.mktemp("geo")
    (folder / "source").mkdir()
    random = np.random.default_rng(0)
    for scene in range(3):
        transform = from_origin(500_000 + 3000 * scene, 5_400_000, 0.5, 0.5)
        pixels = random.integers(60, 90, (3, 512, 512)).astype(np.uint8)
        features = []
        for k, word in enumerate(("left", "right", "upper", "lower")):
            x, y = 60 + 200 * (k % 2), 70 + 220 * (k // 2)
            pixels[:, y : y + 40, x : x + 90] = random.integers(180, 220, (3, 40, 90))
            corners = [transform * point for point in ((x, y), (x + 90, y), (x + 90, y + 40), (x, y + 40), (x, y))]
            there = transform_geom(UTM, "EPSG:4326", {"type": "Polygon", "coordinates": [corners]})
            properties = {"class": "ship", "expression": f"The ship at the {word} of picture {scene}."}
            features.append({"type": "Feature", "geometry": there, "properties": properties})
        size = {"width": 512, "height": 512, "count": 3, "dtype": "uint8", "crs": UTM, "transform": transform}
        with rasterio.open(folder / "source" / f"scene{scene}.tif", "w", driver="GTiff", **size) as target:
            target.write(pixels)
        (folder / "source" / f"scene{scene}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    ingest(folder / "source", workspace=folder / "w", name="ground")
    refine_masks(workspace=folder / "w", engine="grabcut")
    export(workspace=folder / "w", formats=["all"], include_unreviewed=True, allow_empty=True)  # the three look alike and stay together
    return folder / "w"


@pytest.fixture(scope="module")
def records(world: Path) -> dict[str, Record]:
    found = {record.id: record for record in read_records(Workspace.open(world).latest())}
    assert len(found) == 12
    return found


def geo(world: Path) -> Path:
    return world / "4-export" / "release" / "geo"


def test_outlines_lie_on_the_ground_where_the_pixels_do(world: Path, records: dict[str, Record]) -> None:
    seen = set()
    for split in ("train", "val", "test"):
        meta, _, geometries, columns = pyogrio.raw.read(geo(world) / f"{split}.gpkg")
        assert meta["crs"] == UTM
        fields = dict(zip(meta["fields"], columns, strict=True))
        for index, name in enumerate(fields["id"]):
            import shapely

            mask = records[name].mask
            assert mask is not None
            with rasterio.open(geo(world) / str(fields["image"][index])) as image:
                drawn = geometry_mask([shapely.from_wkb(geometries[index])], (512, 512), image.transform, invert=True)
                assert image.crs == UTM
                assert image.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                with open(world / records[name].image.path, "rb") as file:
                    assert np.array_equal(np.moveaxis(image.read(), 0, 2), read_raster(file, "image").pixels)
            assert np.array_equal(drawn, mask_of(mask))
            assert Record.model_validate_json(fields["record"][index]).model_copy(update={"split": None}) == records[name]
            seen.add(name)
    assert seen == records.keys()


def test_geojson_is_in_longitude_and_latitude(world: Path, records: dict[str, Record]) -> None:
    for split in ("train", "val", "test"):
        for feature in json.loads((geo(world) / f"{split}.geojson").read_text())["features"]:
            record = records[feature["id"]]
            assert record.mask is not None
            longitude, latitude = feature["geometry"]["coordinates"][0][0][0]
            assert 14.9 < longitude < 15.2
            assert 48.6 < latitude < 48.9
            with rasterio.open(geo(world) / feature["properties"]["image"]) as image:
                back = transform_geom("EPSG:4326", UTM, feature["geometry"])
                drawn = rasterize([back], (512, 512), transform=image.transform).astype(bool)
            assert np.count_nonzero(drawn ^ mask_of(record.mask)) <= 4  # nine decimals of a degree are a tenth of a millimetre


def test_maps_are_read_back_with_their_sentences(world: Path, records: dict[str, Record], tmp_path: Path) -> None:
    done = ingest(geo(world), workspace=tmp_path / "w", format="geotiff", class_field="category")
    assert done["counts"]["out"] == len(records)
    back = {record.expression.text for record in read_records(tmp_path / "w" / "1-ingest") if record.expression}
    assert back == {record.expression.text for record in records.values() if record.expression}


def test_the_same_records_make_the_same_map(world: Path) -> None:
    again = Path(export(workspace=world, formats=["geo"], include_unreviewed=True, allow_empty=True, name="again")["path"])
    assert tree_bytes(again / "geo") == tree_bytes(geo(world))


def test_what_lies_nowhere_is_refused_and_not_given_a_place(tmp_path: Path) -> None:
    write_source(tmp_path / "source", seed=1, scenes=3)
    ingest(tmp_path / "source", workspace=tmp_path / "w")
    refine_masks(workspace=tmp_path / "w", engine="box")
    with pytest.raises(InputError, match="--format geo: none of the [0-9]+ records has a CRS and a transform"):
        export(workspace=tmp_path / "w", formats=["risbench", "geo"], include_unreviewed=True)
    assert "geo" not in export(workspace=tmp_path / "w", split="1,0,0", formats=["all"], include_unreviewed=True)["formats"]
