from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from risbench.core.errors import InputError, MissingRequirementError
from risbench.core.reading import open_to_read, parse_json, parse_toml, read_file
from risbench.core.storage import create_new, explain_read_error, is_system_failure, locked, read_summary, write_durably


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM, errno.ETIMEDOUT])
def test_a_failure_of_the_machine_is_told_from_a_fact_about_the_file(code: int) -> None:
    error = OSError(code, os.strerror(code))
    assert is_system_failure(error)
    explained = explain_read_error(error, "/source/a\x1b.png")
    assert isinstance(explained, MissingRequirementError)
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


def test_a_lock_that_is_a_link_is_refused_and_what_it_names_stays(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    diary.write_text("ten years of a diary")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / ".lock").symlink_to(diary)
    with pytest.raises(InputError, match=r"\.lock: is a link"), locked(tmp_path / "w", "ingest"):
        pass
    assert diary.read_text() == "ten years of a diary"


def test_a_lock_that_is_a_second_name_of_another_file_is_refused_and_one_of_ours_is_taken(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    diary.write_text("ten years of a diary")
    os.link(diary, tmp_path / ".lock")
    with pytest.raises(InputError, match="holds something else than a lock"), locked(tmp_path, "ingest"):
        pass
    assert diary.read_text() == "ten years of a diary"
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").write_text("pid 7 on a machine that lost power (risbench ingest)")
    with locked(tmp_path, "ingest"):
        assert (tmp_path / ".lock").read_text().startswith(f"pid {os.getpid()} on ")
    assert (tmp_path / ".lock").read_text() == ""
    (tmp_path / ".lock").unlink()
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(InputError, match="no plain file"), locked(tmp_path, "ingest"):
        pass


def test_locks_that_a_file_system_lacks_are_not_called_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with (
        pytest.raises(MissingRequirementError, match="cannot be locked: No locks available; its file system offers no locks"),
        locked(tmp_path, "x"),
    ):
        pass


def test_a_temporary_name_laid_out_beforehand_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".tmp.a").symlink_to(victim)
    write_durably(tmp_path / "a", b"new")
    assert (victim.read_text(), (tmp_path / "a").read_bytes(), (tmp_path / "a").is_symlink()) == ("mine", b"new", False)
    (tmp_path / ".tmp.b").touch(mode=0o666)
    (tmp_path / ".tmp.b").chmod(0o666)
    held = open(tmp_path / ".tmp.b", "rb")  # noqa: SIM115 - who opened it before must not read what is written
    os.close(create_new(tmp_path / ".tmp.b", 0o600))
    assert (tmp_path / ".tmp.b").stat().st_mode & 0o777 == 0o600
    assert os.fstat(held.fileno()).st_ino != (tmp_path / ".tmp.b").stat().st_ino
    held.close()


def test_a_failed_read_is_the_users_error_whoever_reads(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("a")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        with pytest.raises(
            MissingRequirementError, match="a: cannot be read: Too many open files; mend that, then run the same command to go on"
        ):
            open_to_read(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with (
        pytest.raises(MissingRequirementError, match="mem: cannot be read: Input/output error"),
        open_to_read(Path("/proc/self/mem")) as file,
    ):
        file.read(1)  # nothing is mapped at address 0: a real failure of a read
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "gone")
    with pytest.raises(OSError, match="symbolic links"):
        open_to_read(tmp_path / "link", follow=False)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{}",
        '{"counts": {}, "parts": [], "plan": "x"}',
        '{"counts": {"in": 1, "out": 1}, "parts": [{"name": "../x"}], "plan": "x"}',
    ],
)
def test_a_damaged_run_json_is_one_line_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json: is damaged \(\w+: .*\); remove the folder and run the stage again"):
        read_summary(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[" * 200_000, "nests too deeply"), ("9" * 5000, "Exceeds the limit"), ('{"a": ', "Expecting value")],
    ids=["brackets", "digits", "cut off"],
)
def test_json_that_cannot_be_read_is_a_value_error_whatever_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 5000, "nests too deeply"),
        ("seed = " + "9" * 5000, "Exceeds the limit"),
        (".".join("a" * 20_000) + " = 1", "19,999 dots"),
        ("a = 1\n" * 200_000, "settings have at most"),
        ("a = ", "Invalid value"),
    ],
    ids=["brackets", "digits", "dots", "long", "cut off"],
)
def test_settings_that_cannot_be_read_are_a_value_error_in_little_memory(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_toml(text)
