"""The input formats, by name; other packages add theirs with an entry point of the group `risbench.formats`."""

from __future__ import annotations

from typing import Final

from risbench.core.registry import Registry
from risbench.formats.source.format import Format

INPUT_FORMATS: Final = Registry(Format, "risbench.formats", "risbench.formats", "FORMATS")
