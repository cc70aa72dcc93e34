"""Pictures are turned upright on reading, as annotation tools show them; boxes and masks are of the upright picture."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from risbench.core.errors import InputError, InvalidRowError, OptionError
from risbench.core.imagery import image_size, read_raster
from risbench.formats.source.given_mask import given_pixels
from risbench.formats.source.rows import GivenMask
from risbench.formats.source.tree import SourceTree
from risbench.ingest import ingest
from tests.conftest import records

# The object in the upright picture of 96 x 160 px.
BOX = (20, 100, 60, 130)


def yard() -> np.ndarray:
    image = np.full((160, 96, 3), 60, np.uint8)
    image[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 235
    return image


def turned_jpeg() -> bytes:
    """Return the yard as a camera held on its side stores it: 160 x 96 px, with the note to turn it."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(yard(), 1))).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def ingested(tmp_path: Path, mask: bytes | None, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    source = tmp_path / "s"
    (source / "images").mkdir(parents=True)
    (source / "images" / "yard.jpg").write_bytes(turned_jpeg())
    x, y, right, bottom = BOX
    item = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [x, y, right - x, bottom - y],
        "expression": "the white vehicle in the lower half",
    }
    if mask is not None:
        (source / "masks").mkdir()
        (source / "masks" / "yard.png").write_bytes(mask)
    annotations = {"images": [{"id": 1, "file_name": "yard.jpg"}], "categories": [{"id": 1, "name": "vehicle"}], "annotations": [item]}
    (source / "instances.json").write_text(json.dumps(annotations))
    return ingest(source, workspace=tmp_path / "w", fit="keep", quiet=True, **options), records(tmp_path / "w" / "1-ingest")


def test_a_turned_photograph_is_kept_upright_with_its_box_on_the_object_and_says_so(tmp_path: Path) -> None:
    result, (record,) = ingested(tmp_path, None)
    assert (record["image"]["width"], record["image"]["height"], record["image"]["path"][-4:]) == (96, 160, ".png")
    (target,) = record["targets"]
    assert target["box"] == list(BOX)
    (repair,) = target["repairs"]
    assert repair["rule"] == "turned_upright"
    assert repair["detail"] == "stored as 160 x 96 px, EXIF orientation 6; the box is of the upright picture, 96 x 160 px"
    assert result["notes"]["repaired_turned_upright"] == 1
    with open(tmp_path / "w" / record["image"]["path"], "rb") as file:
        raster = read_raster(file, "kept")
    assert (raster.turned_by, raster.plain) == (1, True)
    assert raster.pixels[BOX[1] + 4 : BOX[3] - 4, BOX[0] + 4 : BOX[2] - 4].min() > 200
    assert raster.pixels[:90].max() < 120


def test_boxes_of_the_stored_picture_are_refused_with_the_option_that_reads_them(tmp_path: Path) -> None:
    ingested(tmp_path, None)
    source = tmp_path / "s"
    value = json.loads((source / "instances.json").read_text())
    value["images"][0] |= {"width": 160, "height": 96}
    value["annotations"][0]["bbox"] = [30, 20, 30, 40]
    (source / "instances.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"160 x 96 px.*96 x 160 px.*--exif stored"):
        ingest(source, workspace=tmp_path / "w2", fit="keep", quiet=True)
    ingest(source, workspace=tmp_path / "w2", fit="keep", exif="stored", quiet=True)
    (record,) = records(tmp_path / "w2" / "1-ingest")
    assert record["targets"][0]["box"] == [30, 20, 60, 60]


def test_exif_has_two_values(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--exif sideways: must be one of upright, stored"):
        ingested(tmp_path, None, exif="sideways")


@pytest.mark.parametrize("exif", ["upright", "stored"])
def test_masks_given_as_pictures_are_read_as_their_image_is(tmp_path: Path, exif: Any) -> None:
    path = tmp_path / "mask.jpg"
    path.write_bytes(turned_jpeg())
    tree, given = SourceTree.open(tmp_path), GivenMask(path="mask.jpg")
    height, width = (160, 96) if exif == "upright" else (96, 160)
    mask, _ = given_pixels(given, tree, height, width, "a.jpg", upright=exif == "upright")
    wanted = yard()[..., 0] > 127
    assert (mask == (wanted if exif == "upright" else np.rot90(wanted, 1))).mean() > 0.99
    with pytest.raises(
        InvalidRowError, match="its sides are exchanged, so one of the two has an EXIF turn: --exif stored reads both as they are stored"
    ):
        given_pixels(given, tree, width, height, "a.jpg", upright=exif == "upright")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_the_size_by_the_header_is_that_of_the_pixels(kind: str) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(yard()).save(buffer, kind, exif=exif)
    for upright in (True, False):
        raster = read_raster(io.BytesIO(buffer.getvalue()), "a", upright=upright)
        assert image_size(io.BytesIO(buffer.getvalue()), "a", upright=upright) == (raster.width, raster.height)
        assert (raster.width, raster.height) == ((160, 96) if upright else (96, 160))
