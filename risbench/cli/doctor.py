"""`risbench doctor`: what this machine has for risbench, and what it lacks."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata, util
from pathlib import Path
from typing import Any, Final

from risbench import __version__

_BASE: Final = ("numpy", "opencv-python-headless", "pillow", "rasterio", "pycocotools", "pydantic", "typer", "pyarrow", "matplotlib")
_EXTRAS: Final = {
    "sam": ("torch", "torchvision", "segment-anything", "safetensors"),
    "train": ("transformers",),
    "review": ("fastapi", "uvicorn"),
    "release": ("datasets", "webdataset", "mlcroissant", "pyogrio"),
}
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")


def doctor() -> dict[str, Any]:
    """Return versions, extras, CUDA and limits, each group as name to finding."""
    return {
        "risbench": {"version": __version__, "python": platform.python_version(), "platform": platform.platform(terse=True)},
        "base": {name: _version(name) or "missing" for name in _BASE},
        "extras": {extra: _extra(extra, packages) for extra, packages in _EXTRAS.items()},
        "machine": {
            "cores": os.cpu_count() or 1,
            "memory": _memory(),
            "free disk here": f"{shutil.disk_usage('.').free / 1e9:.1f} GB",
            "CUDA": _cuda(),
            "browser": next((name for name in _BROWSERS if shutil.which(name)), "none; browser tests are skipped"),
        },
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _extra(extra: str, packages: tuple[str, ...]) -> str:
    missing = [name for name in packages if _version(name) is None]
    if missing:
        return f"lacks {', '.join(missing)}; pip install -c constraints.txt -e '.[{extra}]'"
    return ", ".join(f"{name} {_version(name)}" for name in packages)


def _cuda() -> str:
    if util.find_spec("torch") is None:
        return "unknown: torch is not installed"
    import torch

    if not torch.cuda.is_available():
        return "no device"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _memory() -> str:
    info = Path("/proc/meminfo")
    if not info.exists():
        return "unknown"
    values = {
        line.split(":")[0]: int(line.split()[1]) for line in info.read_text(encoding="ascii").splitlines() if line.split()[1].isdigit()
    }
    return f"{values['MemAvailable'] / 1e6:.1f} of {values['MemTotal'] / 1e6:.1f} GB free"
