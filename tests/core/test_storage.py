from __future__ import annotations

import errno
import os

import pytest

from risbench.core.errors import EnvironmentLacks
from risbench.core.storage import explain_read_error, is_system_failure


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM, errno.ETIMEDOUT])
def test_a_failure_of_the_machine_is_told_from_a_fact_about_the_file(code: int) -> None:
    error = OSError(code, os.strerror(code))
    assert is_system_failure(error)
    explained = explain_read_error(error, "/source/a\x1b.png")
    assert isinstance(explained, EnvironmentLacks)
    assert str(explained).startswith("/source/a\\u{1b}.png: cannot be read: " + os.strerror(code))
    assert str(explained).endswith("then run the same command to go on")


@pytest.mark.parametrize(
    "error", [OSError("broken data stream"), FileNotFoundError(errno.ENOENT, "gone"), OSError(errno.ELOOP, "link"), ValueError()]
)
def test_a_decoders_error_and_a_missing_name_are_facts(error: Exception) -> None:
    assert not is_system_failure(error)


def test_too_little_memory_is_a_failure_of_the_machine() -> None:
    assert is_system_failure(MemoryError())
    assert "not enough memory" in str(explain_read_error(MemoryError(), "a.png"))
