"""One record, for tests that need no image."""

from __future__ import annotations

import numpy as np

from risbench.core.masks import encode_rle
from risbench.core.record import Category, Expression, ImageRef, Mask, Placement, Record, Source, Target


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
