"""Stage 4: splits by scene, release formats, statistics and checks."""

from risbench.core.callable_module import make_callable
from risbench.export.run import export

__all__ = ["export"]

make_callable(__name__)
