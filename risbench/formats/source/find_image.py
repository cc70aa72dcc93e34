"""Which file of a source a row's image reference means: by path, by name, and where producers and tools spell it otherwise."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote

from risbench.core.errors import InvalidRowError, printable
from risbench.core.storage import sha256_of
from risbench.formats.source.entry import Entry, check_reference
from risbench.formats.source.rows import stated_split

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MASK_FOLDERS: Final = ("mask", "masks")
# Pictures that are not read, by suffix.
UNREAD_IMAGES: Final = {
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx", ".j2c"), "JPEG 2000"),
    **dict.fromkeys((".webp",), "WebP"),
    **dict.fromkeys((".gif",), "GIF"),
    **dict.fromkeys((".heic", ".heif"), "HEIC"),
    **dict.fromkeys((".avif",), "AVIF"),
    **dict.fromkeys((".jxl",), "JPEG XL"),
    **dict.fromkeys((".ecw", ".sid"), "ECW or MrSID"),
    **dict.fromkeys((".img",), "ERDAS Imagine"),
    **dict.fromkeys((".nc", ".hdf", ".h5", ".hdf5"), "HDF or netCDF"),
    **dict.fromkeys((".ntf", ".nitf"), "NITF"),
    **dict.fromkeys((".npy", ".npz", ".mat"), "an array file"),
    **dict.fromkeys((".vrt",), "a GDAL VRT"),
    **dict.fromkeys((".dng", ".raw", ".cr2", ".nef", ".arw"), "a camera's raw file"),
    **dict.fromkeys((".svg",), "SVG"),
    **dict.fromkeys((".psd",), "Photoshop"),
    **dict.fromkeys((".pgm", ".ppm", ".pnm"), "Netpbm"),
}
# What zips write whose names are no UTF-8: the writer's code page, read as the one of the first PCs.
_CODE_PAGES: Final = ("utf-8", "gb18030", "big5", "cp932", "cp949", "cp1251", "cp866", "cp1252")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
_NAMED: Final = 3

Found = tuple[Entry, str | None]


class ImageIndex:
    """The files of a source by path, name and stem; `hints` are added to the reason where no file is found."""

    def __init__(self, entries: Sequence[Entry], hints: Callable[[], Sequence[str]]) -> None:
        self._by_path: Mapping[str, Entry] = {entry.path: entry for entry in entries}
        self._hints = hints
        self._by_name: dict[str, list[Entry]] = {}
        self._by_folded: dict[str, list[Entry]] = {}
        self._by_stem: dict[str, list[Entry]] = {}
        self._unread: dict[str, list[Entry]] = {}
        self._contents: dict[str, str] = {}
        self._find = functools.lru_cache(maxsize=1 << 14)(self._look_for)  # rows of one image ask the same
        for entry in entries:
            if entry.suffix in UNREAD_IMAGES:
                self._unread.setdefault(_folded(entry.stem), []).append(entry)
            if entry.suffix not in IMAGE_SUFFIXES or is_mask(entry):
                continue
            self._by_name.setdefault(entry.name, []).append(entry)
            self._by_folded.setdefault(_folded(entry.name), []).append(entry)
            self._by_stem.setdefault(_folded(entry.stem), []).append(entry)

    def find(self, reference: str, beside: str, folders: tuple[str, ...]) -> Found:
        """Return the image that a reference means, and a code to count where it is spelt otherwise.

        `beside` is the path of the annotation file: the image that lies nearest to it is meant where names recur.
        `folders` prefers entries that lie directly in a folder of one of these names.

        Raises:
            InvalidRowError: an unsafe path, no such image, or several that differ.
        """
        return self._find(reference, beside, folders)

    def _look_for(self, reference: str, beside: str, folders: tuple[str, ...]) -> Found:
        try:
            check_reference(reference)
        except InvalidRowError as reason:
            found = self._by_other_spelling(reference, beside, folders) if reference.strip() and "\x00" not in reference else None
            if found is None:
                raise reason
            return found
        pure = PurePosixPath(reference.replace("\\", "/"))
        own = PurePosixPath(beside).parent / pure
        for path in (str(own), str(pure)):
            exact = self._by_path.get(path)
            if exact is not None and exact.suffix in IMAGE_SUFFIXES:
                return exact, None
        names = [pure.name] if pure.suffix.lower() in IMAGE_SUFFIXES else [pure.name + suffix for suffix in IMAGE_SUFFIXES]
        named = self._choose([entry for name in names for entry in self._by_name.get(name, ())], pure, reference, beside, folders)
        if named is not None:
            return named, None
        other = self._by_other_spelling(reference, beside, folders)
        if other is None:
            raise InvalidRowError("image_missing", "image", reference, self._why_missing(pure))
        return other

    def _by_other_spelling(self, reference: str, beside: str, folders: tuple[str, ...]) -> Found | None:
        """Return the image that a reference means in another case, under another ending, or as a labelling tool's path."""
        for spelling, code in _spellings(reference):
            pure = PurePosixPath(spelling)
            if not pure.name:
                continue
            stem = pure.stem if pure.suffix.lower() in (*IMAGE_SUFFIXES, *UNREAD_IMAGES) else pure.name
            tries = (
                (self._by_name.get(pure.name, ()), code),
                (self._by_folded.get(_folded(pure.name), ()), "image_found_in_other_case"),
                (self._by_stem.get(_folded(stem), ()), "image_found_under_other_ending"),
            )
            for entries, note in tries:
                chosen = self._choose(list(entries), pure, reference, beside, folders)
                if chosen is not None:
                    return chosen, note
        return None

    def _choose(self, found: list[Entry], pure: PurePosixPath, reference: str, beside: str, folders: tuple[str, ...]) -> Entry | None:
        """Return the one of some entries that is meant, None where there is none.

        Raises:
            InvalidRowError: several that differ are equally near.
        """
        # what stands in a path of another machine, or an address, says nothing of this source's folders
        elsewhere = pure.is_absolute() or ":" in pure.parts[0]
        home = beside if elsewhere or stated_split(str(pure.parent)) is None else reference
        own = [entry for entry in found if not of_another_split(entry.path, home)]
        if found and not own:
            mend = "put the row's own image into the source, or mend the row"
            there = ", ".join(entry.path for entry in found[:_NAMED])
            raise InvalidRowError("image_missing", "image", reference, f"{there} has this name and is of another split than {home}; {mend}")
        found = own
        preferred = [entry for entry in found if PurePosixPath(entry.path).parent.name.lower() in folders]
        most = max((shared_folders(entry.path, pure) for entry in found), default=0)
        deepest = [entry for entry in found if most and shared_folders(entry.path, pure) == most]
        found = deepest or preferred or found
        if len(found) > 1 and len({self._content(entry) for entry in found}) > 1:
            found = nearest(found, beside)
            if len({self._content(entry) for entry in found}) > 1:
                places = ", ".join(entry.path for entry in found[:_NAMED])
                mend = "write the folder into the row too, or read the folders one by one"
                raise InvalidRowError(
                    "image_ambiguous", "image", reference, f"{len(found)} different files have this name: {places}; {mend}"
                )
        return found[0] if found else None

    def _content(self, entry: Entry) -> str:
        if entry.path not in self._contents:
            self._contents[entry.path] = sha256_of(entry.read())
        return self._contents[entry.path]

    def _why_missing(self, pure: PurePosixPath) -> str:
        stem = pure.stem if pure.suffix.lower() in (*IMAGE_SUFFIXES, *UNREAD_IMAGES) else pure.name
        there = self._unread.get(_folded(stem), ())
        if there:
            kind = UNREAD_IMAGES[there[0].suffix]
            return f"{there[0].path} is {kind}, which is not read; convert it to TIFF or PNG"
        return "; ".join(["no file of this name is in the source; give its folder with --images", *self._hints()])


