from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risbench.core.errors import InputError, OptionError
from risbench.core.record import Attribute, Attributes, Category, ImageRef, Placement, Record, Source, Target
from risbench.export.split import overlap_matrices, parse_rule, scene_groups
from risbench.export.strata import assign_scenes, evenness
from risbench.formats.split_list import SplitList, read_split_list, write_split_list


def record(scene: str, number: int, category: str = "ship", side: float = 20) -> Record:
    image = ImageRef(
        path=f"images/x/{scene}_{number}.png", width=512, height=512, sha256="0", source_path="x", scene=scene, perceptual_hash="0" * 64
    )
    return Record(
        id=f"x/{scene}/{number}",
        source=Source(dataset="x", file="f", source_key=str(number)),
        image=image,
        placement=Placement(fit="keep", source_width=512, source_height=512, affine=(1, 0, 0, 0, 1, 0)),
        category=Category(name=category, source_name=category),
        targets=(Target(box=(0, 0, side, side), box_given=(0, 0, side, side), box_precision="exact"),),
    )


def world(seed: int, scenes: int, biggest: int = 8) -> list[Record]:
    draw = random.Random(seed)
    kinds = [("ship", 20.0), ("ship", 60.0), ("vehicle", 20.0), ("airplane", 120.0)]
    made = [record(f"P{scene:04d}", number, *draw.choice(kinds)) for scene in range(scenes) for number in range(draw.randint(1, biggest))]
    colors = [Attributes(color=Attribute(value=draw.choice(("red", "white")), origin="sentence")), Attributes()]
    return [item.model_copy(update={"attributes": draw.choice(colors)}) for item in made]


@given(st.integers(0, 10_000), st.integers(3, 60), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_a_scene_and_its_near_duplicates_lie_in_one_split(seed: int, scenes: int, split_seed: int) -> None:
    records = world(seed, scenes)
    draw = random.Random(seed)
    names = sorted({item.image.scene for item in records})
    linked = [(draw.choice(names), draw.choice(names)) for _ in range(3)]
    rule = parse_rule("scene", len(records))
    assert rule.targets is not None
    splits = assign_scenes(records, scene_groups(names, linked), rule.targets, split_seed)
    assert set(splits) == set(names)
    assert all(splits[a] == splits[b] for a, b in linked)


def test_sizes_are_met_to_the_triplet_where_scenes_are_small() -> None:
    records = world(1, 400)
    for text in ("scene", ".7,.1,.2", f"{len(records) - 500},200,300"):
        rule = parse_rule(text, len(records))
        assert rule.targets is not None
        splits = assign_scenes(records, scene_groups((item.image.scene for item in records), ()), rule.targets, 0)
        counts = Counter(splits[item.image.scene] for item in records)
        assert (counts["train"], counts["val"], counts["test"]) == rule.targets


def test_strata_are_even_across_splits() -> None:
    records = world(2, 600)
    rule = parse_rule("scene", len(records))
    assert rule.targets is not None
    splits = assign_scenes(records, scene_groups((item.image.scene for item in records), ()), rule.targets, 0)
    said = evenness(records, {item.id: splits[item.image.scene] for item in records})
    assert set(said) == {"class", "size", "class and size", "attribute"}
    for kind, row in said.items():
        assert row["largest_difference"] <= 0.005, (kind, row)
    # the same by hand, of one stratum
    share = {}
    for split in ("train", "val", "test", None):
        part = [item for item in records if split in (None, splits[item.image.scene])]
        share[split] = sum(item.category.name == said["class"]["of"] for item in part) / len(part)
    assert said["class"]["largest_difference"] == round(abs(share[said["class"]["in"]] - share[None]), 5)


def test_the_order_of_records_does_not_matter_and_the_seed_does() -> None:
    records = world(3, 100)
    groups = scene_groups((item.image.scene for item in records), ())
    shuffled = records[:]
    random.Random(0).shuffle(shuffled)
    targets = parse_rule("scene", len(records)).targets
    assert targets is not None
    assert assign_scenes(records, groups, targets, 0) == assign_scenes(shuffled, groups, targets, 0)
    assert assign_scenes(records, groups, targets, 0) != assign_scenes(records, groups, targets, 1)


def test_the_papers_counts_are_proportions_of_what_there_is_and_say_so() -> None:
    assert parse_rule("26300,10013,16159", 52472).targets == (26300, 10013, 16159)
    assert parse_rule("26300,10013,16159", 52472).warnings == ()
    assert "one off" in parse_rule("26300,10013,16158", 52472).warnings[0]
    small = parse_rule("26300,10013,16159", 1000)
    assert small.targets == (501, 191, 308)
    assert "proportions" in small.warnings[0]


@pytest.mark.parametrize("text", ["1,2", ".7,.7,.7", "0,.5,.5", "-1,2,3", "0,0,0", "1.5,2,3", "nonsense", "..,1,2", "nan,1,2"])
def test_sizes_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--split"):
        parse_rule(text, 100)


def test_a_frozen_list_comes_back_as_it_was_written(tmp_path: Path) -> None:
    scenes = {"P1": "train", 'odd,"name"': "test", "P2": "val"}
    for by in ("scene", "id"):
        made = SplitList(by, scenes)  # type: ignore[arg-type]
        (tmp_path / "mine.csv").write_text(write_split_list(made))
        assert read_split_list(tmp_path / "mine.csv") == made
        assert parse_rule("mine", 10, [tmp_path]).frozen == made
    for text, match in (
        ("a,b\n", "columns scene and split"),
        ("scene,split\nP1,dev\n", "line 2: split = dev"),
        ("scene,split\nP1,val\nP1,test\n", r"line 3: scene P1 stands in line 2 \(val\) and again here \(test\)"),
        ("id,split\nx/P1/0,val\nx/P1/0,val\n", "line 3: id x/P1/0 stands in line 2"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(InputError, match=match):
            read_split_list(tmp_path / "bad.csv")


def test_the_matrix_shows_a_leak() -> None:
    records = [record("A", 0), record("A", 1), record("B", 0)]
    splits = {"x/A/0": "train", "x/A/1": "test", "x/B/0": "test"}
    near = [("images/x/A_0.png", "images/x/B_0.png"), ("images/x/A_1.png", "images/x/B_0.png")]
    matrix = overlap_matrices(records, splits, near, near[:1])  # type: ignore[arg-type]
    assert matrix["scenes"]["train"]["test"] == matrix["scenes"]["test"]["train"] == 1
    assert matrix["near_duplicates"]["train"]["test"] == 1
    assert matrix["near_duplicates"]["test"]["test"] == 1
    assert matrix["overlapping"]["train"]["test"] == 1
    assert matrix["overlapping"]["test"]["test"] == 0
