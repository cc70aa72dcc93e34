"""`risbench verify RELEASE`: is a release, wherever it was copied to, the one that was made?"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from risbench.core.errors import InputError, InvalidRowError, MissingRequirementError, RisbenchError, printable
from risbench.core.progress import Progress
from risbench.core.reading import explain_read_error, is_system_failure, read_json
from risbench.core.record import SPLITS
from risbench.core.storage import sha256_of, sha256_of_file
from risbench.export.formats.base import Check
from risbench.export.formats.registry import RELEASE_FORMATS
from risbench.formats.split_list import read_split_list, write_split_list

_LINE = re.compile(r"^([0-9a-f]{64})  ([^\r\n]+)$")
SUMS: Final = "SHA256SUMS"
_UNREADABLE: Final = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    pa.ArrowException,
    tarfile.TarError,
    InvalidRowError,
    RisbenchError,
)


def verify(release: Path | str, *, quiet: bool = False) -> dict[str, Any]:
    """Check a release and return every fault: files that are changed, missing, or not of it, and content that is not what it says.

    Needs nothing but the folder. Content is looked at where the files are sound: unique ids, masks of the image's size with at least a
    pixel, scenes (or records) in the split that split.csv has them in, as many triplets in every format as release.json counts.

    Raises:
        InputError: the folder is no release.
    """
    folder = Path(release)
    if not (folder / "release.json").is_file() or not (folder / SUMS).is_file():
        raise InputError(f"{folder}: is no release: release.json and {SUMS} are not both there")
    listed, faults = _listed(folder)
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()}
    there.pop(SUMS, None)
    faults += [f"{name}: is missing" for name in listed if name not in there]
    faults += [f"{name}: is not of this release; {SUMS} does not list it" for name in there if name not in listed]
    total = 0
    with Progress("verify", len(listed), quiet=quiet) as progress:
        for name, digest in listed.items():
            path = there.get(name)
            if path is not None:
                if path.is_symlink() or not path.is_file():
                    faults.append(f"{name}: is a link or a device; a release holds plain files only")
                elif sha256_of_file(path) != digest:
                    faults.append(f"{name}: its content is not what was released (sha256 differs)")
                else:
                    total += path.stat().st_size
            progress.advance(1)
    described: dict[str, Any] = {}
    if not faults:
        try:
            described = dict(_json(folder / "release.json"))
            with Progress("verify: contents", 0, quiet=quiet) as progress:
                faults = _content_faults(folder, described, progress)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            faults = [f"release.json: is not of this version of risbench, or damaged ({type(error).__name__}: {printable(str(error), 80)})"]
    unknown = [name for name in described.get("formats", ()) if name not in RELEASE_FORMATS.names()]
    more = {"not_looked_into": unknown} if unknown else {}
    return {
        **more,
        "release": str(folder),
        "name": described.get("name"),
        "files": len(listed),
        "bytes": total,
        "triplets": described.get("triplets"),
        "formats": described.get("formats"),
        "faults": faults,
    }


def _listed(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return the sha256 of every listed file, and the lines that are none."""
    listed: dict[str, str] = {}
    faults = []
    lines = (folder / SUMS).read_bytes().decode("utf-8", "replace").split("\n")
    if lines.pop():
        faults.append(f"{SUMS}: its last line breaks off")
    for number, line in enumerate(lines, 1):
        found = _LINE.match(line)
        if found is None:
            faults.append(f"{SUMS}: line {number}: {printable(line, 80)}: must be a sha256, two blanks and a file name")
        elif found[2] in listed:
            faults.append(f"{SUMS}: line {number}: {printable(found[2])}: stands there twice")
        elif found[2].startswith("/") or ".." in found[2].split("/"):
            faults.append(f"{SUMS}: line {number}: {printable(found[2])}: leads out of the release")
        else:
            listed[found[2]] = found[1]
    return listed, faults


def _content_faults(folder: Path, described: Mapping[str, Any], progress: Progress) -> list[str]:
    frozen = read_split_list(folder / "split.csv")
    faults = []
    written = {sha256_of(write_split_list(frozen).encode()), sha256_of_file(folder / "split.csv")}  # a release may be of an older version
    if described["split_sha256"] not in written:
        faults.append("split.csv: is not the list that release.json names (split_sha256 differs)")
    wanted = {split: described["splits"][split]["triplets"] for split in SPLITS}
    check = Check(folder, described, frozen, faults, progress)
    for name in described["formats"]:
        known = RELEASE_FORMATS.get(name)
        try:
            counted = known.count(check) if known is not None else None
        except _UNREADABLE as error:
            if isinstance(error, MissingRequirementError):
                raise
            if is_system_failure(error):
                raise explain_read_error(error, folder / name) from error
            faults.append(f"{name}: cannot be read ({type(error).__name__}: {printable(str(error), 200)})")
            continue
        faults += [
            f"{name}: {split} holds {counted.get(split, 0):,} triplets; release.json counts {wanted[split]:,}"
            for split in SPLITS
            if counted is not None and counted.get(split, 0) != wanted[split]
        ]
    return faults


def _json(path: Path) -> Any:
    return read_json(path)
