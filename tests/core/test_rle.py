"""Run lengths from outside: a mask or one clear refusal, whatever the size or the string says."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pydantic import ValidationError

from risbench.core.errors import InputError, InvalidRowError
from risbench.core.masks import decode_rle, mask_area, polygons_mask
from risbench.core.record import Mask, Record
from risbench.core.rle import compress_runs, filled_runs, run_lengths
from risbench.core.workspace import read_records
from tests.record import a_record

PACKAGE = Path(__file__).parents[2] / "risbench"


@given(st.lists(st.integers(0, 2**27), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_runs_are_written_as_pycocotools_writes_them_and_read_back(runs: list[int]) -> None:
    assert run_lengths(compress_runs(runs)).tolist() == runs
    total = sum(runs)
    if 0 < total < 2**31:
        theirs = coco_mask.frPyObjects({"size": [total, 1], "counts": runs}, total, 1)["counts"].decode()
        assert compress_runs(runs) == theirs


@pytest.mark.parametrize(
    ("size", "counts", "match"),
    [
        ((10**6, 10**6), "0", "at most 200,000,000 pixels"),
        ((10**6, 10**6), compress_runs([10**6]), "at most 200,000,000 pixels"),
        ((23_170, 23_170), "0", "at most 200,000,000 pixels"),
        ((0, 5), "0", "both sides must be positive"),
        ((-3, -4), "<", "both sides must be positive"),
        ((2, 6), "PPPPPP0", "run 0 .* is written in 7 characters"),
        ((2, 6), "<oooooo0", "run 1 .* is written in 7 characters"),
        ((2, 6), "=", "add up to 13"),
        ((2, 6), "P", "breaks off"),
        ((2, 6), "", "add up to 0"),
        ((2, 6), "é", "damaged at character 0"),
        ((2, 6), "0\ud800", "damaged at character 1"),
        ((2, 6), "0" * 10_000, "too long"),
    ],
)
def test_a_size_or_a_string_that_no_mask_has_is_one_clear_refusal(size: tuple[int, int], counts: str, match: str) -> None:
    for use in (lambda: decode_rle(size, counts), lambda: filled_runs(*size, counts)):
        with pytest.raises(InputError, match=match):
            use()
    with pytest.raises(ValidationError, match=match):
        Mask(size=size, counts=counts, engine="x", round=0)


def test_the_area_needs_no_pixels() -> None:
    mask = a_record().mask
    assert mask is not None
    assert mask_area(mask) == 24
    side = 14_000
    huge = Mask(size=(side, side), counts=compress_runs([5, side * side - 9, 4]), engine="x", round=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert mask_area(huge) == side * side - 9
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_an_image_that_nobody_can_decode_is_no_record() -> None:
    image = a_record().model_dump(mode="json")
    image["image"].update(width=10**6, height=10**6)
    with pytest.raises(ValidationError, match="at most 200,000,000 pixels"):
        Record.model_validate(image)


def test_a_huge_mask_in_a_stage_is_one_line_that_names_file_line_and_record(tmp_path: Path) -> None:
    line = json.loads(a_record("x7").to_line())
    line["mask"].update(size=[10**6, 10**6])
    data = (a_record().to_line() + "\n" + json.dumps(line) + "\n").encode()
    (tmp_path / "part-00000.jsonl").write_bytes(data)
    from risbench.core.storage import sha256_of

    part = {"name": "part-00000.jsonl", "records": 2, "sha256": sha256_of(data)}
    (tmp_path / "run.json").write_text(json.dumps({"counts": {"in": 2, "out": 2}, "plan": "", "parts": [part]}))
    with pytest.raises(InputError, match=r"part-00000.jsonl: line 2: record world/x7: mask.*at most 200,000,000 pixels") as error:
        list(read_records(tmp_path))
    assert "\n" not in str(error.value)


def test_an_outline_that_would_fill_the_memory_is_refused_and_a_long_one_is_drawn() -> None:
    zigzag = [value for step in range(2_000) for value in ((step % 2) * 9_999.0, float(step))]
    with pytest.raises(InvalidRowError, match="outline_too_long"):
        polygons_mask([zigzag], 10_000, 10_000)
    square = [0.0, 0.0, 600.0, 0.0, 600.0, 600.0, 0.0, 600.0]
    assert np.count_nonzero(polygons_mask([square], 1_000, 1_000)) == 360_000
    assert not polygons_mask([], 4, 4).any()
    with pytest.raises(InvalidRowError, match="wrong_size"):
        polygons_mask([square], 10**6, 10**6)


def test_pycocotools_is_handed_arrays_of_ours_only() -> None:
    assert [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if "import mask as coco_mask" in path.read_text()] == [
        "core/masks.py"
    ]
