"""iSAID's instances as truth: on a scene drawn here, and on the real windows of DOTA P0003 and P0004 where they are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from risbench.adapt.adapter_data import from_truth
from risbench.adapt.link_isaid import link_isaid
from risbench.core.errors import InputError, OptionError
from risbench.core.workspace import Workspace, read_records
from risbench.formats.truth import Truth
from risbench.ingest import ingest
from risbench.inspect.audit import audit
from risbench.refine import refine_masks

SHARED = Path(os.environ.get("RISBENCH_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "data"


def write_ids(path: Path, ids: np.ndarray) -> None:
    red, green, blue = ids & 255, (ids >> 8) & 255, (ids >> 16) & 255
    cv2.imwrite(str(path), np.dstack([blue, green, red]).astype(np.uint8))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Window 3 of a scene of 700 x 900 px: x outer, y inner, pulled back inside, so that it begins at (188, 388)."""
    ids = np.zeros((900, 700), np.int64)
    ids[500:540, 300:360] = 70_001
    ids[500:540, 370:430] = 258
    ids[10:30, 10:30] = 5
    (tmp_path / "isaid").mkdir()
    write_ids(tmp_path / "isaid" / "P9000_instance_id_RGB.png", ids)
    source = tmp_path / "source"
    (source / "Images").mkdir(parents=True)
    cv2.imwrite(str(source / "Images" / "P9000_0003.png"), np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8))
    left, top = 188, 388
    rows = []
    for key, box in enumerate(((300, 500, 360, 540), (368, 498, 432, 544), (300, 600, 340, 640))):
        tokens = "".join(f"<{round(value / 512 * 100)}>" for value in (box[0] - left, box[1] - top, box[2] - left, box[3] - top))
        rows.append(
            {
                "image_id": "P9000_0003.png",
                "question": f"The vehicle number {key} beside the long wall.",
                "ground_truth": "{" + tokens + "}",
                "dataset": "RSBench",
                "question_id": key,
                "type": "ref",
                "unique": True,
                "obj_cls": "vehicle",
                "obj_ids": [key],
                "size_group": "",
            }
        )
    (source / "VRSBench_EVAL_referring.json").write_text(json.dumps(rows))
    ingest(source, workspace=tmp_path / "w")
    return tmp_path


def test_instances_are_cut_into_the_window_and_linked_by_overlap(world: Path) -> None:
    found = link_isaid(isaid=world / "isaid", workspace=world / "w", quiet=True)
    assert found["images"] == 1
    assert found["instances"] == 2
    assert found["linked"] == 2
    assert found["counts"] == {"no_true_object_overlaps": 1}
    truth = json.loads(Path(found["truth"]).read_text())
    assert {item["isaid_id"] for item in truth["annotations"]} == {70_001, 258}
    boxes = {item["isaid_id"]: item["bbox"] for item in truth["annotations"]}
    assert boxes[70_001] == [300 - 188, 500 - 388, 60, 40]
    links = json.loads(Path(found["links"]).read_text())
    by_id = {item["id"]: item["isaid_id"] for item in truth["annotations"]}
    assert {key: by_id[value] for key, value in links.items()} == {"0": 70_001, "1": 258}


def test_what_is_linked_can_be_learnt_from_and_audited_against(world: Path) -> None:
    found = link_isaid(isaid=world / "isaid", workspace=world / "w", quiet=True)
    records = list(read_records(Workspace.open(world / "w").latest()))
    known = from_truth(records, Truth(Path(found["truth"])))
    assert len(known.objects) == 2
    assert len(known.pairs) == 2
    refine_masks(workspace=world / "w", engine="box", quiet=True)
    scored = audit(truth=found["truth"], links=found["links"], workspace=world / "w", quiet=True)
    assert scored["n"] == 2
    assert scored["mean_iou"] > 0.6


def test_folders_without_anything_of_use_are_refused(world: Path) -> None:
    with pytest.raises(OptionError, match="must be a folder"):
        link_isaid(isaid=world / "none", workspace=world / "w", quiet=True)
    with pytest.raises(InputError, match=r"holds no \*_instance_id_RGB.png"):
        link_isaid(isaid=world / "source", workspace=world / "w", quiet=True)
    (world / "isaid" / "P9000_instance_id_RGB.png").rename(world / "isaid" / "P0001_instance_id_RGB.png")
    with pytest.raises(InputError, match=r"its 1 scenes are none of the workspace's \(P9000"):
        link_isaid(isaid=world / "isaid", workspace=world / "w", quiet=True)
    (world / "isaid" / "P9000_instance_id_RGB.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="P9000_instance_id_RGB.png"):
        link_isaid(isaid=world / "isaid", workspace=world / "w", quiet=True)


@pytest.mark.skipif(not (SHARED / "dota" / "isaid").is_dir(), reason="the real data is not here")
def test_real_windows_hold_the_instances_that_they_are_known_to(tmp_path: Path) -> None:
    known = {item["image"]: item for item in json.loads((SHARED / "vrsbench_samples" / "truth" / "windows.json").read_text())}
    rows = []
    for key, name in enumerate(sorted(known)):
        x_min, y_min, x_max, y_max = (value / 512 * 100 for value in known[name]["instances"][0]["bbox_xyxy"])
        tokens = "{" + f"<{x_min:.0f}><{y_min:.0f}><{x_max:.0f}><{y_max:.0f}>" + "}"
        row = {"image_id": name, "question": "The vehicle beside the wall at the road.", "ground_truth": tokens, "dataset": "RSBench"}
        rows.append({**row, "question_id": key, "type": "ref", "unique": True, "obj_cls": "vehicle", "obj_ids": [key], "size_group": ""})
    (tmp_path / "VRSBench_EVAL_referring.json").write_text(json.dumps(rows))
    ingest(tmp_path, workspace=tmp_path / "w", images=SHARED / "vrsbench_samples" / "Images", uninformative="keep")
    found = link_isaid(isaid=SHARED / "dota" / "isaid", workspace=tmp_path / "w", quiet=True)
    truth = json.loads(Path(found["truth"]).read_text())
    names = {item["id"]: item["file_name"] for item in truth["images"]}
    assert sorted(names.values()) == sorted(known)
    for image_id, name in names.items():
        mine = {item["isaid_id"]: item["area"] for item in truth["annotations"] if item["image_id"] == image_id}
        theirs = {item["isaid_id"]: item["area"] for item in known[name]["instances"] if item["area"] >= 12}
        assert {number: mine.get(number) for number in theirs} == theirs, name
    assert found["linked"] >= 10
