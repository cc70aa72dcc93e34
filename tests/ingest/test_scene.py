"""A scene is what known producers' names say, or what --scene says; and what was assumed is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from risbench.core.errors import InputError, OptionError
from risbench.export import export
from risbench.ingest import ingest
from risbench.ingest.scene import SceneRule, is_window_name, scene_of
from tests.conftest import cli, eval_row, records
from tests.ingest.test_odd_inputs import coco, write


@pytest.mark.parametrize(
    "name",
    ["DJI_0001.JPG", "IMG_0001.jpg", "frame_0001.png", "tile_0001.tif", "harbor_2021.tif", "DJI_20240501_0001.JPG", "IMG_20240501_120000.jpg",
     "100_0001_0002.JPG", "P0003.png", "a_1_2_3_4.png", "scan_2021_05_03_12.png", "DSC01234.JPG", "S2A_0001.tif", "0001.png", "berlin_12345.png"],
)  # fmt: skip
def test_pictures_of_cameras_videos_and_other_programs_are_scenes_of_their_own(name: str) -> None:
    assert not is_window_name(name)
    assert scene_of(name) == name.rpartition(".")[0]


def test_what_scenes_are_can_be_said() -> None:
    image, folder, pattern = SceneRule("image"), SceneRule("folder"), SceneRule(r"(?P<scene>flight\d+)/")
    first = SceneRule(r"([^/]+)_\d{4}\.")
    assert image.scene("x/P0003_0002.png", "P0003_0002") == "P0003_0002"
    assert not image.is_window("x/P0003_0002.png")
    assert folder.scene("x/y/a.png", "a") == "x/y"
    assert folder.is_window("x/P0003_0002.png")
    assert not folder.is_window("x/DJI_0001.JPG")
    assert [pattern.scene(path, "stem") for path in ("flight3/DJI_0001.JPG", "other/DJI_0001.JPG")] == ["flight3", "stem"]
    assert not pattern.is_window("flight3/DJI_0001.JPG")
    assert first.scene("x/harbor_0002.png", "harbor_0002") == "harbor"
    assert (first.is_window("x/harbor_0002.png"), first.is_window("x/harbor.png")) == (True, False)


@pytest.mark.parametrize("rule", ["", "video", "(", "[a-z]+", r"\d{4}"])
def test_a_rule_that_is_none_is_refused_with_those_that_are(rule: str) -> None:
    with pytest.raises(OptionError, match="it must be auto, image, folder, or a regular expression"):
        SceneRule(rule)


def photos(folder: Path) -> Path:
    """Write eight photos of different places as a camera names them, an object in each."""
    (folder / "images").mkdir(parents=True)
    value = {**coco(), "images": [], "annotations": []}
    for index in range(8):
        blocks = np.random.default_rng(index).uniform(20, 230, (12, 16, 3))
        ground = Image.fromarray(np.kron(blocks, np.ones((10, 10, 1))).astype(np.uint8))
        ground.save(folder / "images" / f"DJI_{index + 1:04d}.JPG", quality=90)
        value["images"].append({"id": index, "file_name": f"DJI_{index + 1:04d}.JPG", "width": 160, "height": 120})
        value["annotations"].append(
            {"id": index, "image_id": index, "category_id": 1, "bbox": [40, 30, 40, 30], "segmentation": [[40, 30, 80, 30, 80, 60, 40, 60]],
             "expression": f"the bright ship number {index} at the left"}
        )  # fmt: skip
    return write(folder, instances__json=value)


def test_eight_photos_of_a_camera_are_eight_scenes_padded_and_split_four_two_two(tmp_path: Path) -> None:
    result = ingest(photos(tmp_path / "s"), workspace=tmp_path / "w", quiet=True)
    made = records(tmp_path / "w" / "1-ingest")
    assert {(record["image"]["width"], record["placement"]["fit"]) for record in made} == {(512, "pad")}
    assert (
        result["scene"]["said"]
        == "scene: every image is its own, e.g. DJI_0001.JPG -> DJI_0001 (1 image); 8 scenes of 8 images; --scene says it otherwise"
    )
    split = export(workspace=tmp_path / "w", split=".5,.25,.25", include_unreviewed=True, quiet=True)["splits"]
    assert [split[name]["triplets"] for name in ("train", "val", "test")] == [4, 2, 2]
    with pytest.raises(InputError, match="--replace"):
        ingest(tmp_path / "s", workspace=tmp_path / "w", scene="folder", quiet=True)


def test_the_rule_is_told_with_an_example_and_decides_the_fit(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row(f"S{key:04d}_0000.png", key) for key in range(4)])
    run = cli("ingest", source, "-w", tmp_path / "w")
    assert "scene: from the name, e.g. S0000_0000.png -> S0000 (1 image); 4 scenes of 4 images" in run.stdout
    result = ingest(source, workspace=tmp_path / "x", scene=r"(?P<scene>S)\d+_", quiet=True)
    assert result["scene"]["example"] == {"image": "Images/S0000_0000.png", "scene": "S", "images": 4}
    assert {record["image"]["width"] for record in records(tmp_path / "x" / "1-ingest")} == {96}
    ingest(source, workspace=tmp_path / "y", scene="image", quiet=True)
    assert {record["image"]["width"] for record in records(tmp_path / "y" / "1-ingest")} == {512}
    with pytest.raises(OptionError, match="is found in none of the 4 images, such as Images/S0000_0000.png"):
        ingest(source, workspace=tmp_path / "z", scene=r"(flight\d+)/", quiet=True)


def test_images_of_one_name_in_two_folders_are_two_scenes_unless_they_are_windows(tmp_path: Path) -> None:
    rule = SceneRule()
    assert rule.scene("a/DJI_0001.JPG", "a__DJI_0001") != rule.scene("b/DJI_0001.JPG", "b__DJI_0001")
    assert rule.scene("a/P0003_0001.png", "a__P0003_0001") == rule.scene("b/P0003_0001.png", "b__P0003_0001")
