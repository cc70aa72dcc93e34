"""The audit sample, `review/audit.json`: what people drew without seeing a mask, against the masks that are to be released."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from risbench.core.errors import InputError, printable
from risbench.core.metrics import wilson
from risbench.core.storage import explain_read_error, to_json

# Of masks that have less in common than this, one is of another object.
SAME_OBJECT_FROM_IOU: Final = 0.1
DEFECT_BELOW_IOU: Final = 0.8
AUDIT_FILE: Final = "review/audit.json"
Count = Annotated[int, Field(ge=0)]
Outcome = Literal["good", "imprecise", "wrong object", "cannot tell"]


@dataclass(frozen=True)
class Audited:
    """One record of the sample: how much the mask and the drawing agree, and by whom it was drawn (a pseudonym).

    `iou` is None where the auditor could not tell which object the sentence means. `mask` tells the mask that was compared.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    record: str
    mask: str
    iou: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None
    size: str
    status: str
    auditor: str

    @property
    def outcome(self) -> Outcome:
        """Return what was found; all but "good" are defects."""
        if self.iou is None:
            return "cannot tell"
        if self.iou < SAME_OBJECT_FROM_IOU:
            return "wrong object"
        return "good" if self.iou >= DEFECT_BELOW_IOU else "imprecise"


@dataclass(frozen=True)
class AuditSample:
    """A simple random sample: of how many records it was drawn, how many were to be drawn, and what was."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    population: Count
    sample: Count
    seen_by_all: Count
    audited: tuple[Audited, ...]

    def to_bytes(self) -> bytes:
        """Return the file."""
        return to_json({**asdict(self), "audited": [asdict(one) for one in sorted(self.audited, key=lambda one: one.record)]})

    @classmethod
    def read(cls, path: Path) -> AuditSample | None:
        """Return the sample of a file, None where there is none.

        Raises:
            InputError: it is damaged.
        """
        try:
            return _SAMPLE.validate_json(path.read_bytes(), strict=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explain_read_error(error, path) from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = printable(".".join(str(part) for part in first["loc"]))
            told = printable(first["msg"])
            raise InputError(f"{path}: is damaged ({field}: {told}); `risbench review audit-sample` writes it anew") from None


_SAMPLE: Final = TypeAdapter(AuditSample)


def summary_of(sample: AuditSample, masks: Mapping[str, str] | None = None, *, excluded: Set[str] = frozenset()) -> dict[str, Any] | None:
    """Return what a sample says: defects with their Wilson interval, by kind, size and review status; None where nothing was drawn.

    `masks` are the digests of the masks that are released, by record. `excluded` are the records that may be released and are not (no
    list names them, or they only passed on a triage sheet and are not of train): these do not count. A mask that was changed since, or
    a record that was rejected since, counts as it was found: to take out what the sample found does not make the others any better.
    Both are counted.
    """
    rows = [one for one in sample.audited if one.record not in excluded]
    if not rows:
        return None
    drawn = [one.iou for one in rows if one.iou is not None]
    outcomes = {name: sum(one.outcome == name for one in rows) for name in ("good", "imprecise", "wrong object", "cannot tell")}
    return {
        "population": sample.population,
        "sample": sample.sample,
        "audited": len(rows),
        "auditors": len({one.auditor for one in rows}),
        **_share(rows),
        "outcomes": outcomes,
        "mean_iou": round(float(np.mean(drawn)), 4) if drawn else None,
        "by_size": _by([(one.size, one) for one in rows]),
        "by_status": _by([(one.status, one) for one in rows]),
        "changed_since": sum(masks.get(one.record, one.mask) != one.mask for one in rows) if masks is not None else 0,
        "removed_since": sum(one.record not in masks for one in rows) if masks is not None else 0,
        "left_out_as_seen": sample.seen_by_all,
    }


def _share(rows: Sequence[Audited]) -> dict[str, Any]:
    defects = sum(one.outcome != "good" for one in rows)
    low, high = wilson(defects, len(rows))
    return {"defects": defects, "share": round(defects / len(rows), 4), "interval": [round(low, 4), round(high, 4)]}


def _by(pairs: Sequence[tuple[str, Audited]]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Audited]] = defaultdict(list)
    for name, one in pairs:
        groups[name].append(one)
    return {name: {"audited": len(rows), **_share(rows)} for name, rows in sorted(groups.items())}
