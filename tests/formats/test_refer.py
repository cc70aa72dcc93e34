from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import pytest

from risbench.core.errors import InvalidRowError
from risbench.formats.plain_pickle import load_plain_pickle


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return (os.system, (self.command,))


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    data = pickle.dumps([{"ref_id": 1, "sentences": Evil(f"touch {tmp_path}/ran")}])
    with pytest.raises(InvalidRowError, match="pickle_runs_code: pickle = (posix|nt).system"):
        load_plain_pickle(data, "refs(unc).p")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("global_name", [b"csubprocess\nPopen\n", b"cbuiltins\neval\n", b"c__builtin__\nexec\n"])
def test_any_global_is_refused(global_name: bytes) -> None:
    assert subprocess  # the module is importable here, so only the refusal keeps it out
    with pytest.raises(InvalidRowError, match="pickle_runs_code"):
        load_plain_pickle(global_name + b"(S'id'\ntR.", "refs.p")


@pytest.mark.parametrize("data", [b"", b"\x80", b"garbage", pickle.dumps([1, 2, 3])[:-4], b"\x80\x02" + b"(" * 1000])
def test_a_damaged_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRowError, match="broken_pickle"):
        load_plain_pickle(data, "refs.p")


def test_plain_values_of_every_protocol_are_read() -> None:
    value = [{"ref_id": 1, "sentences": [{"sent": "the ship", "tokens": ["the", "ship"]}], "share": 0.5, "none": None}]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert load_plain_pickle(pickle.dumps(value, protocol), "refs.p") == value
