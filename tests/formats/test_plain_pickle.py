"""A pickle claims no more memory than its bytes fill, and runs nothing."""

from __future__ import annotations

import pickle
import pickletools
import struct
import time
import tracemalloc

import numpy as np
import pytest

from risbench.core.errors import InvalidRowError
from risbench.formats import plain_pickle
from risbench.formats.plain_pickle import load_plain_pickle

REFS = [
    {"ref_id": number, "ann_id": 10**9 + number, "sentences": [{"sent": f"the ship {number}", "tokens": ["the", "ship"], "score": 0.5}], "split": "train"}
    for number in range(2_000)
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_of_every_protocol_are_read(protocol: int) -> None:
    values = [REFS, (1, (2, -(2**200))), {"é": [True, None, 1.5, b"\xff"]}, 2**60, "", [], {}]
    for data in (pickle.dumps(values, protocol), pickletools.optimize(pickle.dumps(values, protocol))):
        if protocol >= 3:
            assert load_plain_pickle(data, "refs.p") == values
    assert load_plain_pickle(pickle.dumps(REFS, protocol), "refs.p") == REFS


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"]r" + struct.pack("<I", 1 << 27) + b".", "pickle_bomb: memo place = 134217728"),
        (b"]p1073741824\n.", "pickle_bomb: memo place"),
        (b"]p99999999999999999999\n.", "broken_pickle"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"abc.", "announces 8,589,934,592 bytes"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc.", "broken_pickle"),
        (b"\x80\x02\x8b" + struct.pack("<I", 5_000) + b"\x7f" * 5_000 + b".", "pickle_bomb: number"),
        (b"L" + b"9" * 4_000 + b"L\n.", "pickle_bomb: number"),
        (b"I" + b"9" * 9_000 + b"\n.", "pickle_bomb: number"),
        (b"\x80\x02" + b"}" * 3_000 + b".", "pickle_bomb: containers"),
    ],
)
def test_what_claims_more_than_its_bytes_is_refused_before_it_is_read(data: bytes, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_pickle, "_MAX_CONTAINERS", 2_000)
    tracemalloc.start()
    with pytest.raises(InvalidRowError, match=match):
        load_plain_pickle(data, "refs.p")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_the_check_costs_little() -> None:
    data = pickle.dumps(REFS * 10, 2)
    before = time.process_time()
    load_plain_pickle(data, "refs.p")
    assert time.process_time() - before < 3


def test_any_byte_may_be_another_and_only_values_or_refusals_come_out() -> None:
    data, random, read = pickle.dumps(REFS[:3], 2), np.random.default_rng(0), 0
    for _ in range(3_000):
        changed = bytearray(data)
        for place in random.integers(0, len(data), int(random.integers(1, 4))):
            changed[place] = random.integers(256)
        try:
            load_plain_pickle(bytes(changed), "refs.p")
            read += 1
        except InvalidRowError:
            continue
    assert read > 100
