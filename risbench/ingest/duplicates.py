"""Images of one ingest that are copies or near copies of each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from risbench.core.imagery import near_duplicates
from risbench.core.record import Record
from risbench.core.storage import to_json, write_durably
from risbench.core.workspace import part_files


def write_duplicates(folder: Path) -> dict[str, Any]:
    """Write duplicates.json: images that are copies or near copies of each other; return what to count of it."""
    hashes: dict[str, tuple[str, str, str]] = {}
    for part in part_files(folder):  # run.json, which lists them, is not written yet
        for line in part.read_text(encoding="utf-8").split("\n")[:-1]:
            record = Record.model_validate_json(line)
            hashes[record.image.path] = (record.image.sha256, record.image.perceptual_hash, record.image.scene)
    paths = sorted(hashes)
    exact: dict[str, list[str]] = {}
    for path in paths:
        exact.setdefault(hashes[path][0], []).append(path)
    copies = [group for group in exact.values() if len(group) > 1]
    near = [
        [paths[i], paths[j]] for i, j in near_duplicates([hashes[path][1] for path in paths]) if hashes[paths[i]][0] != hashes[paths[j]][0]
    ]
    write_durably(folder / "duplicates.json", to_json({"exact": copies, "near": near}))
    return {
        "images": len(paths),
        "scenes": len({scene for _, _, scene in hashes.values()}),
        "duplicate_images": {"exact": sum(len(group) - 1 for group in copies), "near_pairs": len(near)},
    }
