"""What an adapter on a SAM of whole images learns from: embeddings made once and kept on disk, and prompts of the published mix."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor
from torch.utils.data import IterableDataset

from risbench.adapt.adapter_data import Images, TrueExamples, TrueObject
from risbench.core.errors import InputError, MissingRequirementError
from risbench.core.progress import Progress
from risbench.core.storage import explain_os_error, explain_read_error, write_durably
from risbench.sam.pasam.adapter import guiding_input
from risbench.sam.pasam.predictor import PaSam, normalised

PROMPTS: Final = ("box", "official")
# Of seven names that the published code draws from, four come out as a box, two as points and one as a mask.
_MIX: Final = (("box", 4 / 7), ("points", 2 / 7), ("mask", 1 / 7))
_POINTS: Final = 10
_NOISY_FROM: Final = 0.01
_FEWEST_CELLS: Final = 4


@dataclass(frozen=True)
class WholeBatch:
    """Embeddings (B, 256, g, g) and guiding input (B, 4, 4g, 4g) of every object's image, its prompt, and its cover (B, S, S), 0-255.

    The prompt is one of boxes (B, 1, 4), points (B, n, 2) with labels (B, n), and masks (B, 1, 4g, 4g); the others' second size is 0.
    Coordinates are pixels of the model's input.
    """

    embeddings: Tensor
    guiding: Tensor
    boxes: Tensor
    points: Tensor
    labels: Tensor
    masks: Tensor
    cover: Tensor

    def __len__(self) -> int:
        return len(self.embeddings)


class Embeddings:
    """The embeddings of a workspace's images, one file each in half precision, made by one encoder at one input size.

    A file bears its image's sha256: other pixels under the same name are another image.
    """

    def __init__(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Take the folder, which belongs to one encoder, and the sha256 of every image by its path."""
        self._folder, self._digests = folder, digests

    def path(self, image: str) -> Path:
        """Return an image's file."""
        return self._folder / f"{self._digests[image]}.safetensors"

    def __getitem__(self, image: str) -> dict[str, Tensor]:
        """Return an image's `embedding` (256, g, g) and `guiding` input (4, 4g, 4g), half precision.

        Raises:
            InputError: the file was damaged or removed after `fill` had looked at it.
            MissingRequirementError: it is there and cannot be read.
        """
        path = self.path(image)
        try:
            # not mapped: a page of a mapped file that cannot be read ends the process without a word
            tensors = load(path.read_bytes())
        except FileNotFoundError:
            raise InputError(f"{path}: is gone; give the same command again, which encodes its image anew") from None
        except OSError as error:
            raise explain_read_error(error, path) from error
        except SafetensorError as error:
            raise InputError(f"{path}: is damaged ({error}); give the same command again, which encodes its image anew") from None
        if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
            raise InputError(f"{path}: is damaged (a value is not finite); remove it and give the same command again")
        return tensors

    def is_whole(self, image: str, grid: tuple[int, int]) -> bool:
        """Return whether an image's file is there, as long as its header says, with tensors for a grid of so many rows and columns.

        Raises:
            MissingRequirementError: it is there and cannot be read.
        """
        path, (rows, columns) = self.path(image), grid
        expected = {"embedding": [256, rows, columns], "guiding": [4, 4 * rows, 4 * columns]}
        try:
            with safe_open(path, framework="pt") as opened:
                stated = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
                return {name: (part.get_shape(), part.get_dtype()) for name, part in stated.items()} == {
                    name: (shape, "F16") for name, shape in expected.items()
                }
        except FileNotFoundError:
            return False
        except OSError as error:
            raise explain_read_error(error, path) from error
        except SafetensorError:
            return False

    def fill(self, model: PaSam, images: Sequence[str], root: Path, *, device: str, mine: slice, quiet: bool) -> None:
        """Encode what is not there yet, or is damaged; several processes take every n-th image each (`mine`).

        Raises:
            MissingRequirementError: the disk has no room for them, or an image cannot be read although it is there.
            InputError: an image is gone, or cannot be decoded.
        """
        rows, columns = model.prompt_encoder.image_embedding_size
        missing = [image for image in sorted(set(images)) if not self.is_whole(image, (rows, columns))]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, self._folder) from error
        each = 2 * rows * columns * (256 + 4 * 16)
        free = shutil.disk_usage(self._folder).free
        if len(missing) * each > free:
            raise MissingRequirementError(
                f"{self._folder}: {len(missing):,} embeddings need {len(missing) * each / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
                "make room, or give less truth"
            )
        pictures, wanted = Images(root, self._digests), [image for image in sorted(set(images))[mine] if image in set(missing)]
        with Progress("encode images", len(wanted), quiet=quiet) as bar, torch.inference_mode():
            for image in wanted:
                seen, raw = normalised(pictures[image], model.side, device)
                embedding = model.image_encoder(seen)
                guiding = guiding_input(seen, (rows, columns), model.mask_decoder.edge_source, raw)
                halves = {"embedding": embedding[0].half().cpu().contiguous(), "guiding": guiding[0].half().cpu().contiguous()}
                write_durably(self.path(image), save(halves))
                bar.advance(1)


