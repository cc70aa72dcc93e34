from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from risbench.core.errors import InputError
from risbench.core.masks import decode_rle, encode_rle
from risbench.core.rle import run_lengths


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=60)
def test_a_mask_survives_and_its_runs_add_up(height: int, width: int, seed: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    size, counts = encode_rle(mask)
    assert (decode_rle(size, counts) == mask).all()
    runs = run_lengths(counts)
    assert sum(runs) == height * width
    assert sum(runs[1::2]) == mask.sum() == coco_mask.area({"size": list(size), "counts": counts.encode()})


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + "1", lambda c: c + "\x7f", lambda c: "~" + c])
def test_damaged_runs_are_an_error_and_never_a_mask(change) -> None:
    mask = np.zeros((40, 40), bool)
    mask[3:30, 5:20] = True
    size, counts = encode_rle(mask)
    with pytest.raises(InputError, match="mask: "):
        decode_rle(size, change(counts))


@given(st.text(alphabet=[chr(code) for code in range(40, 120)], max_size=30))
def test_any_text_is_runs_or_a_clear_error(text: str) -> None:
    try:
        assert all(run >= 0 for run in run_lengths(text))
    except InputError as error:
        assert str(error).startswith("mask: ")
