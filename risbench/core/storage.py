"""Durable files and resumable stage runs.

A stage is a list of parts. A part is written under a temporary name, fsynced and renamed;
`run.json` comes last and is the commit point of the stage. Killed at any moment, the same
command finds the finished parts, redoes the rest, and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from risbench.core.errors import BusyError, InputError, MissingRequirementError, RisbenchError, printable
from risbench.core.reading import explain_read_error as explain_read_error
from risbench.core.reading import is_system_failure as is_system_failure
from risbench.core.reading import read_json
from risbench.core.reading import sha256_of_file as sha256_of_file
from risbench.core.record import Record
from risbench.core.version import VERSION

PROGRESS = ".progress"
_LOCK_MARK: Final = "pid "


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it is either whole or absent: temporary name, fsync, rename, fsync folder.

    Raises:
        MissingRequirementError: the disk is full or the quota is used up.
    """
    temporary = path.with_name(f".tmp.{path.name}")
    try:
        with os.fdopen(create_new(temporary), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise explain_os_error(error, path) from error


def create_new(path: Path, mode: int = 0o666) -> int:
    """Return the descriptor of a new file for writing; what has its name is removed, and never written through.

    A leftover of a killed run goes, and so does a link, or a file that others may read, laid out beforehand.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def explain_os_error(error: OSError, path: Path) -> RisbenchError:
    """Return the user's error for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return MissingRequirementError(f"{path}: the disk is full ({error.strerror}); free some space, then run the same command to go on")
    return MissingRequirementError(f"{path}: cannot be written: {error.strerror or error}; mend that, then run the same command to go on")


@contextlib.contextmanager
def locked(folder: Path, command: str) -> Iterator[None]:
    """Hold a folder for writing; the kernel drops the lock when the process ends, however it ends.

    Raises:
        BusyError: another process holds it; the message names it.
        MissingRequirementError: the folder cannot be written to.
    """
    with open_lock(folder / ".lock", command, folder):
        yield


@contextlib.contextmanager
def open_lock(path: Path, command: str, what: Path | None = None) -> Iterator[None]:
    """Hold a lock file, made where it is missing; `what` is named to whoever has to wait.

    Raises:
        BusyError: another process holds it; the message names it.
        InputError: what has its name is a link, or no lock of ours.
        MissingRequirementError: it cannot be made, or its file system has no locks.
    """
    folder = what or path
    with _open_lock_file(path, folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = printable(os.pread(file.fileno(), 200, 0).decode("utf-8", "replace").strip()) or "another process"
            raise BusyError(f"{folder}: in use by {holder}; wait for it to end, then run this again") from None
        except OSError as error:
            raise MissingRequirementError(
                f"{folder}: cannot be locked: {error.strerror or error}; its file system offers no locks (a network share without a lock "
                "service, perhaps): turn them on, or use a folder on another disk"
            ) from error
        file.truncate(0)
        file.write(f"{_LOCK_MARK}{os.getpid()} on {socket.gethostname()} (risbench {command})".encode())
        try:
            yield
        finally:
            file.truncate(0)


def _open_lock_file(path: Path, folder: Path) -> io.FileIO:
    """Open a lock file, made where it is missing. A link, or a file that is no lock of ours, is never written to.

    Raises:
        InputError: something else has its name.
        MissingRequirementError: it cannot be made or read.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InputError(f"{path}: is no plain file, so it is no lock of risbench; remove it, then run this again")
        file = io.FileIO(descriptor, "r+b")
        head = os.pread(descriptor, len(_LOCK_MARK), 0)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise InputError(f"{path}: is a link or no plain file, so it is no lock of risbench; remove it, then run this again") from None
        raise explain_os_error(error, folder) from error
    if head and head != _LOCK_MARK.encode():
        file.close()
        raise InputError(f"{path}: holds something else than a lock of risbench; move it away, then run this again")
    return file


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def flushed(folder: Path) -> Iterator[None]:
    """Flush at the end, in one call, all that was written on the folder's file system meanwhile.

    Raises:
        OSError: some of it did not reach the disk (Linux 5.8 and later says so; elsewhere the flush cannot fail).
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield
        os.sync()
        failed = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)  # unlike sync it says what failed since the folder was opened
        if failed is not None and failed(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(descriptor)


def sha256_of(data: bytes) -> str:
    """Return the hex sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Return a hash of a JSON-able value that does not depend on the order of keys."""
    return sha256_of(json.dumps(value, sort_keys=True, ensure_ascii=True).encode())


def to_json(value: Any) -> bytes:
    """Return a readable JSON file's bytes with sorted keys."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def versions(*packages: str) -> dict[str, str]:
    """Return the versions that can change a stage's output."""
    found = {name: metadata.version(name) for name in ("numpy", "opencv-python-headless", *packages)}
    return {"risbench": VERSION, "python": platform.python_version(), **found}


@dataclass
class PartResult:
    """What one part made: its records, the rows refused, and the rows set aside by a rule, by code."""

    records: list[Record]
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    filtered: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


@dataclass
class StageRun:
    """One run of a stage in `folder`. `plan` is all that decides its output: command, options, inputs, versions."""

    folder: Path
    plan: dict[str, Any]
    started: float = field(default_factory=time.monotonic)

    @property
    def run_file(self) -> Path:
        """The commit point."""
        return self.folder / "run.json"

    def finished(self) -> dict[str, Any] | None:
        """Return the summary of the finished run in this folder, whatever its plan, or None."""
        if not self.run_file.exists():
            return None
        return read_summary(self.folder)

    def same_plan(self, summary: Mapping[str, Any]) -> bool:
        """Return whether a finished run was made by this plan."""
        return bool(summary.get("plan") == digest_of(self.plan))

    def begin(self) -> bool:
        """Prepare the folder. Parts of an unfinished run with another plan are removed; return whether any were."""
        progress = self.folder / PROGRESS
        plan_file = progress / "plan.json"
        wanted = to_json(self.plan)
        discarded = False
        if self.folder.exists() and (not plan_file.exists() or plan_file.read_bytes() != wanted):
            discarded = any(self.folder.glob("part-*.jsonl"))
            # First the commit point: a kill while the rest goes must not leave a stage that looks finished.
            self.run_file.unlink(missing_ok=True)
            plan_file.unlink(missing_ok=True)  # nor parts of which the files beside them are gone, to a later run of the old plan
            shutil.rmtree(self.folder)
        try:
            progress.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, progress) from error
        write_durably(plan_file, wanted)
        return discarded

    def finished_part(self, index: int, key: str) -> bool:
        """Return whether part `index` is complete and was made from the input that `key` stands for."""
        progress_file = self._progress_file(index)
        if not (progress_file.exists() and self._part_file(index).exists()):
            return False
        try:
            return bool(read_json(progress_file)["key"] == key)
        except (ValueError, KeyError, TypeError):
            return False  # damaged, so the part is made anew

    def write_part(self, index: int, key: str, result: PartResult) -> None:
        """Commit a part: first what it refused, then its records. Both are there, or the part is redone."""
        lines = "".join(record.to_line() + "\n" for record in result.records).encode()
        progress = {
            "key": key,
            "records": len(result.records),
            "problems": _count(problem.code for record in result.records for problem in record.problems),
            "sha256": sha256_of(lines),
            "quarantine": result.quarantine,
            "filtered": result.filtered,
            "notes": result.notes,
        }
        self._part_file(index).unlink(missing_ok=True)
        write_durably(self._progress_file(index), to_json(progress))
        write_durably(self._part_file(index), lines)

    def beside(self, index: int, suffix: str) -> Path:
        """Return where a part may keep what is needed until the stage ends; it goes with the progress files."""
        return self.folder / PROGRESS / f"part-{index:05d}{suffix}"

    def progress_of(self, index: int) -> dict[str, Any]:
        """Return what a finished part noted beside its records.

        Raises:
            InputError: it is damaged.
        """
        path = self._progress_file(index)
        try:
            noted = dict(read_json(path))
            kinds = {"records": int, "sha256": str, "problems": dict, "notes": dict, "quarantine": list, "filtered": list}
            if not all(isinstance(noted[name], kind) for name, kind in kinds.items()):
                raise TypeError("its fields are not what they should be")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: is damaged ({error}); remove {self.folder} and run the stage again") from None
        return noted

    def finish(self, parts: int, *, rows: int, before: PartResult, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Write quarantine.jsonl and filtered.jsonl, then run.json, and return its content.

        `before` holds what was refused or set aside before the parts were cut. in = out + quarantined +
        filtered is checked here, so that no stage can lose a row unnoticed; `in` is `rows` plus one for
        every further window that shows a row's object (the note `further_windows`).
        """
        done = [self.progress_of(index) for index in range(parts)]
        quarantine = [*before.quarantine, *(row for part in done for row in part["quarantine"])]
        filtered = [*before.filtered, *(row for part in done for row in part["filtered"])]
        out = sum(part["records"] for part in done)
        rows += sum(part["notes"].get("further_windows", 0) for part in done)
        refused = sum(line.get("rows", 1) for line in quarantine)  # one line may stand for many rows that are alike
        counts = {"in": rows, "out": out, "quarantined": refused, "filtered": len(filtered)}
        assert rows == out + refused + len(filtered), f"rows do not reconcile: {counts}"
        problems: dict[str, int] = {}
        notes = dict(before.notes)
        for part in done:
            _add(problems, part["problems"])
            _add(notes, part["notes"])
        write_durably(self.folder / "quarantine.jsonl", _lines(quarantine))
        write_durably(self.folder / "filtered.jsonl", _lines(filtered))
        summary = {
            **self.plan,
            "plan": digest_of(self.plan),
            "counts": counts,
            "quarantined_by_code": _count(row["code"] for row in quarantine for _ in range(row.get("rows", 1))),
            "filtered_by_code": _count(row["code"] for row in filtered),
            "problems_by_code": dict(sorted(problems.items())),
            "notes": dict(sorted(notes.items())),
            "parts": [
                {"name": f"part-{index:05d}.jsonl", "records": part["records"], "sha256": part["sha256"]} for index, part in enumerate(done)
            ],
            **extra,
            "seconds": round(time.monotonic() - self.started, 2),
        }
        write_durably(self.run_file, to_json(summary))
        self.clean()
        return summary

    def clean(self) -> None:
        """Remove the progress files of a finished run."""
        shutil.rmtree(self.folder / PROGRESS, ignore_errors=True)

    def _part_file(self, index: int) -> Path:
        return self.folder / f"part-{index:05d}.jsonl"

    def _progress_file(self, index: int) -> Path:
        return self.beside(index, ".json")


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the run.json of a finished stage.

    Raises:
        InputError: it is damaged.
    """
    path = folder / "run.json"
    try:
        summary: dict[str, Any] = read_json(path)
        if not all(isinstance(summary[key], kind) for key, kind in (("counts", dict), ("parts", list), ("plan", str))):
            raise TypeError("counts, parts and plan are not what they should be")
        if not all(isinstance(count, int) for count in summary["counts"].values()) or not {"in", "out"} <= set(summary["counts"]):
            raise TypeError("counts are no numbers, or in and out are missing")
        for part in summary["parts"]:
            if not (
                re.fullmatch(r"part-\d+\.jsonl", part["name"]) and isinstance(part["sha256"], str) and isinstance(part["records"], int)
            ):
                raise TypeError("parts do not hold a name, a sha256 and a number of records each")
        _check_kinds(summary)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({type(error).__name__}: {error}); remove the folder and run the stage again") from None
    return summary


def _check_kinds(summary: Mapping[str, Any]) -> None:
    """Check what people are shown of a run and later stages look up, where it is there: older versions wrote less."""
    for name in ("quarantined_by_code", "filtered_by_code", "problems_by_code", "notes"):
        if not all(isinstance(count, int) for count in dict(summary.get(name, {})).values()):
            raise TypeError(f"{name} holds no numbers")
    for name in ("options", "inputs", "versions", "duplicate_images", "images_without_rows"):
        if not isinstance(summary.get(name, {}), dict):
            raise TypeError(f"{name} is no object")
    for name in ("images", "scenes", "round", "rows_seen", "seconds"):
        if not isinstance(summary.get(name, 0), int | float):
            raise TypeError(f"{name} is no number")


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    # ASCII, so that neither escape sequences nor lone surrogates of a hostile source reach a terminal or break UTF-8.
    return "".join(json.dumps(row, sort_keys=True, ensure_ascii=True) + "\n" for row in rows).encode()


def _count(codes: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for code in codes:
        counts[code] = counts.get(code, 0) + 1
    return dict(sorted(counts.items()))


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for key, value in more.items():
        total[key] = total.get(key, 0) + value
