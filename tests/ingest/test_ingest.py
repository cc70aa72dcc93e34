from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from risbench.core.classes import CLASSES, to_class
from risbench.core.errors import InputError, OptionError
from risbench.core.imagery import encode_png
from risbench.core.workspace import read_records
from risbench.ingest import ingest
from risbench.inspect.validate import validate
from tests.conftest import eval_row, lines, picture, records, tree_bytes


def test_the_real_rows_all_become_records_and_the_380_are_set_aside(shared: Path, tmp_path: Path) -> None:
    result = ingest(shared / "nwpu_vhr10_refer", workspace=tmp_path / "w", fit="keep")
    assert result["counts"] == {"in": 1616, "out": 1236, "quarantined": 0, "filtered": 380}
    assert result["filtered_by_code"] == {"multi_target": 380}
    assert result["images"] == 404
    assert validate(workspace=tmp_path / "w")["faults"] == []
    made = records(tmp_path / "w" / "1-ingest")
    assert len({record["id"] for record in made}) == 1236
    assert {record["source"]["source_key"] for record in made} == {str(key) for key in range(1236)}


def test_multi_target_rows_are_kept_as_one_record_with_several_targets(shared: Path, tmp_path: Path) -> None:
    result = ingest(shared / "nwpu_vhr10_refer", workspace=tmp_path / "w", fit="keep", multi_target="keep")
    assert result["counts"]["out"] == 1616
    boxes = Counter(len(record["targets"]) for record in records(tmp_path / "w" / "1-ingest"))
    assert boxes[1] == 1236
    assert sum(count for number, count in boxes.items() if number > 1) == 380


def test_real_samples_and_dota_reconcile(shared: Path, tmp_path: Path) -> None:
    samples = ingest(shared / "vrsbench_samples", workspace=tmp_path / "a")
    assert samples["counts"] == {"in": 20, "out": 1, "quarantined": 0, "filtered": 19}
    [record] = records(tmp_path / "a" / "1-ingest")
    assert record["image"]["scene"] == "P0003"
    assert record["targets"][0]["oriented_box"] is not None
    assert record["attributes"]["color"] == {"value": "yellow", "origin": "sentence"}
    dota = ingest(shared / "dota", workspace=tmp_path / "b")
    made = records(tmp_path / "b" / "1-ingest")
    assert dota["counts"]["out"] == len(made) == 64 + dota["notes"]["further_windows"]
    assert {record["image"]["width"] for record in made} == {512}
    assert {record["image"]["metres_per_pixel"] for record in made} == {0.26617}
    assert {record["category"]["name"] for record in made} == {"vehicle"}
    assert all(record["problems"][0]["code"] == "no_expression" for record in made)


def test_geotiff_windows_keep_their_place_on_the_ground(shared: Path, tmp_path: Path) -> None:
    ingest(shared / "geotiff", workspace=tmp_path / "w", map_class=["Tree=windmill", "yes=stadium"], class_field="building")
    made = records(tmp_path / "w" / "1-ingest")
    sources = Counter(record["image"]["source_path"] for record in made)
    assert sources["OSBS_029.tif"] == 61
    assert sources["sample_geotiff.tif"] >= 40
    features = json.loads((shared / "geotiff" / "geotiff_labels.geojson").read_text())["features"]
    for record in made:
        if record["image"]["source_path"] != "sample_geotiff.tif":
            continue
        ring = np.array(features[int(record["source"]["source_key"].split(":")[1])]["geometry"]["coordinates"][0])[:, :2]
        a, b, c, d, e, f = record["image"]["transform"]
        x_min, y_min, x_max, y_max = record["targets"][0]["box"]
        centre = np.array([a * (x_min + x_max) / 2 + b * (y_min + y_max) / 2 + c, d * (x_min + x_max) / 2 + e * (y_min + y_max) / 2 + f])
        true = (ring.min(axis=0) + ring.max(axis=0)) / 2
        # Boxes cut at a window's border lose up to 30 %; the others must agree to half a pixel (0.25 m).
        cut = any(repair["rule"] == "cut_by_window" for repair in record["targets"][0]["repairs"])
        assert np.abs(centre - true).max() < (8 if cut else 0.25)


