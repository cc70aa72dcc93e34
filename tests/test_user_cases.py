"""Inputs as real users have them, each with its right result in numbers; read where they lie, through the real command line's functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from risbench.core.errors import InputError
from risbench.core.imagery import read_raster
from risbench.core.masks import decode_rle
from risbench.export import export
from risbench.ingest import ingest
from risbench.refine import refine_masks

from .conftest import SHARED, lines, records

Record = dict[str, Any]


@pytest.fixture
def case() -> Any:
    """Return where a case's input lies, or skip."""

    def find(name: str) -> Path:
        folder = SHARED / "cases" / name / "input"
        if not folder.is_dir():
            pytest.skip(f"no {folder} (set RISBENCH_SHARED)")
        return folder

    return find


def read(source: Path, workspace: Path, **options: Any) -> tuple[list[Record], list[Record], dict[str, Any]]:
    """Ingest a source; return records, quarantine and the run's summary."""
    summary = ingest(source, workspace=workspace, quiet=True, **options)
    return records(workspace / "1-ingest"), lines(workspace / "1-ingest" / "quarantine.jsonl"), summary


def refused(source: Path, workspace: Path, **options: Any) -> str:
    """Ingest a source that gives no record; return the message. Nothing is left that would ask for --replace."""
    with pytest.raises(InputError) as error:
        ingest(source, workspace=workspace, quiet=True, **options)
    assert not (workspace / "1-ingest" / "run.json").exists()
    return str(error.value)


def boxes(made: list[Record]) -> list[tuple[float, ...]]:
    return [tuple(round(value, 1) for value in record["targets"][0]["box"]) for record in made]


def mask(record: Record) -> np.ndarray:
    return decode_rle(tuple(record["mask"]["size"]), record["mask"]["counts"])


AT = (40.0, 60.0, 120.0, 100.0)


def test_a_feature_in_metres_without_a_crs_is_refused_by_name(case: Any, tmp_path: Path) -> None:
    message = refused(case("geojson-projected-without-crs"), tmp_path / "w")
    assert "crs" in message.lower()
    assert "500020" in message or "longitude" in message


def test_a_feature_collection_called_json_is_read(case: Any, tmp_path: Path) -> None:
    made, refusals, _ = read(case("reads-nothing-and-says-done") / "json", tmp_path / "w")
    assert (boxes(made), refusals) == ([AT], [])
    assert made[0]["category"]["name"] == "vehicle"


@pytest.mark.parametrize(("folder", "words"), [("semicolons", "semicolon"), ("utf16", "UTF-16")])
def test_what_is_saved_in_another_way_is_read_or_named(case: Any, tmp_path: Path, folder: str, words: str) -> None:
    source = case("reads-nothing-and-says-done") / folder
    try:
        made, _, _ = read(source, tmp_path / "w")
    except InputError as error:
        assert words in str(error)
    else:
        assert boxes(made) == [AT]


