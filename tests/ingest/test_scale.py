"""In which scale boxes are written is judged by file, shown, and the user's to say; no row is repaired into another scale."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from risbench.core.errors import InputError, OptionError
from risbench.core.imagery import encode_png
from risbench.core.sizes import Size
from risbench.formats.detect import check_box_options, read_source
from risbench.formats.source.rows import GivenBox, Item, Refused, Row
from risbench.formats.source.scale import BoxScales
from risbench.formats.source.tree import SourceTree
from risbench.formats.source.unread_forms import form_of
from risbench.formats.vrsbench import parse_tokens
from risbench.formats.yolo import yolo_form
from risbench.ingest import ingest
from tests.conftest import lines, picture, records

THOUSANDTHS = [(300, 400, 420, 520), (610, 120, 700, 260), (60, 40, 400, 300), (450, 700, 560, 830),
               (80, 55, 330, 270), (720, 640, 900, 800), (100, 500, 300, 700), (20, 30, 90, 80)]  # fmt: skip


def token_text(box: Sequence[int]) -> str:
    return "{" + "".join(f"<{value}>" for value in box) + "}"


def conversations(folder: Path, boxes: Sequence[Sequence[int]]) -> Path:
    """Write VRSBench's training form, one 64 x 64 px image a row."""
    (folder / "Images_train").mkdir(parents=True)
    rows = []
    for place, box in enumerate(boxes):
        name = f"P{place:04d}_0000.png"
        (folder / "Images_train" / name).write_bytes(encode_png(picture(place, 64, 64)))
        turns = [{"from": "human", "value": f"<image>\n[refer] <p>the white ship of picture {place}</p>"},
                 {"from": "gpt", "value": token_text(box)}]  # fmt: skip
        rows.append({"image": name, "conversations": turns})
    (folder / "train.json").write_text(json.dumps(rows))
    return folder


def rows_of(boxes: Sequence[GivenBox], size: tuple[int, int] | None = None) -> list[Row]:
    return [
        Row(
            file="f.json",
            source_key=str(place),
            locator=str(place),
            dataset="",
            image=f"{place}.png",
            category="ship",
            boxes=(box,),
            stated_size=size,
        )
        for place, box in enumerate(boxes)
    ]


def judged(boxes: Sequence[GivenBox], size: tuple[int, int] | None = None, *, corners: bool = False, **said: Any) -> tuple[list[Item], str]:
    scales = BoxScales(**said)
    return list(scales.judged("f.json", rows_of(boxes, size), corners=corners)), "".join(scales.said())


def tokens(*boxes: Sequence[int]) -> list[GivenBox]:
    return [GivenBox(parse_tokens(token_text(box), "t")[0], "token", True, quantum=0.01) for box in boxes]


def pixels(*boxes: Sequence[float]) -> list[GivenBox]:
    return [GivenBox((box[0], box[1], box[2], box[3]), "exact", False) for box in boxes]


def shares(*boxes: Sequence[float]) -> list[GivenBox]:
    return [GivenBox((box[0], box[1], box[2], box[3]), "corner", True) for box in boxes]


def why(items: Sequence[Item]) -> str:
    """Return the reason for which all items are refused."""
    assert all(isinstance(item, Refused) for item in items), items
    return " | ".join(sorted({item.reason.bound for item in items if isinstance(item, Refused)}))


def test_thousandths_are_refused_by_name_and_read_when_the_user_says_so(tmp_path: Path) -> None:
    source = conversations(tmp_path / "s", THOUSANDTHS)
    with pytest.raises(InputError, match="tokens up to 900: these look like thousandths; VRSBench has hundredths; --box-scale thousandths"):
        ingest(source, workspace=tmp_path / "w", quiet=True)
    result = ingest(source, workspace=tmp_path / "w", fit="keep", box_scale="thousandths", quiet=True)
    assert result["counts"]["out"] == 8
    assert result["boxes"] == ["boxes of train.json: thousandths, as asked"]
    assert result["options"]["box_scale"] == "thousandths"
    third = next(record for record in records(tmp_path / "w" / "1-ingest") if "P0002" in record["id"])
    assert third["targets"][0]["box"] == pytest.approx([3.84, 2.56, 25.6, 19.2], abs=0.04)
    assert third["targets"][0]["repairs"] == []