def test_the_three_forms_of_one_object_are_one_record_with_the_corner_box(make_source: Callable[..., Path], tmp_path: Path) -> None:
    sentence = "The bright vehicle in the upper left part"
    source = make_source([eval_row("S0000_0000.png", 7, "{<24><25><49><50>}", f"{sentence}.")])
    corner = [0.2505, 0.2505, 0.4995, 0.2605, 0.4895, 0.4995, 0.2405, 0.4895]
    annotation = {"image": "S0000_0000.png", "caption": "", "qa_pairs": [], "objects": [
        {"obj_id": 3, "obj_cls": "vehicle", "referring_sentence": sentence, "is_unique": True, "obj_size": "largeest",
         "obj_corner": corner, "obj_coord": [0.24, 0.25, 0.5, 0.5]}]}  # fmt: skip
    (source / "Annotations").mkdir()
    (source / "Annotations" / "S0000_0000.json").write_text(json.dumps(annotation))
    turns = [
        {"from": "human", "value": f"<image>\n[refer] give me the location of <p> {sentence.lower()} </p>"},
        {"from": "gpt", "value": "{<24><25><49><49>}"},
    ]
    (source / "VRSBench_train.json").write_text(json.dumps([{"id": "x", "image": "S0000_0000.png", "conversations": turns}]))
    result = ingest(source, workspace=tmp_path / "w")
    assert result["counts"] == {"in": 3, "out": 1, "quarantined": 0, "filtered": 2}
    assert result["filtered_by_code"] == {"merged_form": 2}
    [record] = records(tmp_path / "w" / "1-ingest")
    assert record["targets"][0]["box_precision"] == "corner"
    assert record["targets"][0]["oriented_box"] is not None
    assert record["source"]["source_key"] == "7"
    assert record["source"]["object_id"] == "3"
    assert record["id"] == "vrsbench/S0000_0000/3"
    assert {row["file"] for row in record["source"]["merged"]} == {"Annotations/S0000_0000.json", "VRSBench_train.json"}
    assert record["attributes"]["size"] == {"value": "largest", "origin": "field"}


def test_rows_that_say_nothing_are_filtered_by_name_and_the_rule_can_be_turned_off(
    make_source: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [
        eval_row("S0000_0000.png", 0, sentence="The vehicle"),
        eval_row("S0000_0000.png", 1, sentence=" "),
        eval_row("S0001_0000.png", 2, "{<10><10><20><20>}", "The bright vehicle"),
        eval_row("S0001_0000.png", 3, "{<60><60><80><80>}", "the bright vehicle."),
        eval_row("S0002_0000.png", 4, sentence="The bright vehicle"),
        eval_row("S0002_0000.png", 5, sentence="The bright vehicle"),
    ]
    source = make_source(rows)
    result = ingest(source, workspace=tmp_path / "w")
    expected = {"uninformative_class_only": 1, "uninformative_empty": 1, "uninformative_not_unique": 2, "duplicate_row": 1}
    assert result["filtered_by_code"] == dict(sorted(expected.items()))
    assert result["counts"]["out"] == 1
    kept = ingest(source, workspace=tmp_path / "k", uninformative="keep")
    assert kept["counts"] == {"in": 6, "out": 5, "quarantined": 0, "filtered": 1}
    assert kept["problems_by_code"] == {"no_expression": 1}


def test_ids_do_not_depend_on_the_order_of_rows(make_source: Callable[..., Path], tmp_path: Path) -> None:
    rows = [eval_row(f"S000{key % 3}_0000.png", key, f"{{<{key}><{key}><{key + 20}><{key + 25}>}}") for key in range(12)]
    for name, ordered in (("a", rows), ("b", rows[::-1])):
        ingest(make_source(ordered, name=f"s{name}"), workspace=tmp_path / name)
    first, second = ({record["source"]["source_key"]: record["id"] for record in records(tmp_path / name / "1-ingest")} for name in "ab")
    assert first == second
    assert len(set(first.values())) == 12


def test_the_same_command_changes_nothing_and_another_source_is_refused(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row("S0000_0000.png", 0)])
    assert ingest(source, workspace=tmp_path / "w")["state"] == "done"
    before = tree_bytes(tmp_path / "w")
    assert ingest(source, workspace=tmp_path / "w")["state"] == "up to date"
    assert tree_bytes(tmp_path / "w") == before
    other = make_source([eval_row("S0001_0000.png", 0)], name="other")
    with pytest.raises(InputError, match="--replace"):
        ingest(other, workspace=tmp_path / "w")
    assert tree_bytes(tmp_path / "w") == before
    assert ingest(other, workspace=tmp_path / "w", replace=True)["state"] in ("done", "restarted with other options")


