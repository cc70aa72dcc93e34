"""The data set card: README.md with Hugging Face's front matter, and what a reader has to know before trusting a number."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from risbench.core.geometry import size_of
from risbench.core.markdown import code, escaped
from risbench.core.record import REVIEWED, SPLITS, Attributes, Record
from risbench.core.strata import area_of
from risbench.export.formats.registry import RELEASE_FORMATS
from risbench.export.split import shared_by_two

_HUB_NAMES: Final = {"train": "train", "val": "validation", "test": "test"}
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_HOW: Final = {
    "accepted": "a person looked at it and kept it",
    "corrected": "a person drew it anew or mended it",
    "consensus": "several people's masks, joined by STAPLE",
    "adjudicated": "an expert decided between several",
    "triaged": "somebody let it pass on a sheet of twenty",
    "unreviewed": "nobody looked at it",
}


def counts_of(records: Sequence[Record]) -> dict[str, Any]:
    """Return what release.json counts: triplets by class, size, attribute and review status of each split; masks by engine; agreement."""
    agreements = sorted(record.review.agreement for record in records if record.review.agreement is not None)
    return {
        "by_class": _by_split((record.category.name, record) for record in records),
        "by_size": _by_split((size_of(area_of(record)), record) for record in records),
        "by_attribute": _by_split(
            (kind, record) for record in records for kind in Attributes.model_fields if getattr(record.attributes, kind) is not None
        ),
        "review": _by_split((record.review.status, record) for record in records),
        "masks": {name: sum(row.values()) for name, row in _by_split((_engine(record), record) for record in records).items()},
        "sentences": _sentences(records),
        "agreement": {"triplets": len(agreements), "mean_iou": round(float(np.mean(agreements)), 4) if agreements else None},
    }


def _sentences(records: Sequence[Record]) -> dict[str, int]:
    """Return of how many sentences a person said that they are true and unique, and how many nobody judged."""
    judged = sum(record.expression is not None and record.expression.is_true is not None for record in records)
    return {"judged": judged, "not_judged": len(records) - judged}


def _engine(record: Record) -> str:
    return record.mask.engine if record.mask else "none"


def _by_split(pairs: Iterable[tuple[str, Record]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, record in pairs:
        assert record.split is not None, "every record that is released has a split"
        row = found.setdefault(name, dict.fromkeys(SPLITS, 0))
        row[record.split] += 1
    return dict(sorted(found.items()))


def description(release: Mapping[str, Any]) -> str:
    """Return the data set in one sentence."""
    reviewed = release["triplets"] - release["unreviewed"]
    return (
        f"{release['triplets']:,} triplets of overhead image, referring sentence and pixel mask, {split_said(release)}; "
        f"{reviewed:,} of the masks were reviewed by people."
    )


def split_said(release: Mapping[str, Any]) -> str:
    """Return how it is split, in a few words that are true of it."""
    if release["split_rule"] == "official":
        return "split as the sources' own lists say"
    shared = shared_by_two(release["overlap"]["scenes"])
    return f"split by a list that parts {shared:,} scenes" if shared else "split by whole scenes"


def card(release: Mapping[str, Any]) -> str:
    """Return README.md."""
    lines = [*_front_matter(release), f"# {release['name']}", "", description(release), ""]
    if release["unreviewed"]:
        lines += [f"**{release['unreviewed']:,} of the {release['triplets']:,} masks have not been reviewed by a person.**", ""]
    known = RELEASE_FORMATS.all()
    lines += ["## What is in it", "", *(f"* {known[name].opened}" if name in known else f"* `{name}`" for name in release["formats"])]
    lines += ["* `release.json`, `split.csv`, `croissant.json`, `SHA256SUMS`: `risbench verify FOLDER` checks all of it", ""]
    lines += _split_section(release)
    lines += [*_mask_section(release), *_audit_section(release["audit_sample"], release["review"])]
    for title, name in (("By class", "by_class"), ("By size of the box (COCO's bounds)", "by_size"), ("By attribute", "by_attribute")):
        lines += [f"## {title}", "", *_table(release[name]), ""]
    lines += ["## Licences", "", "Each triplet keeps that of its source (column `licence`); none is claimed for all:", ""]
    lines += ["| source | licence | who may use it | triplets |", "| --- | --- | --- | ---: |"]
    for row in release["licences_by_source"]:
        source, licence = escaped(row["dataset"]), escaped(row["licence"])
        lines.append(f"| {source} | {licence} | {who_may(row['licence'])} | {row['triplets']:,} |")
    lines += ["", "A model trained on all of it is bound by the strictest of these.", ""]
    if release["left_out"]:
        lines += ["## Left out", "", *(f"* {escaped(reason)}: {count:,} records" for reason, count in release["left_out"].items()), ""]
    lines += [f"* warning: {escaped(warning)}" for warning in release["warnings"]]
    return "\n".join(lines) + "\n"


def who_may(licence: str) -> str:
    """Return in plain words what a licence's text, as its source gives it, allows; the strictest part of it counts."""
    text = licence.casefold()
    if "not stated" in text or "see its page" in text:
        return "ask the source"
    if "academic" in text:
        return "research only, no commercial use"
    if re.search(r"\bnc\b|non-?commercial", text):
        return "anyone without commercial purpose, naming the source"
    if re.search(r"cc0|public domain", text):
        return "anyone"
    return "anyone, naming the source" if re.search(r"cc[ -]by|mit|apache", text) else "as the licence says"


