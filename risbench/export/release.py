"""Writing one release folder: every format in one pass over the records, with description and checksums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from risbench.core.progress import Progress
from risbench.core.record import Record
from risbench.core.storage import sha256_of_file, to_json
from risbench.export.card import card, description
from risbench.export.croissant import croissant
from risbench.export.formats.registry import RELEASE_FORMATS
from risbench.export.triplet import triplets


def write_formats(
    folder: Path, root: Path, records: Sequence[Record], formats: Sequence[str], dataset: str, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Write the records, which all have a split, in each format below `folder`, in one pass; `root` is the workspace.

    Returns what there is to say of each format.
    """
    known = RELEASE_FORMATS.all()
    writers = {name: known[name].writer(folder, records, dataset) for name in formats}
    for triplet in triplets(records, root):
        for writer in writers.values():
            writer.add(triplet)
        progress.advance(1)
    return {name: writer.close() for name, writer in writers.items()}


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS over every file below `folder`, as sha256sum -c reads it."""
    digests: dict[tuple[int, int], str] = {}

    def digest(path: Path) -> str:
        status = path.stat()  # an image has a name for every sentence, and one content
        place = (status.st_dev, status.st_ino)
        if place not in digests:
            digests[place] = sha256_of_file(path)
        return digests[place]

    lines = [
        f"{digest(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def write_description(folder: Path, release: Mapping[str, Any]) -> None:
    """Write release.json, the card README.md and croissant.json."""
    (folder / "release.json").write_bytes(to_json(release))
    (folder / "README.md").write_text(card(release), encoding="utf-8")
    # it is put into pages as it is: no text of a source may end their script
    page = to_json(croissant(release, description(release))).replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")
    (folder / "croissant.json").write_bytes(page)
