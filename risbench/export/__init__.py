"""Stage 4: splits by scene, release formats, statistics and checks."""

from risbench.export.export import export

__all__ = ["export"]
