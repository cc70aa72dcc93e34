"""Odd and hostile inputs that a second reader found, each as the command line meets it: never a traceback, never wrong data."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from risbench.core.errors import InputError, OptionError, printable
from risbench.core.imagery import encode_png
from risbench.ingest import ingest
from risbench.refine import refine_masks
from tests.conftest import cli, eval_row, lines, picture, records


def write(folder: Path, **files: Any) -> Path:
    """Write files by name (two underscores for a dot); values that are no bytes or text become JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        data = (
            value
            if isinstance(value, bytes)
            else value.encode("utf-8", "surrogatepass")
            if isinstance(value, str)
            else json.dumps(value).encode()
        )
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def codes(workspace: Path) -> list[str]:
    return sorted(line["code"] for line in lines(workspace / "1-ingest" / "quarantine.jsonl"))


def coco(**changes: Any) -> dict[str, Any]:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}
    return {"images": [{"id": 1, "file_name": "a.png", "width": 96, "height": 96}], "categories": [{"id": 1, "name": "ship"}],
            "annotations": [box, {**box, "id": 2, "bbox": [40, 40, 20, 20], **changes}]}  # fmt: skip


def test_a_mask_of_the_same_name_is_not_the_image(tmp_path: Path) -> None:
    source = write(tmp_path / "s", output_phrase_train__txt="a.png the ship\nb.png the large ship\n")
    mask = np.zeros((96, 96), np.uint8)
    mask[10:40, 10:40] = 255
    write(source / "images", a__png=encode_png(picture(0)))
    write(source / "masks", a__png=encode_png(mask), b__png=encode_png(mask))
    result = ingest(source, workspace=tmp_path / "w", uninformative="keep")
    assert result["counts"]["out"] == 1
    assert codes(tmp_path / "w") == ["image_missing"]


def test_the_mask_of_a_phrase_is_that_of_its_own_split(tmp_path: Path) -> None:
    source = tmp_path / "s"
    for number, split in enumerate(("train", "val")):
        mask = np.zeros((96, 96), np.uint8)
        mask[10 + 40 * number : 40 + 40 * number, 10:40] = 255
        write(source / split, **{f"output_phrase_{split}__txt": "a.png the ship\n"})
        write(source / split / "images", a__png=encode_png(picture(number)))
        write(source / split / "masks", a__png=encode_png(mask))
    ingest(source, workspace=tmp_path / "w", fit="keep", uninformative="keep", quiet=True)
    made = {record["image"]["source_path"]: record["targets"][0]["box"] for record in records(tmp_path / "w" / "1-ingest")}
    assert made == {"train/images/a.png": [10, 10, 40, 40], "val/images/a.png": [10, 50, 40, 80]}
    (source / "train" / "masks" / "a.png").unlink()
    ingest(source, workspace=tmp_path / "w2", fit="keep", uninformative="keep", quiet=True)
    assert codes(tmp_path / "w2") == ["mask_missing"]


def test_a_changed_side_file_makes_the_ingest_stale(tmp_path: Path) -> None:
    source = write(tmp_path / "s", a__png=encode_png(picture(0)), instances__json=coco(),
                   refs__json=[{"ref_id": 1, "ann_id": 1, "sentences": [{"sent_id": 1, "raw": "the left ship"}]}])  # fmt: skip
    assert ingest(source, workspace=tmp_path / "w")["state"] == "done"
    assert ingest(source, workspace=tmp_path / "w")["state"] == "up to date"
    changed = coco()
    changed["annotations"][0]["bbox"] = [12, 12, 20, 20]
    write(source, instances__json=changed)
    with pytest.raises(InputError, match="--replace"):
        ingest(source, workspace=tmp_path / "w")


