"""What a report is made of: the newest records of a workspace, or those of a release, with the images of either."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from risbench.core.errors import InputError, InvalidRowError, printable
from risbench.core.imagery import Pixels
from risbench.core.images import UnusableImage, decoded_image, read_image
from risbench.core.reading import read_json
from risbench.core.record import Record
from risbench.core.storage import digest_of, sha256_of_file
from risbench.core.workspace import Workspace, part_files, read_records
from risbench.formats.audit_sample import AUDIT_FILE, AuditSample
from risbench.formats.released import ReleasedRows, sample_files, table_files
from risbench.formats.source.rows import Refused, SetAside
from risbench.formats.source.tree import Entry, SourceTree


@dataclass
class Source:
    """Records and their images. `audit` holds what the audit sample found, by record; `lacking` says what to do for missing images."""

    name: str
    place: Path
    records: list[Record]
    digest: str
    default_output: Path
    lead: str = ""
    lacking: str = ""
    warnings: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    audit: Mapping[str, str] = field(default_factory=dict)
    entries: Mapping[str, Entry] | None = None
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def pixels(self, record: Record) -> Pixels:
        """Return the record's image (height, width, 3).

        Raises:
            UnusableImage: it is not there, cannot be decoded, or is another.
            MissingRequirementError: the system fails to read it.
        """
        if self.entries is None:
            return read_image(self.place, record.image)
        entry = self.entries.get(record.id)
        if entry is None:
            raise UnusableImage("image_missing", f"{record.image.path}: is not in the release")
        with self._reading:  # an archive has one file pointer
            data = entry.read()
        pixels = decoded_image(data, self.place, record.image.path)
        if pixels.shape[:2] != (record.image.height, record.image.width):
            found = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise UnusableImage(
                "wrong_size", f"{record.image.path}: has {found} px; the record says {record.image.width} x {record.image.height}"
            )
        return pixels

    def link_base(self, output: Path) -> str:
        """Return the way from a report to where its images lie: other links, another report."""
        return os.path.relpath(self.place.resolve(), output.resolve())

    def link(self, record: Record, output: Path) -> str | None:
        """Return the address of the record's image from the report, None where it lies in an archive or table."""
        if self.entries is None:
            path = self.place / record.image.path
        else:
            entry = self.entries.get(record.id)
            if entry is None or entry.member is not None:
                return None
            path = entry.file
        return quote(os.path.relpath(path.resolve(), output.resolve()))


def open_source(release: Path | str | None, workspace: Path | str) -> Source:
    """Return the release's records, or without one the workspace's newest.

    Raises:
        InputError: it is no release or workspace, or is damaged.
    """
    return _of_release(Path(release)) if release is not None else _of_workspace(Workspace.open(workspace))


def _of_workspace(workspace: Workspace) -> Source:
    stage = workspace.latest()
    audit = workspace.root / AUDIT_FILE
    sample = AuditSample.read(audit)
    parts = [sha256_of_file(path) for path in [*part_files(stage), *([audit] if audit.exists() else [])]]
    return Source(
        name=workspace.settings.name,
        place=workspace.root,
        records=list(read_records(stage)),
        digest=digest_of(parts),
        default_output=workspace.root / "report",
        lead=f"From {stage.relative_to(workspace.root).as_posix()} of the workspace.",
        lacking="they are gone from the workspace or damaged; ingest the source again",
        audit={one.record: one.outcome for one in sample.audited} if sample else {},
    )


def _of_release(folder: Path) -> Source:
    folder = folder.resolve()
    described = _description(folder)
    tree = SourceTree.open(folder)
    rows = ReleasedRows(tree)
    tables = table_files(tree)
    readers = [rows.of_table(entry) for entry in tables] or [rows.of_sample(entry) for entry in sample_files(tree)]
    if not readers:
        raise InputError(f"{folder}: has no table and no shard with whole records; report its workspace, or export with --format risbench")
    records: dict[str, Record] = {}
    entries: dict[str, Entry] = {}
    refused = 0
    try:
        for reader in readers:
            for row in reader:
                if isinstance(row, Refused | SetAside) or row.record is None:
                    refused += 1
                    continue
                records[row.record.id] = row.record
                if row.image in tree.by_path:
                    entries[row.record.id] = tree.by_path[row.image]
    except InvalidRowError as reason:
        raise InputError(f"{folder}: {reason}; `risbench verify` says what is wrong") from None
    leaked = described.get("leaked", {})
    facts = [(f"{split} triplets on ground that train shows", f"{count:,}") for split, count in sorted(leaked.items())]
    facts.insert(0, ("split rule", str(described.get("split_rule", ""))))
    broken = [f"{refused:,} rows of the tables cannot be read; `risbench verify` says why"] if refused else []
    return Source(
        name=printable(str(described.get("name", folder.name))),
        place=folder,
        records=[records[name] for name in sorted(records)],
        digest=sha256_of_file(folder / "release.json"),
        default_output=folder.with_name(f"{folder.name}-report"),
        lead="A release.",
        lacking="the release holds none or they are damaged; `risbench verify` says which",
        warnings=[*map(str, described.get("warnings", [])), *broken],
        facts=facts,
        entries=entries,
    )


def _description(folder: Path) -> dict[str, Any]:
    path = folder / "release.json"
    try:
        found = read_json(path)
        if not isinstance(found, dict):
            raise ValueError("it must hold an object")
        if not isinstance(found.get("warnings", []), list) or not isinstance(leaked := found.get("leaked", {}), dict):
            raise ValueError("warnings must be a list, and leaked an object")
        if not all(isinstance(count, int) for count in leaked.values()):
            raise ValueError("leaked must hold numbers")
    except OSError:
        raise InputError(f"{folder}: is no release: it has no release.json; for a workspace, write risbench report -w {folder}") from None
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); `risbench verify` says what else is") from None
    return found
