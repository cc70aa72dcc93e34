"""The REFER layout of RefCOCO, RRSIS-D and their loaders: refs(NAME).p, instances.json, images.

Refs are read through an unpickler that refuses every class, so a pickle can build lists, dicts, strings
and numbers, and nothing else. What we write is pickle protocol 2 of the same, with a refs.json twin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from risbench.core.errors import InvalidRowError, shortened
from risbench.core.record import Record
from risbench.formats.coco import CocoFile, IdTable, annotation_row, by_id, coco_instances, load_coco
from risbench.formats.plain_pickle import load_plain_pickle
from risbench.formats.source.format import Format, Look, Source, Verdict, each, file_by_file
from risbench.formats.source.lenient_json import load_json
from risbench.formats.source.rows import Item, Refused, Row, guarded, key_text, text
from risbench.formats.source.tree import Entry, SourceTree

DATASET: Final = "REFER"
MAX_REFS_BYTES: Final = 256 << 20
_REFS_NAME = re.compile(r"^refs(\(.+\))?\.(p|pkl|pickle|json)$")


def is_refs_file(entry: Entry) -> bool:
    """Return whether the entry is named as a refs file."""
    return _REFS_NAME.match(entry.name) is not None


def refs_files(tree: SourceTree) -> list[Entry]:
    """Return the refs files to read: of a pickle and its JSON twin in one folder only the JSON, which runs no code at all."""
    refs = [entry for entry in tree.entries if is_refs_file(entry)]
    with_json = {entry.path.rpartition("/")[0] for entry in refs if entry.suffix == ".json"}
    return [entry for entry in refs if entry.suffix == ".json" or entry.path.rpartition("/")[0] not in with_json]


def read_refer(entry: Entry, tree: SourceTree) -> Iterator[Item]:
    """Yield one row per sentence of a refs file; boxes and masks come from the instances.json beside it.

    Raises:
        InvalidRowError: refs or instances cannot be read as a whole.
    """
    refs = load_json(entry) if entry.suffix == ".json" else load_plain_pickle(entry.read(MAX_REFS_BYTES), entry.path)
    folder = entry.path.rpartition("/")[0]
    instances = tree.by_path.get(f"{folder}/instances.json" if folder else "instances.json")
    if instances is None:
        raise InvalidRowError("file_missing", "instances.json", folder or ".", f"{entry.path} needs an instances.json beside it")
    if not isinstance(refs, list):
        raise InvalidRowError("unknown_layout", "refs", type(refs).__name__, "it must be a list")
    coco = load_coco(instances)
    annotations = IdTable(coco.annotations, lambda annotation: annotation)
    for index, ref in enumerate(refs):
        yield from _read_ref(ref, index, entry, coco, annotations)


def _read_ref(ref: Any, index: int, entry: Entry, coco: CocoFile, annotations: IdTable) -> Iterator[Item]:
    ref_id = key_text(ref.get("ref_id", index)) if isinstance(ref, dict) else str(index)
    sentences = ref.get("sentences") if isinstance(ref, dict) else None
    if not isinstance(sentences, list) or not sentences:
        reason = InvalidRowError("unknown_layout", "sentences", sentences, "a ref needs a list of sentences")
        yield Refused(entry.path, ref_id, f"ref {ref_id}", reason, shortened(ref))
        return
    for place, sentence in enumerate(sentences):
        key = f"{ref_id}.{key_text(sentence.get('sent_id', place)) if isinstance(sentence, dict) else place}"
        locator = f"ref {ref_id}, sentence {place}"
        make = partial(_sentence_row, ref, sentence, entry, coco, annotations, key, locator)
        yield guarded(make, entry.path, key, locator, partial(shortened, sentence))


def _sentence_row(ref: Any, sentence: Any, entry: Entry, coco: CocoFile, annotations: IdTable, key: str, locator: str) -> Row:
    if not isinstance(sentence, dict):
        raise InvalidRowError("unknown_layout", "sentence", sentence, "it must be an object with 'sent'")
    annotation = by_id(annotations, ref.get("ann_id"), "ann_id", "annotation")
    row = annotation_row(coco, annotation, entry.path, key, locator)
    words = text(sentence, "raw" if isinstance(sentence.get("raw"), str) else "sent")
    return _with_sentence(row, words, key_text(ref.get("split", "")), len(ref["sentences"]), key_text(ref.get("ann_id")))


def _with_sentence(row: Row, sentence: str, split: str, sentences: int, object_id: str) -> Row:
    return replace(
        row,
        dataset=DATASET,
        sentence=sentence,
        sentence_origin="refs:raw",
        has_sentences=True,
        split=split or None,
        object_id=object_id if sentences == 1 else None,
    )


def refer_files(records: Sequence[Record], file_names: Mapping[str, str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return (refs, instances) of exported records, one ref per annotation as the peers' loaders need it.

    `segmentation` is a list of one compressed RLE: a bare dict fails in their loaders, and overlapping
    polygon parts would be summed. Ids are plain int, sentences carry sent_id, sent, raw and tokens.
    """
    instances = coco_instances(records, file_names)
    refs: list[dict[str, Any]] = []
    for record, annotation in zip(records, instances["annotations"], strict=True):
        annotation["segmentation"] = [annotation["segmentation"]]
        raw = annotation["expression"]
        plain = re.sub(r"[^\w\s'-]", " ", raw.lower())
        number = int(annotation["id"])
        refs.append(
            {
                "ref_id": number,
                "ann_id": number,
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "split": record.split,
                "file_name": file_names[record.image.path],
                "sent_ids": [number],
                "sentences": [{"sent_id": number, "sent": " ".join(plain.split()), "raw": raw, "tokens": plain.split()}],
            }
        )
    return refs, instances


def _verdict(look: Look) -> Verdict:
    return 0.98 if is_refs_file(look.entry) else "not named refs(NAME).p, refs(NAME).json or refs.json"


def _read(source: Source) -> Iterator[Item]:
    wanted = refs_files(source.tree)
    files = [entry for entry in source.files if entry in wanted]
    yield from file_by_file(read_refer, scaled=True, corners=True)(replace(source, files=files))


FORMATS: Final = Format(
    name="refer",
    summary="REFER (RRSIS-D, RefCOCO): `refs(...).p` or `refs.json` with `instances.json`; the pickle can run nothing",
    suffixes=(".p", ".pkl", ".pickle", ".json"),
    detect=each(_verdict),
    read=_read,
    rank=30,
    scaled="refer",
    corners=True,
    trains=True,
)
