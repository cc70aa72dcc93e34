"""What people made of masks on the sheets of `risbench review triage`, as it lies in `triage.jsonl`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import ConfigDict, TypeAdapter

from risbench.review.store.review_store import ReviewStore
from risbench.review.store.stored import Seconds, Text, read_rows


@dataclass(frozen=True)
class TriageVote:
    """One mask as somebody saw it on a sheet: taken with the rest, or doubted."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    record: Text
    mask: Text
    person: Text
    sheet: str
    doubted: bool
    seconds: Seconds


_TRIAGE_VOTE: Final = TypeAdapter(TriageVote)


def read_triage_votes(desk: ReviewStore) -> dict[str, TriageVote]:
    """Return what people's glances at every record's newest mask come to: who doubted a mask is not outvoted by who let it pass.

    Raises:
        InputError: the file is damaged elsewhere than in a last line that was cut off.
    """
    found: dict[str, TriageVote] = {}
    for glance in read_rows(desk.root / "triage.jsonl", _TRIAGE_VOTE, cut=True):
        before = found.get(glance.record)
        if before is None or before.mask != glance.mask or not before.doubted:
            found[glance.record] = glance
    return found
