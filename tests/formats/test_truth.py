"""Truth files: which of their annotations a record's box means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from risbench.core.truth import NO_OVERLAP, TWO_OVERLAP
from risbench.formats.truth import Truth
from tests.record import a_record


def truth_of(tmp_path: Path, *annotations: dict[str, Any]) -> Truth:
    path = tmp_path / "truth.json"
    rows = [{"id": number, "image_id": 1, "category_id": 1, **row} for number, row in enumerate(annotations, 1)]
    images = [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}]
    path.write_text(
        json.dumps({"images": images, "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "ship"}], "annotations": rows})
    )
    return Truth(path)


def test_only_objects_of_the_class_count_and_no_crowd(tmp_path: Path) -> None:
    here = [4, 3, 6, 4]
    assert truth_of(tmp_path, {"bbox": here}).matches(a_record())[0].key == 1
    assert truth_of(tmp_path, {"bbox": here, "category_id": 2}, {"bbox": here}).matches(a_record())[0].key == 2
    assert truth_of(tmp_path, {"bbox": here, "iscrowd": 1}).matches(a_record())[0].reason == NO_OVERLAP
    assert truth_of(tmp_path, {"bbox": "wide"}).matches(a_record())[0].reason == NO_OVERLAP
    assert truth_of(tmp_path, {"bbox": here}, {"bbox": here}).matches(a_record())[0].reason == TWO_OVERLAP
