from __future__ import annotations

import json
from pathlib import Path

import pytest

from risbench.core.attributes import attributes_of
from risbench.core.classes import find_class
from risbench.core.errors import InvalidRowError
from risbench.ingest.sentences import clean_sentence, names_several, normalise, says_only_the_class

ONE = [
    "The large yellow vehicle situated closest to the green area.", "The ship between two harbors", "the largest of the three ships",
    "The tennis court with red surface", "The third vehicle from left", "one of the two airplanes", "The vehicle in the row of vehicles",
    "The overpass crossing the river", "The bus", "The 2nd ship", "The basketball court next to the tennis courts", "1 gray ship at the left",
    "The storage tank that is the smallest of all tanks", "The airplane parked near several vehicles", "The bridge spanning both banks",
]  # fmt: skip
SEVERAL = [
    "Several small vehicles parked", "The two airplanes at the top", "two planes", "The group of ships near the dock", "a pair of storage tanks",
    "The vehicles parked in a row", "the ship and the harbor at left", "All the vehicles", "the 3 ships", "The row of vehicles",
    "2 gray medium harbor at the center", "The large set of tennis courts located at the bottom", "Both bridges", "12 cars",
]  # fmt: skip


@pytest.mark.parametrize("sentence", ONE)
def test_a_sentence_about_one_object_is_kept(sentence: str) -> None:
    assert names_several(sentence) is None


@pytest.mark.parametrize("sentence", SEVERAL)
def test_a_sentence_about_several_objects_is_recognised(sentence: str) -> None:
    assert names_several(sentence)


def test_the_380_real_sentences_about_several_are_recognised_and_none_of_the_1236_about_one(shared: Path) -> None:
    folder = shared / "nwpu_vhr10_refer"
    several = [json.loads(line)["expression"] for line in (folder / "multi_target.jsonl").read_text().splitlines()]
    single = [row["question"] for row in json.loads((folder / "VRSBench_EVAL_referring.json").read_text())]
    assert [sentence for sentence in several if not names_several(sentence)] == []
    assert [sentence for sentence in single if names_several(sentence)] == []
    assert (len(several), len(single)) == (380, 1236)


@pytest.mark.parametrize("sentence", ["der rote Zug 🚂 links", "السفينة الكبيرة على اليسار", "👩‍🚀 near the ship", "naïve café"])
def test_emoji_and_right_to_left_letters_are_text(sentence: str) -> None:
    assert clean_sentence(sentence) == sentence


@pytest.mark.parametrize(
    ("sentence", "code"),
    [("red \x1b[31mship", "control_character"), ("ship \u202eevil", "control_character"), ("ship \ud800", "control_character"),
     ("ship\x00", "control_character"), ("x" * 1_000_000, "sentence_too_long")],
)  # fmt: skip
def test_escapes_overrides_and_a_megabyte_are_refused(sentence: str, code: str) -> None:
    with pytest.raises(InvalidRowError) as caught:
        clean_sentence(sentence)
    assert caught.value.code == code
    assert len(str(caught.value)) < 400
    assert "\x1b" not in str(caught.value)


def test_white_space_and_composition_do_not_make_two_sentences() -> None:
    assert clean_sentence(" The\n\tship  ") == "The ship"
    assert normalise("The ship.") == normalise("the  Ship") == "ship"
    assert clean_sentence("cafe\u0301") == "café"


@pytest.mark.parametrize(("sentence", "only"), [("The airplane.", True), ("tennis court", True), ("The red airplane", False), ("", False)])
def test_a_class_name_alone_says_nothing(sentence: str, only: bool) -> None:
    assert says_only_the_class(sentence) is only


def test_the_longest_class_phrase_wins() -> None:
    assert find_class("the tennis court near the ship") == ("tennis court", "tennis-court")
    assert find_class("a small car") == ("small car", "vehicle")
    assert find_class("the road") is None


def test_fields_win_over_the_sentence_and_each_says_where_it_is_from() -> None:
    found = attributes_of("vehicle", "The large yellow vehicle at the top-left, closest to the green area", {"size": "small"})
    told = {kind: (value["value"], value["origin"]) for kind, value in found.model_dump().items() if value}
    assert told == {
        "category": ("vehicle", "sentence"), "color": ("yellow", "sentence"), "size": ("small", "field"),
        "absolute_position": ("top-left", "sentence"), "relative_position": ("closest to", "sentence"),
    }  # fmt: skip