def _split_section(release: Mapping[str, Any]) -> list[str]:
    lines = ["## Splits", "", "| split | triplets | asked | scenes | images |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, row in release["splits"].items():
        asked = f"{row['wanted']:,}" if isinstance(row["wanted"], int) else row["wanted"]
        lines.append(f"| {name} | {row['triplets']:,} | {asked} | {row['scenes']:,} | {row['images']:,} |")
    lines += ["", f"Rule: {code(release['split_rule'])}, seed {release['seed']}; `split.csv` makes the same split again.", ""]
    beside = release["beside"]
    columns = [(f"this release ({code(release['split_rule'])})", release), *([(f"`--split {beside['rule']}`", beside)] if beside else [])]
    lines += [f"| what two splits share | {' | '.join(title for title, _ in columns)} |", "| --- |" + " ---: |" * len(columns)]
    for title, name in (
        ("scenes", "scenes"),
        ("pairs of images that are copies or near copies", "near_duplicates"),
        ("pairs of images of different scenes that show the same ground", "overlapping"),
    ):
        cells = [f"{shared_by_two(of['overlap'][name]):,}" for _, of in columns]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    for split in ("val", "test"):
        cells = [f"{of['leaked'][split]:,} of {of['splits'][split]['triplets']:,}" for _, of in columns]
        lines.append(f"| triplets of {split} on ground that train shows | {' | '.join(cells)} |")
    if beside and beside["rule"] == "official":
        lines += ["", "`official` is what the sources' own lists say, of the triplets that they name."]
    lines += ["", "Largest difference between a value's share in a split and in all triplets:", ""]
    for kind, row in release["evenness"].items():
        lines.append(f"* {kind}: {100 * row['largest_difference']:.2f} points ({row['of']}, {row['in']})")
    return [*lines, ""]


def _mask_section(release: Mapping[str, Any]) -> list[str]:
    made = ", ".join(f"{escaped(name)} {count:,}" for name, count in release["masks"].items())
    lines = ["## How the masks were made, and who looked at them", "", f"Made by: {made}. `review` stands for people.", ""]
    lines += [f"| status | {' | '.join(SPLITS)} | meaning |", "| --- | ---: | ---: | ---: | --- |"]
    for status, row in release["review"].items():
        lines.append(f"| {status} | {' | '.join(f'{row[split]:,}' for split in SPLITS)} | {_HOW.get(status, '')} |")
    judged, unjudged = release["sentences"]["judged"], release["sentences"]["not_judged"]
    lines += ["", f"Of {judged:,} sentences a person said that they are true and unique in their image; {unjudged:,} were not judged."]
    agreement = release["agreement"]
    if agreement["triplets"]:
        said = f"{agreement['triplets']:,} had several reviewers; the masks they kept or drew have a mean IoU of {agreement['mean_iou']}"
        lines += ["", f"{said} (1 where all kept the same)."]
    reviewed = sum(sum(row.values()) for status, row in release["review"].items() if status in REVIEWED)
    if not reviewed:
        lines += ["", "No reviewer's agreement is known."]
    return [*lines, ""]


def _audit_section(found: Mapping[str, Any] | None, review: Mapping[str, Any]) -> list[str]:
    lines = ["## Audit sample", ""]
    if found is None:
        return [*lines, "None was drawn (`risbench review audit-sample`): how many masks are wrong is not known.", ""]
    low, high = found["interval"]
    lines += [
        f"Of a random sample of these triplets {found['audited']:,} were drawn anew by {found['auditors']} people who had not seen them "
        f"and were shown the image and the sentence only. **{found['share']:.1%} [{low:.1%}, {high:.1%}] are defects** (95 % Wilson "
        "interval): the mask and the drawing have an IoU under .8, are of different objects, or nobody can tell which is meant.",
        "",
    ]
    meanings = {"imprecise": "IoU under .8", "wrong object": "IoU under .1", "cannot tell": "the sentence leads to no one object"}
    for name, count in found["outcomes"].items():
        lines.append(f"* {name}{f' ({meanings[name]})' if name in meanings else ''}: {count:,}")
    if found["mean_iou"] is not None:
        lines.append(f"* mean IoU of masks and drawings: {found['mean_iou']}")
    for title, name in (("size of the mask", "by_size"), ("review status", "by_status")):
        lines += ["", f"| {title} | drawn | defects | interval |", "| --- | ---: | ---: | ---: |"]
        for key, row in found[name].items():
            lines.append(f"| {key} | {row['audited']:,} | {row['defects']:,} | {row['interval'][0]:.1%} to {row['interval'][1]:.1%} |")
    lines += ["", f"Drawn: {found['audited']:,} of the {found['sample']:,} that were drawn by lot of {found['population']:,}. What is not "]
    lines[-1] += "drawn yet may be harder than what is."
    if found["left_out_as_seen"]:
        lines.append(f"{found['left_out_as_seen']:,} could not be drawn by lot, as all of the auditors had seen them.")
    for name, said in (("changed_since", "masks were changed since"), ("removed_since", "records were taken out since")):
        if found[name]:
            lines.append(f"{found[name]:,} of these {said}; they count as they were found.")
    absent = sorted(review.keys() - found["by_status"].keys())
    if absent:
        lines.append(f"None of the drawn is of review status {', '.join(absent)}: of those this sample says nothing.")
    return [*lines, ""]


def _table(rows: Mapping[str, Mapping[str, int]]) -> list[str]:
    lines = [f"| | {' | '.join(SPLITS)} |", "| --- | ---: | ---: | ---: |"]
    return [*lines, *(f"| {name} | {' | '.join(f'{row[split]:,}' for split in SPLITS)} |" for name, row in rows.items())]


def _front_matter(release: Mapping[str, Any]) -> list[str]:
    """Return the YAML that Hugging Face reads: what it is, how large, and where the Parquet shards of each split are."""
    size = next((name for limit, name in _SIZES if release["triplets"] < limit), "n>1M")
    lines = [
        "---",
        f"pretty_name: {json.dumps(release['name'])}",
        "license: other",
        "language:",
        "- en",
        "task_categories:",
        "- image-segmentation",
    ]
    lines += ["size_categories:", f"- {size}", "tags:", "- remote-sensing", "- referring-image-segmentation", "- croissant"]
    known = RELEASE_FORMATS.all()
    shards = next((known[name].tables for name in release["formats"] if name in known and known[name].pictures), None)
    if shards is not None:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split in SPLITS:
            lines += [f"  - split: {_HUB_NAMES[split]}", f"    path: {shards.format(split)}"]
    return [*lines, "---", ""]