def is_mask(entry: Entry) -> bool:
    """Return whether the entry lies in a folder of masks: a mask of the same name is never the image."""
    return PurePosixPath(entry.path).parent.name.lower() in MASK_FOLDERS


def _folded(name: str) -> str:
    """Return a name for comparison: in one case, letters and accents composed (macOS parts them)."""
    return unicodedata.normalize("NFC", name).casefold()


def shared_folders(path: str, other: PurePosixPath) -> int:
    """Return how many of their last folders two paths of files share, counted from the files upwards."""
    pairs = zip(reversed(PurePosixPath(path).parent.parts), reversed(other.parent.parts), strict=False)
    return next((index for index, (one, two) in enumerate(pairs) if one != two), min(path.count("/"), len(other.parent.parts)))


def of_another_split(path: str, other: str) -> bool:
    """Return whether the folders of two files say that they are of different splits; `eval` and `dev` may be validation or test."""
    one, two = (stated_split(str(PurePosixPath(place.replace("\\", "/")).parent)) for place in (path, other))
    if one is None or two is None or one == two:
        return False
    return "train" in (one, two) or not {one, two} & {"eval", "dev"}


def nearest(entries: Sequence[Entry], beside: str) -> list[Entry]:
    """Return those entries that are of the annotation file's split, and of these the ones that share most folders with it."""
    split, home = stated_split(beside), PurePosixPath(beside).parent.parts
    same = [entry for entry in entries if split is not None and stated_split(entry.path) == split] or list(entries)

    def shared(entry: Entry) -> int:
        parts = PurePosixPath(entry.path).parent.parts
        pairs = zip(parts, home, strict=False)
        return next((index for index, (own, other) in enumerate(pairs) if own != other), min(len(parts), len(home)))

    most = max(map(shared, same))
    return [entry for entry in same if shared(entry) == most]


def _spellings(reference: str) -> list[tuple[str, str]]:
    """Return what a reference may mean besides its letters, the likeliest first, each with the code to count it by."""
    plain = reference.replace("\\", "/")
    name = plain.rpartition("/")[2]
    made = [(plain, "image_found_by_name_only"), (name, "image_found_by_name_only")]
    address = plain.partition("?d=")[2] or (plain.partition("?")[0] if "://" in plain else "")
    for longer in (address, unquote(address or plain)):
        made += [(longer, "image_found_by_name_only"), (longer.rpartition("/")[2], "image_found_by_name_only")]
    made += [(_UPLOADED.sub("", spelling), code) for spelling, code in made if _UPLOADED.match(spelling)]
    for page in _CODE_PAGES:
        try:
            made.append((name.encode(page).decode("cp437"), "image_found_by_code_page"))
        except UnicodeError:
            continue
    return [(spelling, code) for spelling, code in dict(made).items() if 0 < len(spelling) <= 1024]


def odd_zip_names(entries: Iterable[Entry]) -> str | None:
    """Return a hint where names of a zip were written in another code page than UTF-8: how one reads in Chinese."""
    for entry in entries:
        if entry.member is None or entry.reader is not None or entry.member.isascii():
            continue
        try:
            shown = entry.member.encode("cp437").decode("gb18030")
        except UnicodeError:
            continue
        archive = PurePosixPath(entry.path.removesuffix(entry.member).rstrip("/") or entry.file.name).name
        return (
            f"{archive} has names that are not UTF-8 ({printable(entry.member, 60)}; as GBK {printable(shown, 60)}): pack it again as UTF-8"
        )
    return None