def test_the_known_dirty_tokens_are_read_as_before() -> None:
    random = np.random.default_rng(0)
    dirty = [sorted(random.integers(-73, 197, 2).tolist()) + sorted(random.integers(-73, 197, 2).tolist()) for _ in range(200)]
    boxes = tokens(*((a, c, b, d) for a, b, c, d in dirty))
    items, said = judged(boxes)
    assert items == rows_of(boxes)
    assert said == "boxes of f.json: hundredths"


def test_a_few_rows_of_another_scale_are_refused_and_the_others_read() -> None:
    items, said = judged(tokens(*([(10, 20, 30, 40)] * 30), (600, 100, 700, 300)))
    assert [type(item) for item in items] == [Row] * 30 + [Refused]
    assert "another scale than the file's other boxes" in why(items[30:])
    assert said == "boxes of f.json: hundredths"


@pytest.mark.parametrize(
    ("boxes", "size", "said"),
    [
        (shares((100, 120, 240, 300)), (512, 512), "corners up to 300.*thousandths or pixels"),
        (shares((10, 12, 24, 30)), (512, 512), "corners up to 30.*hundredths or pixels.*VRSBench has shares"),
        (shares((100, 120, 990, 300)), (512, 512), "corners up to 990: these look like thousandths;"),
        (shares((1500, 1200, 2400, 3000)), (4000, 4000), "look like pixels; .*--box-scale pixels"),
        (tokens((1500, 1200, 2400, 3000)), (512, 512), "no scale that is known"),
        (tokens(*[(10 * k, 300, 10 * k + 100, 420) for k in range(30)]), (512, 512), "look like pixels or thousandths"),
    ],
)
def test_corners_and_tokens_of_another_scale_name_it(boxes: list[GivenBox], size: tuple[int, int], said: str) -> None:
    import re

    assert re.search(said, why(judged(boxes, size)[0])), why(judged(boxes, size)[0])


