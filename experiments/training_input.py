"""Training samples a second at 480 px: LAVT's and RMSIN's way with PIL, ours before there is a cache, and ours from the cache.

    python experiments/training_input.py [--samples 600] [--rounds 3]

NWPU VHR-10's real images and masks. The peers' way for every sample of every epoch: open with PIL, resize, to a float tensor, normalise;
the mask from its run lengths, resized by nearest neighbours. Ours before there is a cache is the making of it: each image is decoded and
resized once for all its sentences, and with that the first epoch's input is there; "alone" is one sentence an image, and between them lies
what RISBench has. Then bytes go to the
device, where they are normalised. One thread each, interleaved, medians.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from models_compared import nwpu_release
from PIL import Image
from torchvision import transforms

from risbench.benchmark.data.batches import Batches
from risbench.benchmark.data.cache import open_cache, resized, resized_mask
from risbench.benchmark.data.release import image_of, read_release

SIDE, BATCH = 480, 8


def main(samples: int, rounds: int) -> None:  # noqa: C901 (a way of reading is a function of its own)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        release = nwpu_release(folder)
        read = read_release(release)
        cache = open_cache(release, SIDE, folder / "cache", quiet=True)
        chosen = cache.of("train")[:samples]
        # the peers have files: the release's pictures as they are
        files = []
        for number in chosen.tolist():
            entry = read.tree.by_path[cache.samples[number].image]
            path = folder / f"{len(files)}{entry.suffix}"
            path.write_bytes(entry.read())
            files.append(path)
        peers_transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])]
        )

        def peers() -> None:
            for file, number in zip(files, chosen.tolist(), strict=True):
                image = Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                peers_transform(image)
                mask = Image.fromarray(cache.samples[number].mask.astype(np.uint8), mode="P").resize((SIDE, SIDE), Image.Resampling.NEAREST)
                torch.as_tensor(np.array(mask, dtype=np.int64))

        def alone() -> None:
            for number in chosen.tolist():
                resized(image_of(read.tree, cache.samples[number].image), SIDE)
                np.packbits(resized_mask(cache.samples[number].mask, SIDE))

        of_image: dict[str, list[int]] = {}
        for number in chosen.tolist():
            of_image.setdefault(cache.samples[number].image, []).append(number)

        def together() -> None:
            for path, numbers in of_image.items():
                resized(image_of(read.tree, path), SIDE)
                for number in numbers:
                    np.packbits(resized_mask(cache.samples[number].mask, SIDE))

        # as many an image as in RISBench: 52,472 triplets of 29,614 images
        sizes, groups = itertools.cycle((2, 2, 2, 1, 2, 2, 2, 2, 1)), []
        for path, numbers in of_image.items():
            left = list(numbers)
            while left:
                size = next(sizes)
                groups.append((path, left[:size]))
                left = left[size:]

        def risbenchs() -> None:
            for path, numbers in groups:
                resized(image_of(read.tree, path), SIDE)
                for number in numbers:
                    np.packbits(resized_mask(cache.samples[number].mask, SIDE))

        tokens, valid = np.zeros((samples, 20), np.int64), np.ones((samples, 20), bool)
        batches = Batches(cache, chosen, tokens, valid, batch=BATCH, seed=0)

        def cached() -> None:
            for step in range(batches.per_epoch):
                batches.read(step)

        few = f"ours, no cache, {samples / len(groups):.1f} an image"
        ways = {"LAVT's way": peers, "ours, no cache, alone": alone, few: risbenchs, "ours, no cache": together, "ours, cached": cached}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                began = time.monotonic()
                way()
                seconds[name].append(time.monotonic() - began)
        report(seconds, samples, len(of_image))
        resizing([image_of(read.tree, path) for path in list(of_image)[:100]])


def report(seconds: dict[str, list[float]], samples: int, images: int) -> None:
    """Print what each way takes."""
    base = statistics.median(seconds["LAVT's way"])
    print(f"{samples} real samples of {images} images at {SIDE} px, one thread")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"{name:30} {1000 * middle / samples:7.2f} ms a sample, {samples / middle:8.1f} samples/s, {base / middle:6.1f}x")


def resizing(pictures: list[Any]) -> None:
    """Print what resizing alone takes, by PIL and by PyTorch's writing of its filter."""
    for name, way in (
        ("PIL's filter", lambda picture: np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR))),
        ("PyTorch's", lambda picture: resized(picture, SIDE)),
    ):
        began = time.monotonic()
        for picture in pictures:
            way(picture)
        print(f"resizing alone, {name:13} {1000 * (time.monotonic() - began) / len(pictures):6.2f} ms an image")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    main(given.samples, given.rounds)
