from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from risbench.core.record import Placement, Record, Target

DOCS = Path(__file__).parents[2] / "docs" / "record.md"


def _fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        for inner in _models_in(field.annotation):
            names += _fields(inner, f"{prefix}{name}.")
    return names


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def test_every_field_of_the_record_is_defined_in_the_docs() -> None:
    defined = set(re.findall(r"^\| `([\w.]+)` \|", DOCS.read_text(), re.MULTILINE))
    fields = set(_fields(Record))
    assert fields - defined == set(), "fields without a definition in docs/record.md"
    assert defined - fields == set(), "definitions of fields that the record does not have"


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(ValidationError, match="extra"):
        Target(box=(0, 0, 1, 1), box_given=(0, 0, 1, 1), box_precision="exact", colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (5, 0, 1, 5), (0, 0, float("nan"), 5), (0, 0, float("inf"), 5)])
def test_a_used_box_has_area_and_finite_edges(box: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        Target(box=box, box_given=(0, 0, 1, 1), box_precision="exact")  # type: ignore[arg-type]


@pytest.mark.parametrize("affine", [(0, 0, 5, 0, 0, 5), (1, 2, 0, 2, 4, 0), (1e-20, 0, 0, 0, 1e-20, 0), (1e200, 0, 0, 0, 1e200, 0)])
def test_a_placement_has_an_inverse(affine: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="has no inverse"):
        Placement(fit="pad", source_width=9, source_height=9, affine=affine)  # type: ignore[arg-type]
