"""Stage 4: splits by scene, release formats, statistics and checks."""

from risbench.export.run import export

__all__ = ["export"]
