"""Stage 1: readers' rows become repaired, de-duplicated records on 512 x 512 images."""

from risbench.core.callable_module import make_callable
from risbench.ingest.run import explain_source, ingest

__all__ = ["explain_source", "ingest"]

make_callable(__name__)
