"""One record, and a workspace of such, for tests that need no source and no stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from risbench.core.imagery import encode_png
from risbench.core.masks import encode_rle
from risbench.core.record import Category, Expression, ImageRef, Mask, Placement, Record, Source, Target
from risbench.core.storage import PartResult, StageRun, sha256_of


def a_record(name: str = "a", *, side: int = 20) -> Record:
    """Return an undecided record with a sentence and a mask of 4 x 6 pixels in an image of side x side."""
    mask = np.zeros((side, side), bool)
    mask[3:7, 4:10] = True
    size, counts = encode_rle(mask)
    return Record(
        id=f"world/{name}",
        source=Source(dataset="world", file="rows.json", source_key=name),
        image=ImageRef(
            path=f"images/{name}.png",
            width=side,
            height=side,
            sha256="0" * 64,
            source_path=f"{name}.png",
            scene=name,
            perceptual_hash="0" * 16,
        ),
        placement=Placement(fit="keep", source_width=side, source_height=side, affine=(1, 0, 0, 0, 1, 0)),
        category=Category(name="vehicle", source_name="car"),
        targets=(Target(box=(4, 3, 10, 7), box_given=(4, 3, 10, 7), box_precision="exact"),),
        expression=Expression(text="the vehicle", origin="field"),
        mask=Mask(size=size, counts=counts, engine="box", round=1),
    )


def tiny_workspace(root: Path, records: Sequence[Record]) -> Path:
    """Write a workspace whose finished ingest holds the records, each on a noisy image of its own, without ingesting anything."""
    placed = []
    for index, record in enumerate(records):
        height, width = record.image.height, record.image.width
        data = encode_png(np.random.default_rng(index).integers(0, 255, (height, width, 3), dtype=np.uint8))
        (root / record.image.path).parent.mkdir(parents=True, exist_ok=True)
        (root / record.image.path).write_bytes(data)
        placed.append(record.model_copy(update={"image": record.image.model_copy(update={"sha256": sha256_of(data)})}))
    (root / "risbench.toml").write_text('name = "tiny"\n')
    run = StageRun(root / "1-ingest", {"command": "ingest"})
    run.begin()
    run.write_part(0, "key", PartResult(placed))
    (root / "1-ingest" / "duplicates.json").write_text('{"exact": [], "near": [], "overlapping": []}')
    run.finish(1, rows=len(placed), before=PartResult([]), extra={})
    return root