def test_boxes_in_shares_are_no_pixels_and_are_read_when_the_user_says_so(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.png").write_bytes(encode_png(picture(0, 640, 640)))
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0.0625, 0.09375, 0.125, 0.0625], "expression": "the white vehicle",
           "segmentation": [[0.0625, 0.09375, 0.1875, 0.09375, 0.1875, 0.15625, 0.0625, 0.15625]]}  # fmt: skip
    value = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [box], "categories": [{"id": 1, "name": "vehicle"}]}
    (tmp_path / "s" / "instances.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="smaller than a pixel and all numbers lie in 0-1: these are shares"):
        ingest(tmp_path / "s", workspace=tmp_path / "w", quiet=True)
    ingest(tmp_path / "s", workspace=tmp_path / "w", box_scale="shares", quiet=True)
    (record,) = records(tmp_path / "w" / "1-ingest")
    assert record["targets"][0]["box_given"] == [40, 60, 120, 100]
    assert record["targets"][0]["box"] == [32, 48, 96, 80]
    assert record["problems"] == [], "the mask, in shares too, lies in the box"


def test_a_box_under_a_pixel_among_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.png").write_bytes(encode_png(picture(0)))
    boxes = [[10, 10, 20, 20], [40, 40, 20, 0.4], [60, 60, 1, 1], [95.5, 10, 30, 30], [0.1, 0.1, 0.5, 0.5]]
    annotations = [{"id": key, "image_id": 1, "category_id": 1, "bbox": box, "expression": f"ship {key}"} for key, box in enumerate(boxes)]
    value = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": annotations, "categories": [{"id": 1, "name": "ship"}]}
    (tmp_path / "s" / "instances.json").write_text(json.dumps(value))
    result = ingest(tmp_path / "s", workspace=tmp_path / "w", quiet=True)
    assert result["counts"]["out"] == 2
    refused = lines(tmp_path / "w" / "1-ingest" / "quarantine.jsonl")
    assert {line["code"] for line in refused} == {"box_too_small"}
    assert "20 x 0.4 px in the image of 96 x 96 px" in refused[0]["bound"]
    assert "--box-scale shares" in refused[-1]["bound"]


SPREAD = [(5, 8, 20, 25), (40.5, 50, 61, 66), (70, 12, 99.5, 40), (15, 80, 30, 97)]


def test_hundredths_and_thousandths_written_as_pixels_are_told_by_the_images_size() -> None:
    assert "look like hundredths of the sides, not pixels" in why(judged(pixels(*SPREAD), (640, 640))[0])
    many = pixels(*[[value * 10 for value in box] for box in SPREAD])
    assert "look like thousandths" in why(judged(many, (4000, 4000))[0])
    assert "middle outside the image" in why(judged(many, (512, 512))[0])
    assert judged(pixels(*SPREAD), (128, 128))[0] == rows_of(pixels(*SPREAD), (128, 128)), "pixels of a small image"
    assert judged(pixels(*SPREAD), None)[0] == rows_of(pixels(*SPREAD)), "nothing is known of the image"
    items, said = judged(pixels(*SPREAD), (640, 640), scale="pixels")
    assert items == rows_of(pixels(*SPREAD), (640, 640))
    assert said == "boxes of f.json: pixels, as asked"
    (first, *_), said = judged(pixels(*SPREAD), (640, 640), scale="hundredths")
    assert isinstance(first, Row)
    assert first.boxes[0].box == pytest.approx((0.05, 0.08, 0.2, 0.25))


PARKED = pixels((10, 12, 34, 28), (40, 12, 64, 28), (70, 14, 95, 30))
ROW_OF_CARS = pixels(*[(100 * k, 400, 100 * k + 80, 440) for k in range(5, 9)])


@pytest.mark.parametrize(
    ("boxes", "size", "images", "doubt"),
    [
        (
            PARKED,
            (1024, 1024),
            1,
            "no box reaches beyond 95, in images of 1024 x 1024 px: if these are hundredths of the sides, --box-scale",
        ),
        (ROW_OF_CARS, (4000, 3000), 1, "if these are thousandths"),
        (pixels(*SPREAD), (640, 640), 1, "if these are hundredths"),
        (pixels(*SPREAD), (640, 640), 3, "if these are hundredths"),
        (PARKED * 3, (1024, 1024), 9, "if these are hundredths"),
    ],
)
def test_objects_of_one_corner_are_pixels_and_the_doubt_is_said(boxes: list[GivenBox], size: Size, images: int, doubt: str) -> None:
    rows = [replace(row, image=f"{place % images}.png") for place, row in enumerate(rows_of(boxes, size))]
    scales = BoxScales()
    assert list(scales.judged("f.json", rows)) == rows
    assert doubt in scales.said()[0]


def test_hundredths_of_many_images_are_refused_without_reaching_the_border() -> None:
    corners = [(12, 8), (45, 60), (70, 30), (33, 25), (58, 44), (20, 52)]
    boxes = pixels(*[(x, y, x + 9, y + 13) for x, y in corners])
    assert "look like hundredths of the sides, not pixels" in why(judged(boxes, (640, 640))[0])


def test_one_object_counts_once_however_many_sentences_it_has() -> None:
    row = replace(rows_of(pixels((20, 30, 80, 60)), (1024, 1024))[0], image="a.png")
    rows = [replace(row, sentence=f"the car nearest to corner {place}") for place in range(9)]
    scales = BoxScales()
    assert list(scales.judged("f.json", rows)) == rows
    assert scales.said() == ["boxes of f.json: pixels"]


def test_the_doubt_is_said_of_a_folder_only_where_most_of_its_files_have_it() -> None:
    for doubtful, said in ((3, "; in 3 of them, such as: no box reaches beyond 95"), (2, "")):
        scales = BoxScales()
        for place in range(4):
            boxes = PARKED if place < doubtful else pixels((300, 400, 900, 1000))
            assert all(isinstance(item, Row) for item in scales.judged(f"labelTxt/{place}.txt", rows_of(boxes, (1024, 1024))))
        (line,) = scales.said()
        assert line.startswith("boxes of 4 files in labelTxt: pixels" + said)
        assert said or line.endswith("pixels")


def test_unclipped_boxes_at_the_border_are_pixels() -> None:
    boxes = pixels(*[(20 * k, 300, 20 * k + 80, 380) for k in range(24)], (480, 40, 560, 90), (-30, 10, 40, 50))
    assert judged(boxes, (512, 512))[0] == rows_of(boxes, (512, 512))


def as_xywh(*corners: Sequence[float]) -> list[GivenBox]:
    """Return what the reader makes of two corners that stand where x, y, width, height belong."""
    return pixels(*((x, y, x + right, y + bottom) for x, y, right, bottom in corners))


def test_two_corners_in_cocos_bbox_are_told_and_read_when_the_user_says_so() -> None:
    corners = [(300, 300, 380, 340), (10, 40, 60, 90), (200, 350, 330, 480), (400, 100, 500, 160)]
    items, _ = judged(as_xywh(*corners), (512, 512), corners=True)
    assert "--box-order xyxy reads them" in why(items)
    items, _ = judged(as_xywh(*corners), (512, 512), corners=True, order="xyxy")
    assert [item.boxes[0].box for item in items if isinstance(item, Row)] == corners
    assert judged(as_xywh(*corners), (512, 512), corners=True, order="xywh")[0] == rows_of(as_xywh(*corners), (512, 512))
    ordinary = pixels((100, 100, 180, 140), (300, 300, 380, 340), (300, 300, 680, 640))
    assert judged(ordinary, (512, 512), corners=True)[0] == rows_of(ordinary, (512, 512)), "one odd row of three is that row's matter"


def test_two_corners_far_from_the_origin_are_not_called_thousandths() -> None:
    items, _ = judged(as_xywh(*((300 + 10 * k, 300, 380 + 10 * k, 340) for k in range(6))), (512, 512), corners=True)
    assert "--box-order xyxy reads them" in why(items)
    assert "thousandths" not in why(items)


def test_an_option_that_cannot_be_is_said(make_source: Callable[..., Path]) -> None:
    assert "no part of the sides" not in why(judged(pixels((100, 100, 600, 300)), (640, 480), scale="shares")[0])
    assert "shares are asked for; --box-scale" in why(judged(pixels((100, 100, 600, 300)), (640, 480), scale="shares")[0])


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("phrases", {"box_scale": "thousandths"}, "--box-scale thousandths: the source is read as phrases .* has no boxes in numbers"),
        ("phrases", {"box_order": "xyxy"}, "--box-order xyxy: the source is read as phrases"),
        ("geojson", {"box_scale": "shares"}, "--box-scale shares: the source is read as geotiff"),
        ("geojson", {"box_order": "xywh"}, "--box-order xywh: .* no bbox of four numbers in a list, as coco and refer have; leave it out"),
        ("csv", {"box_order": "xyxy"}, r"--box-order xyxy: the source is read as geotiff \(b.csv\)"),
    ],
)
def test_an_option_that_says_nothing_of_the_source_is_refused(tmp_path: Path, kind: str, options: dict[str, Any], said: str) -> None:
    source = tmp_path / "s"
    source.mkdir()
    (source / "a.tif").write_bytes(encode_png(picture(0)))
    names = {"phrases": "output_phrase_train.txt", "geojson": "a.geojson", "csv": "b.csv"}
    texts = {
        "phrases": "0001.png the white vehicle\n",
        "geojson": '{"type": "FeatureCollection", "features": []}',
        "csv": "image_path,xmin,ymin,xmax,ymax,label\na.tif,1,1,41,41,ship\n",
    }
    (source / names[kind]).write_text(texts[kind])
    with pytest.raises(OptionError, match=said):
        ingest(source, workspace=tmp_path / "w", quiet=True, **options)
    assert not (tmp_path / "w").exists()


