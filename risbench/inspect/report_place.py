"""Where a report comes to lie: one run at a time, whole or absent; and what a run that was cut off had already written."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from risbench.core.errors import InputError
from risbench.core.reading import read_file, read_json
from risbench.core.storage import explain_os_error, open_lock, sync_folder, to_json, write_durably

PAGE_FILES: Final = ("index.html", "report.css", "report.js")
SUMMARY: Final = "report.json"
_FOLDERS: Final = ("data", "tiles", "figures")
_OURS: Final = {*PAGE_FILES, SUMMARY, *_FOLDERS}


class Place:
    """A report's folder, and the folder beside it in which it is made: `page` becomes the report, `plan.json` and `absent` never do.

    `plan.json` is the first thing that goes when the working folder is removed: without it nothing that is left there is trusted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._work = folder.with_name(f".tmp-{folder.name}")
        self._aside = folder.with_name(f".old-{folder.name}")
        self.page = self._work / "page"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the place: two runs into one folder would write over each other.

        Raises:
            BusyError: another run holds it.
            MissingRequirementError: nothing can be written there.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, self.folder.parent) from error
        with open_lock(self.folder.with_name(f".lock-{self.folder.name}"), "report"):
            yield

    def check_ours(self) -> None:
        """Refuse to replace what is no report, and to write into a release.

        Raises:
            InputError: the folder holds something else, too.
        """
        release = next((place for place in self.folder.parents if (place / "release.json").is_file()), None)
        if release is not None:
            said = f"lies in the release {release}, to which nothing may be added; choose another folder with --output"
            raise InputError(f"{self.folder}: {said}")
        if not self.folder.exists():
            return
        names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else {self.folder.name}
        found = _read(self.folder / SUMMARY) if SUMMARY in names else {}
        if names and not (isinstance(found.get("plan"), dict) and names <= _OURS):
            raise InputError(f"{self.folder}: is no report, or holds other things, too; choose another folder with --output")

    def finished(self, plan: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what the report that is there holds, None where it is of another plan, lacks a file or shows images as missing."""
        found = _read(self.folder / SUMMARY)
        files = found.pop("files", None)
        counts = {name: found.get(name) for name in ("records", "images", "missing_images")}
        whole = found.get("plan") == plan and isinstance(files, dict) and all(isinstance(count, int) for count in counts.values())
        if not whole or counts["missing_images"] or _sizes(self.folder) != files:
            return None
        self._clear()
        return found

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Make the working folder ready: what a run of the same plan had finished is kept, anything else goes."""
        if _read(self._work / "plan.json") != plan:
            _remove(self._work)
        for name in _FOLDERS:
            (self.page / name).mkdir(parents=True, exist_ok=True)
        (self._work / "absent").mkdir(exist_ok=True)
        write_durably(self._work / "plan.json", to_json(plan))

    def sheet(self, index: int, make: Callable[[], tuple[bytes, int]]) -> int:
        """Write sheet `index` where it is not there yet; return how many of its records' images cannot be shown."""
        path, count = self.page / "tiles" / f"{index:05d}.jpg", self._work / "absent" / f"{index}"
        if path.exists() and count.exists():
            with contextlib.suppress(ValueError):
                return int(read_file(count))
        data, absent = make()
        write_durably(count, str(absent).encode())
        write_durably(path, data)
        return absent

    def finish(self, plan: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
        """Put the report in its place, with the sizes of its files, by which the next run sees that it is whole."""
        write_durably(self.page / SUMMARY, to_json({"plan": plan, **counts, "files": _sizes(self.page)}))
        shutil.rmtree(self._aside, ignore_errors=True)
        if self.folder.exists():
            os.rename(self.folder, self._aside)
        os.rename(self.page, self.folder)
        sync_folder(self.folder.parent)
        self._clear()

    def _clear(self) -> None:
        for folder in (self._work, self._aside):
            with contextlib.suppress(OSError):  # what is left is removed by the next run
                _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder; a kill on the way leaves nothing that the next run would take for finished."""
    (folder / "plan.json").unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def _read(path: Path) -> dict[str, Any]:
    """Return the object in a file; an empty one where there is none or it was cut off, as both are written anew.

    Raises:
        MissingRequirementError: the system fails to read it.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every file of a report but its summary, and what a killed run had begun to write of one."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (SUMMARY, f".tmp.{SUMMARY}"))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
