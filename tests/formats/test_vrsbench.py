from __future__ import annotations

import json
from pathlib import Path

import pytest

from risbench.core.errors import InvalidRowError
from risbench.formats.source.rows import Refused, Row, SetAside
from risbench.formats.source.tree import Entry
from risbench.formats.vrsbench import parse_tokens, read_vrsbench, sentence_of_prompt


def entry(tmp_path: Path, value: object, name: str = "VRSBench_EVAL_referring.json") -> Entry:
    path = tmp_path / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return Entry(name, path.stat().st_size, path)


def test_tokens_decode_half_a_step_away_from_zero() -> None:
    assert parse_tokens("{<25><40><33><60>}", "ground_truth") == [(0.255, 0.405, 0.335, 0.605)]
    assert parse_tokens("{<-73><0><196><5>}", "ground_truth") == [(-0.735, 0.005, 1.965, 0.055)]


@pytest.mark.parametrize("true", [-0.734, -0.01, 0.004, 0.253, 0.999, 1.96])
def test_a_decoded_token_lies_within_half_a_step_of_every_value_it_stands_for(true: float) -> None:
    token = int(100 * true)
    decoded = parse_tokens(f"{{<{token}><0><200><5>}}", "ground_truth")[0][0]
    # Truncation folds -0.01 ... 0.01 onto the token 0, so that one alone may be a whole step off.
    assert abs(decoded - true) <= (0.015 if token == 0 else 0.005) + 1e-9


@pytest.mark.parametrize(
    "text", ["", "{<1><2><3>}", "{<1><2><3><4>", "<1><2><3><4>", "{<a><2><3><4>}", "{<1><2><3><4>} tree", "{<1.5><2><3><4>}"]
)
def test_anything_but_token_groups_is_refused(text: str) -> None:
    with pytest.raises(InvalidRowError, match="broken_tokens: ground_truth"):
        parse_tokens(text, "ground_truth")


def test_several_groups_are_several_boxes() -> None:
    assert len(parse_tokens("{<1><2><3><4>}<delim>{<5><6><7><8>}", "a")) == 2


@pytest.mark.parametrize(
    "prompt",
    ["give me the location of <p> the left ship </p>", "where is the left ship ?", "from this image, tell me the location of the left ship",
     "could you tell me the location for the left ship ?", "the location of the left ship is", "where can I locate the left ship ?", "the left ship"],
)  # fmt: skip
def test_every_prompt_form_gives_back_its_sentence(prompt: str) -> None:
    assert sentence_of_prompt(prompt).removeprefix("the ") == "left ship"


def test_the_official_row_keeps_its_corner_box(shared: Path) -> None:
    path = shared / "vrsbench_samples" / "VRSBench_EVAL_referring.json"
    [row] = read_vrsbench(Entry(path.name, path.stat().st_size, path))
    assert isinstance(row, Row)
    assert row.boxes[0].precision == "corner"
    assert row.boxes[0].quad is not None
    assert row.boxes[0].quad[0] == (0.333984375, 0.58984375)
    assert row.sentence == "The large yellow vehicle situated closest to the green area."


def test_official_rows_of_other_tasks_are_set_aside_one_by_one(shared: Path) -> None:
    for name, count in (("VRSBench_EVAL_vqa.json", 9), ("VRSBench_train.json", 10)):
        path = shared / "vrsbench_samples" / name
        items = list(read_vrsbench(Entry(path.name, path.stat().st_size, path)))
        assert len(items) == count
        assert all(isinstance(item, SetAside) and item.code == "not_referring" for item in items)


def test_json5_is_read_and_broken_json_is_refused_with_its_place(tmp_path: Path) -> None:
    ship = "{'obj_id': 0, 'obj_cls': 'ship', 'referring_sentence': 'The ship', 'obj_coord': [.1, .1, .2, .2],}"
    informal = "// made by hand\n{'image': 'P1_0000.png', 'objects': [" + ship + ",],}"
    [row] = read_vrsbench(entry(tmp_path, informal, "P1_0000.json"))
    assert isinstance(row, Row)
    assert row.boxes[0].precision == "coord"
    with pytest.raises(InvalidRowError, match=r"broken_json: file = 'broken.json'|broken_json: file = broken.json"):
        list(read_vrsbench(entry(tmp_path, '[{"image_id": "a.png", ', "broken.json")))


@pytest.mark.parametrize("name", ["deep.json", "deep5.json"])
def test_deep_nesting_is_refused(tmp_path: Path, name: str) -> None:
    text = "[" * 100_000 + ("'x'" if "5" in name else "")
    with pytest.raises(InvalidRowError, match="json_too_deep|broken_json"):
        list(read_vrsbench(entry(tmp_path, text, name)))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"obj_corner": [float("nan")] * 8}, "obj_corner[0]"),
        ({"obj_corner": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, float("inf")]}, "obj_corner[7]"),
        ({"obj_corner": ["0.1"] * 8}, "obj_corner[0]"),
        ({"obj_corner": [0.1] * 7}, "obj_corner"),
        ({"obj_corner": 5}, "obj_corner"),
        ({"ground_truth": "{<1><2><3>}"}, "ground_truth"),
        ({"ground_truth": None}, "ground_truth"),
        ({"question": 7}, "question"),
        ({"image_id": None}, "image_id"),
        ({"obj_cls": ["ship"]}, "obj_cls"),
    ],
)
def test_a_bad_field_is_refused_by_name_and_the_rest_goes_on(tmp_path: Path, change: dict, field: str) -> None:
    good = {
        "image_id": "a.png",
        "question": "The ship",
        "ground_truth": "{<1><2><3><4>}",
        "question_id": 5,
        "type": "ref",
        "obj_cls": "ship",
    }
    bad, fine = read_vrsbench(entry(tmp_path, [{**good, **change}, good]))
    assert isinstance(bad, Refused)
    assert bad.reason.field == field
    assert (bad.file, bad.source_key) == ("VRSBench_EVAL_referring.json", "5")
    assert isinstance(fine, Row)


def test_an_annotation_for_another_image_is_refused(tmp_path: Path) -> None:
    value = {"image": "P0001_0000.png", "objects": [{"obj_id": 0, "obj_cls": "ship", "referring_sentence": "x", "obj_coord": [0, 0, 1, 1]}]}
    [item] = read_vrsbench(entry(tmp_path, value, "P0002_0000.json"))
    assert isinstance(item, Refused)
    assert item.reason.code == "image_name_differs"
    assert "P0002_0000" in item.reason.bound
