"""What a split keeps even, and tables count by: class, size and attributes of a record."""

from __future__ import annotations

from risbench.core.geometry import size_of
from risbench.core.record import Attributes, Record


def area_of(record: Record) -> float:
    """Return the area of a record's boxes in pixels."""
    return sum((box[2] - box[0]) * (box[3] - box[1]) for box in (target.box for target in record.targets))


def strata_of(record: Record) -> list[tuple[str, str]]:
    """Return (kind, value) of all that is to be even: class, size, class within size, and each attribute kind with its value."""
    name, size = record.category.name, size_of(area_of(record))
    found = [("class", name), ("size", size), ("class and size", f"{name}/{size}")]
    for kind in Attributes.model_fields:
        attribute = getattr(record.attributes, kind)
        if attribute is not None and kind != "category":
            found += [("attribute", kind), ("attribute", f"{kind}: {attribute.value}")]
    return found
