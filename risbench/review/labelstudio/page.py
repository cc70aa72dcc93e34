"""What annotators see: the labelling page's configuration, and a record as a task of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from markdown_it import MarkdownIt
from numpy.typing import NDArray

from risbench.core.errors import InputError
from risbench.core.record import Box, Record
from risbench.formats.brush import encode_brush
from risbench.review.store.review_store import Annotator, ReviewStore, pseudonym

PAGES: Final = Path(__file__).parents[2] / "annotator_ui"
VERIFY: Final = "verify.xml"
ADJUDICATE: Final = "adjudicate.xml"
AUDIT: Final = "audit.xml"

# The pages of earlier versions, without spaces, by their sha256: a project that has one gets today's; any other was changed by people.
_EARLIER: Final = {
    "9b2e6c7217fbf1d4f2928a74e8371a6104974aeb17703ffdaafbbdd81d576b8b",
    "b1b28201df0a0aeb10bd636278d7ee4553d99be59c541b805026edc32ca42f09",
    "b9fef07ba4d280007491dd77a21d0caec8f35c9a1aa60ec0c7e5e270b448284d",
}

# Of every page: where a person's project of it is noted, and the first word of its title.
FIELDS: Final = {VERIFY: ("project", "Verify"), ADJUDICATE: ("expert_project", "Decide"), AUDIT: ("audit_project", "Draw")}


def project_title(desk: ReviewStore, person: Annotator, page: str) -> str:
    """Return what a person's project is called on the server: it is ours only if it is called so."""
    return f"{FIELDS[page][1]} {pseudonym(desk, person.name)}"


def is_ours(found: Mapping[str, Any], title: str) -> bool:
    """Return whether a project on the server is the one that we made under a title; people may have given it another since."""
    return title in (found["title"], found.get("description"))


def projects_of(desk: ReviewStore, person: Annotator) -> list[tuple[int, str]]:
    """Return number and title of every project in which a person decides on masks; the audit sample's is no such."""
    numbers = [(getattr(person, FIELDS[page][0]), project_title(desk, person, page)) for page in (VERIFY, ADJUDICATE)]
    return [(number, title) for number, title in numbers if number is not None]


def page_config(name: str = VERIFY) -> str:
    """Return a page's configuration.

    Raises:
        InputError: it is not in this installation.
    """
    path = PAGES / name
    if not path.is_file():
        raise InputError(f"{path}: is missing; install risbench again")
    return path.read_text(encoding="utf-8")


def same_page(there: str, page: str) -> bool:
    """Return whether two configurations of a page differ in nothing but spaces."""
    return _plain(there) == _plain(page)


def is_earlier_page(there: str) -> bool:
    """Return whether a project's configuration is one that an earlier version of risbench gave it."""
    return hashlib.sha256(_plain(there).encode("utf-8", "replace")).hexdigest() in _EARLIER


def _plain(config: str) -> str:
    return "".join(config.split())


def guidelines() -> str:
    """Return what annotators are told, as HTML for the help window; without the pictures, which the server does not serve."""
    text = re.sub(r"!\[[^]]*\]\([^)]*\)\n*", "", page_config("guidelines.md"))
    html: str = MarkdownIt().enable("table").render(text)
    return html.replace("<table>", '<table border="1" cellpadding="6" cellspacing="0">')  # the server strips every style


def task_of(record: Record, mask: NDArray[np.bool_], key: str) -> dict[str, Any]:
    """Return the task that shows a record with a mask (height, width); the key is all that says what it is."""
    size = {"original_width": record.image.width, "original_height": record.image.height, "image_rotation": 0}
    regions: list[dict[str, Any]] = [
        {
            "id": "mask",
            "type": "brushlabels",
            "from_name": "mask",
            "to_name": "image",
            **size,
            "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["object"]},
        }
    ]
    for number, target in enumerate(record.targets):
        value = {**_in_percent(target.box, record.image.width, record.image.height), "rotation": 0, "rectanglelabels": ["given box"]}
        regions.append(
            {
                "id": f"box{number}",
                "type": "rectanglelabels",
                "from_name": "box",
                "to_name": "image",
                "readonly": True,
                **size,
                "value": value,
            }
        )
    text = record.expression.text if record.expression else ""
    return {
        "data": {
            "image": f"/data/local-files/?d={quote(record.image.path.removeprefix('images/'))}",
            "expression": text,
            "category": record.category.name,
            "key": key,
        },
        "predictions": [{"model_version": "shown", "result": regions}],
    }


def _in_percent(box: Box, width: int, height: int) -> dict[str, float]:
    """Return a box as Label Studio has it: percents of the image."""
    x_min, y_min, x_max, y_max = box
    return {
        "x": 100 * x_min / width,
        "y": 100 * y_min / height,
        "width": 100 * (x_max - x_min) / width,
        "height": 100 * (y_max - y_min) / height,
    }
