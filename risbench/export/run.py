"""`risbench export --split`: choose, split by scene, write a release that appears whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risbench.core.errors import IncompleteResult, InputError, OptionError, printable
from risbench.core.masks import mask_digest, mask_of
from risbench.core.progress import Progress
from risbench.core.reading import read_json
from risbench.core.record import REVIEWED, SPLITS, Record
from risbench.core.releasable import reason_to_withhold
from risbench.core.storage import digest_of, explain_os_error, flushed, sha256_of, sha256_of_file, sync_folder, versions
from risbench.core.workspace import EXPORT, Workspace, part_files, read_records
from risbench.export.assign import OverlapIndex, assign, described, empty_parts, official_split, split_list
from risbench.export.card import counts_of
from risbench.export.formats.registry import ALL, RELEASE_FORMATS
from risbench.export.release import write_checksums, write_description, write_formats
from risbench.export.split import OFFICIAL, parse_rule
from risbench.formats.audit_sample import AUDIT_FILE, AuditSample, summary_of
from risbench.formats.split_list import write_split_list


def export(
    *,
    workspace: Path | str = ".",
    split: str | None = None,
    formats: Sequence[str] = ("risbench",),
    name: str = "release",
    seed: int | None = None,
    include_unreviewed: bool = False,
    replace: bool = False,
    allow_empty: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write the release `4-export/<name>` and return what is in it; without `split` the workspace's own rule is used.

    Left out and counted by code: records with a problem, without a mask or sentence, rejected ones, and, unless
    `include_unreviewed`, masks that no person has looked at. Nothing is written where a split that was asked for would hold no
    triplet, unless `allow_empty`.

    Raises:
        IncompleteResult: a split that was asked for would be empty.
        OptionError: the rule, a format or the name cannot be used.
        InputError: nothing is left to release, or a release of this name with other content exists.
        MissingRequirementError: the disk is full.
        BusyError: another run holds the workspace.
    """
    opened = Workspace.open(workspace)
    split = split or opened.settings.split_rule
    unknown = [value for value in formats if value not in (*RELEASE_FORMATS.names(), ALL)]
    if unknown or not formats:
        left_out = "".join(f"; {reason}" for reason in RELEASE_FORMATS.broken)
        raise OptionError(f"--format {','.join(formats)}: must be {ALL}, or of {', '.join(RELEASE_FORMATS.names())}{left_out}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise OptionError(f"--name {name!r}: use 1 to 100 letters, digits, dots, hyphens and underscores, starting with a letter or digit")
    parse_rule(split, 1, _manifests(opened))  # a rule that cannot be is refused before anything is read
    with opened.lock("export"):
        asked = _Asked(list(formats), name, opened.settings.seed if seed is None else seed, include_unreviewed, replace, allow_empty, quiet)
        return _export(opened, split, asked)


@dataclass(frozen=True)
class _Asked:
    """The options of one export."""

    formats: list[str]
    name: str
    seed: int
    include_unreviewed: bool
    replace: bool
    allow_empty: bool
    quiet: bool


def _export(workspace: Workspace, split: str, asked: _Asked) -> dict[str, Any]:
    source = workspace.latest()
    with Progress("export: read", 0, quiet=asked.quiet) as reading:
        everything = list(reading.counting(read_records(source)))
    records, left_out = _choose(everything, asked.include_unreviewed)
    if not records:
        reasons = ", ".join(f"{code} {count:,}" for code, count in sorted(left_out.items())) or "the workspace has no record"
        hint = "; masks without review are released only with --include-unreviewed" if "unreviewed" in left_out else ""
        raise InputError(f"{workspace.root}: nothing to release: {reasons}{hint}")
    formats = _formats_for(records, asked.formats)
    rule, twice = parse_rule(split, len(records), _manifests(workspace)), OverlapIndex.read(workspace)
    with Progress("export: split", 0, quiet=asked.quiet):
        made = assign(records, rule, twice, asked.seed)
    left_out.update(made.left_out)
    of_split = [record.model_copy(update={"split": made.splits[record.id]}) for record in records if record.id in made.splits]
    kept, withheld = _choose(of_split, asked.include_unreviewed)
    left_out.update(withheld)
    if not kept:
        scenes = len({record.image.scene for record in records})
        lacking = "no source says in which split its records are" if split == OFFICIAL else f"none of the {scenes:,} scenes is in the list"
        raise InputError(f"--split {split}: {lacking}; try --split scene")
    official = {found for record in everything if (found := official_split(record)) is not None}
    empty, why = empty_parts(kept, rule, made, official, left_out)
    if empty and not asked.allow_empty:
        mend = "ask for fewer parts (a 0 in --split), review more, or give --allow-empty"
        raise IncompleteResult(
            f"--split {printable(split)}: no triplet would be in {' and '.join(empty)}: {why}; {mend}. Nothing was written"
        )
    split_csv = write_split_list(split_list(kept, rule))
    release = {
        **_describe(workspace, source, kept, formats, asked.name, left_out),
        **described(kept, rule, made, twice, asked.seed),
        "audit_sample": _audited(workspace, kept, {record.id for record in records} - {record.id for record in kept}),
        "split_rule": rule.text,
        "split_sha256": sha256_of(split_csv.encode()),
        "seed": asked.seed,
    }
    release["warnings"] = [*rule.warnings, *made.warnings, *twice.warnings, *release["warnings"]]
    unasked = () if rule.targets is not None else tuple(split for split in SPLITS if not release["splits"][split]["triplets"])
    if empty or unasked:
        release["warnings"].append(f"no triplet in {' and '.join(empty or unasked)}: {why}")
    folder = workspace.stage(EXPORT) / asked.name
    state = _existing(folder, release, asked.replace)
    if state is None:
        _write(folder, workspace, kept, formats, release, split_csv, asked.quiet)
        state = "released"
    return {**json.loads((folder / "release.json").read_bytes()), "state": state, "path": str(folder)}


def _formats_for(records: Sequence[Record], asked: Sequence[str]) -> list[str]:
    """Return the formats that were asked for; "all" is without those that there is nothing to write of, such as maps without a CRS.

    Raises:
        InputError: such a one was asked for by name.
    """
    known = RELEASE_FORMATS.all()
    if ALL in asked:
        return sorted(name for name, one in known.items() if one.possible(records))
    for name in asked:
        if not known[name].possible(records):
            raise InputError(f"--format {name}: none of the {len(records):,} records {known[name].impossible}; leave {name} out")
    return sorted(set(asked))


def _manifests(workspace: Workspace) -> tuple[Path, Path]:
    """Return the folders where frozen split lists are looked for by name."""
    return (workspace.root / "manifests" / "splits", Path("manifests") / "splits")


def _choose(records: Iterable[Record], include_unreviewed: bool) -> tuple[list[Record], Counter[str]]:
    """Return the records that may be released, and how many may not by code; the split of a record is asked where it has one."""
    kept: list[Record] = []
    left_out: Counter[str] = Counter()
    for record in records:
        code = reason_to_withhold(record, split=record.split, include_unreviewed=include_unreviewed)
        if code is None:
            kept.append(record)
        else:
            left_out[code] += 1
    return sorted(kept, key=lambda record: record.id), left_out


def _describe(
    workspace: Workspace, source: Path, records: Sequence[Record], formats: list[str], name: str, left_out: Counter[str]
) -> dict[str, Any]:
    unreviewed = sum(record.review.status not in REVIEWED for record in records)
    return {
        "name": name,
        "command": "export",
        "dataset": workspace.settings.name,
        "formats": formats,
        "triplets": len(records),
        **counts_of(records),
        "left_out": dict(sorted(left_out.items())),
        "unreviewed": unreviewed,
        "warnings": [f"{unreviewed:,} of {len(records):,} masks have not been reviewed by a person"] if unreviewed else [],
        "licences_by_source": _by_source(records),
        "licences": dict(sorted(Counter(record.source.licence or "not stated by the source" for record in records).items())),
        "source": {
            "stage": source.relative_to(workspace.root).as_posix(),
            "records": digest_of([sha256_of_file(path) for path in part_files(source)]),
        },
        "versions": versions("pyarrow"),
    }


def _audited(workspace: Workspace, records: Sequence[Record], excluded: Set[str]) -> dict[str, Any] | None:
    """Return what the audit sample says of these records; None where nothing was drawn."""
    sample = AuditSample.read(workspace.root / AUDIT_FILE)
    if sample is None:
        return None
    drawn = {one.record for one in sample.audited}
    return summary_of(
        sample,
        {record.id: mask_digest(mask_of(record.mask)) for record in records if record.id in drawn and record.mask},
        excluded=excluded,
    )


def _by_source(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return how many triplets of each source carry which licence."""
    counts = Counter((record.source.dataset, record.source.licence or "not stated by the source") for record in records)
    return [{"dataset": dataset, "licence": licence, "triplets": count} for (dataset, licence), count in sorted(counts.items())]


def _existing(folder: Path, release: dict[str, Any], replace: bool) -> str | None:
    """Return "up to date" where this very release exists, None where it is to be written.

    Raises:
        InputError: a release of this name and another content exists, and is not to be replaced.
    """
    aside = folder.with_name(f".old-{folder.name}")
    if aside.exists():  # a replacement was interrupted: between its two renames, or while the old release was removed
        if folder.exists() or not (aside / "release.json").exists():
            _remove(aside)
        else:
            os.rename(aside, folder)
    if not folder.exists():
        return None
    there = folder / "release.json"
    if there.exists():
        try:
            found = read_json(there)
        except ValueError:
            found = None  # damaged: it is not this release any more
        if isinstance(found, dict) and {key: value for key, value in found.items() if key != "written"} == json.loads(json.dumps(release)):
            return "up to date"
    if not replace:
        raise InputError(f"{folder}: a release of this name with other content exists; choose another --name, or --replace it")
    return None


def _write(
    folder: Path,
    workspace: Workspace,
    records: Sequence[Record],
    formats: list[str],
    release: dict[str, Any],
    split_csv: str,
    quiet: bool,
) -> None:
    temporary, aside = folder.with_name(f".tmp-{folder.name}"), folder.with_name(f".old-{folder.name}")
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        with flushed(temporary):  # once for thousands of small files, before the rename that makes them a release
            with Progress("export", len(records), quiet=quiet) as progress:
                written = write_formats(temporary, workspace.root, records, formats, workspace.settings.name, progress)
            (temporary / "split.csv").write_text(split_csv, encoding="utf-8")
            write_description(temporary, {**release, "written": written})
            write_checksums(temporary)
        if folder.exists():
            os.rename(folder, aside)
        os.rename(temporary, folder)
        sync_folder(folder.parent)
        if aside.exists():
            _remove(aside)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: is gone; run ingest again") from None
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)  # so that the room it took is there again; the old release stands
        raise explain_os_error(error, folder) from error


def _remove(folder: Path) -> None:
    """Remove an old release; one that is half gone has no release.json, so that it is never put back."""
    (folder / "release.json").unlink(missing_ok=True)
    shutil.rmtree(folder)
