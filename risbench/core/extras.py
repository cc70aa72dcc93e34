"""The packages of the base and of the extras, as pyproject.toml declares them (a test compares): which are here, which are missing."""

from __future__ import annotations

from importlib import metadata, util
from typing import Final

from risbench.core.errors import missing_extra

BASE: Final = ("numpy", "opencv-python-headless", "pillow", "rasterio", "pycocotools", "pydantic", "typer", "pyarrow", "matplotlib")
_SAM: Final = {"torch": "torch", "torchvision": "torchvision", "segment-anything": "segment_anything", "safetensors": "safetensors"}
# By extra: the distributions, and the module that each is imported as.
EXTRAS: Final[dict[str, dict[str, str]]] = {
    "sam": _SAM,
    "train": {**_SAM, "transformers": "transformers", "tokenizers": "tokenizers", "huggingface-hub": "huggingface_hub"},
    "review": {"fastapi": "fastapi", "uvicorn": "uvicorn"},
    "release": {"pyogrio": "pyogrio"},
}


def missing_from(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed."""
    return [name for name, module in EXTRAS[extra].items() if util.find_spec(module) is None]


def need_packages(extra: str) -> None:
    """Raise the one-line error where a package of an extra is not installed.

    Raises:
        MissingRequirementError: it names the package and how to install it.
    """
    if missing := missing_from(extra):
        raise missing_extra(missing[0], extra)


def need_package(name: str, extra: str) -> None:
    """Raise the one-line error where one package of an extra is not installed.

    Raises:
        MissingRequirementError: it names the package and how to install it.
    """
    if name in missing_from(extra):
        raise missing_extra(name, extra)


def version_of(name: str) -> str | None:
    """Return the installed version of a package, None where it is missing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