def test_releases_take_neither_option_and_boxes_in_numbers_both_or_one() -> None:
    for options in (("pixels", None), (None, "xywh")):
        with pytest.raises(OptionError, match="the source is read as parquet"):
            check_box_options("parquet", [], *options)
    check_box_options("coco", [], "pixels", "xyxy")
    check_box_options("dota", [], "pixels", None)
    check_box_options("webdataset", [], None, None)


OBB = "1 0.0625 0.09375 0.1875 0.09375 0.1875 0.15625 0.0625 0.15625\n"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (OBB, "class number first and 8 shares: this is YOLO-OBB, not DOTA labelTxt (8 pixels first, class after)"),
        (OBB + OBB, "YOLO-OBB"),
        ("0 0.5 0.5 0.25 0.25\n3 .1 .2 .05 .05\n", "these are YOLO's boxes"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2\n", "YOLO's segments"),
        ("2 40 60 120 60 120 100 40 100\n2 400 60 520 60 520 100 400 100\n", "class number first and 8 pixels"),
        ("40 60 120 60 120 100 40 100 ship 0\n", None),
        ("400 60 520 60 520 100 400 100 3 0\n", None),
        ("0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2 ship 0\n", None),
        ("imagesource:GoogleEarth\ngsd:0.1\n40 60 120 60 120 100 40 100 ship 0\n", None),
        ("", None),
    ],
)
def test_yolos_forms_are_told_from_dotas(text: str, form: str | None) -> None:
    found = yolo_form(text)
    assert found is None if form is None else found is not None and form in found


