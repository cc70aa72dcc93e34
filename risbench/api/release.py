"""A release as a data set of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from risbench.benchmark.data.release import Release, Sample, image_of, read_release
from risbench.core.errors import InputError, OptionError
from risbench.core.extras import need_package
from risbench.core.record import SPLITS
from risbench.formats.source.tree import SourceTree

need_package("torch", "sam")

import torch  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402

Item = dict[str, Any]
Kind = Literal["tensor", "array"]


class ReleaseDataset(Dataset[Item]):
    """The triplets of a release's split, in the order of their ids; works with `DataLoader` and any number of workers.

    An item has `image`, `mask`, `sentence`, `id` and `meta` (category, scene, split, box in pixels, attributes, and whether a person
    reviewed the mask). As "tensor" the image is uint8 (3, H, W) and the mask bool (H, W); as "array" they are NumPy arrays (H, W, 3)
    and (H, W). `left_out` counts rows of the release that cannot be used, by reason.
    """

    def __init__(
        self, release: Release, samples: list[Sample], kind: Literal["tensor", "array"], transform: Callable[[Item], Any] | None
    ) -> None:
        """Take what `load` has read."""
        self.samples, self.kind, self.transform = samples, kind, transform
        self.left_out = dict(release.left_out)
        self._root = release.tree.root
        self._tree: SourceTree | None = release.tree

    def __getstate__(self) -> dict[str, Any]:
        """Return what a loader's process needs; each opens the release's files itself."""
        return {**self.__dict__, "_tree": None}

    def __len__(self) -> int:
        """Return how many triplets there are."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        """Return an item, or what `transform` makes of it.

        Raises:
            InvalidRowError: the image is gone or cannot be decoded.
        """
        sample = self.samples[index]
        if self._tree is None:
            self._tree = SourceTree.open(self._root)
        image, mask = np.ascontiguousarray(image_of(self._tree, sample.image)), sample.mask
        meta = {
            "category": sample.category,
            "scene": sample.scene,
            "split": sample.split,
            "box": sample.box,
            "attributes": sample.attributes,
            "reviewed": sample.reviewed,
        }
        item: Item = {"image": image, "mask": mask, "sentence": sample.sentence, "id": sample.id, "meta": meta}
        if self.kind == "tensor":
            item |= {"image": torch.from_numpy(image).permute(2, 0, 1).contiguous(), "mask": torch.from_numpy(np.ascontiguousarray(mask))}
        return item if self.transform is None else self.transform(item)


def load(
    release: Path | str,
    split: str | None = None,
    *,
    kind: Kind = "tensor",
    transform: Callable[[Item], Any] | None = None,
) -> ReleaseDataset:
    """Return a release's triplets as a PyTorch data set: those of `split` (train, val or test), or all.

    Raises:
        OptionError: there is no such split or kind.
        InputError: the folder is no release, or the split is empty.
        MissingRequirementError: PyTorch is not installed.
    """
    if split is not None and split not in SPLITS:
        raise OptionError(f"split {split!r}: must be one of {', '.join(SPLITS)}, or None for all")
    if kind not in ("tensor", "array"):
        raise OptionError(f"kind {kind!r}: must be tensor or array")
    found = read_release(Path(release))
    samples = [sample for sample in found.samples if split in (None, sample.split)]
    if not samples:
        raise InputError(f"{release}: none of its {len(found.samples):,} triplets is in split {split}")
    return ReleaseDataset(found, samples, kind, transform)
