"""Which format a source is in, and reading it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from risbench.core.errors import InputError, InvalidRowError, OptionError, printable
from risbench.core.imagery import image_size
from risbench.formats.registry import INPUT_FORMATS
from risbench.formats.source.format import Format, Look, Source, head_of
from risbench.formats.source.rows import Item, Row
from risbench.formats.source.scale import BoxScales
from risbench.formats.source.tree import IMAGE_SUFFIXES, Entry, SourceTree
from risbench.formats.source.unread_forms import said_of_forms


@dataclass
class Detected:
    """What the formats say of a source's files: each format's own, and by format why its other files are not."""

    files: dict[str, list[Entry]]
    reasons: dict[str, dict[str, list[Entry]]]
    lost: dict[str, list[tuple[Entry, str]]]


def detect(tree: SourceTree, only: Entry | None = None) -> Detected:
    """Ask every format about every file of a source; a file belongs to the format that is surest, of equals to the one of lower rank.

    Raises:
        InputError: a format of another package answers with something else than confidences and reasons.
    """
    looks = [Look(entry, tree) for entry in (tree.entries if only is None else [only])]
    best: dict[str, tuple[float, Format]] = {}
    reasons: dict[str, dict[str, list[Entry]]] = {}
    claims: dict[str, list[Entry]] = {}
    for name, known in INPUT_FORMATS.all().items():
        own = [look for look in looks if known.looks_at(look.entry)]
        verdicts = list(known.detect(tree, own))
        if len(verdicts) != len(own):
            raise InputError(f"format {name}: says {len(verdicts)} things of {len(own)} files; it must say one of each")
        reasons[name], claims[name] = {}, []
        for look, verdict in zip(own, verdicts, strict=True):
            if isinstance(verdict, str):
                reasons[name].setdefault(verdict, []).append(look.entry)
                continue
            if not 0 < verdict <= 1:
                raise InputError(f"format {name}: is {verdict} sure of {look.entry.path}; must lie above 0 and at most at 1")
            claims[name].append(look.entry)
            if look.entry.path not in best or verdict > best[look.entry.path][0]:
                best[look.entry.path] = (float(verdict), known)
    files: dict[str, list[Entry]] = {}
    for look in looks:
        if (found := best.get(look.entry.path)) is not None:
            files.setdefault(found[1].name, []).append(look.entry)
    lost = {
        name: [(entry, best[entry.path][1].name) for entry in entries if best[entry.path][1].name != name]
        for name, entries in claims.items()
    }
    return Detected(files, reasons, lost)


def files_by_format(tree: SourceTree, only: Entry | None = None) -> dict[str, list[Entry]]:
    """Return the annotation files of each format that occurs, by name and first bytes."""
    return detect(tree, only).files


def explain(tree: SourceTree, only: Entry | None = None) -> dict[str, str]:
    """Return for each format which files of a source are read as it, or why the source is not in it."""
    detected = detect(tree, only)
    return {name: _why(known, detected) for name, known in INPUT_FORMATS.all().items()}


def _why(known: Format, detected: Detected) -> str:
    if files := detected.files.get(known.name):
        return f"yes, {_count(files)}"
    if lost := detected.lost[known.name]:
        entry, owner = lost[0]
        return f"no, {_count([entry for entry, _ in lost])} could be, but {owner} is surer of {printable(entry.path, 120)}"
    reasons = detected.reasons[known.name]
    if not reasons:
        return f"no, there is no {' or '.join(known.suffixes)} file" if known.suffixes else "no, there is no file"
    reason, entries = max(reasons.items(), key=lambda item: len(item[1]))
    return f"no, {_count(entries)}: {reason}"


def choose_format(tree: SourceTree, wanted: str | None, only: Entry | None) -> tuple[str, list[Entry], str]:
    """Return (format, its annotation files, what to tell the user about the choice).

    Raises:
        OptionError: `wanted` is no format.
        InputError: nothing in the source is of a known format.
    """
    found = files_by_format(tree, only)
    if wanted is not None:
        if INPUT_FORMATS.get(wanted) is None:
            raise OptionError(f"--format {wanted}: there is no such format; name one of {', '.join(INPUT_FORMATS.names())}{_left_out()}")
        files = found.get(wanted) or ([only] if only is not None else [])
        if not files:
            raise InputError(
                f"{tree.root}: no annotation file of format {wanted} in it; it holds {_listing(found) or 'none of any format'}"
                f"{_what_is_there(tree, found)}"
            )
        return wanted, files, f"format {wanted}, as asked: {_count(files)}"
    kinds = [kind for kind in INPUT_FORMATS.names() if kind in found]
    if not kinds:
        raise InputError(
            f"{tree.root}: none of its {len(tree.entries):,} files is an annotation in a format that is read "
            f"({', '.join(INPUT_FORMATS.names())})"
            f"{_what_is_there(tree, found) or '; give the folder with the annotation files, or name the format with --format'}"
            "; --explain says of every format why the source is not in it"
        )
    others = {kind: found[kind] for kind in kinds[1:]}
    said = f"format {kinds[0]} (guessed): {_count(found[kinds[0]])}"
    if others:
        said += f"; not read: {_listing(others)} (choose with --format)"
    return kinds[0], found[kinds[0]], said


def check_box_options(kind: str, files: Sequence[Entry], scale: str | None, order: str | None) -> None:
    """Refuse what says of a source's boxes what they cannot be.

    Raises:
        OptionError: --box-scale or --box-order is given, and none of the files has boxes that it is about.
    """
    known = format_named(kind)
    shown = f"the source is read as {kind} ({_count(list(files))}), which has"
    if scale is not None and not known.has_scale(files):
        has = ", ".join(one.scaled for one in INPUT_FORMATS.all().values() if one.scaled)
        raise OptionError(f"--box-scale {scale}: {shown} no boxes in numbers of the image; leave it out ({has} have them)")
    if order is not None and not known.corners:
        ordered = " and ".join(sorted(name for name, one in INPUT_FORMATS.all().items() if one.corners))
        raise OptionError(f"--box-order {order}: {shown} no bbox of four numbers in a list, as {ordered} have; leave it out")


def format_named(name: str) -> Format:
    """Return a format that is known to be there."""
    known = INPUT_FORMATS.get(name)
    assert known is not None, "choose_format names a format of the registry"
    return known


def _left_out() -> str:
    return "".join(f"; {reason}" for reason in INPUT_FORMATS.broken)


def forms_of(entries: Iterable[Entry], files: Mapping[str, Sequence[Entry]]) -> str:
    """Return one line of the forms that are not read which some files are in, `files` of the formats left out; empty where none is."""
    known = {entry.path for members in files.values() for entry in members}
    return said_of_forms((entry for entry in entries if entry.path not in known), head_of)


def _what_is_there(tree: SourceTree, files: Mapping[str, Sequence[Entry]]) -> str:
    """Return what a source holds instead of annotations that are read: forms with what to do, images alone, what was refused."""
    forms = forms_of(tree.entries, files)
    images = sum(entry.suffix in IMAGE_SUFFIXES for entry in tree.entries)
    alone = f"; {images:,} images, and no annotation file beside them" if images and not forms and images == len(tree.entries) else ""
    return (f"; {forms}" if forms else "") + alone + tree.said_of_refused()


def _count(files: list[Entry]) -> str:
    shown = ", ".join(entry.path for entry in files[:3])
    return shown if len(files) <= 3 else f"{shown} and {len(files) - 3:,} more"


def _listing(found: dict[str, list[Entry]]) -> str:
    return ", ".join(f"{len(files)} {kind}" + (f" ({files[0].path})" if files else "") for kind, files in found.items())


def size_of_image(tree: SourceTree, row: Row, *, upright: bool = True) -> tuple[int, int] | None:
    """Return the (width, height) of the image that a row names, by its header, turned with `upright`; None where it cannot be read."""
    try:
        with tree.find_image(row.image, beside=row.file).open() as file:
            return image_size(file, row.image, upright=upright)
    except InvalidRowError:
        return None


def read_source(
    tree: SourceTree, kind: str, files: Sequence[Entry], class_field: str | None, scales: BoxScales | None = None
) -> Iterator[Item]:
    """Yield every row of the source's annotation files; a file that cannot be read is one refusal.

    `scales` judges in which scale a file's boxes are written, and keeps what it found.
    """
    yield from format_named(kind).read(Source(tree, files, class_field, scales or BoxScales()))