def test_a_missing_or_changed_part_stops_the_next_stage(make_source: Callable[..., Path], tmp_path: Path) -> None:
    ingest(make_source([eval_row("S0000_0000.png", 0)]), workspace=tmp_path / "w")
    part = tmp_path / "w" / "1-ingest" / "part-00000.jsonl"
    good = part.read_bytes()
    part.write_bytes(good.replace(b"bright", b"darker"))
    with pytest.raises(InputError, match="sha256 differs"):
        refine_masks(workspace=tmp_path / "w", engine="box")
    part.unlink()
    with pytest.raises(InputError, match="is missing"):
        refine_masks(workspace=tmp_path / "w", engine="box")


def test_a_changed_image_is_a_problem_and_no_mask(make_source: Callable[..., Path], tmp_path: Path) -> None:
    ingest(make_source([eval_row("S0000_0000.png", 0), eval_row("S0001_0000.png", 1)]), workspace=tmp_path / "w", fit="keep")
    (tmp_path / "w" / "images" / "vrsbench" / "S0000_0000.png").write_bytes(encode_png(picture(0, 50, 50)))
    (tmp_path / "w" / "images" / "vrsbench" / "S0001_0000.png").write_bytes(encode_png(picture(7)))
    assert refine_masks(workspace=tmp_path / "w", engine="box")["problems_by_code"] == {"image_changed": 2}


def test_a_single_file_is_read_alone(tmp_path: Path) -> None:
    source = write(tmp_path / "s", a__png=encode_png(picture(0)), one__json=coco(), two__json=coco(bbox=[1, 1, 5, 5]))
    assert ingest(source / "one.json", workspace=tmp_path / "w")["counts"]["in"] == 2
    (source / "bad.zip").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match="not a readable zip"):
        ingest(source / "bad.zip", workspace=tmp_path / "x")
    other = write(tmp_path / "other", two__json=coco())
    (other / "link.json").symlink_to(source / "one.json")
    with pytest.raises(InputError, match="link that leaves"):
        ingest(other / "link.json", workspace=tmp_path / "y")


def test_a_source_is_not_its_own_workspace_and_a_workspace_in_it_is_not_read(make_source: Callable[..., Path]) -> None:
    source = make_source([eval_row("S0000_0000.png", 0)])
    with pytest.raises(OptionError, match="-w"):
        ingest(source, workspace=source)
    assert ingest(source, workspace=source / "w")["state"] == "done"
    assert ingest(source, workspace=source / "w")["state"] == "up to date"


