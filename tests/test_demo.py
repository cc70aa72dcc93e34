from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from risbench.cli.demo import demo
from risbench.core.errors import InputError


def test_the_demo_runs_every_stage_and_leaves_a_picture(tmp_path: Path) -> None:
    result = demo(workspace=tmp_path / "d", scenes=4, quiet=True)
    assert result["faults"] == []
    assert result["mean_iou"] > result["baseline_iou"] + 0.15
    assert Image.open(result["contact_sheet"]).size[0] > 1000
    for name in ("risbench", "coco", "refer"):
        assert (Path(result["release"]) / {"risbench": "masks"}.get(name, name)).is_dir()
    assert demo(workspace=tmp_path / "d", scenes=4, quiet=True)["mean_iou"] == result["mean_iou"]


def test_the_demo_does_not_touch_a_folder_of_someone_elses(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        demo(workspace=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
