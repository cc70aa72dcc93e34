"""risbench: boxes and sentences on overhead images in, reviewed and split segmentation triplets out.

The Python API, one function for every command with the same keywords (docs/api.md):

    import risbench as rb

    rb.ingest("my-source", workspace="my-data")
    data = rb.open("my-data")
    data.triplets().to_pandas()
    rb.refine_masks(workspace=data, engine="builtin")
    rb.export(workspace=data, include_unreviewed=True)
    train = rb.load("my-data/4-export/release", split="train")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from risbench.core.version import VERSION

if TYPE_CHECKING:
    from risbench.adapt.link_isaid import link_isaid
    from risbench.adapt.run import train_adapter
    from risbench.adapt.train_builtin import train_builtin
    from risbench.api.release import load
    from risbench.api.workspace import open_workspace as open
    from risbench.benchmark.compare import compare
    from risbench.benchmark.eval.evaluate import evaluate
    from risbench.benchmark.run import benchmark
    from risbench.benchmark.train.run import train
    from risbench.export.run import export
    from risbench.export.verify import verify
    from risbench.ingest.run import explain_source, ingest
    from risbench.inspect.audit import audit
    from risbench.inspect.report import report
    from risbench.inspect.show import show
    from risbench.inspect.stats import stats
    from risbench.inspect.validate import validate
    from risbench.refine.run import refine_masks
    from risbench.review.verbs.consensus import consensus
    from risbench.review.verbs.pull import pull
    from risbench.review.verbs.push import push
    from risbench.review.verbs.status import status

__version__ = VERSION

# Imported when they are first used: `risbench --help` and a script that only reads tables need neither GDAL nor PyTorch.
_WHERE = {
    "open": ("api.workspace", "open_workspace"),
    "load": ("api.release", "load"),
    "ingest": ("ingest.run", "ingest"),
    "explain_source": ("ingest.run", "explain_source"),
    "refine_masks": ("refine.run", "refine_masks"),
    "train_adapter": ("adapt.run", "train_adapter"),
    "train_builtin": ("adapt.train_builtin", "train_builtin"),
    "link_isaid": ("adapt.link_isaid", "link_isaid"),
    "push": ("review.verbs.push", "push"),
    "pull": ("review.verbs.pull", "pull"),
    "consensus": ("review.verbs.consensus", "consensus"),
    "status": ("review.verbs.status", "status"),
    "audit": ("inspect.audit", "audit"),
    "validate": ("inspect.validate", "validate"),
    "stats": ("inspect.stats", "stats"),
    "report": ("inspect.report", "report"),
    "show": ("inspect.show", "show"),
    "export": ("export.run", "export"),
    "verify": ("export.verify", "verify"),
    "train": ("benchmark.train.run", "train"),
    "evaluate": ("benchmark.eval.evaluate", "evaluate"),
    "benchmark": ("benchmark.run", "benchmark"),
    "compare": ("benchmark.compare", "compare"),
}
__all__ = [
    "audit",
    "benchmark",
    "compare",
    "consensus",
    "evaluate",
    "explain_source",
    "export",
    "ingest",
    "link_isaid",
    "load",
    "open",
    "pull",
    "push",
    "refine_masks",
    "report",
    "show",
    "stats",
    "status",
    "train",
    "train_adapter",
    "train_builtin",
    "validate",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a function of the API when it is first asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module 'risbench' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(f"risbench.{module}"), attribute)


def __dir__() -> list[str]:
    """Return the names of the API."""
    return sorted([*__all__, "__version__"])