class WholeExamples(IterableDataset[WholeBatch]):
    """Batches of objects of whole images, all of a batch with the same kind of prompt; batch k is a function of the seed and k alone."""

    def __init__(self, drawn: TrueExamples, embeddings: Embeddings, side: int, prompts: str) -> None:
        """Take what draws the objects and boxes, the images' embeddings, the input's side in pixels, and "box" or "official"."""
        self.drawn, self.embeddings, self.side, self.prompts = drawn, embeddings, side, prompts

    def __iter__(self) -> Iterator[WholeBatch]:
        for index in self.drawn.numbers():
            yield self.make(index)

    def make(self, index: int) -> WholeBatch:
        """Return this process's share of batch number `index`."""
        everyone, chosen = self.drawn.objects_of(index)
        kind = self._kind(np.random.default_rng([self.drawn.seed, index, 13]), everyone)
        found = [self._example(np.random.default_rng(seed), item, kind) for item, seed in chosen]
        return WholeBatch(*(torch.stack([example[name] for example in found]) for name in WholeBatch.__dataclass_fields__))

    def _kind(self, random: np.random.Generator, objects: Sequence[TrueObject]) -> str:
        """Return the batch's kind of prompt; a mask only where every object fills four cells of one."""
        if self.prompts == "box":
            return "box"
        kind = str(random.choice([name for name, _ in _MIX], p=[share for _, share in _MIX]))
        cells = (self.side // 4) ** 2
        if kind == "mask" and any(item.mask.mean() * cells < _FEWEST_CELLS for item in objects):
            return "box"
        return kind

    def _example(self, random: np.random.Generator, item: TrueObject, kind: str) -> dict[str, Tensor]:
        image, mask, boxes = self.embeddings[item.image], item.mask, self.drawn.boxes
        height, width = mask.shape
        scale = np.array([self.side / width, self.side / height])
        cover = _scaled(mask.astype(np.uint8) * 255, self.side)
        fine = image["guiding"].shape[1]
        box: Any = np.zeros((0, 4))
        points: Any = np.zeros((0, 2))
        prompt: Any = np.zeros((0, fine, fine))
        if kind == "box":
            box = (np.array(boxes.draw(random, item.bounds)) * np.concatenate([scale, scale]))[None]
        elif kind == "points":
            rows, columns = np.nonzero(mask)
            taken = random.choice(rows.size, _POINTS, replace=False)
            points = (np.stack([columns[taken], rows[taken]], axis=1) + 0.5) * scale
        else:
            prompt = noisy_mask(random, mask, fine)[None]
        return {
            "embeddings": image["embedding"],
            "guiding": image["guiding"],
            "boxes": torch.as_tensor(box, dtype=torch.float32),
            "points": torch.as_tensor(points, dtype=torch.float32),
            "labels": torch.ones(len(points)),
            "masks": torch.as_tensor(prompt, dtype=torch.float32),
            "cover": torch.from_numpy(cover),
        }


def noisy_mask(random: np.random.Generator, mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Return PA-SAM's mask prompt (side, side) of 0 and 255: the true mask, random where an eighth of its resolution loses it."""
    true = _scaled(mask.astype(np.float32), side)
    lost = np.abs(true - _scaled(_scaled(true, max(1, side // 8)), side)) >= _NOISY_FROM
    noise = random.standard_normal((side, side), dtype=np.float32)
    kept = true + np.where(lost, noise, 0) > 0.5
    return np.where(kept, np.float32(255), np.float32(0))


def _scaled(picture: NDArray[Any], side: int) -> NDArray[Any]:
    """Return a picture as a square; what shrinks is averaged, so that a small object does not fall between the samples."""
    shrinks = max(picture.shape) > side
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
