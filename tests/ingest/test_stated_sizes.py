"""The image size that a source states is held against the picture: equal ratio scaled, one or two pixels kept, anything else refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from risbench.core.errors import InputError, InvalidRowError
from risbench.core.imagery import encode_png, read_raster
from risbench.core.masks import decode_rle, encode_rle
from risbench.core.sizes import match_size
from risbench.formats.source.rows import stated_size
from risbench.ingest import ingest
from tests.conftest import records


def yard(width: int, height: int) -> np.ndarray:
    """Return a dark picture with a white object at 3/8 to 15/32 of the width and 1/3 to 5/12 of the height."""
    image = np.full((height, width, 3), 60, np.uint8)
    image[height // 3 : height * 5 // 12, width * 3 // 8 : width * 15 // 32] = 235
    return image


def coco(width: Any, height: Any, segmentation: Any) -> dict[str, Any]:
    """Return COCO of that object as it lies in 640 x 480 px."""
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [240, 160, 60, 40], "segmentation": segmentation}
    return {"images": [{"id": 1, "file_name": "yard.png", "width": width, "height": height}],
            "categories": [{"id": 1, "name": "vehicle"}],
            "annotations": [{**box, "expression": "the white vehicle left of the middle"}]}  # fmt: skip


POLYGON = [[240, 160, 300, 160, 300, 200, 240, 200]]


def runs(width: int, height: int) -> dict[str, Any]:
    mask = np.zeros((height, width), bool)
    mask[height // 3 : height * 5 // 12, width * 3 // 8 : width * 15 // 32] = True
    size, counts = encode_rle(mask)
    return {"size": list(size), "counts": counts}


def ingested(tmp_path: Path, picture: np.ndarray, annotations: dict[str, Any], **options: Any) -> dict[str, Any]:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "yard.png").write_bytes(encode_png(picture))
    (tmp_path / "s" / "instances.json").write_text(json.dumps(annotations))
    return ingest(tmp_path / "s", workspace=tmp_path / "w", quiet=True, **options)


@pytest.mark.parametrize("segmentation", [POLYGON, runs(640, 480), runs(320, 240), None])
def test_what_was_annotated_at_another_size_is_scaled_onto_its_object(tmp_path: Path, segmentation: Any) -> None:
    result = ingested(tmp_path, yard(320, 240), coco(640, 480, segmentation))
    assert result["notes"]["repaired_scaled"] == 1
    (record,) = records(tmp_path / "w" / "1-ingest")
    target = record["targets"][0]
    assert target["box"] == [192, 128, 240, 160]
    assert target["box_given"] == [120, 80, 150, 100]
    assert [repair["rule"] for repair in target["repairs"]] == ["scaled"]
    assert "640 x 480 px are stated, the picture has 320 x 240 px" in target["repairs"][0]["detail"]
    if segmentation is None:
        return
    mask = decode_rle(tuple(record["mask"]["size"]), record["mask"]["counts"])
    assert int(mask.sum()) == 1536
    with open(tmp_path / "w" / record["image"]["path"], "rb") as file:
        assert read_raster(file, "x").pixels[mask].mean() >= 220
    assert record["problems"] == []


def test_a_size_that_only_run_lengths_state_scales_boxes_and_polygons_too(tmp_path: Path) -> None:
    annotations = coco(None, None, [runs(640, 480)])
    other = {"id": 2, "image_id": "1", "category_id": 1, "bbox": [240, 160, 60, 40], "segmentation": POLYGON, "expression": "the white one"}
    annotations["annotations"].append(other)
    result = ingested(tmp_path, yard(320, 240), annotations)
    assert result["notes"]["repaired_scaled"] == 2
    for record in records(tmp_path / "w" / "1-ingest"):
        assert record["targets"][0]["box"] == [192, 128, 240, 160]
        assert [repair["rule"] for repair in record["targets"][0]["repairs"]] == ["scaled"]
        assert int(decode_rle(tuple(record["mask"]["size"]), record["mask"]["counts"]).sum()) == 1536
        assert record["problems"] == []


def test_run_lengths_of_two_sizes_state_the_size_of_their_own_row_alone(tmp_path: Path) -> None:
    annotations = coco(None, None, runs(640, 480))
    small = {"id": 2, "image_id": 1, "category_id": 1, "bbox": [120, 80, 30, 20], "segmentation": runs(320, 240), "expression": "the one"}
    annotations["annotations"].append(small)
    ingested(tmp_path, yard(320, 240), annotations)
    found = records(tmp_path / "w" / "1-ingest")
    assert [record["targets"][0]["box"] for record in found] == [[192, 128, 240, 160]] * 2
    assert sorted(len(record["targets"][0]["repairs"]) for record in found) == [0, 1]
    assert all(record["problems"] == [] for record in found)


def test_a_picture_of_another_ratio_is_refused_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wrong_size .*image size = 640 x 480 px; the picture has 320 x 200 px; its ratio is another one"):
        ingested(tmp_path, yard(320, 200), coco(640, 480, POLYGON))


def test_one_or_two_pixels_are_kept_and_recorded(tmp_path: Path) -> None:
    result = ingested(tmp_path, yard(640, 480), coco(640, 482, POLYGON), fit="keep")
    assert result["notes"] == {"repaired_stated_size_differs": 1}
    (record,) = records(tmp_path / "w" / "1-ingest")
    assert record["targets"][0]["box"] == [240, 160, 300, 200]
    assert decode_rle(tuple(record["mask"]["size"]), record["mask"]["counts"])[160:200, 240:300].all()


def test_run_lengths_a_pixel_off_are_kept(tmp_path: Path) -> None:
    assert ingested(tmp_path, yard(640, 480), coco(640, 480, runs(640, 481)))["counts"]["out"] == 1


@pytest.mark.parametrize(("width", "height"), [(None, None), (0, 0), (0, 480), (-1, -1), ("?", "?"), (640, 480)])
def test_no_stated_size_or_the_same_one_changes_nothing(tmp_path: Path, width: Any, height: Any) -> None:
    result = ingested(tmp_path, yard(640, 480), coco(width, height, POLYGON), fit="keep")
    assert result["notes"] == {}
    (record,) = records(tmp_path / "w" / "1-ingest")
    assert record["targets"][0]["box"] == [240, 160, 300, 200]
    assert record["targets"][0]["repairs"] == []


def test_exchanged_sides_tell_of_the_exif_turn() -> None:
    with pytest.raises(InvalidRowError, match="the sides are exchanged: the picture has an EXIF turn"):
        match_size((480, 640), (640, 480))
    with pytest.raises(InvalidRowError, match="--exif stored"):
        match_size((3000, 4000), (800, 600))


@pytest.mark.parametrize(
    ("stated", "found", "rule"),
    [
        ((800, 800), (800, 801), "stated_size_differs"),
        ((4000, 3000), (1024, 768), "scaled"),
        ((4032, 3024), (1000, 750), "scaled"),
        ((1366, 768), (800, 450), "scaled"),  # 449.8
        ((1366, 768), (800, 449), "scaled"),  # cut off
        ((256, 256), (1024, 1024), "scaled"),
        ((640, 480), (640, 400), None),
        ((640, 480), (641, 500), None),
        ((800, 800), (512, 500), None),
        ((100, 100), (50, 53), None),
    ],
)
def test_which_sizes_are_of_one_ratio(stated: tuple[int, int], found: tuple[int, int], rule: str | None) -> None:
    if rule is None:
        with pytest.raises(InvalidRowError, match="wrong_size"):
            match_size(stated, found)
        return
    repair = match_size(stated, found).repair
    assert repair is not None
    assert repair.rule == rule


def test_sizes_are_read_as_people_write_them() -> None:
    assert stated_size("640", 480.0) == (640, 480)
    assert stated_size(True, 1) is None
    assert stated_size(float("nan"), 480) is None


def test_a_size_stated_of_the_picture_as_stored_is_read_with_exif_stored(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    Image.fromarray(yard(640, 480)).save(tmp_path / "s" / "yard.jpg", exif=exif, quality=95)
    annotations = coco(640, 480, POLYGON)
    annotations["images"][0]["file_name"] = "yard.jpg"
    (tmp_path / "s" / "instances.json").write_text(json.dumps(annotations))
    with pytest.raises(
        InputError, match="image size = 640 x 480 px; the picture has 480 x 640 px; the sides are exchanged: .*--exif stored"
    ):
        ingest(tmp_path / "s", workspace=tmp_path / "w", quiet=True)
    ingest(tmp_path / "s", workspace=tmp_path / "w", exif="stored", fit="keep", quiet=True)
    (record,) = records(tmp_path / "w" / "1-ingest")
    mask = decode_rle(tuple(record["mask"]["size"]), record["mask"]["counts"])
    with open(tmp_path / "w" / record["image"]["path"], "rb") as file:
        assert read_raster(file, "x").pixels[mask].mean() >= 220