@pytest.mark.parametrize("name", ["/etc/hostname", "http://127.0.0.1:9/crs", "file.wkt", "+init=epsg:4326", 7, "EPSG:999999"])
def test_a_crs_is_a_code_and_never_a_path_or_an_address(shared: Path, tmp_path: Path, name: Any) -> None:
    value = {"type": "FeatureCollection", "crs": {"type": "name", "properties": {"name": name}}, "features": [{"type": "Feature"}]}
    source = write(tmp_path / "s", a__geojson=value)
    (source / "a.tif").write_bytes((shared / "geotiff" / "OSBS_029.tif").read_bytes())
    with pytest.raises(InputError, match="1 unknown_crs"):
        ingest(source, workspace=tmp_path / "w")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"image_id": [1]}, "unknown_image_id"),
        ({"category_id": {}}, "unknown_category_id"),
        ({"segmentation": [[-9.9e6, -9.9e6, 9.9e6, -9.9e6, 9.9e6, 9.9e6]]}, "outside_image"),
        ({"segmentation": [[1, 2, 3, 4]]}, "wrong_length"),
        ({"segmentation": {"size": [96, 96], "counts": [1, 2]}}, "wrong_size"),
        ({"segmentation": {"size": [96, 96], "counts": "%%%"}}, "broken_rle"),
        ({"segmentation": {"size": [10, 10], "counts": [100]}}, "wrong_size"),
        ({"bbox": [1, 2, 3]}, "wrong_length"),
        ({"bbox": [40, 40, 0, 20]}, "no_area"),
    ],
)
def test_a_bad_coco_annotation_is_refused_alone(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    source = write(tmp_path / "s", a__png=encode_png(picture(0)), instances__json=coco(**changes))
    result = ingest(source, workspace=tmp_path / "w", fit="keep")
    assert result["counts"]["out"] == 1
    assert codes(tmp_path / "w") == [code]


def test_uncompressed_runs_longer_than_any_coordinate_are_runs(tmp_path: Path) -> None:
    image = np.zeros((3400, 3200, 3), np.uint8)
    value = coco(segmentation={"size": [3400, 3200], "counts": [10_800_000, 10_000, 70_000]}, bbox=[3170, 0, 30, 3400])
    value["images"][0].update(width=3200, height=3400)
    source = write(tmp_path / "s", a__png=encode_png(image), instances__json=value)
    assert ingest(source, workspace=tmp_path / "w", fit="keep")["counts"]["out"] == 2


@pytest.mark.parametrize("question", ["<p>" * 330_000, " " * 1_000_000, "where is " + "?" * 200_000])
def test_a_megabyte_of_prompt_is_refused_at_once(make_source: Callable[..., Path], tmp_path: Path, question: str) -> None:
    turns = [{"from": "human", "value": f"<image>\n[refer] {question}"}, {"from": "gpt", "value": "{<1><2><3><4>}"}]
    source = make_source([eval_row("S0000_0000.png", 0), {"id": "x", "image": "S0000_0000.png", "conversations": turns}])
    began = time.monotonic()
    assert ingest(source, workspace=tmp_path / "w")["counts"]["out"] == 1
    assert time.monotonic() - began < 10
    assert codes(tmp_path / "w") == ["sentence_too_long"]


def test_a_pickle_of_doubling_lists_costs_nothing(tmp_path: Path) -> None:
    value: list[Any] = ["x"]
    for _ in range(60):
        value = [value, value]
    source = write(
        tmp_path / "s",
        refs__p=pickle.dumps([{"ref_id": 1, "sentences": value}, value]),
        instances__json=coco(),
        a__png=encode_png(picture(0)),
    )
    began = time.monotonic()
    with pytest.raises(InputError, match="3 unknown_layout"):
        ingest(source, workspace=tmp_path / "w")
    assert time.monotonic() - began < 10


def test_a_line_separator_is_no_new_row_and_no_text(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row("S0000_0000.png", 0), eval_row("S0000_0000.png", 1, category="ship\u2028")])
    row = {"image": "S0000_0000.png", "expression": "The red\u2028ship", "category": "ship", "boxes_0_100_xyxy": [[50, 50, 70, 70]]}
    (source / "more.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n")
    result = ingest(source, workspace=tmp_path / "w")
    assert result["counts"] == {"in": 3, "out": 2, "quarantined": 1, "filtered": 0}
    assert codes(tmp_path / "w") == ["control_character"]
    assert cli("validate", "-w", tmp_path / "w").returncode == 0


def test_a_corner_box_needs_no_tokens_and_a_second_question_is_read(make_source: Callable[..., Path], tmp_path: Path) -> None:
    row = eval_row("S0000_0000.png", 0, obj_corner=[0.2, 0.2, 0.5, 0.2, 0.5, 0.5, 0.2, 0.5])
    row.pop("ground_truth")
    turns = [{"from": "human", "value": "<image>\n[vqa] What?"}, {"from": "gpt", "value": "x"},
             {"from": "human", "value": "[refer] where is <p> the small ship at the top </p> ?"}, {"from": "gpt", "value": "{<50><1><60><20>}"}]  # fmt: skip
    source = make_source([row, {"id": "x", "image": "S0000_0000.png", "conversations": turns}])
    result = ingest(source, workspace=tmp_path / "w")
    assert result["counts"] == {"in": 3, "out": 2, "quarantined": 0, "filtered": 1}
    assert {record["targets"][0]["box_precision"] for record in records(tmp_path / "w" / "1-ingest")} == {"corner", "token"}


