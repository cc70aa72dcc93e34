"""Zero is not success: a source that gives no record is exit 3 with the likeliest reasons, and leaves nothing that asks for --replace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risbench.core.errors import InputError
from risbench.core.imagery import encode_png
from risbench.ingest import ingest
from tests.conftest import cli, eval_row, lines, picture, records
from tests.ingest.test_odd_inputs import coco, write
from tests.ingest.test_reader_errors import GOOD, collection, tiff

PNG = encode_png(picture(0))


def chat(question: str, answer: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "x", "image": "P0003_0002.png", "conversations": turns}


VOC = "<annotation><filename>a.png</filename><object><name>ship</name>{}</object></annotation>"
BOX = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>30</xmax><ymax>30</ymax></bndbox>"
NOTHING: dict[str, tuple[dict[str, Any], str]] = {
    "no rows": ({"instances__json": {**coco(), "annotations": []}}, "its annotation files hold no row"),
    "all refused": ({"VRSBench_x__json": [eval_row("gone.png", 0), eval_row("gone.png", 1)]}, "2 image_missing (first: VRSBench_x.json, row 0"),
    "all set aside": ({"VRSBench_x__json": [eval_row("a.png", 0, sentence="The two ships")]}, "--multi-target keep reads them"),
    "nothing said": ({"VRSBench_x__json": [eval_row("a.png", 0, sentence="The ship")]}, "--uninformative keep reads them"),
    "images that are none": ({"instances__json": coco(), "a__png": b"\x89PNG\r\n\x1a\n cut off"}, "2 image_damaged (first: instances.json"),
    "images alone": ({}, "1 images, and no annotation file beside them"),
    "TIFF and metadata": ({"a__tif": b"II*\x00", "a__aux__xml": "<PAMDataset/>"}, "none of its 3 files is an annotation"),
    "VOC with sentences": ({"a__xml": VOC.format(BOX + "<description>The left ship</description>")}, "sentences in <description>"),
    "plain VOC": ({"a__xml": VOC.format(BOX)}, "Pascal VOC, which is read beside TIFFs only"),
    "roLabelImg": ({"a__xml": VOC.format("<robndbox><cx>1</cx></robndbox>")}, "robndbox"),
    "FAIR1M": ({"a__xml": VOC.format("<points><point>1,2</point></points>")}, "FAIR1M"),
    "HRSC": ({"a__xml": "<HRSC_Image><HRSC_Objects/></HRSC_Image>"}, "HRSC2016"),
    "CVAT": ({"a__xml": "<annotations><meta/><image/></annotations>"}, "CVAT"),
    "ms-swift": ({"a__jsonl": {"messages": [], "images": ["a.png"], "objects": {"bbox": [[1, 2, 3, 4]]}}}, "chats with `messages`"),
    "shares in chats": ({"train__json": [chat("<image>\n where is the ship?", "[0.1, 0.2, 0.5, 0.4]")]}, "list of shares"),
    "thousandths": ({"train__json": [chat("<image>\n[VG] the ship", "[100, 200, 500, 400]")]}, "[100, 200, 500, 400]"),
    "LabelMe": ({"a__json": {"imagePath": "a.png", "shapes": []}}, "LabelMe"),
    "VIA": ({"a__json": {"_via_settings": {}}}, "VGG Image Annotator"),
    "YOLO": ({"a__txt": "0 0.5 0.5 0.1 0.1\n"}, "YOLO"),
    "a shapefile": ({"a__shp": b"\x00\x00'\n"}, "ogr2ogr"),
    "CSV of others": ({"a__csv": "file;left;top\na.png;1;2\n"}, "CSV with the columns file, left, top"),
    "text of no encoding": ({"instances__json": json.dumps(coco(bbox=[1, 2, 3, 4])).encode() + b"\xff\xfe\xff"}, "save the file as UTF-8"),
    "corners as text": ({"VRSBench_x__json": [eval_row("a.png", 0, obj_corner="[0.1, 0.2]")]}, '"[0.1, 0.2]" (text)'),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOTHING)
def test_a_source_that_gives_no_record_is_an_error_that_says_why(tmp_path: Path, kind: str) -> None:
    files, words = NOTHING[kind]
    source = write(tmp_path / "s", **{"a__png": PNG, **files})
    for dry_run in (True, False):
        with pytest.raises(InputError) as error:
            ingest(source, workspace=tmp_path / "w", dry_run=dry_run, quiet=True)
        assert words in str(error.value), str(error.value)
        assert error.value.exit_code == 3
        assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_the_command_exits_with_three_and_the_workspace_takes_another_source(
    make_source: Callable[..., Path], tmp_path: Path, dry_run: list[str]
) -> None:
    bad = make_source([eval_row("gone.png", 0)], name="bad")
    run = cli("ingest", bad, "-w", tmp_path / "w", *dry_run)
    assert (run.returncode, len(run.stderr.splitlines())) == (3, 1)
    good = make_source([eval_row("S0000_0000.png", 0)], name="good")
    assert ingest(good, workspace=tmp_path / "w", quiet=True)["counts"]["out"] == 1
    with pytest.raises(InputError, match="image_missing"):
        ingest(bad, workspace=tmp_path / "w", quiet=True)
    assert ingest(good, workspace=tmp_path / "w", quiet=True)["state"] == "up to date"


def test_what_lies_in_the_workspace_stays_where_a_run_reads_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "s", instances__json=coco(), a__png=b"\x89PNG\r\n\x1a\n cut off")
    write(tmp_path / "w", notes__txt="mine")
    with pytest.raises(InputError, match="image_damaged"):
        ingest(source, workspace=tmp_path / "w", quiet=True)
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["notes.txt"]


def test_linked_images_that_are_not_followed_are_named_and_followed_on_demand(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row("S0000_0000.png", 0)])
    (source / "Images").rename(tmp_path / "elsewhere")
    (source / "Images").symlink_to(tmp_path / "elsewhere")
    run = cli("ingest", source, "-w", tmp_path / "w")
    assert run.returncode == 3
    assert "--follow-links" in run.stderr
    run = cli("ingest", source, "-w", tmp_path / "w", "--follow-links", "--json")
    assert json.loads(run.stdout)["counts"] == {"in": 1, "out": 1, "quarantined": 0, "filtered": 0}


def test_a_feature_collection_called_json_is_read_beside_a_tiff_and_without_one_the_reason_is_true(tmp_path: Path) -> None:
    source = write(tmp_path / "s", labels__json=collection(GOOD))
    with pytest.raises(InputError, match="the source has no GeoTIFF to find it in"):
        ingest(source, workspace=tmp_path / "w", quiet=True)
    tiff(source / "a.tif")
    result = ingest(source, workspace=tmp_path / "w", quiet=True)
    assert (result["said"], result["counts"]["out"]) == ("format geotiff (guessed): labels.json", 1)


def test_boxes_in_csv_are_read_beside_images_that_are_no_tiff(tmp_path: Path) -> None:
    source = write(tmp_path / "s", a__png=PNG, boxes__csv="filename,xmin,ymin,xmax,ymax,class\na.png,5,5,30,30,ship\n")
    assert ingest(source, workspace=tmp_path / "w", quiet=True)["counts"]["out"] == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_text_is_read_in_the_encodings_that_windows_saves(tmp_path: Path, encoding: str) -> None:
    def saved(name: str, **files: str) -> Path:
        return write(tmp_path / name, a__png=PNG, **{file: text.encode(encoding) for file, text in files.items()})

    quad = "imagesource:GoogleEarth\ngsd:0.2\n5 5 30 5 30 30 5 30 ship 0\n40 40 60 40 60 60 40 60 ship 0\n"
    row = json.dumps({"image": "a.png", "expression": "the left ship", "category": "ship", "boxes_0_100_xyxy": [[5, 5, 30, 30]]})
    sources = [
        saved("coco", instances__json=json.dumps(coco())),
        saved("dota", a__txt=quad),
        saved("jsonl", rows__jsonl=f"{row}\n"),
        saved("csv", boxes__csv="filename,xmin,ymin,xmax,ymax,class\na.png,5,5,30,30,ship\n"),
    ]
    outs = []
    for source in sources:
        result = ingest(source, workspace=tmp_path / f"w-{source.name}", fit="keep", quiet=True)
        assert result["counts"]["quarantined"] == 0
        outs.append(result["counts"]["out"])
    assert outs == [2, 2, 1, 1]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"image_id": "1", "category_id": "1"}, None),
        ({"image_id": 1.0, "category_id": "1"}, None),
        ({"category_id": "01"}, ("unknown_category_id", '"01" (text)', "1 (number)")),
        ({"image_id": "seven"}, ("unknown_image_id", '"seven" (text)', "1 (number)")),
        ({"image_id": True}, ("unknown_image_id", "True (truth value)", "1 (number)")),
        ({"category_id": None}, ("unknown_category_id", "nothing", "1 (number)")),
    ],
)
def test_ids_once_as_numbers_and_once_as_text_are_one_or_refused_with_their_types(
    tmp_path: Path, given: dict[str, Any], found: tuple[str, str, str] | None
) -> None:
    source = write(tmp_path / "s", a__png=PNG, instances__json=coco(**given))
    result = ingest(source, workspace=tmp_path / "w", fit="keep", quiet=True)
    refused = [(line["code"], line["value"], line["bound"]) for line in lines(tmp_path / "w" / "1-ingest" / "quarantine.jsonl")]
    if found is None:
        assert (result["counts"]["out"], refused) == (2, [])
    else:
        [(code, value, bound)] = refused
        assert (code, value, found[2] in bound) == (found[0], found[1], True)


def test_an_id_that_stands_for_two_images_is_refused_and_never_the_last_one_taken(tmp_path: Path) -> None:
    value = coco(image_id=2)
    value["images"] += [{"id": 2, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    source = write(tmp_path / "s", a__png=PNG, b__png=encode_png(picture(1)), instances__json=value)
    assert ingest(source, workspace=tmp_path / "w", fit="keep", quiet=True)["quarantined_by_code"] == {"ambiguous_image_id": 1}


def test_a_category_of_any_name_does_not_hide_that_a_file_is_coco(tmp_path: Path) -> None:
    for index, name in enumerate(("objects", "conversations", "obj_cls", "question", "image_id")):
        value = {
            "categories": [{"id": 0, "name": name, "supercategory": "none"}, {"id": 1, "name": "ship", "supercategory": name}],
            **coco(),
        }
        value["categories"] = [{"id": 0, "name": name, "supercategory": "none"}, *coco()["categories"]]
        source = write(tmp_path / f"s{index}", a__png=PNG, instances__json=value)
        assert ingest(source, workspace=tmp_path / f"w{index}", quiet=True)["format"] == "coco"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"caption": "the white ship at the left"}, "caption"),
        ({"captions": ["a ship", "the white ship at the left"]}, "captions"),
        ({"sentences": [{"raw": "the white ship at the left"}]}, "sentences"),
        ({"attributes": {"referring": "the white ship"}}, "attributes.referring"),
        ({"refexp": "white ship"}, None),
        ({"caption": "左上角的白色小型车辆"}, "caption"),
        ({"caption": "车辆"}, None),
        ({"remark": "the white ship that lies at the left quay"}, "remark"),
        ({"caption": "ship", "description": ""}, None),
        ({"licence": "free for all to use in every way", "attributes": {"occluded": False}}, None),
    ],
)
def test_a_sentence_under_another_name_is_said_and_no_record_claims_that_there_is_none(
    tmp_path: Path, fields: dict[str, Any], name: str | None
) -> None:
    source = write(tmp_path / "s", a__png=PNG, instances__json=coco(**fields))
    result = ingest(source, workspace=tmp_path / "w", fit="keep", quiet=True)
    assert result["unread_sentences"] == ([{"file": "instances.json", "field": name, "rows": 1}] if name else [])
    details = [record["problems"][0]["detail"] for record in records(tmp_path / "w" / "1-ingest")]
    assert ("the source has no sentence" not in details[1]) == (name is not None)


def test_a_sentence_at_the_image_is_said_too(tmp_path: Path) -> None:
    value = coco()
    for image in value["images"]:
        image["caption"] = "The white ship at the left."
    source = write(tmp_path / "s", a__png=PNG, instances__json=value)
    result = ingest(source, workspace=tmp_path / "w", fit="keep", quiet=True)
    assert [(row["field"], row["rows"]) for row in result["unread_sentences"]] == [("caption of its image", len(value["annotations"]))]
