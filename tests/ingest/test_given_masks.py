"""Masks that a source brings: held against their boxes, scored, and shown first where the two contradict each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from risbench.core.imagery import encode_png
from risbench.core.mask_scores import conflict, scores_of_given
from risbench.core.masks import encode_rle
from risbench.core.record import Record, Review, Target
from risbench.core.risk import risks
from risbench.export import export
from risbench.ingest import ingest
from risbench.inspect.report import report
from risbench.inspect.validate import validate
from risbench.refine import refine_masks
from tests.conftest import picture, records

# box (x, y, width, height as the file has it) and the mask's extent (x_min, y_min, x_max, y_max), in 512 px
ROWS = {
    1: ([100, 100, 80, 40], (350, 400, 500, 500)),  # elsewhere
    2: ([300, 300, 80, 40], (300, 300, 380, 340)),  # agree
    3: ([300, 300, 380, 340], (300, 300, 380, 340)),  # two corners where width and height belong
}


def rectangle(x_min: int, y_min: int, x_max: int, y_max: int) -> np.ndarray:
    mask = np.zeros((512, 512), bool)
    mask[y_min:y_max, x_min:x_max] = True
    return mask


def segmentation(extent: tuple[int, int, int, int], kind: str) -> Any:
    x_min, y_min, x_max, y_max = extent
    if kind == "polygon":
        return [[x_min, y_min, x_max, y_min, x_max, y_max, x_min, y_max]]
    size, counts = encode_rle(rectangle(*extent))
    return [{"size": list(size), "counts": counts}]


def refer_source(folder: Path, kind: str = "rle") -> Path:
    """Write the three rows as REFER does."""
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "JPEGImages" / "00001.png").write_bytes(encode_png(picture(0, 512, 512)))
    annotations = [
        {"id": key, "image_id": 1, "category_id": 1, "bbox": box, "segmentation": segmentation(extent, kind)}
        for key, (box, extent) in ROWS.items()
    ]
    refs = [
        {
            "ref_id": key,
            "ann_id": key,
            "image_id": 1,
            "split": "train",
            "sentences": [{"sent_id": key, "sent": f"the overpass number {key}"}],
        }
        for key in ROWS
    ]
    images = [{"id": 1, "file_name": "00001.png", "width": 512, "height": 512}]
    value = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "overpass"}]}
    (folder / "instances.json").write_text(json.dumps(value))
    (folder / "refs.json").write_text(json.dumps(refs))
    return folder


@pytest.mark.parametrize("kind", ["rle", "polygon"])
def test_a_mask_away_from_its_box_is_held_back_named_and_shown_first(tmp_path: Path, kind: str) -> None:
    workspace = tmp_path / "w"
    source = refer_source(tmp_path / "s", kind)
    assert ingest(source, workspace=workspace, dry_run=True, quiet=True)["problems_by_code"] == {"mask_box_conflict": 2}
    result = ingest(source, workspace=workspace, quiet=True)
    assert result["problems_by_code"] == {"mask_box_conflict": 2}
    first, second, third = records(workspace / "1-ingest")
    assert second["problems"] == []
    assert "(350, 400, 500, 500)" in first["problems"][0]["detail"]
    assert "(100, 100, 180, 140) have an IoU of 0.00" in first["problems"][0]["detail"]
    assert "(300, 300, 512, 512) have an IoU of 0.07" in third["problems"][0]["detail"]
    before = [record["mask"] for record in (first, second, third)]
    refined = refine_masks(workspace=workspace, engine="box", quiet=True)
    assert refined["notes"] == {"kept_from_source_or_review": 3}
    assert [record["mask"] for record in records(workspace / "2-refine" / "round-1")] == before
    checked = validate(workspace=workspace, quiet=True)
    assert checked["faults"] == []
    assert checked["problems"] == {"mask_box_conflict": 2}
    assert [line.split(": ")[0] for line in checked["held_back"]] == [f"record {record['id']}" for record in (first, third)]
    report(workspace=workspace, quiet=True)
    shown = json.loads((workspace / "report" / "data" / "records.js").read_text().partition("records(")[2].removesuffix(");\n"))
    assert shown["ids"] == [first["id"], third["id"], second["id"]]
    released = export(workspace=workspace, include_unreviewed=True, name="x", split="1,0,0", quiet=True)
    assert released["triplets"] == 1
    assert released["left_out"] == {"mask_box_conflict": 2}


def test_masks_of_the_source_have_scores_and_a_risk_and_a_contradiction_the_highest(tmp_path: Path) -> None:
    ingest(refer_source(tmp_path / "s"), workspace=tmp_path / "w", quiet=True)
    made = [Record.model_validate(record) for record in records(tmp_path / "w" / "1-ingest")]
    scores = [record.mask.scores if record.mask else {} for record in made]
    assert scores[1] == {"in_one_piece": 1.0, "mask_box_agreement": 1.0, "without_holes": 1.0}
    assert scores[0]["mask_box_agreement"] == 0.0
    risk = risks(made)
    assert risk[made[0].id] == risk[made[2].id] == 1.0
    assert 0 < risk[made[1].id] < 0.5
    accepted = made[0].model_copy(update={"review": Review(status="accepted")})
    assert risks([accepted])[accepted.id] < 1.0, "a person has looked"


def test_what_is_looser_or_of_few_pixels_is_no_contradiction() -> None:
    mask = rectangle(100, 100, 200, 200)
    assert conflict(mask, [(90.0, 85.0, 215.0, 210.0)]) is None
    assert conflict(mask, [(100.0, 100.0, 200.0, 299.0)]) is None  # IoU .503
    assert conflict(mask, [(100.0, 100.0, 200.0, 302.0)]) is not None  # IoU .495
    assert conflict(mask, [(0.0, 0.0, 512.0, 512.0)]) is not None
    assert conflict(rectangle(10, 10, 12, 12), [(10.4, 10.4, 14.0, 14.0)]) is None, "rounding"
    assert conflict(mask, []) is None, "where no box is given the mask's extent is the box"


def test_pieces_and_holes_are_scored_and_several_targets_may_be_several_pieces() -> None:
    mask = rectangle(100, 100, 140, 140) | rectangle(200, 100, 240, 140)
    target = Target(box=(100, 100, 140, 140), box_given=(100, 100, 140, 140), box_precision="exact")
    other = target.model_copy(update={"box": (200.0, 100.0, 240.0, 140.0)})
    assert scores_of_given(mask, [target], boxes_given=False) == {"in_one_piece": 0.5, "without_holes": 1.0}
    assert scores_of_given(mask, [target, other], boxes_given=True) == {
        "in_one_piece": 1.0, "mask_box_agreement": 1.0, "without_holes": 1.0}  # fmt: skip
    holed = rectangle(100, 100, 140, 140) & ~rectangle(110, 110, 130, 130)
    assert scores_of_given(holed, [target], boxes_given=False)["without_holes"] == 0.75