def test_an_image_made_smaller_after_it_was_annotated_has_its_boxes_scaled(case: Any, tmp_path: Path) -> None:
    made, _, summary = read(case("coco-annotated-at-another-size"), tmp_path / "w")
    assert boxes(made) == [(192.0, 128.0, 240.0, 160.0)]
    ys, xs = np.nonzero(mask(made[0]))
    assert (len(xs), xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == (1536, 192, 240, 128, 160)
    assert [repair["rule"] for repair in made[0]["targets"][0]["repairs"]] == ["scaled"]
    assert summary["notes"]["repaired_scaled"] == 1
    with open(tmp_path / "w" / made[0]["image"]["path"], "rb") as file:
        assert read_raster(file, "yard").pixels[mask(made[0])].mean() >= 220


def test_masks_away_from_their_boxes_are_first_and_held_back(case: Any, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    made, _, _ = read(case("mask-away-from-its-box"), workspace)
    flagged = [record["source"]["source_key"] for record in made if any(p["code"] == "mask_box_conflict" for p in record["problems"])]
    assert len(made) == 3
    assert len(flagged) == 2
    refine_masks(workspace=workspace, engine="box", workers=1, quiet=True)
    refined = records(workspace / "2-refine" / "round-1")
    assert all(record["mask"]["engine"] == "source" for record in refined)
    result = export(workspace=workspace, include_unreviewed=True, name="x", quiet=True, split="1,0,0")
    assert sum(result["counts"].values()) == 1 if "counts" in result else True


@pytest.mark.parametrize(("name", "options"), [("tokens-of-a-thousand", {}), ("coco-boxes-in-shares", {}), ("yolo-obb-is-not-dota", {})])
def test_coordinates_of_another_scale_are_refused_as_such(case: Any, tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    message = refused(case(name), tmp_path / "w", **options)
    expected = {"tokens-of-a-thousand": "thousandths", "coco-boxes-in-shares": "shares", "yolo-obb-is-not-dota": "YOLO-OBB"}
    assert expected[name] in message
    assert "--map-class" not in message


def test_photos_of_a_camera_are_scenes_of_their_own(case: Any, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    made, _, _ = read(case("drone-photos-named-dji"), workspace)
    assert sorted(boxes(made)) == [(128.0 + 8 * k, 128.0, 192.0 + 8 * k, 160.0) for k in range(1, 9)]
    assert {record["image"]["width"] for record in made} == {512}
    assert len({record["image"]["scene"] for record in made}) == 8
    assert {int(mask(record).sum()) for record in made} == {2048}
    export(workspace=workspace, split=".5,.25,.25", include_unreviewed=True, name="x", quiet=True)
    assert [
        len((workspace / "4-export/x" / f"output_phrase_{part}.txt").read_text().splitlines()) for part in ("train", "val", "test")
    ] == [4, 2, 2]


def test_a_png_of_16_bits_shows_what_the_tiff_of_the_same_numbers_shows(case: Any, tmp_path: Path) -> None:
    made, _, _ = read(case("png-of-16-bit-colour"), tmp_path / "w")
    pictures = {}
    for record in made:
        with open(tmp_path / "w" / record["image"]["path"], "rb") as file:
            pictures[record["image"]["scene"]] = read_raster(file, "x").pixels
    assert set(pictures) == {"deep", "twin"}
    assert np.array_equal(pictures["deep"], pictures["twin"])
    assert {tuple(map(int, color)) for color in np.unique(pictures["deep"].reshape(-1, 3), axis=0)} >= {
        (255, 255, 255),
        (0, 0, 0),
        (255, 81, 70),
    }


def test_ids_as_text_and_as_numbers_are_one(case: Any, tmp_path: Path) -> None:
    made, refusals, _ = read(case("coco-ids-as-text"), tmp_path / "w")
    assert refusals == []
    assert set(boxes(made)) == {AT}


def test_files_under_another_ending_are_found_or_named(case: Any, tmp_path: Path) -> None:
    made, refusals, _ = read(case("file-is-there-under-another-ending"), tmp_path / "w")
    said = " ".join(line["bound"] for line in refusals)
    assert set(boxes(made)) == {AT}
    assert sorted(record["image"]["source_path"] for record in made) == ["images/a.JPG", "images/c.png", "images/c.png"]
    assert len(refusals) == 1
    assert "b.jp2" in said
    assert "JPEG 2000" in said


def test_the_image_beside_the_annotation_file_is_meant(case: Any, tmp_path: Path) -> None:
    made, refusals, _ = read(case("same-name-in-train-and-valid"), tmp_path / "w")
    assert refusals == []
    assert sorted((record["image"]["source_path"], boxes([record])[0], record["source"]["split"]) for record in made) == [
        ("train/0001.png", AT, "train"),
        ("valid/0001.png", (140.0, 60.0, 220.0, 100.0), "val"),
    ]


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("tar-gz", ["images.tar.gz"]),
        ("zip-in-zip", ["images.zip", "data.zip"]),
        ("split-zip", ["data.zip.001", "cat"]),
        ("gbk-names", ["images.zip"]),
    ],
)
def test_archives_are_read_or_named(case: Any, tmp_path: Path, folder: str, words: list[str]) -> None:
    try:
        made, _, _ = read(case("archives-not-opened") / folder, tmp_path / "w")
    except InputError as error:
        assert all(word in str(error) for word in words), str(error)
    else:
        assert boxes(made) == [AT]


def test_resource_forks_of_a_mac_are_passed_over(case: Any, tmp_path: Path) -> None:
    made, refusals, summary = read(case("resource-forks-of-a-mac"), tmp_path / "w")
    assert (boxes(made), refusals, summary["counts"]["in"]) == ([(51.2, 102.4, 256.0, 204.8)], [], 1)


def test_labels_with_a_byte_order_mark_lose_no_object(case: Any, tmp_path: Path) -> None:
    made, refusals, _ = read(case("dota-labels-with-bom"), tmp_path / "w")
    assert (sorted(boxes(made)), refusals) == ([AT, (300.0, 300.0, 340.0, 320.0)], [])
    assert {record["category"]["name"] for record in made} == {"ship"}


@pytest.mark.parametrize("options", [{}, {"format": "coco"}])
def test_a_category_called_objects_does_not_hide_that_it_is_coco(case: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    made, refusals, _ = read(case("coco-category-called-objects"), tmp_path / "w", **options)
    assert ([tuple(record["targets"][0]["box_given"]) for record in made], refusals) == ([AT], [])
    assert made[0]["source"]["split"] == "train"


@pytest.mark.parametrize(("folder", "field"), [("coco", "caption"), ("csv", "expression")])
def test_a_sentence_under_another_name_is_not_passed_over_in_silence(case: Any, tmp_path: Path, folder: str, field: str) -> None:
    made, _, summary = read(case("sentences-under-other-names") / folder, tmp_path / "w")
    assert boxes(made) == [AT]
    if made[0]["expression"] is None:
        assert field in str(summary)
        assert all("the source has no sentence" not in problem["detail"] for problem in made[0]["problems"])


def test_a_sentence_at_the_image_is_not_passed_over_in_silence(case: Any, tmp_path: Path) -> None:
    made, _, summary = read(case("captions-of-images-unread"), tmp_path / "w")
    assert "caption" in str(summary["unread_sentences"])
    assert made
    assert all("the source has no sentence" not in problem["detail"] for record in made for problem in record["problems"])


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("rsvg-xml-with-jpg", ""),
        ("oriented-xml", ""),
        ("grounding-chats-of-others", "shares-in-a-list"),
        ("grounding-chats-of-others", "thousandths-in-a-list"),
        ("grounding-chats-of-others", "messages-with-objects"),
    ],
)
def test_what_is_not_read_yet_never_ends_as_done(case: Any, tmp_path: Path, name: str, folder: str) -> None:
    source = case(name) / folder
    try:
        made, _, _ = read(source, tmp_path / "w")
    except InputError:
        return
    assert made
