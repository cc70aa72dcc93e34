"""True masks at another size than the workspace's images: scaled where the ratio is the same, else refused with both sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from risbench.core.errors import InputError
from risbench.core.imagery import encode_png
from risbench.ingest import ingest
from risbench.inspect.audit import audit
from risbench.refine import refine_masks
from tests.conftest import picture


def instances(width: int, height: int, *, scale: float, runs: bool = False) -> dict[str, Any]:
    """Return COCO whose objects are those of a 96 x 96 px picture times `scale`."""
    annotations = []
    for key, (x, y, side) in enumerate(((10, 10, 30), (50, 50, 36)), 1):
        x, y, side = (value * scale for value in (x, y, side))
        polygon = [[x, y, x + side, y, x + side, y + side, x, y + side]]
        annotations.append({"id": key, "image_id": 1, "category_id": 1, "bbox": [x, y, side, side], "segmentation": polygon,
                            "expression": f"the ship number {key}"})  # fmt: skip
    return {"images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
            "categories": [{"id": 1, "name": "ship"}], "annotations": annotations}  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.png").write_bytes(encode_png(picture(0)))
    value = instances(96, 96, scale=1)
    for annotation in value["annotations"]:
        del annotation["segmentation"]
    (tmp_path / "s" / "instances.json").write_text(json.dumps(value))
    ingest(tmp_path / "s", workspace=tmp_path / "w", quiet=True)
    refine_masks(workspace=tmp_path / "w", engine="box", quiet=True)
    return tmp_path / "w"


@pytest.mark.parametrize(("width", "height", "scale", "said"), [(96, 96, 1, ""), (192, 192, 2, "scaled: 1 images"), (48, 48, 0.5, "scaled"),
                                                                (96, 97, 1, "stated_size_differs")])  # fmt: skip
def test_a_truth_of_another_size_is_scaled_and_said(workspace: Path, width: int, height: int, scale: float, said: str) -> None:
    (workspace / "t.json").write_text(json.dumps(instances(width, height, scale=scale)))
    result = audit(truth=workspace / "t.json", workspace=workspace, quiet=True)
    assert result["n"] == 2
    assert result["mean_iou"] > 0.9
    assert "".join(result["sizes"]).startswith(said)
    assert bool(said) == bool(result["sizes"])


def test_a_truth_of_another_ratio_names_both_sizes(workspace: Path) -> None:
    (workspace / "t.json").write_text(json.dumps(instances(192, 160, scale=2)))
    with pytest.raises(InputError, match=r"wrong_size 2; wrong_size: 1 images of another ratio.*192 x 160 px.*96 x 96 px"):
        audit(truth=workspace / "t.json", workspace=workspace, quiet=True)
