"""Truth files: which of their annotations a record's box means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from risbench.core.record import Record
from risbench.core.truth import NO_OVERLAP, TWO_OVERLAP
from risbench.formats.truth import Truth
from tests.record import a_record


def truth_of(tmp_path: Path, *annotations: dict[str, Any]) -> Truth:
    path = tmp_path / "truth.json"
    rows = [{"id": number, "image_id": 1, "category_id": 1, **row} for number, row in enumerate(annotations, 1)]
    images = [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}]
    path.write_text(
        json.dumps({"images": images, "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "ship"}], "annotations": rows})
    )
    return Truth(path)


def test_only_objects_of_the_class_count_and_no_crowd(tmp_path: Path) -> None:
    here = [4, 3, 6, 4]
    assert truth_of(tmp_path, {"bbox": here}).matches(a_record())[0].key == 1
    assert truth_of(tmp_path, {"bbox": here, "category_id": 2}, {"bbox": here}).matches(a_record())[0].key == 2
    assert truth_of(tmp_path, {"bbox": here, "iscrowd": 1}).matches(a_record())[0].reason == NO_OVERLAP
    assert truth_of(tmp_path, {"bbox": "wide"}).matches(a_record())[0].reason == NO_OVERLAP
    assert truth_of(tmp_path, {"bbox": here}, {"bbox": here}).matches(a_record())[0].reason == TWO_OVERLAP


def _truth_file(path: Path, images: list[dict[str, Any]], image_of: list[Any], category: Any = 1) -> Path:
    rows = [{"id": n, "image_id": image, "category_id": category, "bbox": [4, 3, 6, 4]} for n, image in enumerate(image_of, 1)]
    path.write_text(json.dumps({"images": images, "categories": [{"id": 1, "name": "car"}], "annotations": rows}))
    return path


def _at(source_path: str) -> Record:
    record = a_record()
    return record.model_copy(update={"image": record.image.model_copy(update={"source_path": source_path})})


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    train, valid = _at("train/0001.png"), _at("valid/0001.png")
    both = [{"id": 1, "file_name": "train/0001.png"}, {"id": 2, "file_name": "valid/0001.png"}]
    truth = Truth(_truth_file(tmp_path / "both.json", both, [1, 2]), [train, valid])
    assert [truth.matches(record)[0].key for record in (train, valid)] == [1, 2]
    truth = Truth(_truth_file(tmp_path / "train.json", both[:1], [1]), [train, valid])
    assert [truth.matches(record)[0].key for record in (train, valid)] == [1, None]
    truth = Truth(_truth_file(tmp_path / "plain.json", [{"id": 1, "file_name": "0001.png"}], [1]), [train, valid])
    assert [truth.matches(record)[0].reason for record in (train, valid)] == ["image_ambiguous"] * 2
    assert Truth(tmp_path / "plain.json", [valid]).matches(valid)[0].key == 1


def test_ids_as_text_and_as_numbers_are_one(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}]
    for image_of, category in (([1], 1), (["1"], 1), ([1], "1")):
        truth = Truth(_truth_file(tmp_path / "truth.json", images, image_of, category))
        assert truth.matches(a_record())[0].key == 1
    assert (truth.find("1"), truth.find(1.0), truth.find("2"), truth.find(None)) == (1, 1, None, None)


def test_one_name_under_two_image_ids_is_ambiguous_and_nothing_is_merged(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}]
    truth = Truth(_truth_file(tmp_path / "truth.json", images, [1, 2]))
    assert truth.matches(a_record())[0].reason == "image_ambiguous"
