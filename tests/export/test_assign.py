"""Which scenes belong together, whatever part of the images is released, and what a release says of its split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from risbench.core.errors import IncompleteResult, InputError
from risbench.core.overlap import alike, corners_of, overlap_of
from risbench.core.record import Review
from risbench.core.workspace import Settings, Workspace
from risbench.export import export
from risbench.export.assign import OverlapIndex, assign, official_split
from risbench.export.split import parse_rule, scene_groups
from risbench.export.verify import verify
from risbench.scenes.world import draw_scene
from tests.export.test_split import record
from tests.record import a_record, tiny_workspace


def workspace_with(folder: Path, found: object) -> Workspace:
    made = Workspace.create(folder, Settings(name="x"))
    (folder / "1-ingest").mkdir()
    (folder / "1-ingest" / "duplicates.json").write_text(json.dumps(found))
    return made


def path(scene: str) -> str:
    return f"images/x/{scene}_0.png"


def test_images_link_through_one_that_is_not_released(tmp_path: Path) -> None:
    """Of three copies the first was rejected, and of a copy's neighbours the one that ingest compared: the others stay together."""
    found = {
        "exact": [[path("A"), path("B"), path("C")], [path("F"), path("G")]],
        "near": [],
        "overlapping": [{"images": [path("A"), path("D")]}, {"images": [path("F"), path("H")]}],
    }
    twice = OverlapIndex.read(workspace_with(tmp_path / "w", found))
    records = [record(scene, 0) for scene in "BCDGHZ"]  # neither A nor F
    rule = parse_rule("2,2,2", 6)
    for seed in range(8):
        made = assign(records, rule, twice, seed)
        assert made.groups["B"] == made.groups["C"] == made.groups["D"]
        assert made.groups["G"] == made.groups["H"] != made.groups["Z"]
        splits = {item.image.scene: made.splits[item.id] for item in records}
        assert splits["B"] == splits["C"] == splits["D"]
    # the matrices know of it, too
    assert (path("B"), path("C")) in twice.near
    assert (path("B"), path("D")) in twice.overlapping
    assert (path("G"), path("H")) in twice.overlapping


def test_a_workspace_of_before_says_so_and_a_damaged_list_is_an_error(tmp_path: Path) -> None:
    old = OverlapIndex.read(workspace_with(tmp_path / "old", {"exact": [], "near": []}))
    assert "were not looked for" in old.warnings[0]
    with pytest.raises(InputError, match=r"duplicates\.json: cannot be read"):
        OverlapIndex.read(workspace_with(tmp_path / "bad", {"exact": 3}))


@pytest.mark.parametrize(
    ("said", "split"), [("train", "train"), ("eval", "test"), ("testB", "test"), ("validation", "val"), ("x", None), (None, None)]
)
def test_the_sources_names_of_splits(said: str | None, split: str | None) -> None:
    one = record("A", 0)
    assert official_split(one.model_copy(update={"source": one.source.model_copy(update={"split": said})})) == split


@pytest.mark.parametrize("windows", [12, 40])
def test_many_windows_of_one_ground_are_one_group(windows: int) -> None:
    scenes = [draw_scene(9, index).pixels for index in range(4)]
    ground = np.vstack([np.hstack(scenes[:2]), np.hstack(scenes[2:])])
    draw = np.random.default_rng(windows)
    images = []
    for _ in range(windows):
        x, y = draw.integers(0, 100, 2)
        images.append(np.ascontiguousarray(ground[y : y + 512, x : x + 512]))
    corners = [corners_of(image) for image in images]
    names = [f"s{index}" for index in range(windows)]
    pairs = [pair for pair in alike(corners, names) if overlap_of(pair, corners, images.__getitem__)]
    assert len(set(scene_groups(names, [(names[a], names[b]) for a, b in pairs]).values())) == 1


def of_scenes(tmp_path: Path, *scenes: str, official: Sequence[str] = ()) -> Path:
    """Return a workspace of one accepted record a scene."""
    records = []
    for index, scene in enumerate(scenes):
        record = a_record(f"r{index}")
        source = record.source.model_copy(update={"split": official[index] if official else None})
        image = record.image.model_copy(update={"scene": scene})
        records.append(record.model_copy(update={"image": image, "source": source, "review": Review(status="accepted")}))
    return tiny_workspace(tmp_path / "w", records)


@pytest.mark.parametrize(
    ("split", "scenes", "empty"),
    [
        ("scene", ("a", "b"), "val"), ("scene", ("a",), "val and test"), (".4,.3,.3", ("a", "b"), "test"), ("4,3,3", ("a", "a", "b"), "test"),
        (".7,0,.3", ("a", "b"), None), ("1,0,0", ("a",), None), (".4,.3,.3", ("a", "b", "c"), None),
    ],
)  # fmt: skip
def test_a_part_that_was_asked_for_and_would_be_empty_ends_the_export_before_anything_is_written(
    tmp_path: Path, split: str, scenes: tuple[str, ...], empty: str | None
) -> None:
    workspace = of_scenes(tmp_path, *scenes)
    if empty is None:
        made = export(workspace=workspace, split=split, quiet=True)
        assert made["state"] == "released"
        assert not any("no triplet" in warning for warning in made["warnings"])
        return
    count = len(set(scenes))
    with pytest.raises(
        IncompleteResult, match=rf"no triplet would be in .*{empty}: {len(scenes)} triplets of {count} scenes.*--allow-empty"
    ) as error:
        export(workspace=workspace, split=split, quiet=True)
    assert error.value.exit_code == 1
    assert not (workspace / "4-export").exists()
    made = export(workspace=workspace, split=split, allow_empty=True, quiet=True)
    assert any("no triplet in" in warning for warning in made["warnings"])
    assert verify(made["path"], quiet=True)["faults"] == []


def test_of_lists_the_splits_that_they_name_are_asked_for(tmp_path: Path) -> None:
    workspace = of_scenes(tmp_path, "a", "b", official=("train", "test"))
    assert export(workspace=workspace, split="official", name="theirs", quiet=True)["splits"]["val"]["triplets"] == 0
    (tmp_path / "two.csv").write_text("scene,split\na,train\nb,test\n")
    assert export(workspace=workspace, split=str(tmp_path / "two.csv"), name="two", quiet=True)["splits"]["test"]["triplets"] == 1
    (tmp_path / "three.csv").write_text("scene,split\na,train\nb,test\ngone,val\n")
    with pytest.raises(IncompleteResult, match="val: the list names nothing of it that can be released"):
        export(workspace=workspace, split=str(tmp_path / "three.csv"), name="three", quiet=True)


def test_a_part_that_was_asked_for_gets_a_scene_where_there_are_enough(tmp_path: Path) -> None:
    scenes = [scene for scene in "abcd" for _ in range(7)]
    made = export(workspace=of_scenes(tmp_path, *scenes), split=".7,.1,.2", quiet=True)
    assert {split: row["scenes"] for split, row in made["splits"].items()} == {"train": 2, "val": 1, "test": 1}


def test_scenes_that_share_an_image_are_one_group(tmp_path: Path) -> None:
    twice = OverlapIndex.read(workspace_with(tmp_path / "w", {"exact": [], "near": [], "overlapping": []}))
    records = [record(scene, 0) for scene in "ABCD"]
    shared = records[0].model_copy(update={"id": "other", "image": records[0].image.model_copy(update={"scene": " "})})
    made = assign([*records, shared], parse_rule("2,2,1", 5), twice, 0)
    assert made.groups["A"] == made.groups[" "] != made.groups["B"]
    assert made.splits["other"] == made.splits[records[0].id]