def test_a_dry_run_counts_the_same_and_writes_nothing(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row("S0000_0000.png", 0), eval_row("gone.png", 1), {"type": "vqa", "image_id": "S0000_0000.png"}])
    dry = ingest(source, workspace=tmp_path / "w", dry_run=True)
    assert not (tmp_path / "w").exists()
    wet = ingest(source, workspace=tmp_path / "w")
    for key in ("counts", "quarantined_by_code", "filtered_by_code", "rows_seen"):
        assert dry[key] == wet[key]


def test_limit_reads_the_first_rows_only(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row("S0000_0000.png", key, f"{{<{key}><1><{key + 9}><20>}}") for key in range(30)])
    assert ingest(source, workspace=tmp_path / "w", limit=5)["counts"]["in"] == 5


@pytest.mark.parametrize(
    "option", [{"fit": "crop"}, {"multi_target": "yes"}, {"limit": 0}, {"map_class": ["x"]}, {"map_class": ["x=y"]}, {"format": "voc"}]
)
def test_a_bad_option_names_itself_and_what_is_allowed(make_source: Callable[..., Path], tmp_path: Path, option: dict) -> None:
    with pytest.raises(OptionError, match="--" + next(iter(option)).replace("_", "-")):
        ingest(make_source([eval_row("S0000_0000.png", 0)]), workspace=tmp_path / "w", **option)


def test_copies_and_near_copies_of_images_are_found(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row(f"S000{key}_0000.png", key) for key in range(4)])
    rng = np.random.default_rng(0)
    import cv2

    textured = cv2.resize(rng.integers(0, 255, (9, 9, 3)).astype(np.uint8), (96, 96), interpolation=cv2.INTER_CUBIC)
    (source / "Images" / "S0000_0000.png").write_bytes(encode_png(textured))
    (source / "Images" / "S0001_0000.png").write_bytes(encode_png(textured))
    (source / "Images" / "S0002_0000.png").write_bytes(encode_png(np.clip(textured.astype(int) + 6, 0, 255).astype(np.uint8)))
    (source / "Images" / "S0003_0000.png").write_bytes(encode_png(picture(5)))
    result = ingest(source, workspace=tmp_path / "w", fit="keep")
    found = json.loads((tmp_path / "w" / "1-ingest" / "duplicates.json").read_text())
    assert result["duplicate_images"]["exact"] == 1
    assert [sorted(Path(path).stem for path in pair) for pair in found["exact"]] == [["S0000_0000", "S0001_0000"]]
    assert {frozenset(Path(path).stem for path in pair) for pair in found["near"]} >= {frozenset(("S0000_0000", "S0002_0000"))}


@pytest.mark.parametrize(
    "name", ["large-vehicle", "small_vehicle", "plane", "storagetank", "Ground Track Field", "groundtrackfield", "storage_tank", "Ships"]
)
def test_every_sources_spelling_maps_onto_the_26(name: str) -> None:
    assert to_class(name) in CLASSES
    assert len(CLASSES) == len(set(CLASSES)) == 26


def test_quarantine_keeps_place_field_value_bound_and_a_hash(make_source: Callable[..., Path], tmp_path: Path) -> None:
    rows = [eval_row("S0000_0000.png", 0), eval_row("S0000_0000.png", 41, category="spaceship")]
    ingest(make_source(rows), workspace=tmp_path / "w")
    [line] = lines(tmp_path / "w" / "1-ingest" / "quarantine.jsonl")
    assert (line["file"], line["source_key"], line["record"]) == ("VRSBench_EVAL_referring.json", "41", "row 1")
    assert (line["code"], line["field"], line["value"]) == ("unmapped_class", "category", "spaceship")
    assert "--map-class" in line["bound"]
    assert len(line["raw_sha256"]) == 64


def test_images_that_differ_only_in_their_suffix_stay_two(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, grey in (("a.jpg", 60), ("a.png", 200)):
        Image.fromarray(np.full((512, 512, 3), grey, np.uint8)).save(source / name)
    images = [{"id": index, "file_name": name, "width": 512, "height": 512} for index, name in enumerate(("a.jpg", "a.png"))]
    annotations = [
        {"id": 7 + index, "image_id": index, "category_id": 1, "bbox": [100, 100, 50, 40], "expression": f"The ship number {index}."}
        for index in range(2)
    ]
    (source / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "ship"}]})
    )
    ingest(source, workspace=tmp_path / "w")
    found = list(read_records(tmp_path / "w" / "1-ingest"))
    assert len({record.id for record in found}) == 2
    greys = [int(np.asarray(Image.open(tmp_path / "w" / record.image.path)).mean()) for record in found]
    assert sorted(round(grey, -1) for grey in greys) == [60, 200]
