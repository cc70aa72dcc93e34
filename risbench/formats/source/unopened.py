"""Archives that are not opened, and parts of archives: named, with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from risbench.core.errors import InvalidRowError

_PACKED: Final = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4"),
    *(".7z", ".rar", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".lzma"),
)
# data.zip.001, data.7z.002, data.tar.003; data.z01 beside data.zip; data.part1.rar; what `split` names: data.tar.gz.aa, data.zip.partaa
_PART = re.compile(
    r"^(?P<whole>.+?\.(?:zip|7z|rar|tar(?:\.\w{2,3})?|tgz))\.(?:part[-_]?)?(?:\d{1,3}|a[a-z])$"
    r"|^(?P<spanned>.+)\.z\d{2}$|^(?P<rar>.+)\.part\d+\.rar$",
    re.IGNORECASE,
)


def packed_as(name: str) -> str | None:
    """Return the suffix by which a file is an archive that is not opened, None where it is none."""
    return next((suffix for suffix in _PACKED if name.lower().endswith(suffix)), None)


def part_of(name: str) -> str | None:
    """Return the name of the archive that a file is a part of, None where it is none."""
    found = _PART.match(name)
    if found is None:
        return None
    return found["whole"] or (f"{found['spanned']}.zip" if found["spanned"] else f"{found['rar']}.rar")


def unopened_archives(paths: Iterable[str]) -> list[tuple[str, InvalidRowError]]:
    """Return, of a source's files by path, the archives that are not opened and why; the parts of one are one."""
    refused: list[tuple[str, InvalidRowError]] = []
    parts: dict[str, list[str]] = {}
    for path in sorted(paths):
        pure = PurePosixPath(path)
        whole = part_of(pure.name)
        if whole is not None:
            parts.setdefault(str(pure.with_name(whole)), []).append(path)
        elif (suffix := packed_as(pure.name)) is not None:
            todo = "unpack it" if suffix not in (".gz", ".bz2", ".xz", ".zst") else f"unpack it ({suffix[1:]})"
            refused.append(
                (path, InvalidRowError("archive_not_opened", "file", path, f"a {suffix} file is not opened: {todo}, then ingest again"))
            )
    for whole, found in parts.items():
        refused.append((found[0], InvalidRowError("archive_not_opened", "file", found[0], _how_to_join(whole, found))))
    return refused


def _how_to_join(whole: str, parts: list[str]) -> str:
    names = [PurePosixPath(part).name for part in parts]
    target = PurePosixPath(whole).name
    listed = " and ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}"
    if re.search(r"\.z\d{2}$", names[0], re.IGNORECASE):
        return f"{listed} and {target} are parts of one archive: join them with zip -s 0 {target} --out whole.zip, then ingest again"
    if target.lower().endswith(".rar"):
        return f"{listed} are parts of one archive: unpack it (unrar x {names[0]}), then ingest again"
    shown = " ".join(names) if len(names) <= 6 else f"{names[0][: len(target) + 1]}*"
    return f"{listed} are parts of one archive: join them with cat {shown} > {target}, then ingest again"
