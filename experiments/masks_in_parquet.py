"""Masks as run lengths in Parquet against 8-bit PNG files, as RISBench was released: bytes and seconds for the same masks.

    python experiments/masks_in_parquet.py [--count 52472]

Real outlines: the 1,236 true masks of NWPU VHR-10 with referring expressions, 512 x 512, turned and mirrored until there are enough. Both
ways begin with the arrays; Parquet also with the run lengths, as records hold them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import REFER, need_data, risbench
from numpy.typing import NDArray

from risbench.core.masks import encode_rle, mask_of
from risbench.core.workspace import Workspace, read_records

_BITS = [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 9]


def real_masks(folder: Path) -> list[NDArray[np.bool_]]:
    """Return the true masks, on 512 x 512 images."""
    risbench("ingest", REFER, "--format", "coco", "--fit", "pad", "-w", folder)
    records = read_records(Workspace.open(folder).latest())
    return [mask_of(record.mask) for record in records if record.mask is not None]


def turned(masks: list[NDArray[np.bool_]], index: int) -> NDArray[np.bool_]:
    """Return one of the masks, turned by right angles and mirrored."""
    mask, way = masks[index % len(masks)], index // len(masks) % 8
    return np.ascontiguousarray(np.rot90(mask, way % 4) if way < 4 else np.rot90(mask, way % 4)[:, ::-1])


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        masks = real_masks(scratch / "w")
        bits = []
        rows: list[tuple[tuple[int, int], str]] = []
        encoding = packing = pictures = viewable = 0.0
        (scratch / "png").mkdir()
        for start in range(0, count, 4096):
            block = [turned(masks, index) for index in range(start, min(count, start + 4096))]
            began = time.monotonic()
            rows += [encode_rle(mask) for mask in block]
            encoding += time.monotonic() - began
            began = time.monotonic()
            bits += [cv2.imencode(".png", mask.astype(np.uint8) * 255, _BITS)[1].tobytes() for mask in block]
            viewable += time.monotonic() - began
            began = time.monotonic()
            for index, mask in enumerate(block, start):
                cv2.imwrite(str(scratch / "png" / f"{index}.png"), mask.astype(np.uint8) * 255)
            pictures += time.monotonic() - began
        began = time.monotonic()
        table = pa.table({"size": [list(size) for size, _ in rows], "counts": [counts for _, counts in rows]})
        pq.write_table(table, scratch / "masks.parquet", compression="zstd")
        packing = time.monotonic() - began
        began = time.monotonic()
        pq.write_table(table.append_column("mask", pa.array(bits, pa.binary())), scratch / "both.parquet", compression="zstd")
        viewable += time.monotonic() - began
        both = (scratch / "both.parquet").stat().st_size
        size = sum(entry.stat().st_size for entry in os.scandir(scratch / "png"))
        blocks = sum(-(-entry.stat().st_size // 4096) * 4096 for entry in os.scandir(scratch / "png"))
        kept = (scratch / "masks.parquet").stat().st_size
    print(f"{count:,} masks of 512 x 512 px ({len(masks):,} outlines)")
    print(f"PNG:     {size / 1e6:7.1f} MB in {count:,} files ({blocks / 1e6:,.0f} MB of disk blocks), {pictures:.1f} s")
    print(f"Parquet: {kept / 1e6:7.1f} MB in one file, {encoding:.1f} s to encode and {packing:.1f} s to write")
    print(f"         {both / 1e6:7.1f} MB with a mask of one bit a pixel beside, for viewers: {viewable:.1f} s more")
    print(f"run lengths as records hold them: {size / kept:.1f} times smaller, {pictures / packing:.0f} times faster")
    print(f"run lengths from arrays: {pictures / (encoding + packing):.1f} times faster")
    print(f"as a release's shards have them: {size / both:.1f} times smaller, {pictures / viewable:.1f} times faster")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=52_472)
    given = parser.parse_args()
    need_data()
    main(given.count)
