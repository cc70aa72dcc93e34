"""Which format a source is in, and reading it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal, get_args

from risbench.core.errors import InputError, OptionError, Refusal
from risbench.core.imagery import image_size
from risbench.formats.coco import looks_like_coco, read_coco
from risbench.formats.dota import looks_like_dota, read_dota
from risbench.formats.geotiff import TIFF_SUFFIXES, looks_like_geojson, read_geotiff_source
from risbench.formats.phrases import is_phrase_file, read_phrases
from risbench.formats.pixel_boxes import looks_like_boxes, looks_like_voc
from risbench.formats.refer import is_refs_file, read_refer, refs_files
from risbench.formats.released import ReleasedRows, sample_files, table_files
from risbench.formats.source.rows import Item, Row, guarded_file
from risbench.formats.source.scale import BoxScales
from risbench.formats.source.text import decoded
from risbench.formats.source.tree import IMAGE_SUFFIXES, Entry, SourceTree
from risbench.formats.source.unread_forms import said_of_forms
from risbench.formats.vrsbench import looks_like_vrsbench, read_vrsbench

Format = Literal["vrsbench", "dota", "coco", "refer", "phrases", "geotiff", "parquet", "webdataset"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
# Formats whose boxes are numbers of the image; the others have none, or those of whole records.
_SCALED: Final = ("vrsbench", "dota", "coco", "refer")
# Formats whose box is a list of four numbers that people also fill with two corners.
_ORDERED: Final = ("coco", "refer")
_PIXEL_SUFFIXES: Final = (".csv", ".xml")
_HEAD_BYTES: Final = 1 << 16
# Before one another: a release of ours holds whole records beside everything else, a REFER or phrase folder COCO files too, and a
# VRSBench folder may hold a COCO truth.
_ORDER: Final[tuple[Format, ...]] = ("parquet", "webdataset", "refer", "phrases", "vrsbench", "dota", "coco", "geotiff")


def files_by_format(tree: SourceTree, only: Entry | None = None) -> dict[Format, list[Entry]]:
    """Return the annotation files of each format that occurs, by name and first bytes."""
    found: dict[Format, list[Entry]] = {}
    samples, tables = set(sample_files(tree)), set(table_files(tree))
    has_tiff = any(entry.suffix in TIFF_SUFFIXES for entry in tree.entries)
    for entry in tree.entries if only is None else [only]:
        kind: Format | None = "webdataset" if entry in samples else "parquet" if entry in tables else _kind_of(entry, has_tiff)
        if kind is not None:
            found.setdefault(kind, []).append(entry)
    return found


def _kind_of(entry: Entry, has_tiff: bool) -> Format | None:
    if is_refs_file(entry):
        return "refer"
    if is_phrase_file(entry):
        return "phrases"
    if entry.suffix == ".geojson":
        return "geotiff"
    if entry.suffix not in (".json", ".jsonl", ".txt", ".csv", ".xml"):
        return None
    head = head_of(entry)
    if entry.suffix == ".txt":
        return "dota" if looks_like_dota(head) else None
    if entry.suffix == ".csv":
        return "geotiff" if has_tiff or looks_like_boxes(head) else None
    if entry.suffix == ".xml":
        return "geotiff" if has_tiff and looks_like_voc(head) else None
    if '"' not in head:
        head = head.replace("'", '"')  # JSON5 may have single quotes
    if looks_like_coco(head):
        return "coco"
    if looks_like_vrsbench(head) or entry.name.lower().startswith("vrsbench"):
        return "vrsbench"
    if entry.suffix == ".json" and looks_like_geojson(head):
        return "geotiff"
    # A broken per-image annotation still has to be refused by name, not passed over.
    return "vrsbench" if entry.path.lower().split("/")[0].startswith("annotations") or "/annotations" in entry.path.lower() else None


def head_of(entry: Entry) -> str:
    """Return the first characters of a text file, in whatever encoding it is; empty where it cannot be read."""
    try:
        with entry.open() as file:
            return decoded(file.read(_HEAD_BYTES), entry.path, "replace").lstrip("\ufeff \r\n\t")
    except Refusal:
        return ""


def choose_format(tree: SourceTree, wanted: str | None, only: Entry | None) -> tuple[Format, list[Entry], str]:
    """Return (format, its annotation files, what to tell the user about the choice).

    Raises:
        OptionError: `wanted` is no format.
        InputError: nothing in the source is of a known format.
    """
    found = files_by_format(tree, only)
    if wanted is not None:
        named = next((kind for kind in FORMATS if kind == wanted), None)
        if named is None:
            raise OptionError(f"--format {wanted}: there is no such format; name one of {', '.join(FORMATS)}")
        files = found.get(named) or ([only] if only is not None else [])
        if not files:
            raise InputError(
                f"{tree.root}: no annotation file of format {named} in it; it holds {_listing(found) or 'none of any format'}"
                f"{_what_is_there(tree)}"
            )
        return named, files, f"format {named}, as asked: {_count(files)}"
    kinds = [kind for kind in _ORDER if kind in found]
    if not kinds:
        raise InputError(
            f"{tree.root}: none of its {len(tree.entries):,} files is an annotation in a format that is read ({', '.join(FORMATS)})"
            f"{_what_is_there(tree) or '; give the folder with the annotation files, or name the format with --format'}"
        )
    others = {kind: found[kind] for kind in kinds[1:]}
    said = f"format {kinds[0]} (guessed): {_count(found[kinds[0]])}"
    if others:
        said += f"; not read: {_listing(others)} (choose with --format)"
    return kinds[0], found[kinds[0]], said


def check_box_options(kind: Format, files: Sequence[Entry], scale: str | None, order: str | None) -> None:
    """Refuse what says of a source's boxes what they cannot be.

    Raises:
        OptionError: --box-scale or --box-order is given, and none of the files has boxes that it is about.
    """
    shown = f"the source is read as {kind} ({_count(list(files))}), which has"
    scaled = kind in _SCALED or (kind == "geotiff" and any(entry.suffix in _PIXEL_SUFFIXES for entry in files))
    if scale is not None and not scaled:
        has = f"{', '.join(_SCALED)}, CSV and Pascal VOC have them"
        raise OptionError(f"--box-scale {scale}: {shown} no boxes in numbers of the image; leave it out ({has})")
    if order is not None and kind not in _ORDERED:
        raise OptionError(f"--box-order {order}: {shown} no bbox of four numbers in a list, as {' and '.join(_ORDERED)} have; leave it out")


def forms_of(entries: Iterable[Entry]) -> str:
    """Return one line of the forms that are not read which some files are in; empty where none is."""
    return said_of_forms((entry for entry in entries if _kind_of(entry, has_tiff=False) is None), head_of)


def _what_is_there(tree: SourceTree) -> str:
    """Return what a source holds instead of annotations that are read: forms with what to do, images alone, what was refused."""
    forms = forms_of(tree.entries)
    images = sum(entry.suffix in IMAGE_SUFFIXES for entry in tree.entries)
    alone = f"; {images:,} images, and no annotation file beside them" if images and not forms and images == len(tree.entries) else ""
    return (f"; {forms}" if forms else "") + alone + tree.said_of_refused()


def _count(files: list[Entry]) -> str:
    shown = ", ".join(entry.path for entry in files[:3])
    return shown if len(files) <= 3 else f"{shown} and {len(files) - 3:,} more"


def _listing(found: dict[Format, list[Entry]]) -> str:
    return ", ".join(f"{len(files)} {kind}" + (f" ({files[0].path})" if files else "") for kind, files in found.items())


def size_of_image(tree: SourceTree, row: Row, *, upright: bool = True) -> tuple[int, int] | None:
    """Return the (width, height) of the image that a row names, by its header, turned with `upright`; None where it cannot be read."""
    try:
        with tree.find_image(row.image, beside=row.file).open() as file:
            return image_size(file, row.image, upright=upright)
    except Refusal:
        return None


def read_source(
    tree: SourceTree, kind: Format, files: list[Entry], class_field: str | None, scales: BoxScales | None = None
) -> Iterator[Item]:
    """Yield every row of the source's annotation files; a file that cannot be read is one refusal.

    `scales` judges in which scale a file's boxes are written, and keeps what it found.
    """
    scales = scales or BoxScales()
    if kind == "geotiff":
        yield from read_geotiff_source(tree, files, class_field, scales)
        return
    released = ReleasedRows(tree)
    readers: dict[str, Callable[[Entry], Iterator[Item]]] = {
        "vrsbench": read_vrsbench,
        "dota": read_dota,
        "coco": read_coco,
        "phrases": lambda entry: read_phrases(entry, tree),
        "refer": lambda entry: read_refer(entry, tree),
        "parquet": released.of_table,
        "webdataset": released.of_sample,
    }
    if kind == "refer":
        files = [entry for entry in files if entry in refs_files(tree)]
    for entry in files:
        items = guarded_file(readers[kind](entry), entry.path)
        yield from scales.judged(entry.path, items, corners=kind in _ORDERED) if kind in _SCALED else items
