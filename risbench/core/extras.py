"""The packages of the extras: whether they are here, before anything that needs them is imported."""

from __future__ import annotations

from importlib import util
from typing import Final

from risbench.core.errors import missing_extra

PACKAGES: Final = {
    "sam": ("torch", "torchvision", "segment_anything", "safetensors"),
    "train": ("torch", "torchvision", "segment_anything", "safetensors", "transformers"),
}


def need_packages(extra: str) -> None:
    """Raise the one-line error where a package of an extra is not installed.

    Raises:
        EnvironmentLacks: it names the package and how to install it.
    """
    for package in PACKAGES[extra]:
        if util.find_spec(package) is None:
            raise missing_extra(package.replace("_", "-"), extra)
