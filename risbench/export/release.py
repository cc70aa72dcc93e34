"""Writing one release folder: every format in one pass over the records, with description and checksums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from risbench.core.progress import Progress
from risbench.core.record import SPLITS, Record
from risbench.core.storage import sha256_of_file, to_json
from risbench.export.layouts import CocoLayout, ReferLayout, RisbenchLayout, YoloLayout
from risbench.export.shards import ParquetShards, WebDatasetShards
from risbench.export.triplet import Writer, triplets

RELEASE_FORMATS: Final = ("risbench", "coco", "refer", "parquet", "webdataset", "yolo")


def write_formats(
    folder: Path, root: Path, records: Sequence[Record], formats: Sequence[str], dataset: str, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Write the records, which all have a split, in each format below `folder`, in one pass; `root` is the workspace.

    Returns what there is to say of each format.
    """
    make: dict[str, Callable[[], Writer]] = {
        "risbench": lambda: RisbenchLayout(folder, records),
        "coco": lambda: CocoLayout(folder / "coco", records),
        "refer": lambda: ReferLayout(folder / "refer", records, dataset),
        "parquet": lambda: ParquetShards(folder / "parquet"),
        "webdataset": lambda: WebDatasetShards(folder / "webdataset"),
        "yolo": lambda: YoloLayout(folder / "yolo", records),
    }
    writers = {name: make[name]() for name in formats}
    for triplet in triplets(records, root):
        for writer in writers.values():
            writer.add(triplet)
        progress.advance(1)
    return {name: writer.close() for name, writer in writers.items()}


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS over every file below `folder`, as sha256sum -c reads it."""
    lines = [
        f"{sha256_of_file(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def write_description(folder: Path, release: Mapping[str, Any]) -> None:
    """Write release.json and the README.md that says what this is, how it was split, and what was not reviewed."""
    (folder / "release.json").write_bytes(to_json(release))
    splits = release["splits"]
    lines = [
        *_front_matter(release),
        f"# {release['name']}",
        "",
        f"Referring segmentation triplets (image, sentence, mask) made with risbench {release['versions']['risbench']}.",
        "",
        "| split | triplets | scenes | images |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {name} | {row['triplets']} | {row['scenes']} | {row['images']} |" for name, row in splits.items()),
        "",
        f"Split rule: `{release['split_rule']}`, seed {release['seed']}. Scenes shared by two splits: "
        f"{_shared(release['overlap']['scenes'])}; near-duplicate images across splits: {_shared(release['overlap']['near_duplicates'])}.",
        "",
    ]
    if release["unreviewed"]:
        lines += [f"**{release['unreviewed']} of the {release['triplets']} masks have not been reviewed by a person.**", ""]
    lines += ["Licences of what the records were made from:", ""]
    lines += [f"* {licence}: {count} records" for licence, count in release["licences"].items()]
    lines += [f"* warning: {warning}" for warning in release["warnings"]]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _front_matter(release: Mapping[str, Any]) -> list[str]:
    """Return the YAML by which Hugging Face finds the Parquet shards of each split."""
    if "parquet" not in release["formats"]:
        return []
    named = {"train": "train", "val": "validation", "test": "test"}
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split in SPLITS:
        lines += [f"  - split: {named[split]}", f"    path: parquet/{split}-*.parquet"]
    return [*lines, "---", ""]


def _shared(matrix: Mapping[str, Mapping[str, int]]) -> int:
    return sum(matrix[a][b] for index, a in enumerate(SPLITS) for b in SPLITS[index + 1 :])
