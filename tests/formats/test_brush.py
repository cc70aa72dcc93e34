from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import decode_rle, mask2rle
from numpy.typing import NDArray

from risbench.core.errors import InputError
from risbench.formats.brush import decode_brush, encode_brush


def drawn(kind: str, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return a mask of 0 and 255."""
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    if kind == "smooth":
        cv2.ellipse(mask, (width // 2, height // 2), (max(1, width // 3), max(1, height // 5)), 30, 0, 360, 255, -1)
    elif kind == "full":
        mask[:] = 255
    elif kind != "empty":
        mask[random.random((height, width)) < {"noise": 0.5, "sparse": 0.02}[kind]] = 255
    return mask


@pytest.mark.parametrize("kind", ["smooth", "empty", "full", "noise", "sparse"])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (64, 64), (41, 97), (512, 512), (700, 900)], ids=str)
def test_masks_are_written_as_the_sdk_writes_them_and_come_back(kind: str, size: tuple[int, int]) -> None:
    mask = drawn(kind, *size)
    theirs = mask2rle(mask)
    assert encode_brush(mask > 0) == theirs
    assert np.array_equal(decode_brush(theirs, *size), decode_rle(theirs).reshape(*size, 4)[..., 3])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_any_mask_is_written_as_the_sdk_writes_it(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    assert encode_brush(mask) == mask2rle((mask * 255).astype(np.uint8))


def packed(values: Sequence[int], pieces: Sequence[tuple[bool, int]], sizes: Sequence[int] = (3, 4, 8, 16)) -> list[int]:
    """Return a stream made of runs (True) and literal words (False) of the given counts, whatever is shorter; written bit by bit."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    at = 0
    for run, count in pieces:
        field = next(index for index, size in enumerate(sizes) if count <= 1 << size)
        bits += f"{int(run)}{field:02b}{count - 1:0{sizes[field]}b}"
        bits += "".join(f"{value:08b}" for value in (values[at : at + 1] if run else values[at : at + count]))
        at += count
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


@given(st.data(), st.integers(1, 12), st.integers(1, 12))
def test_edited_masks_with_literal_words_are_read_as_the_sdk_reads_them(data: st.DataObject, height: int, width: int) -> None:
    """The page writes anti-aliased, coloured pixels as words one by one, between runs of nothing."""
    left, values, pieces = 4 * height * width, [], []
    while left:
        run = data.draw(st.booleans())
        count = data.draw(st.integers(1, min(left, 70)))
        chunk = (
            [data.draw(st.integers(0, 255))] * count if run else data.draw(st.lists(st.integers(0, 255), min_size=count, max_size=count))
        )
        values += chunk
        pieces.append((run, count))
        left -= count
    stream = packed(values, pieces, data.draw(st.sampled_from([(3, 4, 8, 16), (1, 2, 4, 8), (16, 16, 16, 16)])))
    expected = np.array(values, np.uint8).reshape(height, width, 4)[..., 3]
    assert np.array_equal(decode_brush(stream, height, width), expected)
    assert np.array_equal(decode_rle(stream).reshape(height, width, 4)[..., 3], expected)


GOOD = encode_brush(drawn("smooth", 20, 30) > 0)


@pytest.mark.parametrize(
    ("rle", "said"),
    [
        ([], "0 bytes; its header alone has 7"),
        ([1, 2, 3], "3 bytes"),
        ("AAAA", "it must be a list of bytes"),
        (None, "it must be a list of bytes"),
        ({"0": 1}, "it must be a list of bytes"),
        ([*GOOD[:9], 256, *GOOD[10:]], "256 among its bytes"),
        ([*GOOD[:9], -1, *GOOD[10:]], "-1 among its bytes"),
        ([*GOOD[:9], 1.5, *GOOD[10:]], "1.5 among its bytes"),
        ([*GOOD[:9], "7", *GOOD[10:]], "7 among its bytes"),
        ([*GOOD[:9], None, *GOOD[10:]], "None among its bytes"),
        ([255, 255, 255, 255, *GOOD[4:]], "made for 4294967295 values; an image of 30 x 20 has 2400"),
        (encode_brush(np.ones((30, 30), bool)), "made for 3600 values"),
        (GOOD[:-4], "breaks off"),
        ([*GOOD, 0, 0, 0], "bits are left over"),
        ([*GOOD[:4], GOOD[4] ^ 0x08, *GOOD[5:]], "words of 7 bits"),
        (packed([0] * 2400, [(True, 2399), (True, 2)]), "runs on past its 2400 values"),
        (packed([0] * 2400, [(False, 2500)]), "runs on past its 2400 values"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_streams_are_refused_in_words(rle: object, said: str) -> None:
    with pytest.raises(InputError, match=f"^brush mask: .*{said}"):
        decode_brush(rle, 20, 30)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 255), max_size=80))
def test_any_bytes_give_a_mask_or_a_refusal(tail: list[int]) -> None:
    for head in (GOOD[:7], []):
        try:
            assert decode_brush([*head, *tail], 20, 30).shape == (20, 30)
        except InputError:
            continue


def test_what_is_no_plane_is_refused() -> None:
    with pytest.raises(InputError, match="its shape is"):
        encode_brush(np.zeros((2, 2, 3), bool))
    with pytest.raises(InputError, match="its shape is"):
        encode_brush(np.zeros((0, 5), bool))
