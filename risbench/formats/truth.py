"""True masks from a COCO file, in the pixels of a workspace's images: what audits score by and adapters learn from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.classes import to_class
from risbench.core.errors import InputError, InvalidRowError, printable
from risbench.core.geometry import invert_affine, map_box
from risbench.core.record import Box, Record
from risbench.core.sizes import Size, SizeMatch, match_size
from risbench.core.truth import Match, match_boxes
from risbench.formats.coco import CocoFile, by_id, forms_of_id, given_mask, load_coco, mask_pixels, plain_id
from risbench.formats.source.find_image import of_another_split, shared_folders
from risbench.formats.source.rows import numbers
from risbench.formats.source.tree import Entry

Annotation = Mapping[str, Any]


class Truth:
    """A COCO file's annotations, found by id, by image and by overlap."""

    def __init__(self, path: Path, records: Iterable[Record] = ()) -> None:
        """Read the file; `records` are those of the workspace: images of one name are told apart by their folders, or not at all.

        Raises:
            InputError: there is no such file, or it holds no COCO instances.
        """
        if not path.is_file():
            raise InputError(f"--truth {path}: there is no such file")
        try:
            coco: CocoFile = load_coco(Entry(path.name, path.stat().st_size, path.resolve()))
        except InvalidRowError as reason:
            raise InputError(f"--truth {path}: {reason}") from None
        self.path = path
        self.by_id: dict[Any, Annotation] = {}
        self._stated: dict[Any, Size | None] = {}
        self._sizes: dict[str, tuple[str, str]] = {}
        for place, item in enumerate(coco.annotations):
            key = plain_id(item.get("id")) if isinstance(item, dict) else None
            if key is None or key in self.by_id:
                what = f"id {key!r} is used before" if key is not None else "has no id that is a whole number or a string"
                raise InputError(f"--truth {path}: annotations[{place}]: {what}; every annotation needs one of its own")
            self.by_id[key] = item
        self._by_image: dict[Any, list[Annotation]] = defaultdict(list)
        self._coco = coco
        for annotation in self.by_id.values():
            image = self._image_of(annotation)
            self._stated[annotation["id"]] = coco.size_of(image)
            self._by_image[plain_id(image.get("id"))].append(annotation)
        self._named: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        for key, image in coco.images.items():
            name = PurePosixPath(str(image.get("file_name")))
            for spelling in {name.name, name.stem}:
                self._named[spelling].append((str(name), key))
        paths = {record.image.source_path for record in records}
        self._homonyms = Counter(PurePosixPath(path).stem for path in paths)

    def _image_of(self, annotation: Annotation) -> Mapping[str, Any]:
        try:
            image: Mapping[str, Any] = by_id(self._coco.images, annotation.get("image_id"), "image_id", "image")
        except InvalidRowError:
            return {}
        return image

    def find(self, value: Any) -> Any:
        """Return the id of an annotation as the file has it: 1 (number) and "1" (text) are the same; None where it has none."""
        return next((one for one in forms_of_id(value) if one in self.by_id), None)

    def in_image(self, record: Record) -> list[Annotation]:
        """Return the annotations of the image that a record's image was cut from, by folder and file name, else by stem.

        Raises:
            InvalidRowError: `image_ambiguous`, several images have this name and their folders do not tell them apart.
        """
        path = PurePosixPath(record.image.source_path)
        named = self._named.get(path.name) or self._named.get(path.stem) or []
        own = [(shared_folders(name, path), key) for name, key in named if not of_another_split(name, str(path))]
        most = max((count for count, _ in own), default=0)
        nearest = [key for count, key in own if count == most]
        if len(nearest) > 1 or (nearest and most == 0 and self._homonyms[path.stem] > 1):
            raise InvalidRowError(
                "image_ambiguous", "file_name", path.name, "several images have this name; write their folders into file_name too"
            )
        return self._by_image.get(nearest[0], []) if nearest else []

    def class_of(self, annotation: Annotation) -> str | None:
        """Return an annotation's class, or None where its category is none of the 26."""
        try:
            return to_class(by_id(self._coco.categories, annotation.get("category_id"), "category_id", "category"))
        except InvalidRowError:
            return None

    def matches(self, record: Record) -> list[Match[Any]]:
        """Return the annotation that each target of a record means, by id (`core/truth`), of those of its image and class.

        A crowd region is no object, and an annotation without a usable box matches nothing. Where the file states another size of the
        image than the workspace's source has, boxes are scaled, or nothing is matched (`wrong_size`, see `core/sizes`).
        """
        try:
            objects = [
                (item["id"], box)
                for item in self.in_image(record)
                if item.get("iscrowd") != 1
                and self.class_of(item) == record.category.name
                and (box := self.box_of(record, item)) is not None
            ]
        except InvalidRowError as reason:
            return [Match(None, reason.code) for _ in record.targets]
        return match_boxes([map_box(record.placement.affine, target.box) for target in record.targets], objects)

    def box_of(self, record: Record, annotation: Annotation) -> Box | None:
        """Return an annotation's box in pixels of a record's source image; None where it has no usable one, and then it matches nothing.

        Raises:
            InvalidRowError: `wrong_size`, the file states a size of another ratio for the image.
        """
        try:
            x, y, width, height = numbers(annotation.get("bbox"), 4, "bbox")
        except InvalidRowError:
            return None
        return map_box(self._match_of(record, annotation).affine, (x, y, x + width, y + height))

    def mask_in_record(self, record: Record, annotation: Annotation) -> NDArray[np.bool_]:
        """Return a true mask in pixels of the record's image, brought there by the record's own placement.

        Raises:
            InvalidRowError: the annotation holds no usable mask, or is of an image of another ratio.
        """
        placement = record.placement
        self._match_of(record, annotation)
        stated = self._stated[annotation["id"]]
        pixels, _ = mask_pixels(given_mask(annotation.get("segmentation")), placement.source_height, placement.source_width, stated)
        if placement.fit == "keep":
            return pixels
        a, b, c, d, e, f = invert_affine(placement.affine)
        # Between pixel centres, as cv2 counts; half coverage decides where pixels shrink.
        matrix = np.array([[a, b, c + (a + b) / 2 - 0.5], [d, e, f + (d + e) / 2 - 0.5]])
        size = (record.image.width, record.image.height)
        warped = cv2.warpAffine(pixels.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR)
        result: NDArray[np.bool_] = np.asarray(warped) >= 0.5
        return result

    def _match_of(self, record: Record, annotation: Annotation) -> SizeMatch:
        path = record.image.source_path
        try:
            match = match_size(self._stated[annotation["id"]], (record.placement.source_width, record.placement.source_height))
        except InvalidRowError as reason:
            self._sizes[path] = ("wrong_size", f"{reason.value} are stated, {reason.bound}")
            raise
        if match.repair is not None:
            self._sizes[path] = (match.repair.rule, match.repair.detail)
        return match

    def said_of_sizes(self) -> list[str]:
        """Return a line for each way in which the file's stated sizes differ from the workspace's source images, as far as met."""
        told = {
            "scaled": "annotated at another size, true masks scaled",
            "stated_size_differs": "one or two pixels off, true masks kept as they are",
            "wrong_size": "of another ratio, not compared",
        }
        said = []
        for rule, meaning in told.items():
            found = sorted((path, detail) for path, (met, detail) in self._sizes.items() if met == rule)
            if found:
                path, detail = found[0]
                said.append(f"{rule}: {len(found):,} images {meaning}, such as {printable(path, 120)}: {printable(detail, 300)}")
        return said