def test_names_that_are_too_long_or_no_text_do_not_end_the_run(make_source: Callable[..., Path], tmp_path: Path) -> None:
    long = "x" * 240 + ".png"
    source = make_source([eval_row("S0000_0000.png", 0), eval_row(long, 1)])
    (source / "Images" / long).write_bytes(encode_png(picture(1)))
    Path(bytes(source / "Images").decode() + "/").joinpath(b"n\xff.png".decode("utf-8", "surrogateescape")).write_bytes(
        encode_png(picture(2))
    )
    result = ingest(source, workspace=tmp_path / "w")
    assert result["counts"]["out"] == 2
    assert codes(tmp_path / "w") == ["not_utf8"]


def test_escapes_in_ids_and_file_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    box = {"obj_id": "\x1b[2Jx", "obj_cls": "ship", "referring_sentence": "The left ship", "obj_coord": [0.1, 0.1, 0.4, 0.4]}
    source = write(tmp_path / "s", a__png=encode_png(picture(0)), a__json={"image": "a.png", "objects": [box, {**box, "obj_id": 1}]})
    (source / "in\x1b[31mst.json").write_text(json.dumps({"image": "b.png", "objects": []}))
    for words in (["ingest", source, "-w", tmp_path / "w"], ["show", "1", "-w", tmp_path / "w"], ["validate", "-w", tmp_path / "w"]):
        run = cli(*words)
        assert run.returncode == 0, run.stderr
        assert "\x1b" not in run.stdout + run.stderr
    assert codes(tmp_path / "w") == ["control_character"]


def test_odd_commands_end_in_one_line(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row("S0000_0000.png", key, f"{{<{key}><5><{key + 20}><30>}}") for key in range(4)])
    ws = tmp_path / "w"
    ingest(source, workspace=ws)
    refine_masks(workspace=ws, engine="box")
    (tmp_path / "file").write_text("x")
    (tmp_path / "truth.json").write_text(json.dumps({"images": [{"id": 1, "file_name": "S0000_0000.png"}], "categories": [{"id": 1, "name": "vehicle"}],
                                                     "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": []}, {"id": [1]}]}))  # fmt: skip
    (tmp_path / "links.json").write_text('{"0": {"a": 1}}')
    for words, code in (
        (["ingest", source, "-w", tmp_path / "file"], 3), (["ingest", source, "-w", tmp_path / "file" / "x"], 3), (["ingest", source, "-w", tmp_path / "n", "--bands", "²"], 2),
        (["export", "--split", source / "Images" / "S0000_0000.png", "--include-unreviewed", "-w", ws], 3), (["export", "--split", "9" * 400 + ",1,1", "-w", ws], 2),
        (["export", "--split", "0,10,10", "--include-unreviewed", "-w", ws], 2), (["stats", "-w", ws, "--output", tmp_path / "file"], 4),
        (["show", "S0000_0000/", "-w", ws], 3), (["audit", "--truth", tmp_path / "truth.json", "-w", ws], 3),
        (["audit", "--truth", tmp_path / "truth.json", "--links", tmp_path / "links.json", "-w", ws], 3),
    ):  # fmt: skip
        run = cli(*words)
        assert run.returncode == code, (words, run.stdout, run.stderr)
        assert "Traceback" not in run.stderr, words
    (ws / "1-ingest" / "run.json").write_text('{"counts": {}}')
    for words in (["validate", "-w", ws], ["refine-masks", "-w", ws], ["ingest", source, "-w", ws]):
        run = cli(*words)
        assert run.returncode in (1, 3), words
        assert "Traceback" not in run.stderr, words


def test_a_hostile_value_is_shown_in_bounded_length() -> None:
    value: list[Any] = []
    for _ in range(80):
        value = [value, value]
    assert len(printable(value)) < 200
