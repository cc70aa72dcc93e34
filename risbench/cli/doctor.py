"""`risbench doctor`: what this machine has for risbench, and what it lacks."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import util
from pathlib import Path
from typing import Any, Final

from risbench.benchmark.models.known import MODELS
from risbench.core.extras import BASE, EXTRAS, missing_from, version_of
from risbench.core.version import VERSION
from risbench.export.formats.registry import RELEASE_FORMATS
from risbench.formats.registry import INPUT_FORMATS
from risbench.refine.engines.registry import ENGINES

_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")


def doctor() -> dict[str, Any]:
    """Return versions, extras, CUDA and limits, each group as name to finding."""
    added = _extensions()
    return {
        "risbench": {"version": VERSION, "python": platform.python_version(), "platform": platform.platform(terse=True)},
        "base": {name: version_of(name) or "missing" for name in BASE},
        "extras": {extra: _extra(extra) for extra in EXTRAS},
        "machine": {
            "cores": os.cpu_count() or 1,
            "memory": _memory(),
            "free disk here": f"{shutil.disk_usage('.').free / 1e9:.1f} GB",
            "CUDA": _cuda(),
            "browser": next((name for name in _BROWSERS if shutil.which(name)), "none; browser tests are skipped"),
        },
        **({"extensions": added} if added else {}),
    }


def _extra(extra: str) -> str:
    if missing := missing_from(extra):
        return f"lacks {', '.join(missing)}; pip install -c constraints.txt -e '.[{extra}]'"
    return ", ".join(f"{name} {version_of(name)}" for name in EXTRAS[extra])


def _extensions() -> dict[str, str]:
    """Return what other packages add to the registries, and what of it cannot be loaded."""
    found: dict[str, str] = {}
    for registry in (INPUT_FORMATS, ENGINES, RELEASE_FORMATS, MODELS):
        registry.all()
        found |= {f"{registry.group}: {name}": f"from {origin}" for name, origin in registry.origins.items()}
        found |= {f"{registry.group}: left out {number}": reason for number, reason in enumerate(registry.broken, 1)}
    return found


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
