"""Writing one release folder: the released risbench layout, COCO and REFER, with checksums."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from risbench.core.imagery import encode_png, read_raster
from risbench.core.masks import mask_of
from risbench.core.progress import Progress
from risbench.core.record import SPLITS, Record
from risbench.core.storage import sha256_of, sha256_of_file, to_json
from risbench.formats.coco import coco_instances
from risbench.formats.phrases import phrase_lines
from risbench.formats.refer import refer_files

RELEASE_FORMATS: Final = ("risbench", "coco", "refer")


def write_formats(folder: Path, root: Path, records: Sequence[Record], formats: Sequence[str], dataset: str, progress: Progress) -> None:
    """Write the records, which all have a split, in each format below `folder`; `root` is the workspace."""
    if "risbench" in formats:
        write_risbench(folder, root, records, progress)
    if "coco" in formats:
        write_coco(folder / "coco", root, records, progress)
    if "refer" in formats:
        write_refer(folder / "refer", root, records, dataset, progress)


def referent_names(records: Sequence[Record]) -> dict[str, str]:
    """Return one file stem per record, as the released set has one image name per referent; none depends on order."""
    plain = {record.id: re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(record.id.split("/")[1:])) for record in records}
    counts = Counter(name.casefold() for name in plain.values())
    return {key: name if counts[name.casefold()] == 1 else f"{name}-{sha256_of(key.encode())[:8]}" for key, name in plain.items()}


def write_risbench(folder: Path, root: Path, records: Sequence[Record], progress: Progress) -> None:
    """Write images/, masks/, output_phrase_<split>.txt and annotations_<split>.parquet.

    An image with several referents is written once and hard-linked under their names.
    """
    names = referent_names(records)
    for sub in ("images", "masks"):
        (folder / sub).mkdir(parents=True)
    written: dict[str, Path] = {}
    for record in records:
        assert record.mask is not None, "export leaves records without a mask out"
        target = folder / "images" / f"{names[record.id]}.png"
        first = written.setdefault(record.image.path, target)
        if first is target:
            target.write_bytes(_as_png(root / record.image.path))
        else:
            _link(first, target)
        done, data = cv2.imencode(".png", mask_of(record.mask).astype("uint8") * 255)
        assert done, "PNG encoding failed"
        (folder / "masks" / f"{names[record.id]}.png").write_bytes(data.tobytes())
        progress.advance(1)
    for split in SPLITS:
        members = [record for record in records if record.split == split]
        (folder / f"output_phrase_{split}.txt").write_text(phrase_lines(members, names), encoding="utf-8")
        pq.write_table(_table(members, names), folder / f"annotations_{split}.parquet", compression="zstd")


def _as_png(path: Path) -> bytes:
    if path.suffix == ".png":
        return path.read_bytes()
    with open(path, "rb") as file:
        return encode_png(read_raster(file, path.name).pixels)


def _link(first: Path, target: Path) -> None:
    try:
        os.link(first, target)
    except OSError:  # a file system without hard links, or too many of them
        shutil.copyfile(first, target)


def _table(records: Sequence[Record], names: Mapping[str, str]) -> pa.Table:
    """Return what the released layout has no place for, one row per triplet."""
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "name": (pa.string(), [names[record.id] for record in records]),
        "id": (pa.string(), [record.id for record in records]),
        "expression": (pa.string(), [record.expression.text if record.expression else None for record in records]),
        "category": (pa.string(), [record.category.name for record in records]),
        "scene": (pa.string(), [record.image.scene for record in records]),
        "image_sha256": (pa.string(), [record.image.sha256 for record in records]),
        "metres_per_pixel": (pa.float64(), [record.image.metres_per_pixel for record in records]),
        "fit": (pa.string(), [record.placement.fit for record in records]),
        "boxes": (pa.list_(pa.list_(pa.float64())), [[list(target.box) for target in record.targets] for record in records]),
        "box_precision": (pa.string(), [record.targets[0].box_precision for record in records]),
        "attributes": (pa.string(), [record.attributes.model_dump_json() for record in records]),
        "mask_size": (pa.list_(pa.int32()), [list(record.mask.size) if record.mask else None for record in records]),
        "mask_rle": (pa.string(), [record.mask.counts if record.mask else None for record in records]),
        "mask_engine": (pa.string(), [record.mask.engine if record.mask else None for record in records]),
        "review_status": (pa.string(), [record.review.status for record in records]),
        "review_agreement": (pa.float64(), [record.review.agreement for record in records]),
        "dataset": (pa.string(), [record.source.dataset for record in records]),
        "source_key": (pa.string(), [record.source.source_key for record in records]),
        "licence": (pa.string(), [record.source.licence for record in records]),
    }
    return pa.table({name: pa.array(values, type=kind) for name, (kind, values) in columns.items()})


def write_coco(folder: Path, root: Path, records: Sequence[Record], progress: Progress) -> None:
    """Write coco/images/ and one instances_<split>.json each, with `expression` on every annotation."""
    names = _copy_images(folder / "images", root, records)
    for split in SPLITS:
        members = [record for record in records if record.split == split]
        (folder / f"instances_{split}.json").write_bytes(_compact(coco_instances(members, names)))
        progress.advance(len(members))


def write_refer(folder: Path, root: Path, records: Sequence[Record], dataset: str, progress: Progress) -> None:
    """Write refer/<name>/{refs(unc).p, refs.json, instances.json} and refer/images/<name>/JPEGImages/."""
    names = _copy_images(folder / "images" / dataset / "JPEGImages", root, records)
    refs, instances = refer_files(records, names)
    (folder / dataset).mkdir(parents=True)
    (folder / dataset / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (folder / dataset / "refs.json").write_bytes(_compact(refs))
    (folder / dataset / "instances.json").write_bytes(_compact(instances))
    progress.advance(len(records))


def _copy_images(folder: Path, root: Path, records: Sequence[Record]) -> dict[str, str]:
    """Copy each image once; return workspace path to file name. Copies, so that an edited release cannot harm the workspace."""
    folder.mkdir(parents=True)
    paths = sorted({record.image.path for record in records})
    counts = Counter(Path(path).name for path in paths)
    names = {path: Path(path).name if counts[Path(path).name] == 1 else "__".join(Path(path).parts[1:]) for path in paths}
    for path, name in names.items():
        shutil.copyfile(root / path, folder / name)
    return names


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


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


def _shared(matrix: Mapping[str, Mapping[str, int]]) -> int:
    return sum(matrix[a][b] for index, a in enumerate(SPLITS) for b in SPLITS[index + 1 :])
