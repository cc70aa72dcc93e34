"""The release formats, by name; other packages add theirs with an entry point of the group `risbench.releases`."""

from __future__ import annotations

from typing import Final

from risbench.core.registry import Registry
from risbench.export.formats.base import ReleaseFormat

RELEASE_FORMATS: Final = Registry(ReleaseFormat, "risbench.releases", "risbench.export.formats", "RELEASE_FORMAT")
ALL: Final = "all"
