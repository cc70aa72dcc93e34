"""Croissant metadata with the responsible-AI fields: https://docs.mlcommons.org/croissant/docs/croissant-spec.html."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from risbench.core.record import SPLITS
from risbench.export.formats.base import ReleaseFormat
from risbench.export.formats.registry import RELEASE_FORMATS

_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
# Columns that both tables have: what they hold.
_COLUMNS: Final = {
    "id": "Stable id of the triplet.",
    "expression": "The sentence, which means one object of the image.",
    "category": "The object's class, one of 26.",
    "scene": "The scene that the image was cut from.",
    "mask_rle": "The object's mask as COCO compressed run lengths.",
    "review_status": "What people decided about the mask.",
    "dataset": "The data set that the triplet was made from.",
    "licence": "What applies to it, as far as its source says.",
}


def croissant(release: Mapping[str, Any], description: str) -> dict[str, Any]:
    """Return the metadata of a release."""
    reviewed = release["triplets"] - release["unreviewed"]
    tools = [f"risbench {release['versions']['risbench']}: {name}" for name in release["masks"] if name not in ("review", "source")]
    engines = ", ".join(f"{name} ({count})" for name, count in release["masks"].items())
    statuses = ", ".join(f"{name} {sum(row.values())}" for name, row in release["review"].items())
    files = _files(release)
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": release["name"],
        "description": description,
        "version": "1.0.0",
        "license": [f"{licence} ({count} triplets)" for licence, count in release["licences"].items()],
        "keywords": ["remote sensing", "referring image segmentation"],
        "rai:dataCollection": "Boxes and sentences come from the data sets named per triplet.",
        "rai:dataCollectionType": ["Secondary data analysis", *(["Manual human curator"] if reviewed else []), "Software collection"],
        "rai:dataAnnotationProtocol": f"Masks by {engines}. Reviewed by people: {reviewed} of {release['triplets']} ({statuses}).",
        **({"rai:dataAnnotationPlatform": ["Label Studio, driven by risbench"]} if reviewed else {}),
        **({"rai:machineAnnotationTools": tools} if tools else {}),
        "rai:dataLimitations": _limitations(release),
        "rai:dataBiases": "Classes and sizes are as uneven as their sources; counts by class, size and split are in release.json.",
        "rai:dataUseCases": ["Training and evaluation of referring image segmentation on overhead images."],
        "rai:personalSensitiveInformation": ["Overhead images in which no person can be recognised; reviewers are pseudonyms."],
        "distribution": files,
        "recordSet": [_record_set(release, split) for split in SPLITS] if files else [],
    }


def _limitations(release: Mapping[str, Any]) -> list[str]:
    said = list(release["warnings"])
    if release["left_out"]:
        said.append("Left out: " + ", ".join(f"{code} {count}" for code, count in release["left_out"].items()))
    return said or ["None known besides those of the sources."]


def _files(release: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tables that hold the records; of a release of COCO, REFER, WebDataset or YOLO alone there are none."""
    holder = _holder(release)
    if holder is None:
        return []
    return [
        {"@type": "cr:FileSet", "@id": f"{split}-files", "encodingFormat": "application/x-parquet", "includes": holder.tables.format(split)}
        for split in SPLITS
    ]


def _holder(release: Mapping[str, Any]) -> ReleaseFormat | None:
    """Return the format whose tables hold the records, with the pictures where one has them."""
    able = [known for name, known in RELEASE_FORMATS.all().items() if name in release["formats"] and known.tables]
    return min(able, key=lambda known: not known.pictures, default=None)


def _record_set(release: Mapping[str, Any], split: str) -> dict[str, Any]:
    columns = {name: ("sc:Text", text) for name, text in _COLUMNS.items()}
    holder = _holder(release)
    shown = {"image": "The image.", "mask": "The mask as a picture of one bit a pixel."}
    pictures = shown if holder is not None and holder.pictures else {}
    fields: list[dict[str, Any]] = [
        {
            "@type": "cr:Field",
            "@id": f"{split}/{name}",
            "description": text,
            "dataType": kind,
            "source": {"fileSet": {"@id": f"{split}-files"}, "extract": {"column": name}},
        }
        for name, (kind, text) in columns.items()
    ]
    fields += [
        {
            "@type": "cr:Field",
            "@id": f"{split}/{name}",
            "description": text,
            "dataType": "sc:ImageObject",
            "source": {"fileSet": {"@id": f"{split}-files"}, "extract": {"column": name}, "transform": {"jsonPath": "bytes"}},
        }
        for name, text in pictures.items()
    ]
    return {"@type": "cr:RecordSet", "@id": split, "description": f"The triplets of {split}.", "field": fields}