def test_yolo_obb_is_refused_by_name_and_no_number_becomes_a_class(tmp_path: Path) -> None:
    (tmp_path / "s" / "images").mkdir(parents=True)
    (tmp_path / "s" / "labels").mkdir()
    (tmp_path / "s" / "images" / "a.png").write_bytes(encode_png(picture(0)))
    (tmp_path / "s" / "labels" / "a.txt").write_text(OBB)
    for options in ({}, {"format": "dota"}, {"map_class": ("0.15625=vehicle",)}):
        with pytest.raises(InputError, match="class number first and 8 shares: this is YOLO-OBB") as error:
            ingest(tmp_path / "s", workspace=tmp_path / "w", quiet=True, **options)  # type: ignore[arg-type]
        assert "--map-class" not in str(error.value)
    with pytest.raises(InputError, match="YOLO-OBB"):
        ingest(tmp_path / "s" / "labels" / "a.txt", workspace=tmp_path / "w", format="dota", images=tmp_path / "s" / "images", quiet=True)
    (tmp_path / "s" / "labels" / "b.txt").write_text("40 60 60 60 60 80 40 80 0.15625 0\n")
    (tmp_path / "s" / "images" / "b.png").write_bytes(encode_png(picture(1)))
    with pytest.raises(InputError, match="a number where a class name belongs") as error:
        ingest(tmp_path / "s", workspace=tmp_path / "w", quiet=True)
    assert "--map-class" not in str(error.value)
    assert form_of(SourceTree.open(tmp_path / "s").by_path["labels/a.txt"], OBB) is not None


def test_dota_csv_and_voc_in_shares_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(picture(0)))
    (tmp_path / "a.txt").write_text("0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2 ship 0\n")
    (tmp_path / "b.csv").write_text("image_path,xmin,ymin,xmax,ymax,label\na.png,0.1,0.1,0.2,0.2,ship\n")
    voc = "<annotation><filename>a.png</filename><object><name>ship</name><bndbox><xmin>0.1</xmin><ymin>0.1</ymin><xmax>0.2</xmax>"
    (tmp_path / "c.xml").write_text(voc + "<ymax>0.2</ymax></bndbox></object></annotation>")
    tree = SourceTree.open(tmp_path)
    for kind, name in (("dota", "a.txt"), ("geotiff", "b.csv"), ("geotiff", "c.xml")):
        items = list(read_source(tree, kind, [tree.by_path[name]], None, BoxScales()))  # type: ignore[arg-type]
        assert "these are shares of the sides, not pixels" in why(items), name
