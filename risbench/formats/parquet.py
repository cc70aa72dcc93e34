"""Parquet as Hugging Face `datasets` opens it: one row a triplet, image and mask as pictures, the whole record beside them.

https://huggingface.co/docs/hub/datasets-image: an image is a struct of bytes and path, and the schema's metadata say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from risbench.core.record import Record

PICTURE: Final = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FEATURES: Final = {"info": {"features": {name: {"_type": "Image"} for name in ("image", "mask")}}}


def annotation_table(records: Sequence[Record], names: Mapping[str, str]) -> pa.Table:
    """Return what the released layout has no place for, one row per triplet; `names` maps record id to the referent's own name."""
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
        "record": (pa.string(), [record.to_line() for record in records]),
    }
    return pa.table({name: pa.array(values, type=kind) for name, (kind, values) in columns.items()})


def shard_table(
    records: Sequence[Record], names: Mapping[str, str], images: Sequence[tuple[bytes, str]], masks: Sequence[bytes]
) -> pa.Table:
    """Return rows of a shard: `images` are (file content, file name), `masks` PNG of one bit a pixel, both in the order of the records."""
    pictures = {
        "image": [{"bytes": data, "path": name} for data, name in images],
        "mask": [{"bytes": data, "path": f"{names[record.id]}.mask.png"} for data, record in zip(masks, records, strict=True)],
    }
    rest = annotation_table(records, names)
    columns = [pa.array(values, type=PICTURE) for values in pictures.values()] + rest.columns
    fields = [pa.field(name, PICTURE) for name in pictures] + [*rest.schema]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata={"huggingface": json.dumps(_FEATURES)}))
